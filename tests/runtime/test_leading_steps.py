"""Leadership, one step at a time: each order in which threads may come to the same place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from tests.support.transports import HAND, OWN
from zmqpipeline.protocol.commands import Ended
from zmqpipeline.runtime import leader
from zmqpipeline.runtime.leader import Leadership, UserThread


class Turns:
    """A loop whose patient turns end when the test says so, with what it says."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._begun = {name: threading.Semaphore(0) for name in (OWN, HAND)}

    def turn(self, *, patient: bool) -> Ended | None:
        self._begun[threading.current_thread().name].release()
        return self.ends.get(timeout=60)

    def await_turn(self, name: str) -> None:
        """Wait until this thread has begun one more turn."""
        assert self._begun[name].acquire(timeout=60)

    def settle(self) -> Ended | None:
        return None

    def has_posts(self) -> bool:
        return False

    def expect_posts(self) -> None: ...

    def wake(self) -> None:
        self.ends.put(None)


class Puppet(UserThread):
    """A hand that leads when the test says so, and never has a brief call."""

    def __init__(self, leadership: Leadership, invite: Callable[[Puppet], bool]) -> None:
        super().__init__(leadership)
        self._invite = invite
        self.asked = self.slack = False
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def begin(self) -> None:
        """Lead, on a new thread."""
        self.threads.append(threading.Thread(target=self._lead, name=HAND, daemon=True))
        self.threads[-1].start()

    def _lead(self) -> None:
        try:
            self.lead(self)
        except BaseException as error:
            self.errors.append(error)

    def invite(self) -> bool:
        return self._invite(self)

    def is_asked(self) -> bool:
        return self.asked

    def is_slack(self, calls: leader.Calls) -> bool:
        return self.slack

    def serve(self) -> bool:
        raise AssertionError("it has no brief call")


def running(leadership: Leadership, turns: Turns) -> tuple[threading.Thread, list[Ended]]:
    """The loop's own thread, started, and what it returns."""
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(leadership.run(turns)), name=OWN, daemon=True)
    thread.start()
    return thread, ended


def a_second_lead_is_watched(leadership: Leadership, hand: Puppet, turns: Turns) -> None:
    """After a turn of the loop's own thread the hand leads again; idle, it is called back."""
    turns.await_turn(OWN)
    turns.ends.put(None)
    turns.await_turn(OWN)
    leadership.offer(hand)
    turns.ends.put(None)
    turns.await_turn(HAND)
    hand.threads[1].join(60)
    assert not hand.errors
    turns.await_turn(OWN)


def test_a_late_invitation_that_is_taken_up_is_watched() -> None:
    """A hand that says it is busy, but leads by an earlier invitation, is called back when idle like any other."""
    leadership, turns = Leadership(), Turns()

    def invite(hand: Puppet) -> bool:
        hand.begin()
        turns.await_turn(HAND)
        return False

    hand = Puppet(leadership, invite)
    leadership.offer(hand)
    thread, ended = running(leadership, turns)
    turns.await_turn(OWN)
    turns.ends.put(None)
    # in between the hand leads, and is called back
    turns.await_turn(OWN)
    turns.ends.put(Ended(0))
    thread.join(60)
    assert ended == [Ended(0)]
    assert not hand.errors


def test_a_lead_that_comes_back_while_it_is_taken_is_back_once() -> None:
    """The next lead of a hand is watched to its end, although the last one ended at the very moment of a look."""
    leadership, turns = Leadership(), Turns()

    def invite(hand: Puppet) -> bool:
        hand.asked = False
        hand.begin()
        return True

    hand = Puppet(leadership, invite)

    class Held:
        """The lock of the lead; the look that would take it is held up until the hand has stepped back."""

        def __init__(self) -> None:
            self._lock = threading.RLock()
            self._is_first = True

        def acquire(self, blocking: bool = True) -> bool:
            if not blocking and threading.current_thread().name == OWN and self._is_first:
                self._is_first = False
                turns.await_turn(HAND)
                hand.asked = True
                turns.ends.put(None)
                hand.threads[0].join(60)
            return self._lock.acquire(blocking)

        def release(self) -> None:
            self._lock.release()

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *raised: object) -> None:
            self._lock.release()

    leadership._held = Held()  # type: ignore[assignment]
    leadership.offer(hand)
    thread, ended = running(leadership, turns)
    a_second_lead_is_watched(leadership, hand, turns)
    turns.ends.put(Ended(0))
    thread.join(60)
    assert ended == [Ended(0)]


def test_a_lead_that_comes_back_during_its_invitation_is_back_once() -> None:
    """A hand took it by itself and gave it back before it said that it would not lead; the next lead is watched."""
    leadership, turns, is_first = Leadership(), Turns(), True

    def invite(hand: Puppet) -> bool:
        nonlocal is_first
        was_first, is_first = is_first, False
        hand.slack = was_first
        hand.begin()
        if was_first:
            hand.threads[0].join(60)
        return not was_first

    hand = Puppet(leadership, invite)
    leadership.offer(hand)
    thread, ended = running(leadership, turns)
    a_second_lead_is_watched(leadership, hand, turns)
    assert not leadership.is_given(hand)
    turns.ends.put(Ended(0))
    thread.join(60)
    assert ended == [Ended(0)]
