"""Checkpoints that are written whole, read without running code, and compared with the model."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import get_cache_dir

from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.files import TEMPORARY_SUFFIX, atomic_write
from maskfreevis_ext.safe_load import verify_archive
from maskfreevis_ext.weights_files import read_weights_file

logger = logging.getLogger(__name__)

#: Number of consecutive failures to save a checkpoint at which training stops.
MAX_SAVE_FAILURES = 3
#: Endings of the files of a run while they are written.
_UNFINISHED = tuple(
    ending + TEMPORARY_SUFFIX
    for ending in (".pth", ".safetensors", "last_checkpoint", ".json", ".html", ".csv", ".yaml")
)
#: Weights that predictions do not depend on.
_NOT_FOR_PREDICTION = "criterion."


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, safe against crashes, foreign code and silent mismatches.

    * A file is written under a temporary name and renamed when it is on the disk: a killed process
      or a full disk leaves the previous checkpoint unchanged.
    * Nothing in a weights file is run (``maskfreevis_ext.safe_load``).
    * ``--resume`` skips damaged checkpoints and takes the newest whole one; if there is none, it
      raises an error instead of starting from scratch.
    * Every weight of the file that the model does not have, and the reverse, is logged by name.

    Args:
        model: The model.
        save_dir: OUTPUT_DIR; "" to load only.
        must_fit: Refuse weights that fit the model only in part, before an evaluation.
        kwargs: States that are saved and loaded beside the model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        must_fit: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self._must_fit = must_fit
        self._failures = 0
        self._needed: set[str] = set()  # states that a checkpoint must have, while resuming
        #: The file read by the last ``load`` or ``resume_or_load``; "" for none.
        self.loaded_file = ""
        #: Whether the last ``resume_or_load`` resumed from a checkpoint of ``save_dir``.
        self.resumed = False

    # ---------------------------------------------------------------- saving
    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``{save_dir}/{name}.pth`` and then ``last_checkpoint``.

        Args:
            name: File name without its ending.
            kwargs: Plain values to store beside model and training state.

        Raises:
            CheckpointError: Writing failed for the third time in a row, or the final checkpoint
                could not be written. Other failures are logged; the previous checkpoint stays.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as f:
                torch.save(data, f)
            self.tag_last_checkpoint(f"{name}.pth")
        except (OSError, RuntimeError) as e:  # torch reports a full disk as a RuntimeError
            self._failures += 1
            message = (
                f"Checkpoint {path} could not be written ({e}); earlier checkpoints are untouched."
            )
            if self._failures >= MAX_SAVE_FAILURES or name.endswith("_final"):
                raise CheckpointError(
                    f"{message} Make room in OUTPUT_DIR and go on with --resume."
                ) from e
            logger.error(
                "%s Training continues; it stops at failure %d.", message, MAX_SAVE_FAILURES
            )
        else:
            self._failures = 0

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in the file ``last_checkpoint``.

        Args:
            last_filename_basename: A file name inside ``save_dir``.
        """
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint")) as f:
            f.write(last_filename_basename.encode())

    # ---------------------------------------------------------------- loading
    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights, and training state, from a file.

        Args:
            path: A file or an address; "" loads nothing.
            checkpointables: Names of the states to load (optimizer, ...); None: all in the file.

        Returns:
            The other content of the file, such as the iteration.

        Raises:
            CheckpointError: The file is missing, damaged, would run code, or has no weight of the
                model.
        """
        given, path = path, _fetch(path)
        plain = path.split("?", 1)[0]
        if plain and "://" not in plain and not os.path.isfile(plain):
            raise CheckpointError(
                f"Weights file {plain} does not exist (looked from {os.getcwd()}). "
                "Check MODEL.WEIGHTS."
            )
        try:
            extra = super().load(path, checkpointables)
        except (OSError, AssertionError) as e:  # a download that failed
            raise CheckpointError(f"Weights {path} could not be fetched: {e}") from e
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it set after an error
        self.loaded_file = given
        return extra

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the newest whole checkpoint of ``save_dir``, or load weights.

        Args:
            path: Weights to load if there is no checkpoint; "" for none.
            resume: Look for a checkpoint first.

        Returns:
            The other content of the file, such as the iteration.

        Raises:
            CheckpointError: There are checkpoints, but none of them is whole and fits the model.
        """
        self.resumed = False
        if not resume:
            return self.load(path, checkpointables=[])
        candidates = self.resume_candidates()
        if not candidates:
            logger.info("--resume: no checkpoint in %s yet.", self.save_dir)
            return self.load(path, checkpointables=[])
        problems = []
        for candidate in candidates:
            try:
                extra = self._go_on_from(candidate)
            except CheckpointError as e:
                problems.append(str(e))
                logger.warning("--resume: skipping a checkpoint. %s", e)
                continue
            self.resumed = True
            logger.info("--resume: resuming from %s", candidate)
            return extra
        raise CheckpointError(
            f"--resume: none of the {len(candidates)} checkpoints in {self.save_dir} can be used. "
            "Remove them to start again, or give a whole one as MODEL.WEIGHTS without --resume. "
            + " ".join(problems)
        )

    def _go_on_from(self, path: str) -> dict[str, Any]:
        verify_archive(path)
        self._needed = set(self.checkpointables)
        try:
            return self.load(path)
        except (KeyError, TypeError, ValueError) as e:  # torch's, where parameters differ
            raise CheckpointError(
                f"Checkpoint {path}: its training state does not fit this config ({e})."
            ) from e
        finally:
            self._needed = set()

    def resume_candidates(self) -> list[str]:
        """Checkpoints of ``save_dir``: the one named in ``last_checkpoint``, then newest first."""
        if not os.path.isdir(self.save_dir):
            return []
        names = [
            n for n in os.listdir(self.save_dir) if n.startswith("model_") and n.endswith(".pth")
        ]
        paths = [os.path.join(self.save_dir, n) for n in names]
        paths.sort(key=os.path.getmtime, reverse=True)
        with contextlib.suppress(ValueError):  # last_checkpoint may hold anything after a crash
            last = self.get_checkpoint_file()
            if last and os.path.isfile(last):
                paths = [last, *[p for p in paths if p != last]]
        return paths

    def has_checkpoint(self) -> bool:
        """Whether ``save_dir`` holds a checkpoint."""
        return bool(self.resume_candidates())

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Detectron2's load() handles the options of an address ("?matching_heuristics=True").
        url = getattr(self, "_parsed_url_during_load", None)
        heuristics = url is not None and parse_qs(url.query).get("matching_heuristics") == ["True"]
        content = read_weights_file(filename)
        arrange = _as_model_zoo if filename.endswith(".pkl") else _as_checkpoint
        loaded = arrange(content, filename)
        if heuristics:
            loaded["matching_heuristics"] = True
        missing = self._needed - loaded.keys()
        if missing:
            raise CheckpointError(
                f"Checkpoint {filename}: expected the state of a training, got weights without "
                f"{', '.join(sorted(missing))}. Give it as MODEL.WEIGHTS without --resume."
            )
        return loaded

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        keys = self.model.state_dict().keys()
        summary = describe_incompatible(incompatible, len(keys))
        missing = {*incompatible.missing_keys, *(k for k, _, _ in incompatible.incorrect_shapes)}
        short = describe_incompatible(incompatible, len(keys), limit=8)
        flat = "; ".join(line.strip().removesuffix(".") for line in short.splitlines()) + "."
        if missing >= keys or (self._needed and missing):
            raise CheckpointError(f"The weights belong to another model. {flat}")
        unfit = missing.union(incompatible.unexpected_keys)
        if self._must_fit and any(not key.startswith(_NOT_FOR_PREDICTION) for key in unfit):
            raise CheckpointError(
                f"The weights fit the model only in part. {flat} Take the config that they were"
                " trained with (docs/weights.md), or set TEST.PARTIAL_WEIGHTS True to evaluate and"
                " predict all the same."
            )
        logger.info(summary)


