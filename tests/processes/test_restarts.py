"""When the places of a slots are filled again, and what reaches its queue."""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from typing import Any, cast

import pytest

from zmqpipeline.processes.restarts import (
    FAILED_STARTS_LIMIT,
    FIRST_DELAY,
    MAX_DELAY,
    SETTLED_AFTER,
    TRIAL_SECONDS,
    ChildEnded,
    ChildSlots,
    Signalled,
    Slot,
    Verdict,
)
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime.child import Child
from zmqpipeline.runtime.child_report import Told, failed_start

_minutes = itertools.count(100.0, 60.0)

IDLE, AT_WORK = b"ready\n", b"ready\nstarting\nworking\n"


def judged(
    slots: ChildSlots, place: Slot, told: bytes, *, lived: float = 1.0, status: int = -9
) -> tuple[Verdict, float]:
    """What the end of a child means that had told this, and after how many seconds its place is due again.

    Each call is a minute after the one before.
    """
    now = next(_minutes)
    verdict = slots.judge(ChildEnded(place, 1, status, lived, Told.read(told)), now)
    return verdict, round((place.restart_at or math.nan) - now, 6)


def test_delays_double_up_to_a_limit() -> None:
    """A worker that dies again and again with nothing to do is started later and later, and never given up."""
    place = Slot("worker", [])
    slots = ChildSlots([place])
    found = [judged(slots, place, IDLE) for _ in range(100)]
    assert [delay for _, delay in found[:8]] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, MAX_DELAY, MAX_DELAY]
    assert {verdict for verdict, _ in found} == {Verdict.DIED}


@pytest.mark.parametrize(("told", "lived"), [(IDLE, SETTLED_AFTER), (AT_WORK, 0.3)])
def test_a_child_that_got_on_is_replaced_soon(told: bytes, lived: float) -> None:
    """Ten seconds of life, or an item begun, put the delay back to the first one."""
    place = Slot("worker", [])
    slots = ChildSlots([place])
    for _ in range(5):
        judged(slots, place, IDLE)
    assert judged(slots, place, told, lived=lived) == (Verdict.DIED, FIRST_DELAY)
    assert judged(slots, place, IDLE, lived=9.9) == (Verdict.DIED, FIRST_DELAY * 2)


def test_deaths_in_other_places_do_not_count() -> None:
    """Twenty of 22 workers die at once: each is due after the first delay."""
    slots = ChildSlots([Slot(f"worker {n}", [], "C") for n in range(22)])
    for place in slots.places[:20]:
        assert judged(slots, place, IDLE) == (Verdict.DIED, FIRST_DELAY)


def test_a_task_is_hopeless_when_each_of_its_places_is() -> None:
    """As long as one worker of a task may yet start, those beside it are tried again; other tasks do not help."""
    first, second, other = Slot("worker 1", [], "C"), Slot("worker 2", [], "C"), Slot("worker", [], "D")
    slots = ChildSlots([first, second, other])
    for _ in range(20):
        assert judged(slots, first, b"ready\nstarting\n")[0] is Verdict.DIED
    for _ in range(FAILED_STARTS_LIMIT - 1):
        assert judged(slots, second, b"")[0] is Verdict.DIED
    assert judged(slots, second, b"")[0] is Verdict.HOPELESS


class AtWork:
    """A child whose init functions have returned, or not yet."""

    def __init__(self, worked: bool, is_old: bool = False) -> None:
        self.worked = worked
        self.started = 0.0 if is_old else math.inf

    def has_told(self) -> Told:
        """As of a child."""
        return Told(has_worked=self.worked)


def seated(slots: ChildSlots) -> list[Slot]:
    """The places that are filled from here on, each with a child that is not beyond its init functions."""
    started: list[Slot] = []

    def start(place: Slot) -> None:
        place.child, place.restart_at = cast(Child, AtWork(worked=False)), None
        started.append(place)

    slots.start = start  # type: ignore[method-assign]
    return started


def raised(place: str, error: str = "KeyError") -> bytes:
    """What a child tells whose init function raised there."""
    return f"ready\nstarting\n{failed_start(ErrorInfo(error, 'x', '', place))}\nexit 1\n".encode()


