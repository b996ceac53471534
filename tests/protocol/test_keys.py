"""Keys: one item each, whatever its number, in every role and beyond the life of any of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.bench import TROUBLE, Bench, Stranger
from tests.support.scenes import Scene, Task
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.dedup import FAILED_BEFORE, KEYS_A_MESSAGE, NEW, UNDER_WAY, DedupKeys
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.protocol.worker import WorkerMachine


def key(text: str) -> bytes:
    """A digest that can be read."""
    return text.encode().ljust(m.KEY_BYTES, b".")


def keys(*texts: str) -> bytes:
    """Several, as they travel."""
    return b"".join(map(key, texts))


# the book -------------------------------------------------------------------------------------------------------------


def test_a_key_under_way_or_done_is_no_news() -> None:
    """Only one that failed may come again."""
    book = DedupKeys()
    assert book.judge(key("a")) == NEW
    book.open(0, key("a"))
    assert book.judge(key("a")) == UNDER_WAY
    book.close(0, failed=False)
    assert book.judge(key("a")) == UNDER_WAY
    book.open(1, key("b"))
    book.close(1, failed=True)
    assert book.judge(key("b")) == NEW
    assert (book.done, book.failed) == ({key("a")}, {1: key("b")})


def test_a_source_that_begins_anew_passes_over_what_failed_as_often_as_it_failed() -> None:
    """The third time it is yielded is the first time that nobody has seen."""
    book = DedupKeys()
    book.learn(m.Keys("run", "A", keys("a"), (3, 4, 7, 8), keys("b", "b")))
    book.take_over()
    assert book.judge(key("a")) == UNDER_WAY
    assert [book.judge(key("b")) for _ in range(3)] == [FAILED_BEFORE, FAILED_BEFORE, NEW]


def test_what_was_dropped_is_forgotten() -> None:
    """A key that was never done may come again."""
    book = DedupKeys()
    book.open(0, key("a"))
    book.forget(0)
    assert book.judge(key("a")) == NEW
    assert not book


def test_many_keys_travel_in_parts_that_fit_a_header() -> None:
    """Each part can be read by itself, and together they are all there is."""
    done = {b"%016d" % n for n in range(KEYS_A_MESSAGE + 1)}
    failed = {n: b"%016d" % n for n in range(10_000, 10_003)}
    full = DedupKeys()
    full.done, full.failed = done, failed
    parts = list(full.messages("run", "A"))
    book = DedupKeys()
    for part in parts:
        book.learn(part)
    assert len(parts) == 2
    assert (book.done, book.failed) == (done, failed)
    assert list(DedupKeys().messages("run", "A")) == []


# the distributor ------------------------------------------------------------------------------------------------------


def distributor(*, running: bool = True) -> Scene:
    """A distributor of one task with keys."""
    return Scene(Task("A", keyed=True, retries=0), running=running)


def test_work_carries_its_keys() -> None:
    """In the order of the numbers."""
    scene = distributor()
    worker = scene.worker(window=3)
    scene.produce(0, 1, 2, keys=[key("a"), key("b"), key("a")])
    (work,) = worker.was_told(m.Work)
    assert (work.spans, work.keys) == ((0, 2), keys("a", "b"))
    assert scene.machine.counts()[0].skipped == 1


def test_a_new_distributor_learns_the_keys_before_it_goes_on() -> None:
    """It asks again when some were lost on the way; then it passes over what is done, and numbers from its own base."""
    scene = distributor(running=False)
    scene.connect()
    told = m.TaskProgress("A", (0, 2), (2, 3), keys=2, failed_keys=1)
    scene.collector.says(m.Keys("old", "A", keys("a"), (2, 3), keys("c")))
    scene.holding("old", told, count=3)
    assert scene.machine.phase == "greeting"
    scene.bench.wait(1.0)
    assert scene.bench.said(m.Propose)
    scene.collector.says(m.Keys("old", "A", keys("a", "b"), (2, 3), keys("c")))
    scene.holding("old", told, count=3)
    (begun,) = scene.bench.said_one(m.Begin).progress
    assert (begun.keys, begun.failed_keys, begun.told) == (2, 1, 3)
    scene.holding("old", told, count=3)
    worker = scene.worker()
    worker.report(4, run="old", held=(), done=())
    scene.produce(0, 1, 2, 3, keys=[key("a"), key("b"), key("c"), key("d")])
    (work,) = worker.was_told(m.Work)
    assert work.keys == key("d")
    assert work.spans[0] >= 1 << 32
    assert scene.machine.counts()[0].sent == 4


def test_keys_of_another_run_are_not_taken_for_those_of_this_one() -> None:
    """A collector that was started anew holds another run, whose keys are told anew."""
    scene = distributor(running=False)
    scene.connect()
    scene.collector.says(m.Keys("first", "A", keys("a"), (), b""))
    scene.holding("second", m.TaskProgress("A", (0, 1), (), keys=1), count=1)
    assert scene.machine.phase == "greeting"
    scene.collector.says(m.Keys("second", "A", keys("b"), (), b""))
    scene.holding("second", m.TaskProgress("A", (0, 1), (), keys=1), count=1)
    assert scene.machine.tasks["A"].ledger.keys.done == {key("b")}
    assert scene.machine.phase == "beginning"


def test_a_new_collector_is_told_the_keys_with_the_run() -> None:
    """It answers a Begin with nothing in its hands, and gets both."""
    scene = distributor()
    scene.worker(window=2)
    scene.produce(0, 1, keys=[key("a"), key("b")])
    scene.ack(0)
    scene.ack(failed=(1, 2))
    scene.holding("")
    said = scene.collector.was_told(m.Keys)
    assert said == [m.Keys("run", "A", keys("a"), (1, 2), keys("b"))]
    assert scene.bench.said_one(m.Begin).progress == [m.TaskProgress("A", (0, 1), (1, 2), 1, 1)]


def test_an_item_that_is_given_up_has_its_key() -> None:
    """The collector writes it down with the failure."""
    scene = distributor()
    worker = scene.worker()
    scene.produce(0, keys=[key("a")])
    worker.fails(0)
    assert scene.bench.said_one(m.GiveUp).failures[0].key == key("a")


# the worker -----------------------------------------------------------------------------------------------------------


def test_results_carry_the_keys_of_their_items() -> None:
    """Those of what it holds, and no longer."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"worker"))
    distributor = Stranger(bench, "workers", who=b"distributor")
    bench.tell(e.Connected("workers"))
    bench.tell(e.Connected("results"))
    distributor.says(m.Welcome("run", b""))
    distributor.says(m.Work("run", "A", 1, 0.0, (4, 7), (), [b"", b"", b""], keys("a", "b", "c")))
    bench.tell(e.Executed(1, [6, 4], [b"x", b"y"], [], 1.0))
    body = bench.said_one(m.Results)
    assert (body.spans, body.keys) == ((4, 5, 6, 7), keys("a", "c"))
    distributor.says(m.Settled("run", "A", (4, 7)))
    assert bench.machine._held.keys == {}


