"""On trial: workers of tasks and of services, the broker and its clients, with the ways to each of their phases."""

from __future__ import annotations

import random
from collections import deque
from typing import ClassVar

from tests.support.adversarial import RUN, US
from tests.support.bench import TROUBLE
from tests.support.machine_fuzz import OPTIONS, Answer, Answers, Chosen, Happens, Says, Trial, Waits
from tests.support.pipeline_trials import report
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.services.broker import ServiceMachine
from zmqpipeline.protocol.services.client import ClientMachine
from zmqpipeline.protocol.worker import WorkerMachine

# workers --------------------------------------------------------------------------------------------------------------


def _work(task: str, *numbers: int, run: str = RUN) -> Says:
    return Says(m.Work(run, task, 1, 1.0, spans_of(numbers), (), [b"w"] * len(numbers)), who=b"d")


class WorkerTrial(Trial):
    """A worker of task A with two threads."""

    hears = (m.Welcome, m.Work, m.Work, m.Work, m.Settled, m.Settled, m.Recall, m.RunEnded, m.Missing, m.Refused)
    connecting = ("workers", "results")
    is_service = has_inits = False
    _BEGIN = (Happens(e.Connected("workers")), Happens(e.Connected("results")), Says(m.Welcome(RUN, b""), who=b"d"))
    _BUSY = (*_BEGIN, _work("A", 0, 1, 2, 3))
    phases: ClassVar = {
        "seeking": (),
        "working": _BEGIN,
        "changing": (*_BUSY, Says(m.Welcome("other", b""), who=b"e")),
        "draining": (*_BUSY, Happens(e.Drain(10.0))),
        "ended": (*_BEGIN, Says(m.RunEnded(RUN), who=b"d")),
    }
    busy: ClassVar = {
        "all is held": (*_BUSY, Answers(1, (1, 1, 0))),
        "released while it runs": (*_BUSY, Answers(1, (0, 0, 0)), Says(m.Settled(RUN, "A", (0, 3)), who=b"d")),
        "no collector": (_BEGIN[0], *_BEGIN[2:], _work("A", 0, 1), Answers(1, (1, 0, 0))),
        "an old run, and cancelled items of it": (
            *_BUSY,
            Answers(1, (0, 0, 0)),
            Says(m.Settled(RUN, "A", (1, 3)), who=b"d"),
            Says(m.Welcome("other", b""), who=b"d"),
        ),
    }

    def make(self) -> Machine:
        """See Trial."""
        self.waiting: deque[tuple[int, int, float]] = deque()
        self.running: list[tuple[int, int, float]] = []
        self.posted: deque[e.Event] = deque()
        self.free = 2
        self.has_begun = self.is_ready = False
        return WorkerMachine(
            "A",
            slots=2,
            incarnation=US,
            host="here",
            pid=1,
            options=OPTIONS,
            answers=self.is_service,
            idempotent=True,
            has_inits=self.has_inits,
        )

    def carry_out(self, command: c.Command) -> None:
        """The pool: threads that take items from one queue."""
        match command:
            case c.Execute():
                assert len(command.numbers) == len(command.payloads) == len(set(command.numbers)) > 0
                assert self.is_ready or not self.has_inits, "an item begins before the init functions have returned"
                self.has_begun = True
                self.waiting += [(number, command.attempt, command.timeout) for number in command.numbers]
            case c.TakeBack(count):
                most = len(self.waiting) if count is None else min(count, len(self.waiting))
                self.posted.append(e.TakenBack(sorted(self.waiting.pop()[0] for _ in range(most))))
            case c.Initialize():
                assert self.has_inits
                self.has_begun = True
            case c.LookForEnd():
                pass  # there is no note of a run that has ended
            case _:
                assert isinstance(command, c.SetMetadata)
                assert not self.waiting, "the run changes under what waits"
                assert not self.running, "the run changes under what runs"

    def answers(self) -> dict[type, Answer]:
        """See Trial."""
        return {
            e.TakenBack: self._taken_back,
            e.Executed: self._executed,
            e.ThreadLost: self._thread_lost,
            e.InitDone: self._init_done,
            e.InitFailed: self._init_failed,
        }

    def _taken_back(self, chosen: Chosen) -> e.Event | None:
        return self.posted.popleft() if self.posted else None

    def _executed(self, chosen: Chosen) -> e.Event | None:
        self._start()
        if self.posted or not self.running:
            return None
        attempt = self.running[0][1]
        done = [one for one in self.running if one[1] == attempt][: 1 + chosen[0] % 2]
        self.running = [one for one in self.running if one not in done]
        numbers = [number for number, _, _ in done]
        bad = numbers[: chosen[1] % 3]
        good = numbers[len(bad) :]
        return e.Executed(attempt, good, [b"r"] * len(good), [(n, TROUBLE) for n in bad], 0.0001 * chosen[2])

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.free:
            self.running.append(self.waiting.popleft())

    def _thread_lost(self, chosen: Chosen) -> e.Event | None:
        self._start()
        late = next((one for one in self.running if one[2]), None)
        if self.posted or late is None or chosen[0] % 2:
            return None
        self.running.remove(late)
        self.free -= 1
        self.happens(e.Executed(late[1], [], [], [(late[0], TROUBLE)], late[2]))
        return e.ThreadLost(self.free)

    def _init_done(self, chosen: Chosen) -> e.Event | None:
        if self.is_ready or not self.has_begun:
            return None
        self.is_ready = True
        return e.InitDone()

    def _init_failed(self, chosen: Chosen) -> e.Event | None:
        if self.posted or not self.has_begun or not self.free or chosen[0] != 5 or (self.has_inits and self.is_ready):
            return None
        self.free -= 1
        return e.InitFailed(TROUBLE)


