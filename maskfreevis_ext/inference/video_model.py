"""A model for videos of any length: short ones at once, long ones in windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.inference.track_store import TrackStore
from maskfreevis_ext.inference.window import WindowSettings, iterate_windows
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer


class VideoModel(nn.Module):
    """Takes and gives in eval mode what its model does; long videos pass in windows.

    Args:
        model: A ``VideoMaskFormer``, or its DDP wrapper. Videos that are processed at once may have
            any model that maps a list of batch dicts to a list of predictions.
        settings: When, and which windows.
    """

    def __init__(self, model: nn.Module, settings: WindowSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.training = model.training  # Detectron2 puts the model back into this mode

    @property
    def unwrapped(self) -> VideoMaskFormer:
        """The model without a DDP wrapper.

        Raises:
            ConfigError: It cannot process windows.
        """
        model = getattr(self.model, "module", self.model)
        if not hasattr(model, "encode") or not hasattr(model, "decode"):
            raise ConfigError(
                "TEST.WINDOW.MODE: expected off for a model that has no windows"
                f" ({type(model).__name__}), got {self.settings.mode}."
            )
        return cast(VideoMaskFormer, model)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict the tracks of videos.

        Args:
            batched_inputs: Batch dicts of the test mapper, one per video. A video with several
                cameras is processed at once.

        Returns:
            One dict per video, see ``ops.clip.clip_result``; ``pred_masks`` are bool tensors, or
            ``RleMasks`` where the video passed in windows.
        """
        return [self._predict(video) for video in batched_inputs]

    def _predict(self, video: Mapping[str, Any]) -> dict[str, Any]:
        frames, longest = video["image"], self.settings.longest_whole()
        if longest is None or len(frames) <= longest or video.get("num_views") is not None:
            return self.model([video])[0]
        size = tuple(frames[0].shape[-2:])
        output_size = video.get("height", size[0]), video.get("width", size[1])
        return self.predict_windows(frames, output_size, f"video {video.get('video_id')}")

    def predict_windows(
        self, frames: Iterable[Tensor], output_size: tuple[int, int], where: str
    ) -> dict[str, Any]:
        """Predict the tracks of one video in windows, whatever its length.

        Args:
            frames: Frames of one size, (3, H, W) uint8; read when they are needed.
            output_size: Height and width of the masks.
            where: Name of the video for error messages.

        Returns:
            See ``TrackStore.prediction``.
        """
        store = TrackStore(self.unwrapped.num_tracks, self.settings.mode == "online")
        for result in iterate_windows(self.unwrapped, frames, output_size, self.settings):
            store.add(result)
        return store.prediction(output_size, where)
