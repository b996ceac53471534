"""Whole pipelines through trouble, by seed; and the simulation itself, which must find what is broken on purpose."""

from __future__ import annotations

import pytest

from tests.mutations import MUTATIONS, mutated
from tests.plans import draw
from tests.world import World

FAILURES = (AssertionError, LookupError, TypeError, ValueError)

# Seeds that find each defect, quickly; after a change of the machines or of the plans, `python -m tests.simulation
# --mutate NAME` shows others.
CATCHING = {
    "comeback-unheard": (730, 5518, 13488),
    "dependents-early": (0, 1, 3),
    "end-before-last-ack": (4, 13, 16),
    "leases-never-returned": (17, 25, 59),
    "no-crash-limit": (25, 36, 44),
    "no-dedupe": (2, 17, 42),
    "no-reack": (25, 40, 48),
    "no-resend": (23, 41),
    "nothing-missing": (27, 41, 48),
    "released-early": (1, 17, 48),
    "repeats-taken": (30, 34, 47),
    "results-dropped": (1, 45, 59),
}


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_the_invariants_hold(first: int) -> None:
    """Whatever strikes, each item is collected once or failed, nothing is done in vain, and the run ends."""
    for seed in range(first, first + 20):
        World(seed).run()


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_the_invariants_hold_when_a_role_is_started_again(first: int) -> None:
    """The same with the distributor or the collector killed, and started again with nothing in its memory."""
    for seed in range(first, first + 20):
        World(seed, restarts=True).run()


def test_a_seed_is_a_run() -> None:
    """The same seed is the same run to the last message, so that a failure can be looked at again."""
    first, again = World(12), World(12)
    first.run()
    again.run()
    assert first.notes == again.notes
    assert (first.now, first.executions, first.collected) == (again.now, again.executions, again.collected)


def test_the_plans_are_as_mean_as_they_should_be() -> None:
    """Every kind of trouble is in some plan of a hundred seeds."""
    plans = [draw(seed, restarts=True) for seed in range(100)]
    for what in ("lose", "double", "uneven", "breaks", "kills", "freezes", "role_freezes", "late_freeze", "raising",
                 "poison", "collector_raises", "source_raises", "source_seconds", "gated", "keyed", "drains",
                 "idle_timeout", "restarts"):  # fmt: skip
        assert any(getattr(plan, what) for plan in plans), f"no plan has {what}"
        assert not all(getattr(plan, what) for plan in plans) or what == "restarts", f"every plan has {what}"
    assert any(plan.options.max_held_items == 2 for plan in plans)
    assert any(plan.is_calm for plan in (draw(seed) for seed in range(20)))


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_deliberate_defect_is_found(name: str) -> None:
    """Each defect makes one of its seeds fail; without it, the same seeds pass."""
    seeds = CATCHING[name]
    with mutated(name):
        assert any(fails(seed) for seed in seeds), f"{name} was not found by the seeds {seeds}"
    assert not any(fails(seed) for seed in seeds), f"a seed of {seeds} fails without any defect"


def fails(seed: int) -> bool:
    """Whether the run of this seed breaks an invariant, or a machine."""
    try:
        World(seed).run()
    except FAILURES:
        return True
    return False
