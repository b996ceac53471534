"""How a run ends, machine by machine: in whole, not in whole, and early; and who is told what."""

from __future__ import annotations

import pytest

from tests.protocol import test_collector, test_worker
from tests.support.bench import TROUBLE, Bench, Stranger
from tests.support.scenes import Scene
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import FAREWELL_SECONDS, HURRY_SECONDS, DistributorMachine
from zmqpipeline.protocol.error_info import ErrorInfo, FailedItem, FailedKind
from zmqpipeline.protocol.run_end import early, not_collected
from zmqpipeline.protocol.worker import WorkerMachine

KEY = ErrorInfo("KeyError", "'m'", "", "boom.py:14 work")
OF_DISTRIBUTOR, OF_COLLECTOR = early("distributor"), early("collector")


def test_a_letter_names_tasks_numbers_and_reasons() -> None:
    """And not more than a few of them."""
    counts = [m.TaskCounts("A", "complete", failed=1000), m.TaskCounts("B", "aborted"), m.TaskCounts("C", "complete")]
    assert not_collected(counts, {"D": KEY, "finished": KEY}, {"A": KEY}) == (
        "The run is over, but not everything was collected: task 'D' was not sent in whole: KeyError: 'm' in "
        "boom.py:14 work; the finished function raised KeyError: 'm' in boom.py:14 work; task 'A': 1,000 failed "
        "(KeyError: 'm' in boom.py:14 work); task 'B': aborted."
    )
    many = [m.TaskCounts(f"T{n}", "complete", failed=1) for n in range(100)]
    assert not_collected(many, {}, {}).endswith("task 'T4': 1 failed; and 95 more.")


def test_a_letter_does_not_say_that_something_is_missing_where_nothing_is() -> None:
    """A function that is for no one item raised; of a source that did, and of an item that failed, something is."""
    whole = [m.TaskCounts("A", "complete", collected=5)]
    for name in ("finished", "ack_data", "failed"):
        assert not_collected(whole, {name: KEY}, {}) == (
            f"The run is over and everything was collected, but the {name} function raised "
            "KeyError: 'm' in boom.py:14 work."
        )
    for counts, unsent in (
        ([m.TaskCounts("finished", "failed")], {"finished": KEY}),
        (whole, {"A": KEY, "finished": KEY}),
        ([m.TaskCounts("A", "complete", failed=1)], {"finished": KEY}),
    ):
        assert "but not everything was collected: " in not_collected(counts, unsent, {})


def test_workers_and_collector_are_told_what_a_source_raised() -> None:
    """Finish carries it to the collector, RunEnded to the workers; the status is 1, and the reason a letter."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(state="failed")
    finish = scene.bench.said_one(m.Finish)
    assert (finish.ok, finish.troubles) == (False, [m.TaskError("A", TROUBLE)])
    scene.collector.says(m.Finished("run"))
    (told,) = worker.was_told(m.RunEnded)
    assert (told.ok, told.troubles) == (False, [m.TaskError("A", TROUBLE)])
    worker.says(m.Goodbye("run", "A"))
    scene.collector.says(m.Bye("run"))
    assert scene.bench.one(c.Ended) == c.Ended(1, told.reason)
    assert "task 'A' was not sent in whole: ValueError: as planned" in told.reason
    assert scene.machine.ok is False


def test_a_distributor_hears_what_failed_in_the_collector() -> None:
    """The kinds and their numbers come with Finished, and go on to the workers."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0, state="exhausted")
    scene.ack(failed=(0, 1))
    item = FailedItem("A", 0, 1, "collector", KEY, b"p")
    scene.collector.says(m.Finished("run", kinds=[FailedKind(1000, item)]))
    assert [kind.count for kind in scene.machine.failed.kinds] == [1000]
    assert "task 'A': 1 failed (KeyError: 'm' in boom.py:14 work)" in worker.was_told(m.RunEnded)[0].reason


