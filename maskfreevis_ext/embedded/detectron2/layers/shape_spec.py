"""``ShapeSpec``: what a feature map looks like, before there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map; None where unknown or irrelevant.

    Attributes:
        channels: Channels.
        height: Rows.
        width: Columns.
        stride: Pixels of the input image per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
