"""How a run stands: what a distributor answers on its hop `status`, and what a worker's report says of what runs."""

from __future__ import annotations

import pytest

from tests.protocol.test_worker import Scene as WorkerScene
from tests.support.adversarial import arrives
from tests.support.bench import TROUBLE, Stranger
from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol import status
from zmqpipeline.protocol.messages import RunningItem
from zmqpipeline.protocol.to_distributor import REPORT_SECONDS


def ask(scene: Scene, peer: bytes = b"asker", *, number: int = 1) -> m.Status:
    """What the distributor answers to whoever asks now; it must be something that the wire lets in."""
    scene.bench.now += 2 * status.SAME_SECONDS
    body = m.AskStatus()
    commands = scene.bench.tell(e.Received(("status", peer), m.Envelope(b"watcher", b"", number, 0, body)))
    (sent,) = [one for one in commands if isinstance(one, c.Send) and one.peer == ("status", peer)]
    assert arrives(sent.envelope) == sent.envelope
    assert (sent.envelope.addressee, sent.envelope.received) == (b"watcher", number)
    assert isinstance(sent.envelope.body, m.Status)
    return sent.envelope.body


def why(scene: Scene, task: str = "A") -> str:
    """What holds a task up."""
    return next(one.why for one in ask(scene).tasks if one.counts.task == task)


def holds(hand: Hand, *running: RunningItem, backlog: int = 0, window: int = 1, executed: int = 0) -> None:
    """A full report that names what runs, and otherwise knows all that was sent."""
    held = tuple(one for number in sorted(item.number for item in running) for one in (number, number + 1))
    report = m.WorkerReport(
        "run", hand.task, hand.slots, window, backlog, False, held, (), "box", 7, None, executed, list(running)
    )
    hand.says(report)


def test_a_distributor_tells_before_it_begins() -> None:
    """From its first moment on: which phase it is in, and whom it waits for."""
    scene = Scene(running=False)
    told = ask(scene)
    assert (told.pipeline, told.run, told.phase) == ("pipe", "", "greeting")
    assert told.why == "no collector is connected; start one"
    assert [one.counts.state for one in told.tasks] == ["waiting"]
    scene.connect()
    assert ask(scene).why == "asks the collector what it holds"


def test_a_task_is_told_by_its_numbers() -> None:
    """States, waiting, leased, collected, failed, and the time since it opened."""
    scene = Scene(Task("A", total=9))
    opened = scene.bench.now
    worker = scene.worker(slots=2)
    scene.produce(0, 1)
    scene.ack(0)
    worker.fails(1)
    scene.ack(failed=(1, 2))
    (task,) = ask(scene).tasks
    assert (task.counts.state, task.total, task.workers) == ("open", 9, 1)
    assert (task.counts.sent, task.counts.collected, task.counts.failed) == (2, 1, 1)
    assert (task.waiting, task.leased, task.retrying, task.inherited) == (0, 0, 0, 0)
    assert task.seconds == pytest.approx(scene.bench.now - opened)


def test_a_task_tells_how_many_workers_are_desired() -> None:
    """As whoever starts them says it; nothing before, and nothing of a task that there is not."""
    scene = Scene(Task("A"))
    assert [one.desired for one in ask(scene).tasks] == [None]
    scene.bench.tell(e.WorkersDesired("A", 3))
    scene.bench.tell(e.WorkersDesired("no such task", 9))
    assert [one.desired for one in ask(scene).tasks] == [3]


