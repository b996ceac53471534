"""The distributor machine, law by law: the run, its tasks, the collector, the end."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE, Stranger
from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.errors import DependencyError
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.distributor import FAREWELL_SECONDS
from zmqpipeline.protocol.waiting import WARN_FIRST_SECONDS, WARN_SECONDS

# the beginning -----------------------------------------------------------------------------------------------------


def test_nothing_is_handed_out_before_a_collector_was_heard() -> None:
    """A worker that comes first is welcomed to no run; the source is not asked."""
    scene = Scene(running=False)
    worker = Hand(scene)
    worker.report(run="", held=(), done=())
    assert worker.was_told(m.Welcome) == [m.Welcome("", b"")]
    assert scene.bench.of(c.Produce) == []
    scene.connect()
    assert scene.bench.said_one(m.Propose) == m.Propose("pipe", "run")


def test_a_proposal_is_said_again_each_second() -> None:
    """A lost Propose, or a lost answer, is mended by the next."""
    scene = Scene(running=False)
    scene.connect()
    scene.bench.wait(3.5)
    assert len(scene.bench.said(m.Propose)) == 3


def test_a_run_begins_when_the_collector_holds_it() -> None:
    """Propose, Holding, Begin, Holding: then the tasks start, and the workers that are here are welcomed."""
    scene = Scene(running=False)
    worker = Hand(scene)
    worker.report(run="", held=(), done=())
    scene.connect()
    scene.holding()
    assert scene.bench.said_one(m.Begin) == m.Begin("pipe", "run", b"", [m.TaskProgress("A", (), ())])
    assert scene.bench.of(c.StartTasks) == []
    scene.holding("run")
    assert scene.bench.one(c.StartTasks).metadata == b""
    assert worker.was_told(m.Welcome) == [m.Welcome("run", b"")]
    assert scene.state() == "open"


def test_local_metadata_is_loaded_once_before_the_run() -> None:
    """The metadata function is called when a collector without a run was heard; its dict goes to all."""
    scene = Scene(running=False, metadata="local")
    scene.connect()
    assert scene.bench.of(c.LoadMetadata) == []
    scene.holding()
    assert scene.bench.one(c.LoadMetadata)
    scene.holding()
    assert scene.bench.of(c.LoadMetadata) == []
    scene.bench.tell(e.MetadataLoaded(b"meta"))
    assert scene.bench.said_one(m.Begin).metadata == b"meta"
    scene.holding("run")
    assert scene.bench.one(c.StartTasks).metadata == b"meta"


def test_remote_metadata_is_waited_for_and_warned_of() -> None:
    """Nothing begins before the metadata worker has spoken; the log says after a while what is missing."""
    scene = Scene(running=False, metadata="remote")
    scene.connect()
    scene.holding()
    scene.bench.wait(WARN_FIRST_SECONDS + 1)
    assert "Waiting for the metadata worker" in scene.bench.logged()
    sender = Stranger(scene.bench, "metadata", b"m")
    sender.says(m.Metadata(b"meta"))
    assert scene.bench.said_one(m.Begin).metadata == b"meta"
    assert sender.was_told(m.MetadataTaken) == [], "no collector has the run yet"
    scene.holding("run")
    assert sender.was_told(m.MetadataTaken)


def test_remote_metadata_that_comes_first_is_kept() -> None:
    """The metadata worker may come before the collector; it is answered when that one has the run, not before."""
    scene = Scene(running=False, metadata="remote")
    sender = Stranger(scene.bench, "metadata", b"m")
    for _ in range(2):
        sender.says(m.Metadata(b"meta"))
        assert sender.was_told(m.MetadataTaken) == []
    scene.connect()
    scene.holding()
    assert scene.bench.said_one(m.Begin).metadata == b"meta"
    assert sender.was_told(m.MetadataTaken) == []
    scene.holding("run")
    assert sender.was_told(m.MetadataTaken)
    sender.says(m.Metadata(b"meta"))
    assert sender.was_told(m.MetadataTaken), "said again, it is answered again"


def test_metadata_that_come_too_late_are_not_opened() -> None:
    """Who sends them when the run has some is told that they are taken, and ends."""
    scene = Scene(running=False, metadata="remote")
    opened = []
    scene.machine._giving._is_dict = lambda packed: bool(opened.append(packed)) or True
    sender = Stranger(scene.bench, "metadata", b"m")
    sender.says(m.Metadata(b"meta"))
    scene.connect()
    scene.holding()
    scene.holding("run")
    sender.says(m.Metadata(b"others"))
    assert sender.was_told(m.MetadataTaken)
    assert opened == [b"meta"]
    assert scene.machine.metadata == b"meta"


def test_metadata_that_raised_aborts_every_task() -> None:
    """No task can run without it: all are aborted, the run ends with status 1, and the trouble is kept."""
    scene = Scene(Task("A"), Task("B"), running=False, metadata="local")
    scene.connect()
    scene.holding()
    scene.bench.tell(e.MetadataLoaded(b"", TROUBLE))
    raised = "the metadata function raised ValueError: as planned"
    assert scene.bench.logged(40).splitlines() == [
        f"{raised.capitalize().replace('valueerror', 'ValueError')}.",
        f"Task 'A' is aborted: {raised}.",
        f"Task 'B' is aborted: {raised}.",
    ]
    scene.holding("run")
    assert scene.machine.troubles == {"metadata": TROUBLE}
    assert (scene.state("A"), scene.state("B")) == ("aborted", "aborted")
    assert scene.bench.said_one(m.Finish).ok is False


def test_no_collector_is_warned_of() -> None:
    """After five seconds, then each minute, the log says what is missing and which command starts it."""
    scene = Scene(running=False)
    scene.bench.tell(e.Tick())
    scene.bench.wait(WARN_FIRST_SECONDS + 2 * WARN_SECONDS + 1)
    assert scene.bench.logged().count("python -m app collector") == 3


def test_a_refusal_ends_it_with_the_reason() -> None:
    """A collector of another pipeline: a configuration error, worded by the collector."""
    scene = Scene(running=False)
    scene.connect()
    scene.collector.says(m.Refused("not yours"))
    assert scene.bench.one(c.Ended) == c.Ended(2, "not yours")


def test_dependencies_are_checked_at_once() -> None:
    """A circle is refused when the machine is made."""
    with pytest.raises(DependencyError, match="circle"):
        Scene(Task("A", depends_on=("B",)), Task("B", depends_on=("A",)))


# taking over, and the collector's absence -----------------------------------------------------------------------------


def test_an_unfinished_run_goes_on_here() -> None:
    """A distributor that is started again takes over run, metadata and progress, and skips what is done."""
    scene = Scene(running=False)
    scene.connect()
    scene.holding("old", m.TaskProgress("A", (0, 2), (2, 3)), count=3)
    begin = scene.bench.said_one(m.Begin)
    assert (begin.run, begin.metadata) == ("old", b"meta")
    scene.holding("old", m.TaskProgress("A", (0, 2), (2, 3)), count=3)
    assert scene.bench.one(c.StartTasks).metadata == b"meta"
    assert scene.machine.last_ack[1] == 3
    worker = Hand(scene)
    worker.report(run="old", held=(3, 4), done=(3, 4))
    scene.produce(0, 1, 2, 3, 4)
    assert worker.given() == [4], "0 to 2 are done, 3 is this worker's own"


def test_a_finished_run_is_over() -> None:
    """A collector that says that all is finished: nothing to do but to tell the workers that come back; status 0."""
    scene = Scene(running=False)
    scene.connect()
    scene.holding("old", finished=True)
    worker = Hand(scene)
    worker.report(run="old", held=(0, 1), done=(0, 1))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("old")]
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    assert scene.bench.said_one(m.Bye).run == "old"
    scene.collector.says(m.Bye("old"))
    assert scene.bench.one(c.Ended) == c.Ended(0, "already finished")


def test_a_new_collector_is_told_what_is_done() -> None:
    """At each connection, while ACKs are waited for, the collector is told run and progress."""
    scene = Scene()
    scene.worker(window=2)
    scene.produce(0, 1)
    scene.ack(0)
    scene.bench.tell(e.Disconnected("acks"))
    assert "connection to the collector broke" in scene.bench.logged()
    scene.collector = Stranger(scene.bench, "acks", who=b"another")
    scene.connect()
    assert scene.bench.said_one(m.Begin).progress == [m.TaskProgress("A", (), (), told=1)], "only how much it is"
    scene.holding()
    assert scene.bench.said_one(m.Begin).progress == [m.TaskProgress("A", (0, 1), ())], "it has nothing: all of it"
    scene.holding("run", m.TaskProgress("A", (0, 2), ()), count=2)
    assert scene.machine.snapshot().leased == {"A": 0}


def test_a_collector_started_anew_at_the_end_is_told_the_run_before_its_end() -> None:
    """Finish alone means nothing to an empty collector: Begin comes before it."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.bench.tell(e.Disconnected("acks"))
    scene.collector = Stranger(scene.bench, "acks", who=b"another")
    scene.connect()
    assert [type(one.envelope.body) for one in scene.bench.of(c.Send)] == [m.Begin, m.Finish]