def test_a_bug_in_an_init_function_makes_a_task_hopeless_at_the_third_time() -> None:
    """In whatever places it comes, also while another child is on its way; not if each time it is another."""
    first, second, other = Slot("worker 1", [], "C"), Slot("worker 2", [], "C"), Slot("worker", [], "D")
    slots = ChildSlots([first, second, other])
    for told in (raised("a.py:1 f"), raised("a.py:2 f"), raised("a.py:2 f", "OSError"), raised("a.py:2 f")):
        assert judged(slots, first, told)[0] is Verdict.DIED
    assert judged(slots, other, raised("a.py:2 f"))[0] is Verdict.DIED
    assert judged(slots, second, raised("a.py:2 f"))[0] is Verdict.DIED
    first.child = cast(Child, AtWork(worked=False))
    assert not slots.is_bug("C")
    assert judged(slots, second, raised("a.py:2 f"))[0] is Verdict.HOPELESS
    assert (slots.is_bug("C"), slots.is_bug("D")) == (True, False)


def test_children_that_meet_a_bug_at_the_same_time_count_once() -> None:
    """Five are begun together: what each meets says no more than one, and the next are tried one after the other."""
    slots = ChildSlots([Slot(f"worker {n}", [], "C") for n in range(5)])
    started = seated(slots)
    told = Told.read(raised("a.py:1 f"))
    for n, place in enumerate(slots.places):
        assert slots.judge(ChildEnded(place, 1, 1, 1.0, told), 101.0 + n / 100) is Verdict.DIED
    slots.start_due(102.0)
    slots.start_due(103.0)
    assert started == slots.places[:1]
    assert slots.judge(ChildEnded(slots.places[0], 1, 1, 0.5, told), 104.0) is Verdict.DIED
    slots.start_due(104.0)
    assert started == slots.places[:2]
    assert slots.judge(ChildEnded(slots.places[1], 1, 1, 0.5, told), 105.0) is Verdict.HOPELESS


def test_who_waited_for_another_trial_is_started_when_that_one_got_on() -> None:
    """A database that was away: one child got beyond its init functions, and the others are begun."""
    slots = ChildSlots([Slot(f"worker {n}", [], "C") for n in range(3)])
    started = seated(slots)
    for place in slots.places:
        slots.judge(ChildEnded(place, 1, 1, 1.0, Told.read(raised("a.py:1 f"))), 101.0)
    slots.start_due(102.0)
    cast(Any, slots.places[0].child).worked = True
    slots.start_due(102.0 + TRIAL_SECONDS)
    assert started == slots.places


def test_a_child_that_is_at_its_init_functions_for_longer_may_get_beyond_them() -> None:
    """A server lets in one client, say: those that it refuses at once end nothing, as long as that one is hoped for."""
    first, second = Slot("worker 1", [], "C"), Slot("worker 2", [], "C")
    slots = ChildSlots([first, second])
    first.child = cast(Child, AtWork(worked=False, is_old=True))
    for _ in range(10):
        assert judged(slots, second, raised("a.py:1 f"))[0] is Verdict.DIED
    first.child = None
    assert judged(slots, second, raised("a.py:1 f"))[0] is Verdict.HOPELESS


@pytest.mark.parametrize("way", ["running", "ended"])
def test_what_a_child_got_beyond_is_tried_five_times_in_each_place(way: str) -> None:
    """A database that is away for a moment: an init function that did its part before may do it again."""
    first, second = Slot("worker 1", [], "C"), Slot("worker 2", [], "C")
    slots = ChildSlots([first, second])
    if way == "running":
        second.child = cast(Child, AtWork(worked=True))
    else:
        judged(slots, second, AT_WORK)
    for _ in range(20):
        assert judged(slots, first, raised("a.py:1 f"))[0] is Verdict.DIED
    second.child = None
    for _ in range(FAILED_STARTS_LIMIT - 1):
        assert judged(slots, second, raised("a.py:1 f"))[0] is Verdict.DIED
    assert judged(slots, second, raised("a.py:1 f"))[0] is Verdict.HOPELESS
    assert not slots.is_bug("C")


def test_an_init_function_that_runs_out_of_time_is_no_bug() -> None:
    """Nothing was raised: such a trouble has no place."""
    place = Slot("worker", [], "C")
    slots = ChildSlots([place])
    for _ in range(FAILED_STARTS_LIMIT - 1):
        assert judged(slots, place, raised("", "TimeoutError"))[0] is Verdict.DIED
    assert judged(slots, place, raised("", "TimeoutError"))[0] is Verdict.HOPELESS
    assert not slots.is_bug("C")


