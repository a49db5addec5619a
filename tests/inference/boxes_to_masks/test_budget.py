"""Time is spread over the boxes: fewer steps, then GrabCut, then boxes."""

from __future__ import annotations

from maskfreevis_ext.inference.boxes_to_masks.budget import BOX, GRABCUT, PIXEL_HEAD, Budget, Plan


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_budget_everything_is_done_in_full() -> None:
    budget = Budget(None, PIXEL_HEAD, 10**6, 10**8)
    assert budget.plan() == Plan(PIXEL_HEAD)
    assert not budget.is_over


def test_less_time_gives_fewer_steps_then_grabcut_then_boxes() -> None:
    clock = _Clock()
    plans = [Budget(minutes, PIXEL_HEAD, 1000, 2000, clock).plan() for minutes in (90, 6, 1.5, 0.1)]
    assert plans[0] == Plan(PIXEL_HEAD)
    assert plans[1].method == PIXEL_HEAD
    assert 0.1 <= plans[1].share < 0.9
    assert plans[2] == Plan(GRABCUT, is_quick=True)
    assert plans[3] == Plan(BOX)


def test_plain_grabcut_becomes_quick() -> None:
    clock = _Clock()
    assert Budget(60, GRABCUT, 1000, 0, clock).plan() == Plan(GRABCUT)
    assert Budget(2, GRABCUT, 1000, 0, clock).plan() == Plan(GRABCUT, is_quick=True)


def _simulate(slowness: float, minutes: float) -> tuple[float, list[Plan]]:
    """Time used and plans of 100 groups of 40 boxes and 200 steps on a slow or fast machine."""
    clock = _Clock()
    budget = Budget(minutes, PIXEL_HEAD, 4000, 20_000, clock)
    plans = []
    for _ in range(100):
        plan = budget.plan()
        seconds = {
            PIXEL_HEAD: slowness * (40 * 0.3 + 200 * 0.05 * plan.share),
            GRABCUT: slowness * 40 * 0.04,
            BOX: 0.01,
        }[plan.method]
        clock.now += seconds
        budget.record(plan, 40, 200, seconds)
        plans.append(plan)
    assert (budget.boxes, budget.steps) == (0, 0)
    return (clock.now - 100) / 60, plans


def test_budget_is_kept_on_machines_of_any_speed() -> None:
    for slowness in (0.2, 1.0, 4.0):
        for minutes in (5.0, 20.0, 60.0):
            used, plans = _simulate(slowness, minutes)
            assert used <= 1.03 * minutes
            assert plans[0].method != BOX
    used, plans = _simulate(1.0, 30.0)
    assert used > 24  # and it is made use of
    assert all(plan.method == PIXEL_HEAD for plan in plans)


def test_time_is_up() -> None:
    clock = _Clock()
    budget = Budget(1, GRABCUT, 10, 0, clock)
    clock.now += 61
    assert budget.is_over
    assert budget.plan() == Plan(BOX)


def test_finished_work_is_taken_off() -> None:
    budget = Budget(1, PIXEL_HEAD, 10, 100)
    budget.skip(4, 60)
    assert (budget.boxes, budget.steps) == (6, 40)