# the collector --------------------------------------------------------------------------------------------------------


class Gathering:
    """A collector at work, with a distributor and a worker played by hand."""

    def __init__(self, *progress: m.TaskProgress) -> None:
        self.machine = CollectorMachine("pipe", incarnation=b"collector")
        self.bench = Bench(self.machine)
        self.distributor = Stranger(self.bench, "acks", b"d1", who=b"distributor")
        self.worker = Stranger(self.bench, "results", b"w1", who=b"worker")
        self.distributor.says(m.Begin("pipe", "run", b"meta", list(progress)))

    def results(self, **items: int) -> list[c.Command]:
        """Results by key: ``results(a=0, b=1)``."""
        order = sorted(items, key=items.__getitem__)
        numbers = [items[name] for name in order]
        return self.worker.says(m.Results("run", "A", 1, spans_of(numbers), [b"r"] * len(numbers), keys(*order)))

    def collected(self, *numbers: int) -> list[c.Command]:
        """The thread is done with these."""
        return self.bench.tell(e.Collected("A", spans_of(numbers), [], b""))


def test_a_key_is_collected_once_whatever_its_number() -> None:
    """The second number is acknowledged, and counts for nothing."""
    scene = Gathering()
    scene.results(a=0, b=1)
    assert scene.bench.one(c.Collect).keys == keys("a", "b")
    scene.collected(0, 1)
    scene.results(a=900, d=901)
    assert scene.bench.one(c.Collect).spans == (901, 902)
    ack = scene.bench.said_one(m.Ack)
    assert (ack.collected, ack.repeated, ack.count) == ((900, 901), 1, 2)


