"""The worker machine, law by law: what it holds, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.bench import TROUBLE, Bench, Stranger
from tests.support.worker_scene import Scene
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.credit import MAX_BATCH
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.delivery.window import ROOM_SECONDS
from zmqpipeline.protocol.to_distributor import IDLE_REPORT_SECONDS, REPORT_SECONDS
from zmqpipeline.protocol.worker import WorkerMachine


@pytest.fixture
def scene() -> Scene:
    """A worker of one thread that is at work on `run`."""
    return Scene()


def test_it_reports_itself_at_each_connection() -> None:
    """The first word to a distributor is a full report: who it is, what it serves, and that it holds nothing."""
    scene = Scene(welcomed=False)
    scene.bench.tell(e.Connected("workers"))
    report = scene.report()
    assert (report.run, report.task, report.slots, report.host, report.pid) == ("", "A", 1, "box", 7)
    assert (report.held, report.done, report.backlog, report.window) == ((), (), 0, 1)


def test_it_says_nothing_to_a_hop_that_is_not_there() -> None:
    """Nothing is sent before the connection, nor after it broke."""
    scene = Scene(welcomed=False)
    scene.bench.wait(59.9)
    assert scene.bench.of(c.Send) == []
    scene.connect()
    scene.distributor.says(m.Welcome("run", b""))
    scene.work(0)
    scene.bench.tell(e.Disconnected("workers"))
    scene.bench.tell(e.Disconnected("results"))
    scene.execute(0)
    assert scene.bench.of(c.Send) == []


def test_who_is_missing_is_said_after_ten_seconds_and_each_minute() -> None:
    """By the name of the role, whether it was never there or is gone; once all are there, no more."""
    scene = Scene(welcomed=False)
    scene.bench.tell(e.Tick())

    def warned(seconds: float) -> list[str]:
        scene.bench.all.clear()
        scene.bench.wait(seconds)
        return [one.text.partition(" to connect")[0] for one in scene.bench.all if isinstance(one, c.Log)]

    assert warned(121) == ["Waiting for a distributor and a collector"] * 2
    scene.bench.tell(e.Connected("workers"))
    assert warned(60) == ["Waiting for a collector"]
    scene.bench.tell(e.Connected("results"))
    assert warned(300) == []
    scene.bench.tell(e.Disconnected("workers"))
    assert warned(9) == []
    assert warned(2) == ["Waiting for a distributor"]
    assert warned(58) == []


def test_a_service_worker_waits_for_a_broker() -> None:
    """It knows no collector."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"worker", answers=True))
    bench.tell(e.Tick())
    bench.wait(61)
    (line,) = [one.text for one in bench.all if isinstance(one, c.Log)]
    assert line.startswith("Waiting for a broker to connect to")


def test_an_unanswered_report_is_said_again_each_second() -> None:
    """A report that is lost is followed by another, until somebody answers; then rarely."""
    scene = Scene(welcomed=False)
    scene.bench.tell(e.Connected("workers"))
    scene.bench.wait(3.5)
    assert len(scene.bench.said(m.WorkerReport)) == 3
    scene.distributor.says(m.Welcome("run", b""))
    scene.bench.wait(4 * IDLE_REPORT_SECONDS + 0.5)
    assert len(scene.bench.said(m.WorkerReport)) == 4


def test_a_welcome_sets_the_metadata_before_any_item() -> None:
    """The run's metadata is handed on once, and the report that follows names the run."""
    scene = Scene(welcomed=False)
    scene.connect()
    scene.distributor.says(m.Welcome("", b""))
    assert scene.machine.phase == "seeking"
    scene.distributor.says(m.Welcome("run", b"meta"))
    assert scene.bench.one(c.SetMetadata).metadata == b"meta"
    assert [one.run for one in scene.bench.said(m.WorkerReport)][-1] == "run"
    scene.distributor.says(m.Welcome("run", b"meta"))
    assert scene.bench.of(c.SetMetadata) == []


