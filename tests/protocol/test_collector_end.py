"""The collector machine, law by law: when every item is done, and when it drains."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE, Stranger
from tests.support.collector_scene import Scene, given_up
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import (
    ABSENT_SECONDS,
    STAY_SECONDS,
)


@pytest.fixture
def scene() -> Scene:
    """A collector that has been told a run."""
    return Scene()


def test_the_end_calls_finished_then_answers_then_waits_for_bye(scene: Scene) -> None:
    """Finish -> `finished` runs -> Finished; a Bye ends the process with status 0."""
    scene.results(0, 1)
    scene.collected(0, 1)
    scene.finish()
    assert scene.bench.one(c.CallFinished).ok is True
    assert scene.bench.of(c.Send) == []
    scene.bench.tell(e.FinishedCalled())
    assert scene.bench.said_one(m.Finished) == m.Finished("run")
    scene.distributor.says(m.Bye("run"))
    assert scene.bench.one(c.Ended) == c.Ended(0, "the run is over")
    assert scene.machine.ok
    assert scene.machine.counts == [m.TaskCounts("A", "complete", sent=2)]


def test_finish_waits_for_the_calls_that_are_out(scene: Scene) -> None:
    """`finished` never runs beside or before a call of the collector's function or of `failed`."""
    scene.results(0, 1)
    scene.finish()
    assert scene.bench.of(c.CallFinished) == []
    scene.collected(0, failing=[1])
    assert scene.bench.of(c.CallFinished) == []
    scene.bench.tell(e.FailedCalled("A", (1, 2)))
    assert scene.bench.one(c.CallFinished)


def test_finish_said_again_is_answered_again(scene: Scene) -> None:
    """A lost Finished is mended, with what `finished` returned; it does not run a second time."""
    scene.finish()
    assert scene.finish() == []
    scene.bench.tell(e.FinishedCalled(None, b"data"))
    scene.finish()
    assert scene.bench.of(c.CallFinished) == []
    assert scene.bench.said_one(m.Finished) == m.Finished("run", [], b"data")


def test_without_a_bye_it_stays_ten_seconds(scene: Scene) -> None:
    """A distributor that has not heard may ask again for ten seconds; then the collector ends all the same."""
    scene.finish()
    scene.bench.tell(e.FinishedCalled())
    scene.bench.wait(STAY_SECONDS - 0.1)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_bye_is_answered_also_while_finished_runs(scene: Scene) -> None:
    """A distributor that leaves; a collector that was killed then calls `finished` again, alone."""
    scene.finish()
    scene.distributor.says(m.Bye("run"))
    assert scene.bench.said_one(m.Bye) == m.Bye("run")
    assert scene.bench.ended is None
    scene.bench.tell(e.PeerLost(("acks", b"d1")))
    scene.bench.tell(e.FinishedCalled())
    assert scene.bench.ended == c.Ended(0, "the run is over")
    assert scene.bench.logged() == ""


def test_a_distributor_that_comes_after_a_bye_hears_the_end(scene: Scene) -> None:
    """While `finished` runs again another one may have been started, which waits for it."""
    scene.finish()
    scene.distributor.says(m.Bye("run"))
    scene.bench.tell(e.PeerLost(("acks", b"d1")))
    second = Stranger(scene.bench, "acks", b"d2", who=b"second")
    second.says(m.Propose("pipe", "mine"))
    assert second.was_told(m.Holding)[0].finishing is True
    second.says(m.Finish("run", True, []))
    scene.bench.tell(e.FinishedCalled())
    assert second.was_told(m.Finished) == [m.Finished("run")]
    assert scene.bench.ended is None
    second.says(m.Bye("run"))
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_for_a_distributor_that_is_cut_off_it_stays_longer(scene: Scene) -> None:
    """Before `finished` has returned or after: a cut may last, and the other side waits for ever."""
    scene.finish()
    scene.bench.tell(e.PeerLost(("acks", b"d1")))
    scene.bench.tell(e.FinishedCalled())
    scene.bench.wait(ABSENT_SECONDS - 1)
    scene.distributor.reconnects(b"d2").says(m.Finish("run", True, []))
    assert scene.bench.said_one(m.Finished) == m.Finished("run")
    scene.bench.tell(e.PeerLost(("acks", b"d2")))
    scene.bench.wait(ABSENT_SECONDS - 1)
    assert scene.bench.ended is None
    scene.bench.wait(1.1)
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_a_drain_ends_also_the_stay_for_a_distributor_that_is_cut_off(scene: Scene) -> None:
    """The time of the drain that began while `finished` ran still counts."""
    scene.finish()
    scene.bench.tell(e.Drain(3.0))
    scene.bench.tell(e.PeerLost(("acks", b"d1")))
    scene.bench.tell(e.FinishedCalled())
    assert scene.bench.ended is None
    scene.bench.wait(3.1)
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_a_finished_collector_tells_any_distributor(scene: Scene) -> None:
    """A distributor that is started again on a finished run is told so, though another had been at work."""
    scene.finish()
    scene.bench.tell(e.FinishedCalled())
    second = Stranger(scene.bench, "acks", b"d2", who=b"second")
    second.says(m.Propose("pipe", "mine"))
    assert second.was_told(m.Holding)[0].finished is True