def test_a_key_that_waits_under_another_number_is_not_taken_yet() -> None:
    """It is asked for again later, when it is known what became of the first."""
    scene = Gathering()
    scene.results(a=0)
    scene.results(a=900)
    assert scene.bench.of(c.Collect) == []
    assert scene.bench.said(m.Ack) == []
    scene.worker.says(m.Kept("run", "A", (900, 901)))
    assert scene.bench.said_one(m.Missing).spans == (900, 901)
    scene.collected(0)
    scene.results(a=900)
    assert scene.bench.said_one(m.Ack).collected == (900, 901)


def test_a_key_that_failed_may_be_collected_later() -> None:
    """Under another number; the failure stays in the books with its key."""
    scene = Gathering()
    failed = m.FailedItem("A", 0, 1, "worker", TROUBLE, b"item", key("a"))
    scene.distributor.says(m.GiveUp("run", [failed]))
    scene.bench.tell(e.FailedCalled("A", (0, 1)))
    scene.results(a=5)
    assert scene.bench.one(c.Collect).spans == (5, 6)
    scene.collected(5)
    scene.distributor.says(m.Propose("pipe", "other"))
    assert scene.bench.said(m.Keys) == [m.Keys("run", "A", key("a"), (0, 1), key("a"))]
    assert scene.bench.said_one(m.Holding).progress == [m.TaskProgress("A", (5, 6), (0, 1), 1, 1)]


def test_giving_up_a_key_that_is_collected_is_answered_with_collected() -> None:
    """A late result under another number was faster."""
    scene = Gathering()
    scene.results(a=0)
    scene.collected(0)
    scene.distributor.says(m.GiveUp("run", [m.FailedItem("A", 900, 1, "worker", TROUBLE, b"item", key("a"))]))
    assert scene.bench.of(c.CallFailed) == []
    assert scene.bench.said_one(m.Ack).collected == (900, 901)


def test_a_new_collector_begins_when_it_has_all_keys_that_are_done() -> None:
    """Until then it holds nothing, and says so: that is what the keys are told for."""
    told = m.TaskProgress("A", (0, 2), (2, 3), keys=2, failed_keys=1)
    scene = Gathering(told)
    assert scene.bench.said_one(m.Holding).run == ""
    assert scene.machine.phase == "empty"
    scene.distributor.says(m.Keys("run", "A", keys("a", "b"), (2, 3), keys("c")))
    scene.distributor.says(m.Begin("pipe", "run", b"meta", [told]))
    command = scene.bench.one(c.SetRun)
    assert (command.progress, command.keys) == ([told], {"A": {key("a"), key("b")}})
    assert command.failed_keys == {"A": {2: key("c")}}
    assert scene.bench.said_one(m.Holding).run == "run"
    scene.results(b=77)
    assert scene.bench.of(c.Collect) == []


def test_keys_of_another_run_are_dropped() -> None:
    """What an earlier distributor told of its run is not this one's."""
    scene = Gathering(m.TaskProgress("A", (0, 1), (), keys=1))
    scene.distributor.says(m.Keys("first", "A", keys("x"), (), b""))
    scene.distributor.says(m.Begin("pipe", "second", b"meta", [m.TaskProgress("A", (0, 1), (), keys=1)]))
    assert scene.machine.phase == "empty"
    scene.distributor.says(m.Begin("pipe", "third", b"meta", []))
    scene.results(x=0)
    assert scene.machine.phase == "active"


def test_the_keys_of_a_run_that_never_began_here_are_not_told() -> None:
    """Its distributor died before it said the run; the next one begins a new run, in which nothing is done."""
    scene = Gathering(m.TaskProgress("A", (0, 1), (), keys=1))
    scene.distributor.says(m.Keys("run", "A", keys("a"), (), b""))
    scene.distributor.says(m.Propose("pipe", "new"))
    assert scene.bench.said(m.Keys) == []
    assert scene.bench.said_one(m.Holding) == m.Holding("", False, b"", 0, [])


def test_a_new_run_begins_without_keys() -> None:
    """Whatever was told before of a run that the collector does not hold."""
    scene = distributor(running=False)
    scene.connect()
    scene.collector.says(m.Keys("lost", "A", keys("a"), (), b""))
    scene.holding("")
    assert scene.machine.tasks["A"].ledger.keys.done == set()


# the journal ----------------------------------------------------------------------------------------------------------


