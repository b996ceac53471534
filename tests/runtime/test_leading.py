"""Leadership: who runs the loop, and that it goes back whatever happens."""

from __future__ import annotations

import ctypes
import logging
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.patience import await_threads
from tests.support.transports import HAND, OWN, QUICK, Posts
from zmqpipeline.protocol.commands import Collect, Command, Ended, Execute, TakeBack
from zmqpipeline.protocol.events import Collected, Drain, Event, Executed, TakenBack, Tick
from zmqpipeline.runtime import leader
from zmqpipeline.runtime.journal import MEMORY, Journal
from zmqpipeline.runtime.leader import STREAK, Leadership, UserThread
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.threads.collecting import CollectorThread
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.serial import SerialThread
from zmqpipeline.runtime.threads.shares import QUANTUM
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import pack

LOG = logging.getLogger("zmqpipeline.test")


class Asking:
    """A machine that asks for one call a TakenBack, and ends with a Drain. It notes which thread it runs on."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[Event, str]] = queue.SimpleQueue()
        self._inside = threading.Lock()

    def handle(self, event: Event, now: float) -> list[Command]:
        assert self._inside.acquire(blocking=False), "two threads are in the machine"
        try:
            self.told.put((event, threading.current_thread().name))
            if isinstance(event, Drain):
                return [Ended(0)]
            return [TakeBack(1)] if isinstance(event, TakenBack) else []
        finally:
            self._inside.release()

    def next_deadline(self) -> float | None:
        return None

    def who(self, kind: type) -> str:
        """The thread that the next event of this kind is told on."""
        while True:
            event, name = self.told.get(timeout=60)
            if isinstance(event, kind):
                return name


@dataclass
class Role:
    """A loop on its own thread, and one hand, which calls `call` whenever the machine asks."""

    machine: Asking = field(default_factory=Asking)
    call: Callable[[], object] = bool
    outcome: list[object] = field(default_factory=list)
    """What `run` returned or raised."""

    def __post_init__(self) -> None:
        leadership = Leadership()
        self.transport = Transport(QUICK)
        self.hand = SerialThread(HAND, leadership)
        actions = {TakeBack: lambda command: self.hand.submit(lambda: self.call())}
        self.loop = Loop(self.machine, self.transport, actions, log=LOG, leadership=leadership)
        self.thread = threading.Thread(target=self._run, name=OWN)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome.append(self.loop.run())
        except BaseException as error:
            self.outcome.append(error)

    def ask(self) -> str:
        """Have one call made; returns the thread that the machine was asked on."""
        self.loop.post(TakenBack([]))
        return self.machine.who(TakenBack)

    def led(self) -> Role:
        """Ask until the hand leads."""
        for _ in range(10_000):
            self.ask_and_wait()
            # the lead may have been taken back during the call
            self.loop.post(Tick())
            if self.machine.who(Tick) == HAND:
                return self
        raise AssertionError("the hand does not lead")

    def ask_for_what_goes_on(self) -> threading.Event:
        """Have a call made that goes on until this event is set, while the hand leads."""
        for _ in range(100):
            go_on, is_over = threading.Event(), threading.Event()
            self.led().call = lambda go_on=go_on, is_over=is_over: (go_on.wait(60), is_over.set())
            if self.ask() == HAND:
                return go_on
            # the machine is so busy that the lead was taken back meanwhile
            go_on.set()
            assert is_over.wait(60)
        raise AssertionError("the hand does not lead for long enough")

    def ask_and_wait(self) -> str:
        """The same, and wait for the call, and for a turn without one, in which the hand may be invited."""
        done = threading.Event()
        self.call = done.set
        name = self.ask()
        assert done.wait(60)
        self.loop.post(Tick())
        self.machine.who(Tick)
        return name

    def join(self) -> object:
        """What came of the loop."""
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.outcome[0]

    def close(self) -> None:
        self.call = bool
        self.loop.post(Drain(0.0))
        self.join()
        self.hand.close(60)
        self.transport.close()


@pytest.fixture
def role() -> Iterator[Role]:
    """A role; its threads are gone afterwards."""
    before = set(threading.enumerate())
    made = Role()
    yield made
    made.close()
    await_threads(before)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand that leads goes on leading while it is idle, however late the test is with what it does next."""
    monkeypatch.setattr(leader, "IDLE_SECONDS", 600.0)


def test_the_hand_leads_after_some_brief_calls_and_not_before(role: Role) -> None:
    """Calls that are brief are made on the thread that then runs the loop, too; the first ones are not."""
    assert [role.ask_and_wait() for _ in range(STREAK)] == [OWN] * STREAK
    role.led()


