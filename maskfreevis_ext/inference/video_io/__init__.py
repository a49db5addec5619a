"""Reading and writing of frames: video files, cameras, and pictures, one frame at a time.

Frames are RGB uint8 [H,W,3].
"""

from maskfreevis_ext.inference.video_io.inputs import open_frames, open_inputs
from maskfreevis_ext.inference.video_io.sources import (
    DEFAULT_FPS,
    Camera,
    FrameList,
    FrameSource,
    TimedFrame,
    VideoFile,
    every_nth,
)
from maskfreevis_ext.inference.video_io.writers import (
    FrameWriter,
    check_encoding,
    check_image_name,
    write_image,
)

__all__ = [
    "DEFAULT_FPS",
    "Camera",
    "FrameList",
    "FrameSource",
    "FrameWriter",
    "TimedFrame",
    "VideoFile",
    "check_encoding",
    "check_image_name",
    "every_nth",
    "open_frames",
    "open_inputs",
    "write_image",
]
