"""Time: what can still be done for every box that has no mask yet.

Work is counted in boxes (reading, features, the mask itself) and in steps of fitting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PIXEL_HEAD, GRABCUT, BOX = "pixel_head", "grabcut", "box"

#: Seconds of a box and of a step of one object, on a slow core; corrected by what is measured.
_SECONDS = {PIXEL_HEAD: (0.3, 0.05), GRABCUT: (0.04, 0.0)}
_PLAIN_GRABCUT = (0.5, 0.0)
_TRUST = 20.0  # seconds of measured work that outweigh these
_CAUTION = 2.0  # how much slower the first fit may turn out to be
_RESERVE = 0.95  # of the time that is left; the rest is for what cannot be foreseen
_LEAST_SHARE = 0.1  # of the steps; below it a fit is not worth its time


@dataclass(frozen=True)
class Plan:
    """How the masks of some objects are made.

    Attributes:
        method: "pixel_head", "grabcut" or "box".
        share: Of the steps, in (0, 1].
        is_quick: Make GrabCut masks from reduced pictures.
    """

    method: str
    share: float = 1.0
    is_quick: bool = False


class Budget:
    """Spreads the time that is left evenly over the work that is left.

    Args:
        minutes: Time from now; None: as much as it takes.
        method: What the user wants, "pixel_head" or "grabcut".
        boxes: Boxes of all videos that need a mask.
        steps: Steps of all fits, times their objects.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        minutes: float | None,
        method: str,
        boxes: int,
        steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._end = None if minutes is None else clock() + 60 * minutes
        self._method = method
        self.boxes, self.steps = boxes, steps
        self._measured = {PIXEL_HEAD: [0.0, 0.0], GRABCUT: [0.0, 0.0], "plain": [0.0, 0.0]}

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and self._clock() >= self._end

    def plan(self) -> Plan:
        """What each of the remaining objects can have."""
        if self._end is None:
            return Plan(self._method)
        left = _RESERVE * (self._end - self._clock())
        if self._method == GRABCUT and self._estimate("plain", self.boxes, 0) <= left:
            return Plan(GRABCUT)
        if self._method == PIXEL_HEAD:
            share = self._share(left)
            if share >= _LEAST_SHARE:
                if not self._measured[PIXEL_HEAD][1]:
                    share = max(self._share(left / _CAUTION), _LEAST_SHARE)
                return Plan(PIXEL_HEAD, share)
        if left > 0 and self._estimate(GRABCUT, self.boxes, 0) <= left:
            return Plan(GRABCUT, is_quick=True)
        return Plan(BOX)

    def record(self, plan: Plan, boxes: int, steps: int, seconds: float) -> None:
        """Take finished work off the list, and learn from the time it took.

        Args:
            plan: How it was done.
            boxes: Boxes that got a mask.
            steps: Steps that a full fit would have had, times objects.
            seconds: What it took.
        """
        self.boxes -= boxes
        self.steps -= steps
        if plan.method != BOX:
            kind = "plain" if plan == Plan(GRABCUT) else plan.method
            measured = self._measured[kind]
            measured[0] += seconds
            measured[1] += self._prior(kind, boxes, round(plan.share * steps))

    def skip(self, boxes: int, steps: int) -> None:
        """Take work off the list that need not be done, as it was done in an earlier run."""
        self.boxes -= boxes
        self.steps -= steps

    def _share(self, left: float) -> float:
        """Share of the steps of all fits that some seconds are enough for, at most 1."""
        fixed = self._estimate(PIXEL_HEAD, self.boxes, 0)
        fits = self._estimate(PIXEL_HEAD, 0, self.steps)
        return min(1.0, (left - fixed) / max(fits, 1e-9))

    def _prior(self, kind: str, boxes: int, steps: int) -> float:
        of_box, of_step = _SECONDS.get(kind, _PLAIN_GRABCUT)
        return of_box * boxes + of_step * steps

    def _estimate(self, kind: str, boxes: int, steps: int) -> float:
        """Seconds of work, by what such work was thought to take and took until now."""
        seconds, expected = self._measured[kind]
        return self._prior(kind, boxes, steps) * (seconds + _TRUST) / (expected + _TRUST)
