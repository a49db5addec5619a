"""Finished videos of a run that is not finished, so that it can be taken up again."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import MARKS_FILE, remove_unfinished, write_json
from maskfreevis_ext.inference.boxes_to_masks.masking import TrackMasks
from maskfreevis_ext.inference.boxes_to_masks.pictures import Picture, Pictures

_RUN = "run.json"
_CONVERTED = "converted"  # folder of annotations in YouTube-VIS form
#: Files there: what is read, and what is converted to another format at the end.
CONVERTED_FILES = (f"{_CONVERTED}/boxes.json", f"{_CONVERTED}/masks.json")


def partial_folder(output: str | os.PathLike[str]) -> Path:
    """The folder of unfinished work beside an output.

    Args:
        output: The output of the run.
    """
    return Path(f"{os.fspath(output)}.partial")


class Partial:
    """A folder beside the output with a file for each finished video.

    Args:
        output: The output of the run; the folder is ``<output>.partial``.
        settings: What the masks depend on; a run with others cannot go on with them.
        restart: Throw away what another run left.

    Raises:
        DataError: The folder is that of a run with other settings, or cannot be written.
    """

    def __init__(
        self, output: str | os.PathLike[str], settings: dict[str, Any], restart: bool
    ) -> None:
        self.folder = partial_folder(output)
        remove_unfinished(self.folder)
        run = self.folder / _RUN
        if restart and run.is_file() and read_json(str(run)) != settings:
            self._forget()
        try:
            if run.is_file():
                if read_json(str(run)) != settings:
                    raise DataError(
                        f"{self.folder}: has finished videos of a run with another input or other"
                        " options. Remove the folder, give another --output, or start anew with"
                        " --overwrite."
                    )
            elif self.folder.exists() and any(p.name != _CONVERTED for p in self.folder.iterdir()):
                raise DataError(
                    f"{self.folder}: is needed for unfinished work, but has other files. Rename it."
                )
            else:
                write_json(settings, run)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written: {error.strerror or error}."
            ) from error

    def load(self, video_id: int) -> dict[int, TrackMasks] | None:
        """The masks of a video by track id; None if it is not finished.

        Args:
            video_id: Its id.

        Raises:
            DataError: The file is damaged.
        """
        path = self._file(video_id)
        if not path.is_file():
            return None
        content = read_json(str(path))
        try:
            return {int(track): _read_track(entry) for track, entry in content.items()}
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}: is damaged. Remove it; the video is done again.") from None

    def save(self, video_id: int, tracks: Sequence[int], results: Sequence[TrackMasks]) -> None:
        """Write the masks of a video.

        Args:
            video_id: Its id.
            tracks: Ids of its objects.
            results: Their masks.

        Raises:
            DataError: The file cannot be written.
        """
        content = {
            str(track): _write_track(result) for track, result in zip(tracks, results, strict=True)
        }
        try:
            write_json(content, self._file(video_id))
        except OSError as error:
            raise DataError(
                f"{self._file(video_id)}: cannot be written: {error.strerror or error}."
            ) from error

    def remove(self) -> None:
        """Remove what was written there, and the folder if nothing else is in it."""
        self._forget()
        for name in (*CONVERTED_FILES, f"{_CONVERTED}/{MARKS_FILE}"):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (self.folder / _CONVERTED, self.folder):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _forget(self) -> None:
        for path in self.folder.glob("video_*.json"):
            path.unlink(missing_ok=True)
        (self.folder / _RUN).unlink(missing_ok=True)

    def _file(self, video_id: int) -> Path:
        return self.folder / f"video_{video_id}.json"


def _write_track(result: TrackMasks) -> dict[str, Any]:
    return {
        "masks": result.masks,
        "areas": result.areas,
        "confidences": result.confidences,
        "sources": result.sources,
        "pictures": [
            [one.frame, one.confidence, base64.b64encode(one.data).decode("ascii")]
            for one in result.pictures.in_order()
        ],
    }


def _read_track(entry: dict[str, Any]) -> TrackMasks:
    pictures = Pictures()
    for frame, confidence, data in entry["pictures"]:
        pictures.spread[frame] = Picture(frame, confidence, base64.b64decode(data))
    return TrackMasks(
        entry["masks"], entry["areas"], entry["confidences"], entry["sources"], pictures
    )