def test_the_clock_of_a_task_stops_when_it_is_complete() -> None:
    """The rate of a task that is over is that of its own time."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.bench.now += 5
    scene.exhaust("A")
    scene.ack(0)
    worker.report(held=(), done=())
    scene.bench.now += 50
    (task,) = ask(scene).tasks
    assert (task.counts.state, task.seconds, task.why) == ("complete", pytest.approx(5), "")


def test_what_was_done_before_does_not_count_for_the_rate() -> None:
    """A run that was taken over says how many of its items another distributor saw done."""
    scene = Scene(running=False)
    scene.connect()
    held = m.TaskProgress("A", (0, 30), (30, 32))
    scene.holding("run", held)
    scene.holding("run", held)
    (task,) = ask(scene).tasks
    assert (task.counts.collected, task.counts.failed, task.inherited) == (30, 2, 32)


def test_the_counts_of_a_run_that_was_over_before_are_those_of_its_summary() -> None:
    """A distributor that is started while `finished` is at work has seen none of its items."""
    scene = Scene(running=False)
    scene.connect()
    counts = [m.TaskCounts("A", "complete", 5, 3, 2, redelivered=7)]
    scene.collector.says(m.Holding("run", False, b"meta", 5, [], finishing=True, ok=False, counts=counts))
    assert [one.counts for one in ask(scene).tasks] == counts


def test_a_task_says_what_it_waits_for() -> None:
    """A dependency with a total says how many are left, one without how far it is."""
    scene = Scene(Task("A", total=90), Task("B"), Task("C", ("A", "B")))
    scene.worker("A", window=3)
    scene.produce(0, 1, 2)
    scene.ack(0)
    assert why(scene, "C") == "waits for 'A': 89 of 90 left, 'B': 0 done, 0 under way"
    scene.exhaust("A", "B")
    assert why(scene, "C") == "waits for 'A': 89 of 90 left"


def test_an_exhausted_dependency_knows_its_number() -> None:
    """Also without a total: what its source has yielded is all."""
    scene = Scene(Task("A"), Task("B", ("A",)))
    scene.worker("A", window=3)
    scene.produce(0, 1, 2)
    scene.exhaust("A")
    scene.ack(0)
    assert why(scene, "B") == "waits for 'A': 2 of 3 left"


def test_an_open_task_says_what_holds_it_up() -> None:
    """No worker, a blocking source, a closed gate, a retry, a collector that is slow: each has its words."""
    scene = Scene(Task("A", retries=1, backoff=40.0))
    assert why(scene) == "no worker for 'A'"
    worker = scene.worker()
    assert why(scene) == "waits for its own function to yield the next item"
    scene.produce(0)
    assert why(scene) == ""
    worker.report(held=(0, 1), done=(0, 1))
    assert why(scene) == "1 result(s) wait for the collector"
    worker.fails(0)
    scene.produce(state="gated")
    assert why(scene) == "its gate (available) says no; the next ACK may open it"


def test_a_retry_says_when_it_is_due() -> None:
    """Nothing else is left to do: the back-off is what everybody waits for."""
    scene = Scene(Task("A", retries=1, backoff=40.0))
    worker = scene.worker()
    scene.produce(0)
    scene.exhaust("A")
    worker.fails(0)
    assert why(scene).startswith("1 item(s) to be tried again, the first in ")


def test_a_task_that_ended_badly_says_why() -> None:
    """What its source raised, and which dependency did not succeed."""
    scene = Scene(Task("A"), Task("B", ("A",)))
    scene.worker("A")
    scene.produce(state="failed")
    told = {one.counts.task: one for one in ask(scene).tasks}
    assert told["A"].why == f"failed: {TROUBLE.error}: {TROUBLE.message}"
    assert told["B"].why == "aborted: 'A', which it depends on, did not succeed"
    assert (told["A"].counts.state, told["B"].counts.state) == ("failed", "aborted")


def test_a_worker_is_told_with_what_it_runs() -> None:
    """Host, pid, threads, items done; an item of its report runs for as long as the report said, and longer."""
    scene = Scene()
    worker = scene.worker(slots=2)
    scene.produce(0, 1)
    holds(worker, RunningItem(0, 1, 4.0), RunningItem(1, 2, 0.5), backlog=2, window=2, executed=17)
    before = scene.bench.now
    (told,) = ask(scene).workers
    assert (told.address, told.host, told.pid, told.task, told.threads) == ("box/7", "box", 7, "A", 2)
    assert (told.state, told.leased, told.executed) == ("busy", 2, 17)
    passed = scene.bench.now - before
    assert [(one.number, one.attempt, pytest.approx(one.seconds)) for one in told.running] == [
        (0, 1, 4.0 + passed),
        (1, 2, 0.5 + passed),
    ]


def test_what_was_just_sent_runs_since_then() -> None:
    """A free thread begins at once with what it is given: no report need say so."""
    scene = Scene()
    scene.worker(slots=2)
    scene.produce(0)
    sent = scene.bench.now
    scene.bench.now += 3
    (told,) = ask(scene).workers
    assert told.running == [RunningItem(0, 1, pytest.approx(scene.bench.now - sent))]


def test_what_is_done_does_not_run() -> None:
    """An item that a report named is not named any more once it is done, or acknowledged."""
    scene = Scene()
    worker = scene.worker(slots=2)
    scene.produce(0, 1)
    holds(worker, RunningItem(0, 1, 4.0), RunningItem(1, 1, 4.0), backlog=2, window=2)
    scene.ack(0)
    (told,) = ask(scene).workers
    assert [one.number for one in told.running] == [1]
    worker.report(held=(1, 2), done=(1, 2))
    (told,) = ask(scene).workers
    assert (told.running, told.state) == ([], "ready")


def test_a_worker_that_leaves_is_told_as_draining_and_then_no_more() -> None:
    """The list is of those that are connected."""
    scene = Scene()
    worker = scene.worker()
    worker.report(draining=True, window=0, held=(), done=())
    assert [one.state for one in ask(scene).workers] == ["draining"]
    worker.is_lost()
    assert ask(scene).workers == []


def test_a_question_changes_nothing() -> None:
    """Nobody is given work, no link counts, no deadline moves."""
    scene = Scene()
    scene.worker()
    scene.produce(0)
    before = (scene.machine.snapshot(), scene.machine.next_deadline(), scene.collector.hears().received)
    ask(scene)
    others = [one for one in scene.bench.of(c.Send) if one.peer[0] != "status"]
    assert others == []
    assert (scene.machine.snapshot(), scene.machine.next_deadline(), scene.collector.hears().received) == before


def test_questions_at_once_get_one_answer() -> None:
    """Whoever asks a thousand times in a moment makes the distributor build one answer."""
    scene = Scene()
    first = ask(scene, b"one")
    again = scene.bench.tell(e.Received(("status", b"two"), m.Envelope(b"w", b"", 0, 0, m.AskStatus())))
    assert [one.envelope.body for one in again if isinstance(one, c.Send)] == [first]
    assert ask(scene, b"two") is not first


def test_anything_else_on_this_hop_is_counted_told_once_and_dropped() -> None:
    """A worker's report there makes no worker of its sender; its next connection is told of again."""
    scene = Scene()
    stranger = Stranger(scene.bench, "status", b"s")
    report = m.WorkerReport("run", "A", 1, 1, 0, False, (), (), "host", 0)
    stranger.says(report)
    assert "A peer on status said WorkerReport" in scene.bench.logged()
    stranger.says(report)
    assert scene.bench.last == []
    assert ask(scene).workers == []
    scene.bench.tell(e.PeerLost(stranger.peer))
    stranger.says(report)
    assert "said WorkerReport" in scene.bench.logged()
    assert scene.machine._responder.foreign == 3