def test_a_hand_that_is_never_idle_leads_between_two_parts(role: Role) -> None:
    """A call in very many parts: after the first ones its thread runs the loop, a turn between two of them."""
    parts, threads, is_over = 0, list[str](), threading.Event()

    def part() -> object:
        nonlocal parts
        parts += 1
        while not role.machine.told.empty():
            event, name = role.machine.told.get()
            threads.extend([name] if isinstance(event, Tick) else [])
        role.loop.post(Tick())
        if threads.count(HAND) < 10 and parts < 100_000:
            return part
        return is_over.set()

    role.hand.submit(part)
    assert is_over.wait(100)
    assert threads.count(HAND) >= 10, f"{parts} parts, and the hand led {threads.count(HAND)} turns"


def test_the_lead_is_taken_from_a_call_that_goes_on(role: Role) -> None:
    """The machine is told of what is posted while the call blocks, on the loop's own thread, and all goes on then."""
    go_on = role.ask_for_what_goes_on()
    began = time.monotonic()
    role.loop.post(Tick())
    assert role.machine.who(Tick) == OWN
    assert time.monotonic() - began < 30
    go_on.set()
    role.led()


@pytest.mark.usefixtures("steady")
def test_after_a_call_that_went_on_many_must_be_brief(role: Role) -> None:
    """A hand whose calls are long now and then does not lead again at once: each would stop the loop for two looks."""
    done = threading.Event()
    role.led().call = lambda: (time.sleep(0.02), done.set())
    assert role.ask() == HAND
    assert done.wait(60)
    assert {role.ask_and_wait() for _ in range(4 * STREAK)} == {OWN}


@pytest.mark.usefixtures("steady")
def test_the_end_comes_out_of_run_if_a_hand_leads(role: Role) -> None:
    """Ended is what `run` returns on its own thread, whichever thread was told."""
    role.led().loop.post(Drain(0.0))
    assert role.machine.who(Drain) == HAND
    assert role.join() == Ended(0)


@pytest.mark.usefixtures("steady")
def test_what_the_machine_raises_comes_out_of_run_if_a_hand_leads(role: Role) -> None:
    """The error of a step is raised on the loop's own thread, and the hand's thread lives on."""
    role.led()
    role.machine.handle = lambda event, now: 1 // 0  # type: ignore[assignment, method-assign]
    role.loop.post(Tick())
    assert isinstance(role.join(), ZeroDivisionError)
    called = threading.Event()
    role.hand.submit(called.set)
    assert called.wait(60)


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("is_calling", [False, True])
def test_an_interrupt_ends_the_lead_of_a_hand(is_calling: bool, role: Role) -> None:
    """KeyboardInterrupt on the loop's own thread comes out of `run`, and from then on nobody is in the loop."""
    go_on = threading.Event()
    role.led()
    if is_calling:
        role.call = lambda: go_on.wait(60)
        assert role.ask() == HAND
    ident = ctypes.c_ulong(role.thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(KeyboardInterrupt))
    # in a call of the system it is not seen
    role.loop.post(Tick())
    assert isinstance(role.join(), KeyboardInterrupt)
    go_on.set()
    role.call, called = bool, threading.Event()
    while not role.machine.told.empty():
        role.machine.told.get()
    role.loop.post(Tick())
    role.hand.submit(called.set)
    assert called.wait(60)
    assert role.machine.told.empty()


def test_an_idle_hand_gives_the_lead_back(role: Role) -> None:
    """After a while without anything to do the loop waits on its own thread, which then need not look up."""
    role.led()
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2):
        time.sleep(pause)
        role.loop.post(Tick())
        if role.machine.who(Tick) == OWN:
            return
    raise AssertionError("the hand still leads")


def test_to_be_invited_is_no_call_that_a_commit_waits_for() -> None:
    """What a journal wrote during the last call is said, although the thread was asked to lead meanwhile."""
    offers: queue.SimpleQueue[UserThread] = queue.SimpleQueue()
    blocked, go_on, posts = threading.Event(), threading.Event(), Posts()

    class Heard(Leadership):
        def offer(self, hand: UserThread) -> None:
            offers.put(hand)

    def block() -> None:
        blocked.set()
        assert go_on.wait(60)

    calls: list[Callable[[], object]] = [block] + [bool] * 100
    gatherer = CollectorThread(
        lambda task, attempt: ((lambda value: calls.pop()()), False),
        bool,
        lambda command: None,
        posts,
        journal=Journal(MEMORY, pipeline="squares"),
        leadership=Heard(),
    )
    for number in range(101):
        gatherer.collect(Collect("C", 1, (number, number + 1), [pack({})], b""))
        if number < 100:
            posts.next()
    hand = offers.get(timeout=60)
    assert blocked.wait(60)
    assert hand.invite()
    go_on.set()
    assert isinstance(posts.next(), Collected)
    gatherer.close(60)


# at random ------------------------------------------------------------------------------------------------------------


