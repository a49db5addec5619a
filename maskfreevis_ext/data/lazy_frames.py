"""The frames of a long video, read when they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from maskfreevis_ext.data.augmentation import ClipAugmentation
from maskfreevis_ext.data.images import read_video_frame

#: Frames that are read while those before them are processed.
_AHEAD = 4


def to_tensor(frame: np.ndarray) -> Tensor:
    """A frame (H, W, 3) as (3, H, W), uint8."""
    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))


class LazyFrames(Sequence[Tensor]):
    """The frames of a video as the test mapper gives them, uint8 (3, H, W), but not in memory.

    Args:
        video: Dataset dict.
        augmentation: Transforms each frame; it must not be random.
        image_format: "RGB" or "BGR".
        reduced_decoding: INPUT.REDUCED_DECODING.
    """

    def __init__(
        self,
        video: Mapping[str, Any],
        augmentation: ClipAugmentation,
        image_format: str,
        reduced_decoding: bool = False,
    ) -> None:
        names = "file_names", "image_root", "video_id", "height", "width", "frame_rules"
        self._video = {name: video[name] for name in names if name in video}
        self._augmentation = augmentation
        self._image_format = image_format
        self._reduced_decoding = reduced_decoding

    def __len__(self) -> int:
        return len(self._video["file_names"])

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """Read a frame, or the frames of a slice.

        Raises:
            DataError: A file is missing, cannot be decoded, or has another size than the JSON says.
        """
        if isinstance(index, slice):
            return [self._read(t) for t in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])

    def __iter__(self) -> Iterator[Tensor]:
        """Read frame after frame, a few ahead in a thread.

        Raises:
            DataError: As above.
        """
        waiting: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(1)
        try:
            for t in range(len(self)):
                waiting.append(pool.submit(self._read, t))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> Tensor:
        size = (self._video["height"], self._video["width"])
        resize = self._augmentation.first_resize(size) if self._reduced_decoding else None
        least = None if resize is None else (resize.new_h, resize.new_w)
        frame = read_video_frame(self._video, index, self._image_format, least)
        frames, _ = self._augmentation([frame], None, resize)
        return to_tensor(frames[0])
