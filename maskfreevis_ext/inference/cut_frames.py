"""Cuts video files into JPEG frames, for annotations that came with a video file."""

from __future__ import annotations

import os
from pathlib import Path

from tqdm import tqdm

from maskfreevis_ext.data.frame_files import VIDEO_SUFFIXES, check_inside
from maskfreevis_ext.errors import DataError, visible
from maskfreevis_ext.inference.video_io import VideoFile, write_image


def cut_videos(source: str, images: str) -> list[str]:
    """Cut a video file, or all video files of a folder, into frames.

    The frames of ``walk.mp4`` become ``<images>/walk/00000.jpg``, and so on.

    Args:
        source: Video file, or folder with video files.
        images: Folder for the frames; created if absent.

    Returns:
        Names of the videos.

    Raises:
        DataError: There is no video file, one cannot be read, two have the same stem, or the folder
            of its frames has files already.
    """
    path = Path(source)
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        if not files:
            raise DataError(f"{source}: expected video files ({', '.join(VIDEO_SUFFIXES)}).")
        for file in files:
            check_inside(file, path, str(file))
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise DataError(f"{source}: two video files share a name: their frames would mix.")
    videos = [VideoFile(file) for file in files]
    for name in names:
        folder = Path(images) / name
        if folder.is_dir() and os.listdir(folder):
            raise DataError(
                f"{folder}: has files already. Leave --video out to use them, or name another"
                " --images."
            )
    for name, video in zip(names, videos, strict=True):
        total = video.num_frames or None
        for t, frame in enumerate(tqdm(video, desc=visible(name), total=total, unit="frame")):
            write_image(Path(images) / name / f"{t:05d}.jpg", frame)
    return names