def test_work_is_executed_once_however_often_it_comes(scene: Scene) -> None:
    """An item that is queued, or done and kept, is not taken twice; new ones beside it are."""
    scene.work(0, 1)
    assert list(scene.bench.one(c.Execute).numbers) == [0, 1]
    scene.work(1, 2)
    assert list(scene.bench.one(c.Execute).numbers) == [2]
    scene.execute(0)
    scene.work(0)
    assert scene.bench.of(c.Execute) == []


def test_work_of_another_run_is_dropped(scene: Scene) -> None:
    """Items belong to a run; those of one that this worker was not welcomed to are nobody's."""
    scene.work(0, run="other")
    assert scene.bench.of(c.Execute) == []


def test_a_doubled_message_changes_nothing(scene: Scene) -> None:
    """The same message twice is taken once."""
    envelope = scene.distributor.hears().wrap(m.Work("run", "A", 1, 0.0, (0, 1), (), [b"0"]))
    scene.bench.tell(e.Received(("workers", b""), envelope))
    assert scene.bench.tell(e.Received(("workers", b""), envelope)) == []


def test_a_result_goes_out_at_once_and_is_kept_until_released(scene: Scene) -> None:
    """Results go to the collector; only the distributor's word lets go of them."""
    scene.work(0, 1)
    scene.execute(0, 1)
    results = scene.bench.said_one(m.Results)
    assert (results.spans, results.payloads, results.attempt) == ((0, 2), [b"r0", b"r1"], 1)
    assert scene.machine.snapshot().kept == 2
    scene.settle(0)
    assert scene.machine.snapshot().kept == 1
    scene.work(2, released=(1, 2))
    assert scene.machine.snapshot().kept == 0


def test_results_without_a_collector_are_told_when_it_comes(scene: Scene) -> None:
    """What was done while the collector was away is named to it at the next connection, and sent when it asks."""
    scene.bench.tell(e.Disconnected("results"))
    scene.work(0, 1)
    scene.execute(0, 1)
    scene.bench.tell(e.Connected("results"))
    assert scene.bench.said_one(m.Kept).spans == (0, 2)
    scene.collector.says(m.Missing("run", "A", (1, 2)))
    assert scene.bench.said_one(m.Results).payloads == [b"r1"]


def test_kept_results_are_named_each_second(scene: Scene) -> None:
    """As long as any result is kept, the collector is told, so that a lost one is missed at last."""
    scene.work(0)
    scene.execute(0)
    scene.bench.wait(3 * REPORT_SECONDS + 0.1)
    assert len(scene.bench.said(m.Kept)) == 3
    scene.settle(0)
    scene.bench.wait(10.0)
    assert scene.bench.said(m.Kept) == []


def test_a_collector_that_missed_something_is_told_all(scene: Scene) -> None:
    """An empty Missing for no task, or from a new collector, is a question: what do you keep?"""
    scene.work(0)
    scene.execute(0)
    scene.collector.says(m.Missing("run", "", ()))
    assert scene.bench.said_one(m.Kept).spans == (0, 1)
    scene.collector.says(m.Missing("run", "A", ()))
    assert scene.bench.said(m.Kept) == []
    Stranger(scene.bench, "results", who=b"another").says(m.Missing("run", "A", ()))
    assert scene.bench.said_one(m.Kept).spans == (0, 1)


def test_what_is_missing_and_not_kept_is_not_sent(scene: Scene) -> None:
    """A collector that asks for what was released long ago gets nothing, and nothing breaks."""
    scene.collector.says(m.Missing("run", "A", (0, 5)))
    assert scene.bench.said(m.Results) == []


def test_results_of_several_attempts_travel_apart(scene: Scene) -> None:
    """A message has one attempt number."""
    scene.work(0)
    scene.work(1, attempt=3)
    scene.execute(0)
    scene.execute(1, attempt=3)
    scene.collector.says(m.Missing("run", "A", (0, 2)))
    assert [(one.attempt, one.spans) for one in scene.bench.said(m.Results)] == [(1, (0, 1)), (3, (1, 2))]