def test_failed_starts_count_only_in_a_row() -> None:
    """A child that was ready begins the count anew."""
    place = Slot("worker", [])
    slots = ChildSlots([place])
    for told in (b"", b"ready\nstarting\n", IDLE, b"ready\nstarting\nexit 1\n"):
        judged(slots, place, told)
    assert place.failed_starts == 1


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (b"exit 2\n", Verdict.MISCONFIGURED),
        (AT_WORK + b"exit 0\n", Verdict.LEFT),
        (AT_WORK + b"replace\nexit 0\n", Verdict.REPLACED),
        (AT_WORK + b"exit 70\n", Verdict.DIED),
        (AT_WORK + b"replace\n", Verdict.DIED),
        (AT_WORK + b"exit 2", Verdict.DIED),
        (AT_WORK, Verdict.DIED),
    ],
)
def test_what_a_child_told_is_what_its_end_means(told: bytes, verdict: Verdict) -> None:
    """And not the status that it ended with; a torn line says nothing."""
    for status in (0, 1, 2, 3, 70, -9):
        place = Slot("worker", [], "C")
        found, delay = judged(ChildSlots([place]), place, told, status=status)
        assert found is verdict
        assert math.isnan(delay) == (verdict in (Verdict.MISCONFIGURED, Verdict.LEFT))
        assert delay == 0.0 or verdict is not Verdict.REPLACED


@pytest.mark.processes
def test_a_dead_child_is_started_again_when_it_is_due() -> None:
    """The queue tells the end; the place is filled when its delay is over, and not before."""
    slots = ChildSlots()
    place = Slot("worker", ["-c", "raise SystemExit(3)"])
    try:
        slots.start(place)
        ended = slots.wait(time.monotonic() + 60)
        assert isinstance(ended, ChildEnded)
        assert (ended.place, ended.status) == (place, 3)
        assert slots.judge(ended, 50.0) is Verdict.DIED
        slots.start_due(50.05)
        assert slots.running() == []
        assert slots.next_start() == pytest.approx(50.1)
        slots.start_due(50.2)
        assert slots.running() == [place]
        assert slots.next_start() is None
    finally:
        slots.kill()


@pytest.mark.processes
def test_a_signal_is_heard_before_the_next_child_starts() -> None:
    """Of three places that are due one is filled: the signal that comes meanwhile may mean that no other is to be."""

    class Watcher:
        def started(self, place: Slot) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        def ended(self, end: ChildEnded, verdict: Verdict | None) -> None:
            pass

    slots = ChildSlots(watcher=Watcher())
    for number in range(3):
        slots.add(Slot(str(number), ["-c", "import time; time.sleep(60)"]), 50.0)
    try:
        with slots.signals():
            slots.start_due(60.0)
            assert len(slots.running()) == 1
            assert slots.wait(time.monotonic() + 60) == Signalled(signal.SIGTERM)
            assert slots.next_start() == 50.0
    finally:
        slots.kill()


@pytest.mark.processes
def test_kill_leaves_nobody() -> None:
    """After kill, every child has ended."""
    slots = ChildSlots()
    places = [Slot(str(number), ["-c", "import time; time.sleep(60)"]) for number in range(3)]
    for place in places:
        slots.start(place)
    children = [place.child for place in places]
    slots.kill()
    assert [child.status for child in children if child is not None] == [-signal.SIGKILL] * 3


def test_signals_reach_the_queue_and_the_handlers_come_back() -> None:
    """Within the context a signal is a event; afterwards the handler from before is in place."""
    slots = ChildSlots()
    before = signal.getsignal(signal.SIGTERM)
    with slots.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert slots.wait(time.monotonic() + 60) == Signalled(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_after_the_last_context_changes_no_status() -> None:
    """A process that is about to end with its status does not die of a SIGTERM that comes late."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with ChildSlots().signals(is_last=True):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_wait_ends_in_time() -> None:
    """A wait with nothing to tell ends at its time, with None."""
    assert ChildSlots().wait(time.monotonic() + 0.01) is None