@pytest.mark.parametrize("final", [False, True])
def test_only_a_final_drain_ends_the_run(final: bool) -> None:
    """What is leased is waited for; then the others are told, and answer; else nobody is told."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.bench.tell(e.Drain(25.0, final))
    assert worker.was_told(m.RunEnded) == []
    scene.ack(0)
    if not final:
        assert scene.bench.one(c.Ended) == c.Ended(0, "drained")
        assert scene.bench.said(m.RunEnded) == []
        return
    told = m.RunEnded("run", False, OF_DISTRIBUTOR)
    assert (worker.was_told(m.RunEnded), scene.collector.was_told(m.RunEnded)) == ([told], [told])
    worker.says(m.Goodbye("run", "A"))
    assert scene.bench.ended is None
    scene.collector.says(told)
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")
    assert scene.machine.ok is False


def test_an_early_end_is_said_again_and_not_waited_for_for_ever() -> None:
    """Each second, at a new connection, and at most two seconds."""
    scene = Scene()
    scene.worker()
    scene.bench.tell(e.Drain(25.0, True))
    scene.connect()
    assert scene.bench.said(m.RunEnded)
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    assert scene.bench.said(m.RunEnded)
    assert scene.bench.ended == c.Ended(0, "drained")


def test_an_early_end_before_the_run_has_begun() -> None:
    """Worker and collector without a run are told, too; without a collector there is none to wait for."""
    scene = Scene(running=False)
    worker = scene.worker()
    scene.connect()
    scene.bench.tell(e.Drain(25.0, True))
    assert [one.run for one in worker.was_told(m.RunEnded)] == ["run"]
    assert scene.collector.was_told(m.RunEnded)
    alone = Scene(running=False)
    alone.bench.tell(e.Drain(25.0, True))
    assert alone.bench.one(c.Ended) == c.Ended(0, "drained")


def test_a_second_drain_cuts_the_first_short() -> None:
    """An item that holds its worker is waited for no longer; the others are told all the same."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.bench.tell(e.Drain(25.0, True))
    scene.bench.tell(e.Drain(0.0, True))
    assert worker.was_told(m.RunEnded)
    scene.bench.wait(HURRY_SECONDS + 0.1)
    assert scene.bench.ended == c.Ended(0, "drained")


def test_a_collector_that_ends_for_good_takes_the_run_along() -> None:
    """The distributor does not wait for what nobody will collect; its status is 1, its workers are told."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.collector.says(m.RunEnded("another", False, OF_COLLECTOR))
    assert worker.was_told(m.RunEnded) == []
    scene.collector.says(m.RunEnded("run", False, OF_COLLECTOR))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("run", False, OF_COLLECTOR)]
    worker.says(m.Goodbye("run", "A"))
    assert scene.bench.one(c.Ended) == c.Ended(1, OF_COLLECTOR)


def test_a_connection_that_comes_back_in_the_farewell_ends_no_collector() -> None:
    """The run was over before: only an early end is said to a collector in this way."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run"))
    scene.connect()
    assert scene.collector.was_told(m.RunEnded) == []


# the collector --------------------------------------------------------------------------------------------------------


def test_a_collector_hears_that_the_run_ended_early() -> None:
    """It answers, finishes what its thread has, and ends with status 1; `finished` is not called."""
    scene = test_collector.Scene()
    scene.results(0)
    scene.distributor.says(m.RunEnded("run", False, OF_DISTRIBUTOR))
    assert scene.distributor.was_told(m.RunEnded)
    scene.collected(0)
    assert scene.bench.said_one(m.Ack).collected == (0, 1)
    assert scene.bench.one(c.Ended) == c.Ended(1, OF_DISTRIBUTOR)
    assert not any(isinstance(one, c.CallFinished) for one in scene.bench.all)


def test_a_collector_without_a_run_ends_with_whoever_proposed_one() -> None:
    """But not by the word of a distributor of another run, while it has one."""
    scene = test_collector.Scene(begun=False)
    scene.distributor.says(m.Propose("pipe", "run"))
    scene.distributor.says(m.RunEnded("run", False, OF_DISTRIBUTOR))
    assert scene.bench.one(c.Ended) == c.Ended(1, OF_DISTRIBUTOR)
    scene = test_collector.Scene()
    scene.distributor.says(m.RunEnded("another", False, OF_DISTRIBUTOR))
    assert scene.bench.ended is None


@pytest.mark.parametrize("final", [False, True])
def test_a_final_drain_of_a_collector_is_told(final: bool) -> None:
    """After its last ACK, to the distributor; one that may be followed by another says nothing."""
    scene = test_collector.Scene()
    scene.results(0)
    scene.bench.tell(e.Drain(25.0, final))
    scene.collected(0)
    told = [m.RunEnded("run", False, OF_COLLECTOR)] if final else []
    assert scene.distributor.was_told(m.RunEnded) == told
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")


def test_workers_without_a_distributor_are_told_by_the_collector() -> None:
    """Those that wait for a run have said that they are here."""
    scene = test_collector.Scene(begun=False)
    scene.worker.says(m.Kept("", "A", ()))
    scene.bench.tell(e.Drain(25.0, True))
    assert scene.worker.was_told(m.RunEnded) == [m.RunEnded("", False, OF_COLLECTOR)]
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")


