"""On trial: the distributor, the metadata worker and the collector, with the ways to each of their phases."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar

from tests.support.adversarial import RUN, US, digest
from tests.support.bench import TROUBLE
from tests.support.machine_fuzz import OPTIONS, Answer, Answers, Chosen, Happens, Says, Step, Trial, Waits
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.metadata import MetadataMachine

# the distributor ------------------------------------------------------------------------------------------------------

TASKS = (
    TaskSpec("A", retries=1, timeout=1.0, crash_limit=2, has_gate=True),
    TaskSpec("B", ("A",), on_failed="continue", total=5, keyed=True),
)
FED_TASKS = (
    TaskSpec("A", retries=1, timeout=1.0, crash_limit=2),
    TaskSpec("B", for_each=("A", "B"), on_failed="continue"),
)
STATES = e.PRODUCED_STATES


def _from_collector(body: m.Message) -> Says:
    return Says(body, who=b"c", where=-1)


def report(task: str, who: bytes, where: int, **given: Any) -> Says:
    usual = {"slots": 1, "window": 1, "backlog": 0, "draining": False, "held": (), "done": (), "host": "", "pid": 0}
    return Says(m.WorkerReport(**{"run": RUN, "task": task, **usual, **given}), who=who, where=where)


_TO_METADATA = (Happens(e.Connected("acks")), _from_collector(m.Holding("", False, b"", 0, [])))
_TO_BEGINNING = (*_TO_METADATA, Answers(1))
_TO_RUNNING = (*_TO_BEGINNING, _from_collector(m.Holding(RUN, False, b"", 0, [])))
_EXHAUSTED = (STATES.index("exhausted"), 0, 0)
_TO_FINISHING = (
    *_TO_RUNNING,
    report("A", b"p1", 0),
    report("B", b"p2", 1),
    Answers(0, _EXHAUSTED),
    Answers(0, _EXHAUSTED),
)
_READY = Answers(0, (STATES.index("ready"), 0, 0))
_LEASED = (*_TO_RUNNING, report("A", b"p1", 0, window=4, slots=2), _READY)


def _raises(number: int, attempt: int) -> Says:
    return Says(m.ItemsFailed(RUN, [m.FailedItem("A", number, attempt, "worker", TROUBLE, b"")]), received=9)


def _acks(task: str, collected: m.Spans, failed: m.Spans = (), count: int = 0) -> Says:
    return _from_collector(m.Ack(RUN, task, collected, failed, 0, count, b""))


class DistributorTrial(Trial):
    """Two tasks, of which the second has keys and depends on the first; metadata of its own."""

    bound = ("workers", "workers/1", "metadata", "status")
    connecting = ("acks",)
    tasks = TASKS
    metadata = "local"
    is_supervised = False
    phases: ClassVar = {
        "greeting": (),
        "metadata": _TO_METADATA,
        "beginning": _TO_BEGINNING,
        "running": _TO_RUNNING,
        "finishing": _TO_FINISHING,
        "farewell": (*_TO_FINISHING, _from_collector(m.Finished(RUN))),
        "draining": (
            *_TO_RUNNING,
            report("A", b"p1", 0),
            _READY,
            Happens(e.Drain(10.0)),
        ),
        "ended": (Happens(e.Drain(0.0)),),
    }
    busy: ClassVar = {
        "items are leased": _LEASED,
        "two workers": (*_LEASED, report("A", b"p2", 1, window=6, slots=3), _READY),
        "one raised": (*_LEASED, _raises(0, 1)),
        "one is given up": (*_LEASED, _raises(0, 1), Waits(3.0), report("A", b"p1", 0, window=9), _raises(0, 2)),
        "a worker was lost": (*_LEASED, Happens(e.PeerLost(("workers", b"r0")))),
        "a last try": (*_LEASED, Happens(e.PeerLost(("workers", b"r0"))), report("A", b"p2", 1, window=3)),
        "it came back": (
            *_LEASED,
            Happens(e.PeerLost(("workers", b"r0"))),
            report("A", b"p1", 1, window=5, slots=2, held=(0, 3), done=(0, 1)),
        ),
        "one sits behind the others": (
            *_LEASED,
            report("A", b"p2", 1),
            Answers(0, (STATES.index("exhausted"), 0, 0)),
            Waits(5.0),
        ),
        "the gate is closed": (*_LEASED[:-1], Answers(0, (STATES.index("gated"), 2, 0))),
        "the second task": (
            *_LEASED[:-1],
            Answers(0, (STATES.index("exhausted"), 2, 0)),
            report("B", b"p2", 1, window=3),
            _acks("A", (0, 1), (1, 2), 2),
            _READY,
        ),
        "keys are done": (
            *_LEASED[:-1],
            Answers(0, (STATES.index("exhausted"), 0, 0)),
            report("B", b"p2", 1, window=4),
            _READY,
            _acks("B", (0, 1), (1, 2), 2),
        ),
    }
    hears = (
        m.WorkerReport, m.WorkerReport, m.ItemsFailed, m.ItemsReturned, m.Goodbye, m.Metadata,
        m.Holding, m.Ack, m.Ack, m.Finished, m.Keys, m.Refused, m.AskStatus, m.RunEnded,
    )  # fmt: skip

    def make(self) -> Machine:
        """See Trial."""
        self.asked: dict[str, int] = {}
        self.closed: set[str] = set()
        self.loading = 0
        return DistributorMachine(
            "pipe",
            self.tasks,
            incarnation=US,
            run=RUN,
            options=OPTIONS,
            rng=random.Random(1),
            metadata=self.metadata,
            supervised="box" if self.is_supervised else "",
        )

    def carry_out(self, command: c.Command) -> None:
        """The sources of the tasks, and the metadata function."""
        match command:
            case c.Produce(task, count):
                assert task not in self.asked, f"{task} is asked while it answers"
                assert task not in self.closed, f"{task} is asked after its end"
                assert count > 0
                self.asked[task] = count
            case c.LoadMetadata():
                self.loading += 1
                assert self.loading == 1, "the metadata function is called twice"
            case _:
                assert isinstance(command, c.StartTasks)

    def answers(self) -> dict[type, Answer]:
        """See Trial."""
        return {e.Produced: self._produced, e.MetadataLoaded: self._metadata_loaded}

    def _produced(self, chosen: Chosen) -> e.Event | None:
        if not self.asked:
            return None
        task = sorted(self.asked)[chosen[2] % len(self.asked)]
        most = self.asked[task]
        state = STATES[chosen[0] % len(STATES)] if most else "ready"
        count = most if state == "ready" else min(most, chosen[1])
        if state == "more":
            count = max(1, count)
            self.asked[task] = most - count
        else:
            del self.asked[task]
        if state in ("exhausted", "failed"):
            self.closed.add(task)
        payloads = [b"p" * (101 if chosen[1] + index == 5 else 1) for index in range(count)]
        is_keyed = next(one.keyed for one in self.tasks if one.task_type == task)
        keys = [digest(chosen[2] + index) for index in range(count)] if is_keyed and count else None
        return e.Produced(task, state, payloads, keys, TROUBLE if state == "failed" else None)

    def _metadata_loaded(self, chosen: Chosen) -> e.Event | None:
        if self.loading != 1:
            return None
        self.loading = 2
        return e.MetadataLoaded(b"", TROUBLE) if chosen[0] % 6 == 5 else e.MetadataLoaded(b"meta")


def _gives(count: int, *, closed: bool = True, done: m.Spans = (0, 1)) -> Says:
    outbox = m.Outbox("B", count, 10 * count, closed)
    return _from_collector(m.Ack(RUN, "A", done, (), 0, sum(done), b"", outboxes=[outbox]))


_ASKED = (*_LEASED, report("B", b"p2", 1, window=3), _gives(5))


class FedDistributorTrial(DistributorTrial):
    """Two tasks, of which the second gets its items from results of the first, and from its own."""

    tasks = FED_TASKS
    phases: ClassVar = {
        **DistributorTrial.phases,
        "finishing": (*_TO_RUNNING, report("A", b"p1", 0), Answers(0, _EXHAUSTED), _gives(0, done=())),
        "farewell": (
            *_TO_RUNNING,
            report("A", b"p1", 0),
            Answers(0, _EXHAUSTED),
            _gives(0, done=()),
            _from_collector(m.Finished(RUN)),
        ),
    }
    busy: ClassVar = {
        "items are asked for": _ASKED,
        "items of results are leased": (*_ASKED, _from_collector(m.Fetched(RUN, "B", (0, 3), [b"p"] * 3))),
        "some of them are done": (*_ASKED, _from_collector(m.Fetched(RUN, "B", (1, 3), [b"p"] * 2))),
    }
    hears = (*DistributorTrial.hears, m.Fetched, m.Fetched, m.Ranges, m.Ack)


class RemoteMetadataTrial(DistributorTrial):
    """A distributor that waits for a metadata worker; it is told how workers die."""

    metadata = "remote"
    is_supervised = True
    busy: ClassVar[dict[str, tuple[Step, ...]]] = {
        "items are leased": (
            *_TO_METADATA,
            Says(m.Metadata(b"meta"), who=b"p3", where=4),
            *_LEASED[len(_TO_BEGINNING) :],
        )
    }
    phases: ClassVar[dict[str, tuple[Step, ...]]] = {"greeting": (), "metadata": _TO_METADATA}


class MetadataTrial(Trial):
    """A metadata worker."""

    hears = (m.MetadataTaken,)
    connecting = ("metadata",)
    phases: ClassVar = {
        "saying": (Happens(e.Connected("metadata")),),
        "taken": (Happens(e.Connected("metadata")), Says(m.MetadataTaken(), who=b"d")),
    }

    def make(self) -> Machine:
        """See Trial."""
        return MetadataMachine(b"meta", incarnation=US)

    def phase(self) -> str:
        """It has one thing to do."""
        return "taken" if self.machine.taken else "saying"


# the collector --------------------------------------------------------------------------------------------------------

_BEGIN = Says(m.Begin("pipe", RUN, b"", []), who=b"d", where=2)
_RESULTS = Says(m.Results(RUN, "A", 1, (0, 3), [b"r"] * 3), who=b"w")
_KEYED = Says(m.Results(RUN, "B", 1, (0, 2), [b"r"] * 2, digest(0) + digest(1)), who=b"w")
_GIVEN_UP = Says(m.GiveUp(RUN, [m.FailedItem("A", 5, 3, "crash", TROUBLE, b"", b"")]), who=b"d", where=2)
_FINISH = Says(m.Finish(RUN, True, []), who=b"d", where=2)


class CollectorTrial(Trial):
    """A collector with a journal that is new."""

    bound = ("results", "acks")
    hears = (
        m.Results, m.Results, m.Results, m.Kept, m.Propose, m.Begin, m.Begin, m.Keys, m.GiveUp, m.GiveUp, m.Finish,
        m.Bye, m.RunEnded, m.Unready,
    )  # fmt: skip
    phases: ClassVar = {
        "empty": (),
        "active": (_BEGIN,),
        "finishing": (_BEGIN, _FINISH),
        "finished": (_BEGIN, _FINISH, Answers()),
        "draining": (_BEGIN, _RESULTS, Happens(e.Drain(10.0))),
        "ended": (Happens(e.Drain(0.0)),),
    }
    busy: ClassVar = {
        "calls are out": (_BEGIN, _RESULTS, _KEYED, _GIVEN_UP),
        "one raised": (_BEGIN, _RESULTS, _KEYED, Answers(0, (0, 1, 0)), Answers(0, (0, 0, 0)), Answers(0, (0, 0, 0))),
        "some are done": (_BEGIN, _RESULTS, _KEYED, Answers(0, (2, 0, 0)), Answers(0, (1, 0, 0))),
        "keys were told": (
            Says(m.Keys(RUN, "B", digest(0), (1, 2), digest(1)), who=b"d", where=2),
            Says(m.Begin("pipe", RUN, b"", [m.TaskProgress("B", (0, 1), (1, 2), 1, 1)]), who=b"d", where=2),
        ),
    }

    def make(self) -> Machine:
        """See Trial."""
        self.calls: deque[Any] = deque()
        self.collected: set[tuple[str, int]] = set()
        self.keys: set[tuple[str, bytes]] = set()
        self.failed_told: set[tuple[str, int]] = set()
        self.has_run = False
        self.is_broken = False
        return CollectorMachine("pipe", incarnation=US, options=OPTIONS)

    def carry_out(self, command: c.Command) -> None:
        """The collector's thread, which calls in order; no item and no key comes to it twice."""
        match command:
            case c.SetRun():
                assert not self.has_run, "the run is set twice"
                self.has_run = True
            case c.KeepPauses():
                pass  # nothing comes back
            case c.Collect():
                numbers = numbers_of(command.spans)
                keys = [command.keys[at : at + m.KEY_BYTES] for at in range(0, len(command.keys), m.KEY_BYTES)]
                assert len(numbers) == len(command.payloads) > 0
                assert len(keys) in (0, len(numbers))
                again = [n for n in numbers if (command.task, n) in self.collected]
                assert not again, f"collected twice: {again}"
                self.collected.update((command.task, number) for number in numbers)
                self.calls.append((command.task, command.attempt, numbers, keys))
                self._note_keys(command.task, keys)
            case _:
                assert isinstance(command, c.CallFailed | c.CallFinished)
                self.calls.append(command)

    def _note_keys(self, task: str, keys: list[bytes]) -> None:
        assert len(set(keys)) == len(keys), "one key twice in one call"
        again = [key for key in keys if (task, key) in self.keys]
        assert not again, "a collected key is collected again"
        self.keys.update((task, key) for key in keys)

    def answers(self) -> dict[type, Answer]:
        """See Trial."""
        return {
            e.Collected: self._collected,
            e.FailedCalled: self._failed_called,
            e.FinishedCalled: self._finished_called,
            e.JournalFailed: self._journal_failed,
            e.Restored: lambda chosen: None,
        }

    def _collected(self, chosen: Chosen) -> e.Event | None:
        if not self.calls or not isinstance(self.calls[0], tuple):
            return None
        task, attempt, numbers, keys = self.calls.popleft()
        count = 1 + chosen[0] % len(numbers)
        if count < len(numbers):
            self.calls.appendleft((task, attempt, numbers[count:], keys[count:]))
        raised = {n: (n, TROUBLE, b"r") for index, n in enumerate(numbers[:count]) if (chosen[1] >> index) & 1}
        # the key of an item that raised may come again
        self.keys -= {(task, key) for n, key in zip(numbers, keys, strict=False) if n in raised}
        good = [n for n in numbers[:count] if n not in raised]
        trouble = TROUBLE if chosen[2] == 5 else None
        return e.Collected(task, spans_of(good), list(raised.values()), b"", attempt, trouble)

    def _failed_called(self, chosen: Chosen) -> e.Event | None:
        if not self.calls or not isinstance(self.calls[0], c.CallFailed):
            return None
        failures = self.calls[0].failures
        assert failures
        task = failures[0].task
        left = [item for item in failures if item.task != task]
        self.calls.popleft()
        if left:
            self.calls.appendleft(c.CallFailed(left))
        numbers = [item.number for item in failures if item.task == task]
        return e.FailedCalled(task, spans_of(numbers), TROUBLE if chosen[0] == 5 else None)

    def _finished_called(self, chosen: Chosen) -> e.Event | None:
        if not self.calls or not isinstance(self.calls[0], c.CallFinished):
            return None
        self.calls.popleft()
        return e.FinishedCalled(TROUBLE if chosen[0] == 5 else None)

    def _journal_failed(self, chosen: Chosen) -> e.Event | None:
        if not self.has_run or self.is_broken or chosen[0] != 5:
            return None
        self.is_broken = True
        return e.JournalFailed(TROUBLE)