def test_missing_acks_are_asked_for_each_second() -> None:
    """A lost ACK is in the next Holding; while nothing is out, nothing is asked."""
    scene = Scene()
    worker = scene.worker()
    scene.bench.wait(5.0)
    assert scene.bench.said(m.Begin) == []
    scene.produce(0)
    scene.bench.wait(2.5)
    assert len(scene.bench.said(m.Begin)) == 2
    scene.holding("run", m.TaskProgress("A", (0, 1), ()), count=1)
    scene.bench.wait(0.1)
    assert worker.released() == [0]


def test_a_gap_from_the_collector_is_asked_about_at_once() -> None:
    """An ACK was lost: the distributor asks what the collector holds."""
    scene = Scene()
    scene.worker(window=3)
    scene.produce(0, 1, 2)
    scene.collector.loses(m.Ack("run", "A", (0, 1), (), 0, 1, b""))
    scene.ack(1)
    assert scene.bench.said(m.Begin)


def test_acks_of_another_run_or_an_unknown_task_change_nothing() -> None:
    """A message that belongs elsewhere is dropped."""
    scene = Scene()
    scene.worker()
    scene.produce(0)
    scene.collector.says(m.Ack("other", "A", (0, 1), (), 0, 1, b""))
    scene.collector.says(m.Ack("run", "X", (0, 1), (), 0, 1, b""))
    assert scene.machine.snapshot().leased == {"A": 1}