def test_many_results_are_cut_into_messages_of_a_bounded_number() -> None:
    """No role is busy with one message for long."""
    scene = Scene()
    many = 2 * MAX_BATCH + 500
    scene.work(*range(many))
    scene.execute(*range(many))
    assert [size(one.spans) for one in scene.bench.said(m.Results)] == [MAX_BATCH, MAX_BATCH, 500]


def test_a_failure_goes_to_the_distributor_and_is_said_again_until_released(scene: Scene) -> None:
    """A failure is kept like a result, and follows each full report."""
    scene.work(0, attempt=2)
    scene.execute(failing=[0], attempt=2)
    (item,) = scene.bench.said_one(m.ItemsFailed).failures
    assert (item.task, item.number, item.attempts, item.stage, item.trouble) == ("A", 0, 2, "worker", TROUBLE)
    scene.bench.wait(2 * REPORT_SECONDS + 0.1)
    assert len(scene.bench.said(m.ItemsFailed)) == 2
    scene.settle(0)
    scene.bench.wait(10.0)
    assert scene.bench.said(m.ItemsFailed) == []


def test_a_failed_item_that_comes_again_is_executed_again(scene: Scene) -> None:
    """A later attempt replaces the failure that is kept; the same attempt again does not."""
    scene.work(0)
    scene.execute(failing=[0])
    scene.work(0)
    assert scene.bench.of(c.Execute) == []
    scene.work(0, attempt=2)
    assert scene.bench.one(c.Execute).attempt == 2


def test_a_failure_has_the_newest_attempt_that_was_asked_for(scene: Scene) -> None:
    """An item that runs when its next attempt arrives fails as that attempt, which is the one that is leased."""
    scene.work(0)
    scene.work(0, attempt=2)
    scene.execute(failing=[0])
    assert scene.bench.said_one(m.ItemsFailed).failures[0].attempts == 2


def test_what_was_released_while_it_ran_is_nobodys(scene: Scene) -> None:
    """An item that another worker finished meanwhile is neither sent nor kept when its thread is done."""
    scene.work(0, 1)
    scene.settle(0)
    scene.execute(0, failing=[1])
    assert scene.bench.said(m.Results) == []
    assert scene.machine.snapshot().kept == 1


def test_a_gap_is_answered_with_a_full_report(scene: Scene) -> None:
    """Something of the distributor's was lost: it is told what is here."""
    scene.work(0, 1)
    scene.execute(0)
    scene.distributor.loses(m.Settled("run", "A", ()))
    scene.settle()
    report = scene.report()
    assert (report.held, report.done, report.backlog) == ((0, 2), (0, 1), 1)


def test_a_new_distributor_of_the_same_run_hears_what_is_held(scene: Scene) -> None:
    """A distributor that was started again and took over the run gets a full report, and nothing is dropped."""
    scene.work(0, 1)
    scene.execute(0)
    Stranger(scene.bench, "workers", who=b"second").says(m.Settled("run", "A", ()))
    assert scene.report().held == (0, 2)
    assert scene.bench.of(c.TakeBack) == []


def test_a_resync_asks_for_a_full_report(scene: Scene) -> None:
    """The distributor saw a gap: it is told what is held."""
    scene.work(3)
    scene.distributor.says(m.Settled("run", "A", (), resync=True))
    assert scene.report().held == (3, 4)


def test_another_run_waits_for_what_still_runs(scene: Scene) -> None:
    """Items of the old run are taken back; what runs is waited for, and its result belongs to nobody."""
    scene.work(0, 1)
    scene.distributor.says(m.Welcome("next", b"more"))
    assert scene.bench.one(c.TakeBack).count is None
    assert scene.machine.phase == "changing"
    scene.work(0, run="next")
    assert scene.bench.of(c.Execute) == []
    scene.bench.tell(e.TakenBack([1]))
    assert scene.bench.of(c.SetMetadata) == []
    scene.execute(0)
    assert scene.bench.said(m.Results) == []
    assert scene.bench.one(c.SetMetadata).metadata == b"more"
    assert (scene.report().run, scene.report().held) == ("next", ())