def _fetch(path: str) -> str:
    """Local path of an address, from a cache whose key is the whole address.

    Detectron2's own cache takes files of two servers that have the same path for the same.
    """
    if not path.startswith(("http://", "https://")):
        return path
    options = "?matching_heuristics=True"
    address, found, _ = path.partition(options)
    folder = os.path.join(get_cache_dir(), hashlib.sha256(address.encode()).hexdigest()[:16])
    try:
        local = PathManager.get_local_path(address, cache_dir=folder)
    except Exception as e:  # errors of the network are of many types
        raise CheckpointError(f"Weights {path} could not be fetched: {e}") from e
    plain = local.split("?", 1)[0]  # the rest of the name would be taken for options
    if not os.path.isfile(plain):
        shutil.copyfile(local, plain)
    return plain + found


def _as_model_zoo(data: object, filename: str) -> dict[str, Any]:
    """Convert the layouts of ``.pkl`` files (Detectron2, ImageNet, Detectron 1) into one."""
    if not isinstance(data, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict, got {type(data).__name__}."
        )
    if isinstance(data.get("model"), dict):
        loaded = data
    else:
        blobs = data.get("blobs", data)
        weights = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
        loaded = {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
    _check_weights(loaded["model"], filename)
    return loaded


def _as_checkpoint(data: object, filename: str) -> dict[str, Any]:
    """Convert a bare state dict and the layout of pycls to Detectron2's layout."""
    if not isinstance(data, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict of tensors, got {type(data).__name__}."
        )
    if "model" in data:
        loaded = data
    elif "model_state" in data:
        weights = {
            k: v for k, v in data["model_state"].items() if not k.endswith("num_batches_tracked")
        }
        loaded = {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    else:
        loaded = {"model": data}
    _check_weights(loaded["model"], filename)
    return loaded


def _check_weights(weights: object, filename: str) -> None:
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict under 'model', got {type(weights).__name__}."
        )
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, (torch.Tensor, np.ndarray)):
            raise CheckpointError(
                f"Weights file {filename}: expected tensors by name, got {type(value).__name__} "
                f"under {key!r}."
            )