def restored(
    *, over: bool = False, finished: bool = False, ok: bool = True, counts: Sequence[m.TaskCounts] = ()
) -> e.Restored:
    """What a journal may hold."""
    progress = [m.TaskProgress("A", (0, 2), (2, 3), 2, 1)]
    if finished and not counts:
        counts = [m.TaskCounts("A", "complete", sent=3, collected=2, failed=1)]
    keys, failed_keys = {"A": {key("a"), key("b")}}, {"A": {2: key("c")}}
    return e.Restored("run", b"meta", progress, keys, failed_keys, finished, ok, list(counts), over=over or finished)


def test_what_a_journal_held_goes_on() -> None:
    """As if this process had collected it: nothing of it is collected again, and the count goes on."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    assert bench.tell(restored())[0] == c.SetRun("run", b"meta", restored=True)
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Propose("pipe", "new"))
    holding = bench.said_one(m.Holding)
    assert (holding.run, holding.count, holding.finished) == ("run", 3, False)
    assert bench.said_one(m.Keys) == m.Keys(
        "run", "A", b"".join(bench.machine._tasks["A"].keys.done), (2, 3), keys("c")
    )
    worker = Stranger(bench, "results", b"w1", who=b"worker")
    worker.says(m.Results("run", "A", 1, (1, 2, 9, 10), [b"x", b"y"], keys("b", "z")))
    assert bench.one(c.Collect).spans == (9, 10)


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_a_finished_journal_tells_whoever_asks(ok: bool, status: int) -> None:
    """For ten seconds; the status is 1 when some of its items had failed, and whoever asks is told that, too."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    assert not [one for one in bench.tell(restored(finished=True, ok=ok)) if isinstance(one, c.SetRun)]
    Stranger(bench, "acks", b"d1", who=b"distributor").says(m.Propose("pipe", "new"))
    holding = bench.said_one(m.Holding)
    assert (holding.finished, holding.finishing, holding.ok) == (True, False, ok)
    bench.wait(9.9)
    assert bench.ended is None
    bench.wait(0.2)
    assert bench.ended == c.Ended(status, "already finished")


def test_a_journal_in_which_all_is_done_has_finished_called_again() -> None:
    """At once, with the metadata and the counts, and without a distributor; one that comes is told that it runs."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    counts = [m.TaskCounts("A", "complete", sent=1, failed=1)]
    told = bench.tell(restored(over=True, ok=False, counts=counts))
    calls = [one for one in told if isinstance(one, (c.SetRun, c.CallFinished))]
    assert calls == [c.SetRun("run", b"meta", restored=True), c.CallFinished(False, counts)]
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Propose("pipe", "new"))
    holding = bench.said_one(m.Holding)
    assert (holding.finished, holding.finishing, holding.ok, holding.counts) == (False, True, False, counts)
    bench.wait(3600.0)
    assert bench.ended is None
    distributor.says(m.Finish("run", False, counts))
    assert bench.of(c.CallFinished) == []
    bench.tell(e.FinishedCalled())
    assert bench.said_one(m.Finished).run == "run"
    distributor.says(m.Bye("run"))
    assert bench.ended == c.Ended(1, "The run is over, but not everything was collected: task 'A': 1 failed.")


def test_finished_that_was_called_again_waits_a_minute_for_a_distributor() -> None:
    """Nobody has come to hear it; what it says is not that a connection broke."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    bench.tell(restored(over=True, ok=True))
    bench.tell(e.FinishedCalled())
    assert "no distributor has come to hear it; waiting 60 s" in bench.logged()
    bench.wait(60.1)
    assert bench.ended == c.Ended(0, "the run is over")


def test_a_distributor_that_waits_for_the_end_hears_it_from_the_journal() -> None:
    """The collector died after it had written the end down, and before it said so."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    bench.tell(restored(finished=True))
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Begin("pipe", "run", b"meta", []))
    distributor.says(m.Finish("run", True, []))
    assert bench.said_one(m.Finished).run == "run"


def test_a_journal_that_cannot_be_written_ends_the_collector() -> None:
    """With the reason; what was not written was not acknowledged."""
    scene = Gathering()
    scene.results(a=0)
    scene.bench.tell(e.JournalFailed(m.ErrorInfo("JournalError", "The disk is full.")))
    assert scene.bench.said(m.Ack) == []
    assert scene.bench.ended == c.Ended(2, "The disk is full.")