def test_another_run_drops_the_results_of_the_old_one(scene: Scene) -> None:
    """Results of a run that is lost are no use to anybody; a log line says that they are dropped."""
    scene.work(0)
    scene.execute(0)
    scene.distributor.says(m.Welcome("next", b""))
    assert "new run" in scene.bench.logged()
    assert (scene.machine.run, scene.machine.snapshot().kept) == ("next", 0)


def test_a_free_thread_is_reported_at_once(scene: Scene) -> None:
    """After a slow item the report says that nothing is at hand; in between nothing is said."""
    scene.work(0)
    scene.execute(0, seconds=5.0)
    report = scene.report()
    assert (report.window, report.backlog, report.held) == (1, 0, None)


def test_the_window_follows_the_service_time() -> None:
    """Fast items open the window by doubling, and a report is worth it only when a quarter of it is used up."""
    scene = Scene()
    for number, expected in enumerate((2, 4, 8, 16)):
        scene.work(number)
        scene.execute(number, seconds=1e-5)
        if not scene.bench.said(m.WorkerReport):
            scene.bench.wait(ROOM_SECONDS)
        assert scene.report().window == expected
    scene.work(*range(100, 116))
    scene.execute(100, seconds=1e-5)
    assert scene.report().window == 32


def test_room_that_the_distributor_knows_of_is_told_in_one_report_for_many_items() -> None:
    """Items that come one by one are answered by results alone; the room is told 5 ms later, or when half is used."""
    scene = Scene()
    for number in range(4):
        scene.work(number)
        scene.execute(number, seconds=1e-5)
        scene.bench.wait(ROOM_SECONDS)
    assert scene.report().window == 16
    for number in range(10, 17):
        scene.work(number)
        scene.execute(number, seconds=1e-5)
        assert scene.bench.said(m.WorkerReport) == []
        assert scene.bench.said_one(m.Results).spans == (number, number + 1)
    scene.bench.wait(ROOM_SECONDS)
    assert (scene.report().backlog, scene.report().executed) == (0, 11)
    told = scene.report().window
    scene.work(*range(20, 20 + told // 2))
    scene.execute(*range(20, 20 + told // 2), seconds=1e-5)
    assert scene.report().backlog == 0


def test_an_item_that_comes_again_is_reported_at_once() -> None:
    """One that was lost with another worker goes to a free thread only: the next such item waits for the word."""
    scene = Scene()
    for number in range(4):
        scene.work(number)
        scene.execute(number, seconds=1e-5)
        scene.bench.wait(ROOM_SECONDS)
    for number in range(10, 14):
        scene.work(number, attempt=2)
        scene.execute(number, attempt=2, seconds=1e-5)
        assert scene.report().backlog == 0


def test_a_worker_whose_items_become_longer_says_at_once_that_it_has_too_much() -> None:
    """Not with its next full report only: others may be idle. It says so once for each halving, not with each item."""
    scene = Scene()
    for number in range(8):
        scene.work(number)
        scene.execute(number, seconds=1e-6)
    scene.bench.wait(ROOM_SECONDS)
    told = scene.report().window
    scene.work(*range(100, 100 + told))
    said = []
    for number in range(100, 130):
        scene.execute(number, seconds=0.01)
        said += [one.window for one in scene.bench.said(m.WorkerReport)]
    # an item of 10 ms has fifteen others at hand, and less than a halving is not told
    assert said[-1] < 40
    assert all(2 * after <= before for before, after in zip([told, *said], said, strict=False))


def test_the_snapshot_says_what_it_does(scene: Scene) -> None:
    """For people: phase, run, and what is queued, kept, executed and failed."""
    scene.work(0, 1, 2)
    scene.execute(0, failing=[1])
    snapshot = scene.machine.snapshot()
    assert (snapshot.phase, snapshot.run, snapshot.task, snapshot.slots) == ("working", "run", "A", 1)
    assert (snapshot.queued_or_running, snapshot.kept, snapshot.executed, snapshot.failed) == (1, 2, 2, 1)


def test_results_out_of_order_keep_their_numbers(scene: Scene) -> None:
    """A batch whose first and last number are those of its range may be in any order between them."""
    scene.work(0, 1, 2, 3)
    commands = scene.bench.tell(e.Executed(1, [0, 2, 1, 3], [b"r0", b"r2", b"r1", b"r3"], [], 0.1))
    sent = [one.envelope.body for one in commands if isinstance(one, c.Send)]
    (results,) = [body for body in sent if isinstance(body, m.Results)]
    assert (results.spans, list(results.payloads)) == ((0, 4), [b"r0", b"r1", b"r2", b"r3"])


def test_a_worker_that_is_welcomed_to_its_own_run_reports_at_once(scene: Scene) -> None:
    """A distributor that was started anew goes on with the run: it hands out nothing before it has heard it."""
    scene.distributor.says(m.Welcome("run", b"meta"))
    assert scene.bench.said_one(m.WorkerReport).held is not None


def test_what_is_on_trial_begins_when_the_distributor_has_heard_that_it_is_here(scene: Scene) -> None:
    """The worker says so at once; the answer to that, and no other message, lets it begin."""
    scene.distributor.says(m.Work("run", "C", 2, 0.0, (7, 8), (), [b"x"], b"", True))
    assert scene.bench.of(c.Execute) == []
    report = scene.bench.said_one(m.WorkerReport)
    assert report.held == (7, 8)
    said = scene.bench.of(c.Send)[-1].envelope.number
    peer, link = scene.distributor.peer, scene.distributor.link
    for received, begun in ((said - 1, 0), (said, 1)):
        envelope = replace(link.wrap(m.Settled("run", "C", ())), received=received)
        scene.bench.tell(e.Received(peer, envelope))
        assert len(scene.bench.of(c.Execute)) == begun


def test_a_full_worker_hands_back_what_comes_beyond_its_room() -> None:
    """It was sent before it was heard that the worker is full: results as large as the last ones had no room."""
    scene = Scene(options=Options(max_held_bytes=1600))
    scene.work(0)
    scene.bench.tell(e.Executed(1, [0], [bytes(1700)], [], 1.0))
    assert scene.bench.said(m.WorkerReport)[-1].window == 0
    scene.work(1, 2, 3)
    assert scene.bench.of(c.Execute) == []
    assert scene.bench.said_one(m.ItemsReturned).spans == (1, 4)


def test_what_is_on_trial_is_handed_back_by_a_drain(scene: Scene) -> None:
    """It had not begun: it goes back with what the threads had not."""
    scene.distributor.says(m.Work("run", "C", 2, 0.0, (7, 8), (), [b"x"], b"", True))
    scene.bench.tell(e.Drain(10.0))
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (7, 8)
    assert scene.bench.of(c.Ended)


def test_what_keeps_the_threads_busy_is_told_until_it_ends(scene: Scene) -> None:
    """All reports name it; what is handed over meanwhile changes nothing, its own end does."""
    scene.distributor.says(m.Work("run", "C", 1, 0.0, (0, 9), (), [b"x"] * 9))
    scene.bench.tell(e.Running([1]))
    assert scene.bench.said_one(m.WorkerReport).begun == (1, 2)
    scene.bench.tell(e.Executed(1, [0], [b"r"], [], 1e-5))
    scene.bench.wait(1.0)
    assert [one.begun for one in scene.bench.said(m.WorkerReport)][-1] == (1, 2)
    scene.bench.tell(e.Executed(1, [1], [b"r"], [], 1.0))
    reports = scene.bench.said(m.WorkerReport)
    scene.bench.wait(0.01)
    assert next(one.begun for one in (*reports, *scene.bench.said(m.WorkerReport))) is None