def describe_incompatible(incompatible: Any, num_keys: int, limit: int = 30) -> str:
    """Describe which weights of a file were loaded into a model and which were not.

    Args:
        incompatible: fvcore's result with ``missing_keys``, ``unexpected_keys`` and
            ``incorrect_shapes``.
        num_keys: Number of keys of the model.
        limit: Most groups of names in a line; the others are counted.

    Returns:
        One line if all weights fit; otherwise one more line for each kind of difference, and for
        each weight of another size.
    """
    shapes = incompatible.incorrect_shapes
    other_size = {key for key, _, _ in shapes}
    missing = [key for key in incompatible.missing_keys if key not in other_size]
    unexpected = list(incompatible.unexpected_keys)
    lines = [f"Loaded {num_keys - len(missing) - len(shapes)} of the model's {num_keys} weights."]
    lines += [
        f"  skipped {key}: size {tuple(in_file)} in the file, {tuple(in_model)} in the model"
        for key, in_file, in_model in shapes
    ]
    if missing:
        lines.append(f"  not in the file, keep their initial values: {group_names(missing, limit)}")
    if unexpected:
        lines.append(f"  in the file, not used by the model: {group_names(unexpected, limit)}")
    return "\n".join(lines)


def group_names(keys: list[str], limit: int = 30) -> str:
    """Names of weights, grouped by their common prefix: ``a.{b, c}``.

    Args:
        keys: The names.
        limit: Most groups that are named; the others are counted.
    """
    groups: dict[str, list[str]] = {}
    for key in sorted(keys):
        head, _, tail = key.rpartition(".")
        groups.setdefault(head, []).append(tail)
    texts = []
    for head, tails in groups.items():
        inside = tails[0] if len(tails) == 1 else "{" + ", ".join(tails) + "}"
        texts.append(f"{head}.{inside}" if head else inside)
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more groups"


def remove_unfinished(folder: str) -> None:
    """Delete the unfinished files that a killed process left in a folder and in its subfolders.

    Args:
        folder: OUTPUT_DIR; no other process may be at work in it.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(_UNFINISHED):
                os.remove(os.path.join(parent, name))
