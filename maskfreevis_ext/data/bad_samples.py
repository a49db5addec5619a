"""Counts the samples of a training that could not be read and were replaced."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.utils.events import get_event_storage

from maskfreevis_ext.errors import DataError

logger = logging.getLogger(__name__)

#: Part of the samples that may be bad, and number of them that always may.
MAX_PART, ALWAYS_ALLOWED = 0.01, 10
_SHOWN = 20


class BadSampleCount:
    """Samples of this process since the start of the run, and how many of them were bad.

    Attributes:
        seen: All samples.
        bad: Samples that others replaced.
    """

    def __init__(self) -> None:
        self.seen = self.bad = 0

    def add(self, batch: list[dict[str, Any]]) -> None:
        """Count the samples of a batch; their ``bad_samples`` are taken out of them.

        Args:
            batch: The samples.

        Raises:
            DataError: More than ``MAX_PART`` of the samples, and more than ``ALWAYS_ALLOWED``, were
                bad.
        """
        self.seen += len(batch)
        messages = [text for sample in batch for text in sample.pop("bad_samples", ())]
        for message in messages:
            self.bad += 1
            if self.bad <= _SHOWN:
                more = " Further ones are only counted." if self.bad == _SHOWN else ""
                logger.warning("A sample was replaced (%d so far): %s%s", self.bad, message, more)
        if messages:
            _write_metric(self.bad)
        if self.bad > max(ALWAYS_ALLOWED, MAX_PART * self.seen):
            raise DataError(
                f"{self.bad} of {self.seen} samples could not be read, more than {MAX_PART:.0%}"
                f" (DATALOADER.ON_BAD_SAMPLE skip). The last one: {messages[-1]}"
            )


def _write_metric(count: int) -> None:
    try:
        storage = get_event_storage()
    except AssertionError:  # the batches are read outside of a training
        return
    storage.put_scalar("data/bad_samples", count, smoothing_hint=False)