def test_a_collector_that_was_just_begun_stays_for_those_who_wait() -> None:
    """Whoever tries to connect meanwhile is told, once; then it ends. One that is older ends at once."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector", stay=0.1))
    bench.tell(e.Drain(25.0, True))
    assert bench.ended is None
    bench.wait(0.05)
    worker = Stranger(bench, "results", b"w1", who=b"worker")
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    worker.says(m.Kept("", "A", ()))
    assert worker.was_told(m.RunEnded)
    distributor.says(m.Propose("pipe", "run"))
    assert distributor.was_told(m.RunEnded)
    assert worker.was_told(m.RunEnded) == []
    distributor.says(m.RunEnded("run", False, OF_COLLECTOR))
    bench.wait(0.06)
    assert bench.ended == c.Ended(0, "drained")
    older = Bench(CollectorMachine("pipe", incarnation=b"collector", stay=0.1))
    older.tell(e.Tick())
    older.wait(0.2)
    older.tell(e.Drain(25.0, True))
    assert older.ended == c.Ended(0, "drained")


@pytest.mark.parametrize("final", [False, True])
def test_a_run_that_comes_too_late_for_a_collector_is_not_refused(final: bool) -> None:
    """It ends before it has begun, and the distributor's Begin was on its way: that it ends is all that it says."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector", stay=0.1))
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Propose("pipe", "run"))
    bench.tell(e.Drain(25.0, final))
    distributor.says(m.Begin("pipe", "run", b"", [m.TaskProgress("A", (), ())]))
    said = [one.envelope.body for one in bench.all if isinstance(one, c.Send)]
    assert [one for one in said if isinstance(one, m.Refused)] == []
    assert len([one for one in said if isinstance(one, m.RunEnded)]) == final
    bench.wait(0.11)
    assert bench.ended == c.Ended(0, "drained")


def test_a_distributor_that_its_user_ends_at_once_stays_longer_than_a_short_run() -> None:
    """Who starts several roles at once keeps the machine busy: an attempt to connect takes longer than it should."""
    machine = DistributorMachine("pipe", [TaskSpec("A")], incarnation=b"d", run="run", stay=0.1, early_stay=1.0)
    bench = Bench(machine)
    bench.tell(e.Drain(25.0, True))
    bench.wait(0.9)
    worker = Stranger(bench, "workers", b"w1", who=b"worker")
    worker.says(m.WorkerReport("", "A", 1, 1, 0, False, (), (), "host", 1))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("run", False, OF_DISTRIBUTOR)]
    worker.says(m.Goodbye("", "A"))
    assert bench.ended is None
    bench.wait(0.11)
    assert bench.ended == c.Ended(0, "drained")


def test_a_distributor_that_says_farewell_is_not_refused_any_more() -> None:
    """What it said before it heard of the end was answered later."""
    scene = Scene()
    worker = scene.worker()
    scene.collector.says(m.RunEnded("run", False, OF_COLLECTOR))
    scene.collector.says(m.Refused("This collector holds another run."))
    assert scene.bench.ended is None
    worker.says(m.Goodbye("run", "A"))
    assert scene.bench.one(c.Ended) == c.Ended(1, OF_COLLECTOR)


def test_a_distributor_that_was_just_begun_stays_for_those_who_wait() -> None:
    """A worker that comes meanwhile is told, and a collector that it finds."""
    machine = DistributorMachine("pipe", [TaskSpec("A")], incarnation=b"distributor", run="run", stay=0.1)
    bench = Bench(machine)
    bench.tell(e.Drain(25.0, True))
    assert bench.ended is None
    worker = Stranger(bench, "workers", b"w1", who=b"worker")
    worker.says(m.WorkerReport("", "A", 1, 1, 0, False, (), (), "host", 1))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("run", False, OF_DISTRIBUTOR)]
    worker.says(m.Goodbye("", "A"))
    bench.wait(0.11)
    assert bench.ended == c.Ended(0, "drained")


def test_a_collector_says_what_failed_in_it() -> None:
    """Its kinds go with the last word; those that the distributor has given up itself are not told back."""
    scene = test_collector.Scene()
    scene.results(0)
    scene.collected(failing=[0])
    scene.bench.tell(e.FailedCalled("A", (0, 1)))
    scene.distributor.says(m.GiveUp("run", test_collector.given_up(1)))
    scene.bench.tell(e.FailedCalled("A", (1, 2)))
    scene.finish(ok=False)
    scene.bench.tell(e.FinishedCalled())
    (kind,) = scene.bench.said_one(m.Finished).kinds
    assert (kind.items, kind.first.number, kind.first.stage) == (1, 0, "collector")
    scene.distributor.says(m.Bye("run"))
    assert scene.bench.one(c.Ended).status == 1


