"""What is written for a video: the drawn frames as mp4 and pictures, and track files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import mark_outputs
from maskfreevis_ext.inference.drawing import draw_items
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.track_files import (
    CocoFile,
    DavisMasks,
    FrameEntry,
    MotsFile,
    TrackFile,
    YtvisFile,
    category_list,
)
from maskfreevis_ext.inference.video_io import (
    DEFAULT_FPS,
    FrameSource,
    FrameWriter,
    TimedFrame,
    check_encoding,
)
from maskfreevis_ext.inference.video_io.writers import NOT_WRITTEN
from maskfreevis_ext.rle import encode_masks

#: What can be written, and what follows the name of the video in its path.
KINDS = {
    "mp4": ".mp4",
    "frames": "",
    "davis": "_davis",
    "ytvis": ".json",
    "coco": "_coco.json",
    "mots": "_mots.txt",
}
_FOLDERS = ("frames", "davis")


@dataclass(frozen=True)
class OutputPlan:
    """Paths of the outputs of one video.

    Attributes:
        paths: File or folder by kind.
    """

    paths: dict[str, Path]

    @property
    def files(self) -> list[Path]:
        """The files."""
        return [path for kind, path in self.paths.items() if kind not in _FOLDERS]

    @property
    def folders(self) -> list[Path]:
        """The folders, which are filled with pictures."""
        return [path for kind, path in self.paths.items() if kind in _FOLDERS]

    def check_encoding(self, source: FrameSource, fps: float | None) -> None:
        """Check that the frames of a source can be encoded, where an mp4 is wanted.

        Args:
            source: The video.
            fps: Frame rate instead of the video's.

        Raises:
            DataError: They cannot.
        """
        if "mp4" in self.paths:
            check_encoding(self.paths["mp4"], source.size, _rate(source, fps))


def plan_outputs(names: Sequence[str], output: str, kinds: Iterable[str]) -> list[OutputPlan]:
    """Paths of the outputs of all videos.

    Args:
        names: Name of each video.
        output: What the user gave: an .mp4 file, beside which the other outputs stand, or a
            folder.
        kinds: Keys of ``KINDS``.

    Returns:
        One plan per video.

    Raises:
        ConfigError: There are several videos for one file, or the file is no mp4.
    """
    path = Path(output)
    wanted = [kind for kind in KINDS if kind in set(kinds)]
    if path.suffix.lower() in NOT_WRITTEN and not path.is_dir():
        raise ConfigError(f"--output {output}: expected a file that ends in .mp4, or a folder.")
    if path.suffix.lower() == ".mp4" and not path.is_dir():
        if len(names) > 1:
            raise ConfigError(
                f"--output {output}: expected a folder for {len(names)} videos, got a file."
            )
        bases = [path.with_suffix("")]
    else:
        seen: Counter[str] = Counter()
        bases = []
        for name in names:
            seen[name] += 1
            bases.append(path / (f"{name}_{seen[name]}" if seen[name] > 1 else name))
    return [
        OutputPlan({kind: base.with_name(base.name + KINDS[kind]) for kind in wanted})
        for base in bases
    ]


class VideoOutputs:
    """Draws and writes frame after frame; in a ``with`` block, whose end completes all files.

    Files are completed after an error as well: they then hold the frames before it. Without any
    frame there is no file.

    Args:
        plan: The paths.
        source: The video.
        fps: Frame rate instead of the video's.
        class_names: Name of each label, or None.
        category_ids: Category id by label, for track files.
        video_id: Id of the video in a YouTube-VIS file.
    """

    def __init__(
        self,
        plan: OutputPlan,
        source: FrameSource,
        *,
        fps: float | None,
        class_names: Sequence[str] | None,
        category_ids: Mapping[int, int],
        video_id: int,
    ) -> None:
        self.plan = plan
        self.num_frames = 0
        self.track_ids: set[int] = set()
        self._source = source
        self._class_names = class_names
        rate = _rate(source, fps)
        paths = plan.paths
        self._pictures: list[FrameWriter] = []
        if "mp4" in paths:
            self._pictures.append(FrameWriter(paths["mp4"], rate))
        if "frames" in paths:
            self._pictures.append(FrameWriter(paths["frames"], rate, ".png"))
        self._files: list[TrackFile] = []
        if "davis" in paths:
            self._files.append(DavisMasks(paths["davis"]))
        if "ytvis" in paths:
            self._files.append(YtvisFile(paths["ytvis"], video_id, category_ids))
        if "coco" in paths:
            categories = category_list(category_ids, class_names)
            self._files.append(CocoFile(paths["coco"], categories, category_ids))
        if "mots" in paths:
            self._files.append(MotsFile(paths["mots"], category_ids))

    def __enter__(self) -> VideoOutputs:
        """Return the outputs; files are made with the first frame."""
        return self

    def __exit__(self, *error: object) -> None:
        """Complete the files.

        Raises:
            DataError: A file cannot be completed; the others are.
        """
        written: list[Path] = []
        fault: DataError | None = None
        for picture in self._pictures:
            try:
                written += picture.finish()
            except DataError as caught:
                fault = fault or caught
        for file in self._files:
            try:
                written += file.finish()
            except OSError as caught:
                fault = fault or _unwritable(self.plan, caught)
        mark_outputs(written, self.plan.folders)
        if fault is not None and error[0] is None:
            raise fault

    def write(self, frame: TimedFrame, tracks: FrameTracks) -> None:
        """Add a frame.

        Args:
            frame: The next frame.
            tracks: Its objects.

        Raises:
            DataError: An output cannot be written.
        """
        picture = draw_items(frame.picture, tracks.items(self._class_names))
        for writer in self._pictures:
            writer.write(picture, frame.time, frame.duration)
        self.track_ids.update(tracks.track_ids.tolist())
        if self._files:
            size = frame.picture.shape[:2]
            entry = FrameEntry(
                self.num_frames,
                self._source.frame_name(frame.number),
                (size[0], size[1]),
                tracks,
                encode_masks(tracks.masks) if len(tracks) else [],
            )
            try:
                for file in self._files:
                    file.write(entry)
            except OSError as error:
                raise _unwritable(self.plan, error) from error
        self.num_frames += 1


def _rate(source: FrameSource, fps: float | None) -> float:
    return fps or source.max_fps or DEFAULT_FPS


def _unwritable(plan: OutputPlan, error: OSError) -> DataError:
    place = next(iter(plan.paths.values())).parent
    return DataError(f"{place}: outputs cannot be written: {error.strerror or error}.")