class PingPong:
    """Asks each of some hands for its next call when the last one has answered; ends after so many of each."""

    def __init__(self, hands: int, rounds: int) -> None:
        self.at = [0] * hands
        self._rounds = rounds
        self._inside = threading.Lock()

    def handle(self, event: Event, now: float) -> list[Command]:
        assert isinstance(event, TakenBack)
        assert self._inside.acquire(blocking=False), "two threads are in the machine"
        try:
            which, number = event.numbers
            assert number == self.at[which]
            self.at[which] += 1
            if min(self.at) >= self._rounds:
                return [Ended(0)]
            return [TakeBack(which)] if self.at[which] < self._rounds else []
        finally:
            self._inside.release()

    def next_deadline(self) -> float | None:
        return None


@pytest.mark.parametrize("look", [leader.LOOK, 0.0001])
def test_no_post_is_lost_whoever_leads(look: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hands whose calls are brief or long by chance, before and after they answer: each answer is handled."""
    monkeypatch.setattr(UserThread, "look", look)
    monkeypatch.setattr(leader, "IDLE_SECONDS", 2 * look)
    rng, rounds, leadership = random.Random(43), 700, Leadership()
    machine = PingPong(3, rounds)
    hands = [SerialThread(f"hand-{index}", leadership) for index in range(3)]

    def ask(command: Any) -> None:
        which, number = command.count, machine.at[command.count]
        before, after = [rng.choice([0.0] * 20 + [0.0002, 0.0007, 2.5 * look]) for _ in range(2)]

        def call() -> None:
            if before:
                time.sleep(before)
            loop.post(TakenBack([which, number]))
            if after:
                time.sleep(after)

        hands[which].submit(call)

    turns = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    try:
        with Transport(QUICK) as transport:
            loop = Loop(machine, transport, {TakeBack: ask}, log=LOG, leadership=leadership)
            for which in range(3):
                loop.post(TakenBack([which, 0]))
            ended: list[Ended] = []
            thread = threading.Thread(target=lambda: ended.append(loop.run()), daemon=True)
            thread.start()
            thread.join(100)
            assert ended == [Ended(0)], machine.at
            for hand in hands:
                hand.close(60)
    finally:
        sys.setswitchinterval(turns)


def run_to_the_end(machine: Any, threads: int, call: Callable[[bytes], bytes], leadership: Leadership) -> None:
    """A pool of so many threads and a loop with this machine, which begins with a Tick and must say Ended."""
    with Transport(QUICK) as transport:
        ended: list[Ended] = []
        pool = Pool(threads, Execution(call, lambda: bytes), lambda event: loop.post(event), leadership=leadership)
        loop = Loop(machine, transport, {Execute: pool.submit}, log=LOG, leadership=leadership)
        loop.post(Tick())
        thread = threading.Thread(target=lambda: ended.append(loop.run()), name=OWN, daemon=True)
        thread.start()
        thread.join(60)
        assert ended == [Ended(0)]
        pool.close(60)


@pytest.mark.alone
def test_what_a_leading_worker_hands_over_is_sent_before_its_quantum_is_over() -> None:
    """The loop has a turn after each handing over: the distributor hears of room before there is nothing left."""
    done, seen = 0, list[tuple[int, int]]()

    class Machine:
        def handle(self, event: Event, now: float) -> list[Command]:
            nonlocal done
            if isinstance(event, Executed):
                if threading.current_thread().name != OWN:
                    # the worker leads; a busy machine may take that from it now and then
                    seen.append((done, event.numbers[-1] + 1))
                if event.numbers[-1] != 29:
                    return []
                if len(seen) > 60:
                    return [Ended(0)]
            done = 0
            return [Execute("C", 1, 0.0, list(range(30)), [pack(b"")] * 30)]

        def next_deadline(self) -> float | None:
            return None

    def call(item: bytes) -> bytes:
        nonlocal done
        time.sleep(0.0005)
        done += 1
        return item

    run_to_the_end(Machine(), 1, call, Leadership())
    # of most of them, the machine heard before another item was executed
    assert sum(one == count for count, one in seen) > len(seen) * 0.8


def test_a_thread_without_work_does_not_ask_for_the_lead_again_and_again() -> None:
    """Four threads that hold the interpreter, of which one executes alone: the others wait while it leads."""

    class Counting(Leadership):
        asked = 0

        def lead(self, hand: UserThread, calls: leader.Calls) -> None:
            self.asked += 1
            super().lead(hand, calls)

    class Machine:
        done = 0

        def handle(self, event: Event, now: float) -> list[Command]:
            if isinstance(event, Executed):
                self.done += len(event.numbers)
                return [Ended(0)] if self.done == 1600 else []
            return [Execute("C", 1, 0.0, list(range(1600)), [pack(b"")] * 1600)] if isinstance(event, Tick) else []

        def next_deadline(self) -> float | None:
            return None

    def call(item: bytes) -> bytes:
        sum(range(20_000))
        return item

    leadership, began = Counting(), time.monotonic()
    run_to_the_end(Machine(), 4, call, leadership)
    quanta = (time.monotonic() - began) / QUANTUM
    assert leadership.asked < 1000 + 4 * 2 * quanta, "a turn or two for each quantum of each thread"
