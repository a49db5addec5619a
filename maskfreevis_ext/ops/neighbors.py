"""Shifted views of a map: a neighbourhood as pairs of slices, without unfold copies.

An offset (dy, dx) pairs the cell p with the cell p + (dy, dx). ``pair_slices`` gives the two
windows of a map in which both cells exist, so that ``x[..., *here]`` and ``x[..., *there]`` line
up.
"""

from __future__ import annotations

Offset = tuple[int, int]
Window = tuple[slice, slice]


def grid_offsets(radius: int, dilation: int, with_center: bool) -> list[Offset]:
    """Offsets of a square neighbourhood in row-major order.

    Args:
        radius: Steps to each side; the neighbourhood has (2 * radius + 1)^2 positions.
        dilation: Cells per step.
        with_center: Whether (0, 0) is among them.

    Returns:
        List of (dy, dx) in cells.

    Raises:
        ValueError: ``radius`` is negative or ``dilation`` is below 1.

    Example:
        >>> grid_offsets(radius=1, dilation=2, with_center=False)[:4]
        [(-2, -2), (-2, 0), (-2, 2), (0, -2)]
    """
    if radius < 0 or dilation < 1:
        raise ValueError(f"expected radius >= 0 and dilation >= 1, got {radius} and {dilation}")
    steps = [dilation * step for step in range(-radius, radius + 1)]
    return [(dy, dx) for dy in steps for dx in steps if with_center or (dy, dx) != (0, 0)]


def half_offsets(radius: int, dilation: int) -> list[Offset]:
    """Half of the offsets of a neighbourhood: of o and -o only one.

    They suffice for a symmetric function of two cells. They are the second half of ``grid_offsets``
    without the centre.

    Args:
        radius: Steps to each side.
        dilation: Cells per step.

    Raises:
        ValueError: ``radius`` is negative or ``dilation`` is below 1.

    Example:
        >>> half_offsets(radius=1, dilation=1)
        [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    offsets = grid_offsets(radius, dilation, with_center=False)
    return offsets[len(offsets) // 2 :]


def _window(shift: int, length: int) -> tuple[slice, slice]:
    if shift >= 0:
        return slice(0, max(length - shift, 0)), slice(min(shift, length), length)
    here, there = _window(-shift, length)
    return there, here


def pair_slices(offset: Offset, height: int, width: int) -> tuple[Window, Window]:
    """Windows of the cells p and p + offset, where both lie in an (height, width) map.

    Args:
        offset: (dy, dx) in cells.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        Two pairs of slices (rows, columns) of equal shape, empty if the offset leaves the map.

    Example:
        >>> here, there = pair_slices((0, 2), height=3, width=5)
        >>> here
        (slice(0, 3, None), slice(0, 3, None))
        >>> there
        (slice(0, 3, None), slice(2, 5, None))
    """
    rows_here, rows_there = _window(offset[0], height)
    cols_here, cols_there = _window(offset[1], width)
    return (rows_here, cols_here), (rows_there, cols_there)
