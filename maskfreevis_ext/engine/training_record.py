"""What a training notes of its checkpoints in ``checkpoints.json``, and which of them it keeps."""

from __future__ import annotations

import datetime
import logging
import os
import platform
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from maskfreevis_ext.checkpoint_manifest import Manifest, file_sha256
from maskfreevis_ext.version import __version__

logger = logging.getLogger(__name__)

#: Name of the checkpoint with the best TEST.BEST_METRIC, without its ending.
BEST_NAME = "model_best"
#: Checkpoints that may be removed when newer ones are there.
_NUMBERED = re.compile(r"model_\d+\.pth")


def checkpoint_files(folder: str) -> list[str]:
    """Checkpoints that a training can go on from; not the best one, which has the weights alone.

    Args:
        folder: OUTPUT_DIR.

    Raises:
        OSError: The folder cannot be read.
    """
    return [
        os.path.join(folder, name)
        for name in os.listdir(folder)
        if name.startswith("model_") and name.endswith(".pth") and name != f"{BEST_NAME}.pth"
    ]


class TrainingRecord:
    """The part of a folder's manifest that belongs to one training, also over its restarts.

    Args:
        folder: OUTPUT_DIR.
        config: The config as text.
        class_names: Names of the classes of the training set.
        max_to_keep: Number of numbered checkpoints that ``remove_old`` keeps; 0: all.
    """

    def __init__(
        self,
        folder: str,
        config: str = "",
        class_names: Sequence[str] | None = None,
        max_to_keep: int = 0,
    ) -> None:
        self.folder, self.max_to_keep = folder, max_to_keep
        self._run = uuid.uuid4().hex[:12]
        self._facts = {
            "config": config,
            "class_names": None if class_names is None else list(class_names),
            "versions": {
                "maskfreevis_ext": __version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }

    def go_on_from(self, name: str) -> None:
        """Belong to the training that saved a checkpoint.

        Args:
            name: File name of the checkpoint.
        """
        entry = Manifest(self.folder).checkpoints.get(name, {})
        self._run = str(entry.get("run", self._run))

    def add(self, name: str, path: str, facts: Mapping[str, Any]) -> None:
        """Note a checkpoint before it gets its name.

        Args:
            name: File name that it gets.
            path: The complete file.
            facts: Plain values, such as ``iteration``.

        Raises:
            OSError: The file cannot be read, or the manifest not written.
        """
        manifest = Manifest(self.folder)
        manifest.runs[self._run] = self._facts
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        manifest.add(name, file_sha256(path), {"run": self._run, "saved": now, **facts})

    def best(self, metric: str) -> float | None:
        """Value of the best checkpoint of this training, if there is one.

        Args:
            metric: Name of the metric by which it must be the best.
        """
        entry = Manifest(self.folder).checkpoints.get(f"{BEST_NAME}.pth", {})
        is_it = entry.get("run") == self._run and entry.get("metric") == metric
        value = entry.get("value") if is_it else None
        exists = os.path.isfile(os.path.join(self.folder, f"{BEST_NAME}.pth"))
        return float(value) if isinstance(value, (int, float)) and exists else None

    def remove_old(self, keep: str) -> None:
        """Remove the oldest numbered checkpoints of this training beyond ``max_to_keep``.

        Checkpoints of other trainings, the final one and the best one are never removed. What
        cannot be removed gives a warning.

        Args:
            keep: The file that was saved last, which stays.
        """
        if not self.max_to_keep:
            return
        manifest = Manifest(self.folder)
        own = [
            name
            for name, entry in manifest.checkpoints.items()
            if entry.get("run") == self._run and _NUMBERED.fullmatch(name)
        ]
        old = [name for name in own[: -self.max_to_keep] if name != keep]
        try:
            for name in old:
                logger.info("Removing the checkpoint %s (SOLVER.CHECKPOINT_MAX_TO_KEEP)", name)
                os.remove(os.path.join(self.folder, name))
            if old:
                manifest.write()
        except OSError as error:
            logger.warning("An old checkpoint could not be removed: %s", error)
