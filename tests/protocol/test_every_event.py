"""Every machine, every phase, every event and every message: what follows is in order, whoever lies.

No exception comes from inside, `check()` holds, what is sent would be understood, and a drain has an end.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.adversarial import EVENTS, MESSAGES, NUMBERS, US, bodies, made
from tests.support.machine_fuzz import HOW, Answers, Happens, Says, Step, Trial, Waits
from tests.support.pipeline_trials import (
    CollectorTrial,
    DistributorTrial,
    FedDistributorTrial,
    MetadataTrial,
    RemoteMetadataTrial,
    RestoredCollectorTrial,
)
from tests.support.worker_trials import (
    ClientTrial,
    InitWorkerTrial,
    ServiceTrial,
    ServiceWorkerTrial,
    WorkerTrial,
)
from zmqpipeline.protocol import events as e

TRIALS: dict[str, type[Trial]] = {
    "distributor": DistributorTrial,
    "distributor of stages": FedDistributorTrial,
    "distributor of a metadata worker": RemoteMetadataTrial,
    "metadata worker": MetadataTrial,
    "worker": WorkerTrial,
    "worker with init functions": InitWorkerTrial,
    "service worker": ServiceWorkerTrial,
    "collector": CollectorTrial,
    "restored collector": RestoredCollectorTrial,
    "broker": ServiceTrial,
    "client": ClientTrial,
}

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
"""How many courses of events are tried for each machine; ``EXAMPLES=10000`` for a long look."""

QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 100,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CASES = [(name, phase) for name, trial in TRIALS.items() for phase in trial.phases]
OF_PROCESSES = {kind for trial in TRIALS.values() for kind in trial().own}
CHOSEN = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


def often(kinds: dict[str, int], given: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of these, by its weight. (`one_of` looks into what it is given, and takes each thing once.)"""
    names = [name for name, weight in kinds.items() for _ in range(weight)]
    return st.sampled_from(names).flatmap(given.__getitem__)


def lies(trial: type[Trial]) -> st.SearchStrategy[Says]:
    """Anything that any peer may say, at any place of the order; most of it what this machine listens to."""
    heard = st.sampled_from(trial.hears).flatmap(bodies)
    return st.builds(
        Says,
        body=often({"heard": 5, "any": 1}, {"heard": heard, "any": st.sampled_from(MESSAGES).flatmap(bodies)}),
        who=st.sampled_from((b"p1", b"p1", b"p2", b"p3", b"d", b"w", US, b"")),
        where=st.integers(0, 2 * len(trial.bound) + len(trial.connecting) - 1),
        how=st.sampled_from(("next",) * 6 + HOW),
        addressee=st.sampled_from((US, US, US, b"", b"p1")),
        received=NUMBERS,
    )


def free(trial: type[Trial]) -> dict[type, st.SearchStrategy[Any]]:
    """The events that may come at any time; those of other machines' processes are none of this one's business."""
    hops = st.sampled_from((*trial.bound, *trial.connecting))
    known: dict[type, st.SearchStrategy[Any]] = {
        e.Connected: st.builds(e.Connected, hops),
        e.Disconnected: st.builds(e.Disconnected, hops),
        e.PeerLost: st.builds(e.PeerLost, st.integers(0, 9).map(trial().peer)),
        e.Drain: st.builds(e.Drain, st.sampled_from((0.0, 1.0, 100.0))),
        e.Retire: st.builds(e.Retire, st.just("enough"), st.sampled_from((20, 30))),
    }
    own = trial().own
    return {cls: known.get(cls, made(cls)) for cls in EVENTS if cls is not e.Received and cls not in own}


def steps(trial: type[Trial]) -> st.SearchStrategy[Step]:
    """What may come next."""
    events = free(trial)
    breaks = st.one_of(events[e.Connected], events[e.Disconnected], events[e.PeerLost])
    given: dict[str, st.SearchStrategy[Any]] = {
        "lie": lies(trial),
        "answer": st.builds(Answers, st.integers(0, 5), CHOSEN),
        "wait": st.sampled_from((0.0, 0.0, 0.02, 1.0, 6.0, 70.0)).map(Waits),
        "break": breaks.map(Happens),
        "event": st.one_of(list(events.values())).map(Happens),
    }
    return often({"lie": 20, "answer": 10, "wait": 5, "break": 4, "event": 1}, given)


def courses(trial: type[Trial]) -> st.SearchStrategy[list[Step]]:
    """A list of steps; put together from three, since hypothesis keeps a single one shorter."""
    some = st.lists(steps(trial), max_size=20)
    return st.tuples(some, some, some).map(lambda three: [*three[0], *three[1], *three[2]])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_any_course_of_events_is_survived(name: str) -> None:
    """From any scene on, any course of lies, breaks, answers and waits leaves the machine whole, and it can end."""
    trial = TRIALS[name]

    @QUIET
    @given(scene=st.sampled_from(sorted(trial.scenes())), course=courses(trial))
    def survives(scene: str, course: list[Step]) -> None:
        one = trial().at(scene)
        for step in course:
            one.take(step)
        one.drains()

    survives()