# the worker -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "told", "ends"), [("", "", True), ("", "run", True), ("run", "", True), ("run", "another", False)]
)
def test_a_worker_without_a_distributor_believes_the_collector(run: str, told: str, ends: bool) -> None:
    """While a distributor is there, the word is that one's."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"worker"))
    distributor = Stranger(bench, "workers", who=b"distributor")
    collector = Stranger(bench, "results", who=b"collector")
    bench.tell(e.Connected("results"))
    assert collector.was_told(m.Kept) == [m.Kept("", "A", (), bench.machine._outgoing.credit, 0)]
    bench.tell(e.Connected("workers"))
    if run:
        distributor.says(m.Welcome(run, b""))
    collector.says(m.RunEnded(told, False, OF_COLLECTOR))
    assert bench.ended is None
    bench.tell(e.Disconnected("workers"))
    collector.says(m.RunEnded(told, False, OF_COLLECTOR))
    assert (bench.ended == c.Ended(0, OF_COLLECTOR)) is ends


def test_a_worker_keeps_how_the_run_ended() -> None:
    """Its own status is 0: it is no judge of a run."""
    scene = test_worker.Scene()
    ended = m.RunEnded("run", False, OF_DISTRIBUTOR)
    scene.distributor.says(ended)
    assert scene.bench.one(c.Ended) == c.Ended(0, OF_DISTRIBUTOR)
    assert scene.machine.ended_by == ended


def staying() -> tuple[Bench, Stranger]:
    """A worker that stays, in the middle of a run, and its distributor."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"worker", stay=True))
    distributor = Stranger(bench, "workers", who=b"distributor")
    bench.tell(e.Connected("workers"))
    bench.tell(e.Connected("results"))
    distributor.says(m.Welcome("run", b""))
    return bench, distributor


def test_a_worker_that_stays_forgets_the_run_and_waits_for_the_next() -> None:
    """It says goodbye, drops its results, and reports anew to the next distributor."""
    bench, distributor = staying()
    distributor.says(m.Work("run", "A", 1, 0.0, (0, 1), (), [b"0"]))
    bench.tell(e.Executed(1, [0], [b"r"], [], 0.1))
    distributor.says(m.RunEnded("run", False, OF_DISTRIBUTOR))
    assert bench.said_one(m.Goodbye).run == "run"
    assert bench.said(m.WorkerReport) == []
    assert "stays for the next run" in bench.logged()
    assert (bench.machine.phase, bench.machine.run, bench.ended) == ("seeking", "", None)
    bench.tell(e.Disconnected("workers"))
    bench.tell(e.Connected("workers"))
    assert bench.said_one(m.WorkerReport).held == ()
    Stranger(bench, "workers", who=b"next").says(m.Welcome("next run", b""))
    assert (bench.machine.phase, bench.machine.run) == ("working", "next run")
    bench.tell(e.Drain(25.0))
    bench.tell(e.TakenBack([]))
    assert (bench.one(c.Ended), bench.machine.ended_by) == (c.Ended(0, "drained"), None)


def test_a_worker_that_stays_waits_for_what_runs_before_the_next_run() -> None:
    """An item of the old run that is being executed is not taken for one of the next."""
    bench, distributor = staying()
    distributor.says(m.Work("run", "A", 1, 0.0, (0, 1), (), [b"0"]))
    distributor.says(m.RunEnded("run"))
    assert bench.machine.run == "run"
    distributor.says(m.RunEnded("run"))
    assert bench.said(m.Goodbye)
    bench.tell(e.TakenBack([]))
    bench.tell(e.Executed(1, [0], [b"r"], [], 0.1))
    assert (bench.machine.phase, bench.machine.run) == ("seeking", "")
    assert not [one for one in bench.all if isinstance(one, c.Send) and isinstance(one.envelope.body, m.Results)]


def test_a_worker_that_stays_and_drains_ends() -> None:
    """SIGTERM and the end of the run together: it does not stay."""
    bench, distributor = staying()
    distributor.says(m.Work("run", "A", 1, 0.0, (0, 1), (), [b"0"]))
    bench.tell(e.Drain(25.0))
    distributor.says(m.RunEnded("run"))
    assert bench.one(c.Ended).status == 0
