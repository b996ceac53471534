"""Chains and circles of tasks in the machines, by seed; and the simulation of them, which must find what is broken."""

from __future__ import annotations

import pytest

from tests.support.mutations import mutated
from tests.support.staged import SHAPES, StagedCollector, StagedDisk, StagedWorld, draw_stages
from tests.support.staged_mutations import STAGED_MUTATIONS
from zmqpipeline.errors import DependencyError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec, order
from zmqpipeline.protocol.delivery.stages import all_before, check, circle_of, inner_stages

FAILURES = (AssertionError, LookupError, TypeError, ValueError)

# Seeds that find each defect, quickly: `python -m tests.simulation --stages --mutate NAME` shows others.
CATCHING = {
    "acknowledged-before-the-count": (10, 38, 58),
    "asked-once": (25, 41, 77),
    "children-after-the-parent": (6, 7, 63),
    "circle-ends-early": (65, 66, 85),
    "count-outside-of-the-transaction": (3, 39, 91),
    "counted-after-the-commit": (10, 23, 31),
    "dependents-of-stages-early": (16, 18, 24),
    "end-told-as-done": (41, 57, 65),
    "failed-child-not-counted": (6, 36, 44),
    "fed-after-the-commit": (10, 23, 38),
    "feeders-forgotten": (2, 5, 65),
    "gathered-before-the-last": (7, 15, 54),
    "given-again-after-a-restart": (7, 83, 94),
    "never-held-back": (2, 4, 7),
    "roots-unheard": (5, 58, 68),
}

LOSING = (18, 56)
"""Seeds in which a collector is started again when it had items in its outboxes."""

SAMPLE = 100
"""So many seeds are run here; the command runs as many as one likes."""


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, SAMPLE, 10)]
)
def test_the_invariants_of_stages_hold(first: int) -> None:
    """Each parent that is collected gives its children once, none before that, and the run ends when all is done."""
    for seed in range(first, first + 10):
        StagedWorld(seed).run()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STAGED_MUTATIONS))
def test_every_deliberate_defect_of_stages_is_found(name: str) -> None:
    """Each makes one of its seeds fail; without it, the same seeds pass in the test of the sample."""
    seeds = CATCHING[name]
    assert max(seeds) < SAMPLE
    with mutated(name, STAGED_MUTATIONS):
        assert any(fails(seed) for seed in seeds), f"{name} was not found by the seeds {seeds}"


def fails(seed: int) -> bool:
    """Whether this seed finds something."""
    try:
        StagedWorld(seed).run()
    except FAILURES:
        return True
    return False


def test_each_shape_is_among_the_plans() -> None:
    """Chains, forks, joins, circles, gathers, and what waits for a stage; with a bound that is reached."""
    plans = [draw_stages(seed)[0] for seed in range(SAMPLE)]
    assert len(
        {tuple((one.task_type, one.for_each, one.gather, one.depends_on) for one in plan.tasks) for plan in plans}
    ) == len(SHAPES)
    assert {plan.options.max_waiting_bytes for plan in plans} == {0, 20, 1 << 30}


class Elsewhere(StagedWorld):
    """Each collector is started on another machine, where no outbox of an earlier one is."""

    def _make_collector(self) -> StagedCollector:
        self.disk = StagedDisk(self)
        return super()._make_collector()


@pytest.mark.parametrize("seed", LOSING)
def test_a_collector_that_has_lost_its_outboxes_ends_the_run(seed: int) -> None:
    """The distributor says so, since nobody can go on."""
    world = Elsewhere(seed)
    with pytest.raises(FAILURES):
        world.run()
    assert world.distributor.ended is not None
    assert world.distributor.ended.status == 1
    assert "The collector has lost items of task" in world.distributor.ended.reason


SPECS = {
    one.task_type: one
    for one in (
        TaskSpec("A"),
        TaskSpec("B", for_each=("A", "D")),
        TaskSpec("C", for_each=("B",)),
        TaskSpec("D", for_each=("C",)),
        TaskSpec("E", for_each=("D",)),
        TaskSpec("F", depends_on=("E",)),
        TaskSpec("G", for_each=("G",)),
    )
}


def test_circles_and_what_is_before_a_task() -> None:
    """A task that feeds itself is a circle of one; who depends on a stage waits for all that feeds it."""
    assert circle_of("B", SPECS) == circle_of("C", SPECS) == {"B", "C", "D"}
    assert circle_of("G", SPECS) == {"G"}
    assert circle_of("A", SPECS) == circle_of("E", SPECS) == frozenset()
    assert all_before(["E"], SPECS) == ["E", "A", "B", "C", "D"]
    assert inner_stages(SPECS.values()) == {"A", "B", "C", "D"}
    assert order(SPECS.values()).index("E") < order(SPECS.values()).index("F")


def test_waiting_in_a_circle_is_refused() -> None:
    """Whatever the arrows of the circle are."""
    specs = {**SPECS, "A": TaskSpec("A", depends_on=("F",))}
    with pytest.raises(DependencyError, match="'A' -> 'F' -> 'E' -> 'D' -> 'C' -> 'B' -> 'A'"):
        check(specs)