class InitWorkerTrial(WorkerTrial):
    """A worker of task A with init functions."""

    has_inits = True


class ServiceWorkerTrial(WorkerTrial):
    """A worker of service A: its results go back to where its items come from."""

    is_service = True


# services -------------------------------------------------------------------------------------------------------------


class ServiceTrial(Trial):
    """A broker that has just started."""

    hears = (
        m.Requests, m.Requests, m.Asking, m.Withdrawn, m.Results, m.Results, m.WorkerReport, m.WorkerReport,
        m.ItemsFailed, m.ItemsReturned, m.Goodbye,
    )  # fmt: skip
    bound = ("clients", "workers")
    _SERVED = (
        report("A", b"p2", 2, idempotent=True),
        Says(m.Requests("A", False, (0, 2), [b"q", b"q"]), who=b"p1"),
        Waits(0.0),
    )
    phases: ClassVar = {
        "serving": (),
        "draining": (*_SERVED, Happens(e.Drain(10.0))),
        "farewell": (report("A", b"p2", 2, idempotent=True), Happens(e.Drain(10.0))),
        "ended": (Happens(e.Drain(0.0)),),
    }
    busy: ClassVar = {
        "requests run": _SERVED,
        "one is answered": (*_SERVED, Says(m.Results(RUN, "A", 1, (0, 1), [b"r"]), who=b"p2", where=2), Waits(0.0)),
        "one was given up": (*_SERVED, Says(m.Withdrawn((0, 1)), who=b"p1")),
        "the client is gone": (*_SERVED, Happens(e.PeerLost(("clients", b"r0")))),
        "the worker is gone": (*_SERVED, Happens(e.PeerLost(("workers", b"r0")))),
        "twice does harm": (
            report("A", b"p2", 2, window=2, idempotent=False),
            *_SERVED[1:],
            Happens(e.PeerLost(("workers", b"r0"))),
        ),
        "up for a minute": (Happens(e.Tick()), Waits(60.0)),
        "nobody serves": (Says(m.Requests("B", True, (0, 4), [b"q"] * 4), who=b"p1"), Waits(0.0)),
    }

    def make(self) -> Machine:
        """See Trial."""
        return ServiceMachine(incarnation=US, options=OPTIONS, rng=random.Random(1))


class ClientTrial(Trial):
    """A service client: each request is answered once."""

    hears = (m.Replies, m.Replies, m.Declined, m.Unknown)
    connecting = ("clients",)
    phases: ClassVar = {"open": (), "ended": (Happens(e.Drain(0.0)),)}
    _ASKED = (Happens(e.Connected("clients")), Says(m.Unknown(()), who=b"p1"), Answers(0, (2, 0, 0)), Waits(0.0))
    busy: ClassVar = {
        "requests are out": _ASKED,
        "some with a time-out": (*_ASKED, Answers(0, (2, 1, 3)), Waits(0.0)),
        "another broker": (*_ASKED, Happens(e.Disconnected("clients")), Happens(e.Connected("clients"))),
    }

    def make(self) -> Machine:
        """See Trial."""
        self.next = 0
        self.open: set[int] = set()
        return ClientMachine(incarnation=US)

    def carry_out(self, command: c.Command) -> None:
        """Its user, who waits for each number once."""
        assert isinstance(command, c.Resolve | c.Reject)
        assert set(command.numbers) <= self.open, "answered twice, or never asked"
        assert len(set(command.numbers)) == len(command.numbers) > 0
        assert isinstance(command, c.Reject) or len(command.payloads) == len(command.numbers)
        self.open -= set(command.numbers)

    def answers(self) -> dict[type, Answer]:
        """See Trial."""
        return {e.Submit: self._submit, e.Withdraw: self._withdraw}

    def _submit(self, chosen: Chosen) -> e.Event | None:
        if self.is_over:
            return None
        numbers = list(range(self.next, self.next + 1 + chosen[0] % 3))
        self.next += len(numbers)
        self.open |= set(numbers)
        return e.Submit(
            "AB"[chosen[1] % 2], numbers, [b"q"] * len(numbers), (None, 0.0, 0.5, 2.0, 100.0)[chosen[2] % 5]
        )

    def _withdraw(self, chosen: Chosen) -> e.Event | None:
        if self.is_over or not self.next:
            return None
        numbers = list(range(chosen[0] % self.next, self.next))[: 1 + chosen[1]]
        self.open -= set(numbers)
        return e.Withdraw(numbers)

    def drains(self) -> None:
        """See Trial; whoever still waits is told."""
        super().drains()
        assert not self.open, f"nobody answers {self.open}"
