"""Checkpoints that are written whole, read without running code, and compared with the model."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import HTTPURLHandler

from maskfreevis_ext.class_names import CLASS_NAMES, check_class_names, set_class_names
from maskfreevis_ext.data.json_fields import short
from maskfreevis_ext.downloads import download_weights, is_address
from maskfreevis_ext.engine.class_weights import (
    check_finite,
    fitting_classifier,
    has_classes,
    match_classifier,
    same_names,
)
from maskfreevis_ext.engine.training_record import BEST_NAME, TrainingRecord
from maskfreevis_ext.engine.weights_layouts import as_checkpoint, as_model_zoo
from maskfreevis_ext.engine.weights_report import describe_incompatible
from maskfreevis_ext.errors import CheckpointError, NumericError
from maskfreevis_ext.files import TEMPORARY_SUFFIX, atomic_write
from maskfreevis_ext.weights_files import read_weights_file

logger = logging.getLogger(__name__)

#: Number of consecutive failures to save a checkpoint at which training stops.
MAX_SAVE_FAILURES = 3
#: Endings of the files of a run; ``bad_batch_*.pt`` are as large as checkpoints.
_WRITTEN = (".pth", ".pt", ".safetensors", "last_checkpoint", ".json", ".html", ".csv", ".yaml")
_UNFINISHED = tuple(ending + TEMPORARY_SUFFIX for ending in _WRITTEN)
#: Weights that predictions do not depend on.
_NOT_FOR_PREDICTION = "criterion."


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, safe against crashes, foreign code and silent mismatches.

    * A file is written under a temporary name and renamed when it is on the disk: a killed process
      or a full disk leaves the previous checkpoint unchanged.
    * The SHA-256 of each file is noted in ``checkpoints.json`` beside it, and compared before the
      file is loaded. Nothing in a weights file is run (``maskfreevis_ext.safe_load``).
    * ``--resume`` skips damaged checkpoints and takes the newest whole one; if there is none, it
      raises an error instead of starting from scratch.
    * Every weight of the file that the model does not have, and the reverse, is logged by name.
    * Class names travel with the weights. In training, the weights of the classifier are matched
      with the classes of the training set by name; otherwise the model takes the names of the file.

    Args:
        model: The model.
        save_dir: OUTPUT_DIR; "" to load only.
        must_fit: Refuse weights that fit the model only in part, before an evaluation.
        class_names: Names of the classes that the model is trained on.
        config: The config of the training, as text for ``checkpoints.json``.
        max_to_keep: Number of numbered checkpoints of this training that are kept; 0: all.
        kwargs: States that are saved and loaded beside the model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        must_fit: bool = False,
        class_names: Sequence[str] | None = None,
        config: str = "",
        max_to_keep: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self._must_fit = must_fit
        self._class_names = None if class_names is None else list(class_names)
        self._failures = 0
        self._reading = ""
        self._needed: set[str] = set()  # states that a checkpoint must have, while resuming
        self.record = TrainingRecord(save_dir, config, self._class_names, max_to_keep)
        #: The model whose weights are saved in the place of the model's own; None: those.
        self.saved_model: torch.nn.Module | None = None
        #: The file read by the last ``load`` or ``resume_or_load``; "" for none.
        self.loaded_file = ""
        #: Whether the last ``resume_or_load`` resumed from a checkpoint of ``save_dir``.
        self.resumed = False
        set_class_names(self.model, self._class_names)

    # ---------------------------------------------------------------- saving
    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``{save_dir}/{name}.pth`` and then ``last_checkpoint``; remove old checkpoints.

        Args:
            name: File name without its ending.
            kwargs: Plain values to store beside model and training state.

        Raises:
            CheckpointError: Writing failed for the third time in a row, or the final checkpoint
                could not be written. Other failures are logged; the previous checkpoint stays.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if self._write(name, {**states, **kwargs}, {"iteration": kwargs.get("iteration")}):
            self.record.remove_old(keep=f"{name}.pth")

    def save_best(self, metric: str, value: float, iteration: int) -> None:
        """Write the weights, without the state of the training, as ``model_best.pth``.

        Args:
            metric: Name of the metric by which they are the best.
            value: Its value.
            iteration: Iteration after which the weights were evaluated.

        Raises:
            CheckpointError: As of ``save``.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        facts = {"iteration": iteration, "metric": metric, "value": value}
        self._write(BEST_NAME, facts, facts, is_last=False)

    def _write(
        self, name: str, content: dict[str, Any], facts: dict[str, Any], is_last: bool = True
    ) -> bool:
        """Write a checkpoint; returns whether it could be written."""
        saved = self.model if self.saved_model is None else self.saved_model
        data = {"model": saved.state_dict(), **content}
        if self._class_names is not None:
            data[CLASS_NAMES] = self._class_names
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as f:
                torch.save(data, f)
                f.flush()
                self.record.add(f"{name}.pth", f.name, facts)
            if is_last:
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
            return False
        self._failures = 0
        return True

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
            NumericError: Weights are NaN or infinite.
        """
        given, path = path, _fetch(path)
        plain = path.split("?", 1)[0]
        if plain and not os.path.isfile(plain):
            raise CheckpointError(
                f"Weights file {plain} does not exist (looked from {os.getcwd()}). "
                "Check MODEL.WEIGHTS."
            )
        try:
            extra = super().load(path, checkpointables)
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
            except (CheckpointError, NumericError) as e:
                problems.append(str(e))
                logger.warning("--resume: skipping a checkpoint. %s", e)
                continue
            self.resumed = True
            self.record.go_on_from(os.path.basename(candidate))
            logger.info("--resume: resuming from %s", candidate)
            return extra
        raise CheckpointError(
            f"--resume: none of the {len(candidates)} checkpoints in {self.save_dir} can be used. "
            "Remove them to start again, or give a whole one as MODEL.WEIGHTS without --resume. "
            + " ".join(problems)
        )

    def _go_on_from(self, path: str) -> dict[str, Any]:
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
            n
            for n in os.listdir(self.save_dir)
            if n.startswith("model_") and n.endswith(".pth") and n != f"{BEST_NAME}.pth"
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
        self._reading = filename
        content = read_weights_file(filename)
        arrange = as_model_zoo if filename.endswith(".pkl") else as_checkpoint
        loaded = arrange(content, filename)
        if heuristics:
            loaded["matching_heuristics"] = True
        missing = self._needed - loaded.keys()
        if missing:
            raise CheckpointError(
                f"Checkpoint {filename}: expected the state of a training, got weights without "
                f"{', '.join(sorted(missing))}. Give it as MODEL.WEIGHTS without --resume."
            )
        self._take_class_names(loaded, filename)
        return loaded

    def _take_class_names(self, loaded: dict[str, Any], filename: str) -> None:
        """Match the classifier with the classes of the training; note the names of the classes."""
        names = check_class_names(loaded.get(CLASS_NAMES))
        weights, state = loaded["model"], self.model.state_dict()
        if self._class_names is None:
            set_class_names(self.model, None)
        if names is None:
            rows = fitting_classifier(weights, state)
            if any(weights[key].shape == state[key].shape for key in rows):
                logger.warning(
                    "%s holds no class names: its classes are taken by their position.", filename
                )
        elif self._class_names is None:
            set_class_names(self.model, names if has_classes(state, len(names)) else None)
        elif self._needed and not same_names(names, self._class_names):
            raise CheckpointError(
                f"Checkpoint {filename}: was trained on the classes {short(names)}, the"
                f" training set has {short(self._class_names)}. Start a new training with it"
                " as MODEL.WEIGHTS."
            )
        else:
            match_classifier(weights, state, names, self._class_names)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        state = self.model.state_dict()
        keys = state.keys()
        summary = describe_incompatible(incompatible, len(keys))
        missing = {*incompatible.missing_keys, *(k for k, _, _ in incompatible.incorrect_shapes)}
        brief = describe_incompatible(incompatible, len(keys), limit=8)
        flat = "; ".join(line.strip().removesuffix(".") for line in brief.splitlines()) + "."
        if missing >= keys or (self._needed and missing):
            raise CheckpointError(f"The weights belong to another model. {flat}")
        unfit = missing.union(incompatible.unexpected_keys)
        if self._must_fit and any(not key.startswith(_NOT_FOR_PREDICTION) for key in unfit):
            raise CheckpointError(
                f"The weights fit the model only in part. {flat} Take the config that they were"
                " trained with (docs/weights.md), or set TEST.PARTIAL_WEIGHTS True to evaluate and"
                " predict all the same."
            )
        check_finite(state, self._reading)
        logger.info(summary)


class _Addresses(HTTPURLHandler):
    """Fetches what Detectron2's names (``catalog://``, ``detectron2://``) stand for likewise."""

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        return download_weights(path)


PathManager.register_handler(_Addresses(), allow_override=True)


def _fetch(path: str) -> str:
    """Local path of an address or of a name of Detectron2; its option stays at the end."""
    if "://" not in path:
        return path
    address, found, _ = path.partition("?matching_heuristics=True")
    if is_address(address):
        return download_weights(address) + found
    try:
        return PathManager.get_local_path(address) + found
    except CheckpointError:
        raise
    except Exception as e:  # handlers of names raise many types of errors
        raise CheckpointError(f"Weights {path} could not be fetched: {e}") from e


def remove_unfinished(folder: str) -> None:
    """Delete the unfinished files that a killed process left in a folder and in its subfolders.

    Args:
        folder: OUTPUT_DIR; no other process may be at work in it.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(_UNFINISHED):
                os.remove(os.path.join(parent, name))