# tasks ----------------------------------------------------------------------------------------------------------------


def test_a_task_begins_when_what_it_needs_is_acknowledged() -> None:
    """No source of B is asked before the last item of A is acknowledged, exhausted or not."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",)))
    scene.worker("A")
    other = scene.worker("B")
    scene.produce(0)
    scene.exhaust("A")
    assert scene.state("B") == "waiting"
    scene.ack(0)
    assert (scene.state("A"), scene.state("B")) == ("complete", "open")
    assert scene.bench.one(c.Produce).task == "B"
    scene.produce(0, task="B")
    assert other.given() == [0]


def test_independent_tasks_are_served_side_by_side() -> None:
    """Two open tasks each ask their own source for their own worker."""
    scene = Scene(Task("A"), Task("B"))
    scene.worker("A")
    assert scene.bench.one(c.Produce).task == "A"
    scene.worker("B")
    assert scene.bench.one(c.Produce).task == "B"


def test_a_failed_item_aborts_what_depends_on_its_task() -> None:
    """By default a dependent of a task with a failed item is aborted, and what depends on that, too."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",)), Task("C", depends_on=("B",)))
    worker = scene.worker("A")
    scene.produce(0)
    worker.fails(0)
    assert scene.bench.said_one(m.GiveUp).failures[0].number == 0
    scene.exhaust("A")
    scene.ack(failed=(0, 1))
    assert (scene.state("A"), scene.state("B"), scene.state("C")) == ("complete", "aborted", "aborted")
    assert scene.bench.said_one(m.Finish).ok is False