def test_while_finished_runs_it_says_so(scene: Scene) -> None:
    """One that is started again meanwhile hears that all is done, with the counts, but not that it is over."""
    scene.finish(ok=False)
    scene.bench.tell(e.PeerLost(("acks", b"d1")))
    second = Stranger(scene.bench, "acks", b"d2", who=b"second")
    second.says(m.Propose("pipe", "mine"))
    holding = second.was_told(m.Holding)[0]
    assert (holding.finished, holding.finishing, holding.ok) == (False, True, False)
    assert [one.task for one in holding.counts] == ["A"]


def test_a_bad_run_ends_with_status_1(scene: Scene) -> None:
    """Failed or aborted items make the collector's status 1."""
    scene.finish(ok=False)
    scene.bench.tell(e.FinishedCalled())
    scene.distributor.says(m.Bye("run"))
    assert scene.bench.one(c.Ended).status == 1


@pytest.mark.parametrize("where", ["ack_data", "failed", "finished"])
def test_trouble_of_its_own_functions_is_kept_once_and_ends_with_status_1(scene: Scene, where: str) -> None:
    """`ack_data`, `failed` or `finished` raised: the run goes on, the distributor hears of it, the status is 1."""
    scene.results(0)
    scene.bench.tell(e.Collected("A", (0, 1), [], b"", 1, TROUBLE if where == "ack_data" else None))
    assert scene.bench.said_one(m.Ack).collected == (0, 1)
    scene.distributor.says(m.GiveUp("run", given_up(1)))
    scene.bench.tell(e.FailedCalled("A", (1, 2), TROUBLE if where == "failed" else None))
    scene.finish()
    scene.bench.tell(e.FinishedCalled(TROUBLE if where == "finished" else None))
    assert scene.bench.said_one(m.Finished).troubles == [m.TaskError(where, TROUBLE)]
    scene.distributor.says(m.Bye("run"))
    assert scene.bench.one(c.Ended).status == 1
    assert scene.machine.troubles == {where: TROUBLE}


def test_what_always_raises_is_kept_once(scene: Scene) -> None:
    """`ack_data` raises for each of two thousand items: the first trouble is kept, and nothing grows."""
    for n in range(2000):
        scene.results(n)
        scene.bench.tell(e.Collected("A", (n, n + 1), [], b"", 1, TROUBLE))
    assert scene.machine.troubles == {"ack_data": TROUBLE}
    assert not any(isinstance(one, c.Log) for one in scene.bench.all)


def test_a_drain_finishes_what_the_thread_has(scene: Scene) -> None:
    """SIGTERM: no new results, what was begun is collected and acknowledged, then the end with status 0."""
    scene.results(0)
    scene.bench.tell(e.Drain(25.0))
    assert scene.results(1) == []
    scene.collected(0)
    assert scene.bench.said_one(m.Ack).collected == (0, 1)
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")


def test_a_drain_ends_in_time_all_the_same(scene: Scene) -> None:
    """A function that does not return is not waited for longer than the drain time."""
    scene.results(0)
    scene.bench.tell(e.Drain(3.0))
    scene.bench.wait(2.9)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(0, "drained")


def test_a_drain_does_not_wait_for_ever_for_the_last_function(scene: Scene) -> None:
    """`finished` may hang: then the drain time is the end of it, which is no success."""
    scene.finish()
    assert scene.bench.one(c.CallFinished)
    scene.bench.tell(e.Drain(3.0))
    assert scene.bench.wait(2.9) == []
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(1, "drained before its `finished` function returned")


def test_a_drain_ends_a_collector_that_only_stays_for_a_bye(scene: Scene) -> None:
    """Everything is done and said."""
    scene.finish()
    scene.bench.tell(e.FinishedCalled())
    scene.bench.tell(e.Drain(3.0))
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_an_empty_collector_drains_at_once() -> None:
    """Nothing is held, nothing is waited for; afterwards nothing more is said."""
    scene = Scene(begun=False)
    assert scene.bench.tell(e.Drain(25.0)) == [c.Ended(0, "drained")]
    assert scene.begin() == []
    assert scene.machine.next_deadline() is None