class RestoredCollectorTrial(CollectorTrial):
    """A collector whose journal holds a run: of A some numbers, of B keys, too."""

    busy: ClassVar[dict[str, tuple[Step, ...]]] = {}

    HELD = e.Restored(
        RUN,
        b"",
        [m.TaskProgress("A", (0, 2), (4, 5)), m.TaskProgress("B", (0, 1), (1, 2))],
        {"B": {digest(0)}},
        {"B": {1: digest(1)}},
    )
    _RESTORED = Happens(HELD)
    phases: ClassVar = {
        "empty": (),
        "active": (_RESTORED,),
        "finishing": (_RESTORED, _FINISH),
        "finished": (_RESTORED, _FINISH, Answers()),
        "draining": (_RESTORED, Says(m.Results(RUN, "A", 1, (6, 7), [b"r"]), who=b"w"), Happens(e.Drain(10.0))),
        "ended": (_RESTORED, _FINISH, Answers(), Says(m.Bye(RUN), who=b"d", where=2)),
    }

    def answers(self) -> dict[type, Answer]:
        """See Trial."""
        return {**super().answers(), e.Restored: self._restored}

    def _restored(self, chosen: Chosen) -> e.Event | None:
        return None if self.seen else self.HELD

    def carry_out(self, command: c.Command) -> None:
        """What was collected before the restart is not collected again."""
        if isinstance(command, c.SetRun):
            self.collected |= {("A", 0), ("A", 1), ("A", 4), ("B", 0), ("B", 1)} if command.restored else set()
            self.keys |= {("B", digest(0))} if command.restored else set()
        super().carry_out(command)