def test_a_dependent_may_go_on_after_failed_items() -> None:
    """With on_failed="continue" a dependent begins when its task is over, failed items or not."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",), on_failed="continue"))
    worker = scene.worker("A")
    scene.produce(0)
    worker.fails(0)
    scene.exhaust("A")
    scene.ack(failed=(0, 1))
    assert scene.state("B") == "open"


@pytest.mark.parametrize("on_failed", ["abort", "continue"])
def test_a_source_that_raised_fails_its_task_and_aborts_dependents(on_failed: str) -> None:
    """What was yielded before still finishes; dependents are aborted either way; independent tasks go on."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",), on_failed=on_failed), Task("X"))
    worker = scene.worker("A", window=2)
    scene.produce(0, state="failed")
    assert worker.given() == [0]
    assert scene.machine.troubles == {"A": TROUBLE}
    assert scene.state("B") == "waiting"
    scene.ack(0)
    assert (scene.state("A"), scene.state("B"), scene.state("X")) == ("failed", "aborted", "open")
    scene.worker("X")
    scene.exhaust("X")
    assert scene.bench.said_one(m.Finish).ok is False


def test_an_aborted_task_with_a_total_counts_its_items() -> None:
    """The summary says how many items were aborted, if the task had told."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",), total=7))
    scene.worker("A")
    scene.produce(state="failed")
    counts = {one.task: one for one in scene.machine.counts()}
    assert (counts["B"].state, counts["B"].aborted) == ("aborted", 7)


# the gate -------------------------------------------------------------------------------------------------------------


def test_a_closed_gate_is_asked_again_after_each_ack() -> None:
    """The source is asked with the newest ACK's task, number and data; a closed gate waits for the next ACK."""
    scene = Scene()
    scene.worker(window=2)
    assert scene.bench.one(c.Produce) == c.Produce("A", 2, scene.bench.one(c.Produce).address, "", 0, b"")
    scene.produce(0, state="gated")
    assert scene.bench.of(c.Produce) == []
    scene.ack(0, data=b"data")
    asked = scene.bench.one(c.Produce)
    assert (asked.ack_task, asked.ack_id, asked.ack_data) == ("A", 1, b"data")


def test_an_ack_that_came_while_the_gate_was_asked_counts() -> None:
    """The gate said no, knowing less than is known now: it is asked again at once."""
    scene = Scene()
    scene.worker(window=3)
    scene.produce(0, state="more")
    scene.ack(0)
    assert scene.bench.of(c.Produce) == []
    scene.produce(state="gated")
    assert scene.bench.one(c.Produce).ack_id == 1


def test_the_gate_of_a_new_distributor_is_asked_with_the_last_ack_of_its_forerunner() -> None:
    """The collector tells it when the run is taken over; a collector that is started anew is told it in turn."""
    scene = Scene(running=False)
    scene.connect()
    told = m.Holding("run", False, b"", 3, [m.TaskProgress("A", (0, 3), ())], "A", b"data of 3")
    scene.collector.says(told)
    begin = scene.bench.said_one(m.Begin)
    assert (begin.ack_task, begin.ack_data) == ("A", b"data of 3")
    scene.collector.says(told)
    scene.worker()
    asked = scene.bench.one(c.Produce)
    assert (asked.ack_task, asked.ack_id, asked.ack_data) == ("A", 3, b"data of 3")


def test_a_lost_ack_opens_a_gate_when_the_collector_tells_what_it_holds() -> None:
    """With its data, although the count was known from another ACK; told again, it is no news."""
    scene = Scene(Task("A"), Task("B"))
    scene.worker(window=2)
    scene.produce(0, state="gated")
    scene.count = 1
    scene.ack(failed=(0, 1), task="B", data=b"")
    told = m.Holding("run", False, b"", 2, [m.TaskProgress("A", (0, 1), ())], "A", b"data")
    scene.produce(state="gated")
    scene.collector.says(told)
    asked = scene.bench.one(c.Produce)
    assert (asked.ack_task, asked.ack_id, asked.ack_data) == ("A", 2, b"data")
    scene.worker("B")
    scene.produce(state="gated")
    scene.collector.says(told)
    assert [one.task for one in scene.bench.of(c.Produce)] == []


