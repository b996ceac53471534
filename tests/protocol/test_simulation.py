"""Whole pipelines through trouble, by seed; and the simulation itself, which must find what is broken on purpose."""

from __future__ import annotations

import pytest

from tests.support.harness import World
from tests.support.mutations import MUTATIONS, mutated
from tests.support.scenarios import DRAINS, RESTARTS, draw

FAILURES = (AssertionError, LookupError, TypeError, ValueError)

# Seeds that find each defect, quickly; after a change of the machines or of the plans, `python -m tests.simulation
# --mutate NAME` shows others.
CATCHING = {
    "absent-forgotten": (38, 68, 134),
    "ack-data-forgotten": (44, 53),
    "bye-once": (24, 80, 81),
    "claims-refused": (38, 72, 220),
    "comeback-unheard": (48,),
    "credit-kept-of-the-dead": (24,),
    "dependents-early": (0, 1, 3),
    "drained-at-once": (14, 39, 42),
    "drained-unsaid": (2716,),
    "end-before-last-ack": (0, 1, 2),
    "failed-keys-again": (457, 650, 690),
    "finished-once-at-most": (154, 155),
    "finished-too-soon": (154, 174),
    "full-forgotten": (2, 24, 31),
    "journal-half-read": (0, 53, 201),
    "keys-forgotten": (66,),
    "keys-not-told": (0, 17, 30),
    "leases-never-returned": (1, 12, 17),
    "metadata-forgotten": (0, 2, 3),
    "never-full": (21, 24),
    "never-recalled": (10, 37, 114),
    "never-retired": (18, 40, 73),
    "no-crash-limit": (16, 25, 36),
    "no-dedupe": (0, 1, 2),
    "no-reack": (0, 2, 3),
    "no-resend": (12, 41, 61),
    "not-alone": (12, 25, 38),
    "nothing-missing": (1, 5, 27),
    "numbers-again": (0, 17, 66),
    "released-early": (1, 3, 12),
    "released-unsaid": (33, 34, 35),
    "repeats-taken": (9, 24, 30),
    "results-dropped": (0, 1, 5),
    "retired-at-once": (18, 40, 73),
    "running-returned": (10, 34, 99),
    "said-before-done": (1, 5, 17),
}


SAMPLE = 100
"""So many seeds are run here; the command runs as many as one likes."""


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, SAMPLE, 10)]
)
def test_the_invariants_hold(first: int) -> None:
    """Whatever strikes, each item is collected once or failed, nothing is done in vain, and the run ends."""
    for seed in range(first, first + 10):
        World(seed).run()


def test_a_seed_is_a_run() -> None:
    """The same seed is the same run to the last message, so that a failure can be looked at again."""
    first, again = World(12), World(12)
    first.run()
    again.run()
    assert first.notes == again.notes
    assert (first.now, first.executions, first.collected) == (again.now, again.executions, again.collected)


def test_the_plans_are_as_mean_as_they_should_be() -> None:
    """Every kind of trouble is in some plan of a hundred seeds."""
    plans = [draw(seed) for seed in range(100)]
    for what in ("lose", "double", "uneven", "breaks", "kills", "freezes", "role_freezes", "late_freeze", "raising",
                 "poison", "collector_raises", "source_raises", "source_seconds", "gated", "keyed", "drains",
                 "idle_timeout", "heavy", "partitions", "journal", "restarts", "ahead",
                 "ack_partitions", "last_cut", "last_break", "commit_seconds", "role_drains", "max_items",
                 "finish_seconds", "restarts_late"):  # fmt: skip
        assert any(getattr(plan, what) for plan in plans), f"no plan has {what}"
        assert not all(getattr(plan, what) for plan in plans), f"every plan has {what}"
    assert {role for plan in plans for role in plan.restarts} == set(RESTARTS)
    assert {role for plan in plans for role in plan.role_drains} == set(DRAINS)
    assert any(plan.options.max_held_items == 2 for plan in plans)
    assert any(plan.is_calm for plan in (draw(seed) for seed in range(20)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_deliberate_defect_is_found(name: str) -> None:
    """Each defect makes one of its seeds fail; without it, the same seeds pass, here or in the test of the sample."""
    seeds = CATCHING[name]
    with mutated(name):
        assert any(fails(seed) for seed in seeds), f"{name} was not found by the seeds {seeds}"
    others = [seed for seed in seeds if seed >= SAMPLE]
    assert not any(fails(seed) for seed in others), f"a seed of {others} fails without any defect"


def fails(seed: int) -> bool:
    """Whether the run of this seed breaks an invariant, or a machine."""
    try:
        World(seed).run()
    except FAILURES:
        return True
    return False