def test_a_question_on_another_hop_is_no_question() -> None:
    """Workers' and collectors' hops have their own vocabulary."""
    scene = Scene()
    for hop in ("workers", "acks"):
        stranger = Stranger(scene.bench, hop, b"x", who=b"collector" if hop == "acks" else None)
        assert [one for one in stranger.says(m.AskStatus()) if isinstance(one, c.Send)] == []


def test_an_answer_stays_within_bounds() -> None:
    """Hosts with endless names, and reports that name a million items, make no answer that nobody can read."""
    scene = Scene()
    worker = scene.worker(slots=500)
    scene.produce(*range(500))
    endless = [RunningItem(number, 1, 1.0) for number in range(500)]
    worker.says(
        m.WorkerReport("run", "A", 500, 500, 500, False, (0, 500), (), "h" * 5000, 7, None, 0, endless),
    )
    (told,) = ask(scene).workers
    assert (len(told.host), len(told.address), len(told.running)) == (200, 200, m.MAX_NAMED)


def test_a_distributor_that_drains_tells_so() -> None:
    """While what is with workers is waited for, the answer names the phase; after the end there is none."""
    scene = Scene()
    scene.worker()
    scene.produce(0)
    scene.bench.tell(e.Drain(5.0))
    told = ask(scene)
    assert (told.phase, told.why.partition(":")[0]) == ("draining", "drains")
    scene.ack(0)
    assert scene.bench.ended
    assert scene.bench.tell(e.Received(("status", b"s"), m.Envelope(b"w", b"", 0, 0, m.AskStatus()))) == []


# the worker's side ----------------------------------------------------------------------------------------------------


def named(scene: WorkerScene) -> list[RunningItem] | None:
    """What the full report that is due next says of what runs."""
    scene.bench.wait(REPORT_SECONDS)
    reports = [one for one in scene.bench.said(m.WorkerReport) if one.held is not None]
    assert reports
    return reports[-1].running


def test_a_worker_names_the_first_of_what_it_holds() -> None:
    """Of what is queued and running, as many as it has threads, in the order of their coming."""
    scene = WorkerScene(slots=2)
    scene.work(0, 1, 2, 3)
    began = scene.bench.now
    assert named(scene) == [RunningItem(n, 1, pytest.approx(scene.bench.now - began)) for n in (0, 1)]
    scene.execute(1)
    second = scene.bench.now
    running = named(scene)
    assert running == [
        RunningItem(0, 1, pytest.approx(scene.bench.now - began)),
        RunningItem(2, 1, pytest.approx(scene.bench.now - second)),
    ]


def test_the_time_of_rest_does_not_count() -> None:
    """An item that comes after a minute of nothing runs since it came."""
    scene = WorkerScene()
    scene.work(0)
    scene.execute(0)
    scene.settle(0)
    scene.bench.wait(60)
    scene.work(1, attempt=3)
    came = scene.bench.now
    assert named(scene) == [RunningItem(1, 3, pytest.approx(scene.bench.now - came))]


def test_a_short_report_names_nothing_and_each_counts_what_is_done() -> None:
    """What runs is in full reports, how much was executed in all of them."""
    scene = WorkerScene()
    scene.work(0)
    scene.execute(0)
    assert (scene.report().running, scene.report().executed) == (None, 1)
    scene.work(1)
    scene.execute(failing=[1])
    assert scene.report().executed == 2