def test_an_ack_that_is_said_again_may_carry_the_data_of_another_task() -> None:
    """The newest ACK was lost: the gate is asked with what that one said, not with what is said again."""
    scene = Scene(Task("A"), Task("B"))
    scene.worker(window=2)
    scene.produce(0, state="gated")
    scene.collector.says(m.Ack("run", "A", (0, 1), (), 0, 2, b"of B", data_of="B"))
    asked = scene.bench.one(c.Produce)
    assert (asked.ack_task, asked.ack_id, asked.ack_data) == ("B", 2, b"of B")


def test_a_gate_that_was_asked_before_the_newest_data_came_is_asked_again() -> None:
    """Although their count was known: what it was told was of an ACK that was said again."""
    scene = Scene()
    scene.worker(window=3)
    scene.produce(0, state="more")
    scene.ack(0)
    scene.collector.says(m.Holding("run", False, b"", 1, [m.TaskProgress("A", (0, 1), ())], "A", b"data"))
    scene.produce(state="gated")
    assert scene.bench.one(c.Produce).ack_data == b"data"


def test_a_gate_that_no_ack_can_open_fails_its_task() -> None:
    """Nothing is out, nothing can come: the task is failed, with the last ACK in the message."""
    scene = Scene()
    scene.worker(window=2)
    scene.produce(0, state="gated")
    scene.ack(0, data=b"so far")
    scene.produce(state="gated")
    assert scene.state() == "failed"
    text = scene.machine.troubles["A"].message
    assert "says no" in text
    assert "The last ACK was 1 of 'A' and carried b'so far'." in text
    assert scene.bench.said_one(m.Finish).ok is False


def test_a_gate_waits_for_the_acks_of_other_tasks() -> None:
    """As long as another task may still bring an ACK, a closed gate is no failure."""
    scene = Scene(Task("A"), Task("B"))
    scene.worker("A")
    scene.worker("B")
    scene.produce(state="gated")
    assert scene.state("A") == "open"
    scene.produce(0, task="B")
    scene.ack(0, task="B")
    assert scene.bench.of(c.Produce)[0].task == "A"


def test_an_ack_of_a_collector_that_counts_less_opens_a_gate() -> None:
    """A collector started anew may count less than lost ACKs did: news is news, and no number comes twice."""
    scene = Scene()
    scene.worker(window=3)
    scene.produce(0, 1, state="gated")
    scene.count = 7
    scene.ack(0, data=b"old")
    scene.produce(state="gated")
    scene.count = 1
    scene.ack(1, data=b"new")
    asked = scene.bench.one(c.Produce)
    assert (asked.ack_id, asked.ack_data) == (9, b"new")


# warnings -------------------------------------------------------------------------------------------------------------


def test_a_task_without_a_worker_is_warned_of() -> None:
    """After five seconds one warning that names the task and the command; then each minute; none once it is served."""
    scene = Scene()
    scene.bench.wait(WARN_FIRST_SECONDS + 0.1)
    assert "No worker serves task 'A'" in scene.bench.logged()
    assert "python -m app worker A" in scene.bench.logged()
    scene.bench.wait(WARN_SECONDS)
    assert scene.bench.logged().count("No worker serves") == 1
    scene.worker()
    scene.bench.wait(5 * WARN_SECONDS)
    assert "No worker serves" not in scene.bench.logged()


def test_a_waiting_task_is_not_warned_of() -> None:
    """A task that has not begun needs no worker yet."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",)))
    scene.worker("A")
    scene.bench.wait(3 * WARN_SECONDS)
    assert "No worker serves" not in scene.bench.logged()
