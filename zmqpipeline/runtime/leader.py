"""Who runs the loop of a role: its own thread, or the thread of user code that it would wake for the next item.

An item that comes alone costs little but wake-ups: the loop's thread wakes the one that calls the user's function, and
is woken by it for the answer. Items that compute cost more: the loop's thread waits for the interpreter at each of its
system calls, and takes it away from the thread that computes. So, while calls are short, that thread **leads**: it runs
the loop itself, and steps out of it for each call. User code still runs on its own thread, and never within the loop:
during a call nobody leads, and the loop's own thread, which looks up now and then, takes the loop over from a call that
goes on. Whoever comes back from such a call finds that it has lost the lead, and answers as ever.

The law:

* A **hand** is one thread of user code, or all threads of a worker's pool. A hand that is busy leads between two calls:
  it takes what arrived, sends what it has, and goes on. A hand of one thread that is idle waits at the sockets itself.
* Several threads lead only while all of them are busy: each that comes by makes a turn, unless another one is in it.
  As soon as one is idle, the loop's own thread waits at the sockets, so that no item waits beside an idle thread.
* The loop's own thread takes the lead back when no turn was made for a whole look (`UserThread.look`).

This is the pattern Leader/Followers (Schmidt, O'Ryan, Kircher, Pyarali and Buschmann, 2000), with a follower for life.
libzmq lets a socket pass from thread to thread if there is a full fence between them, which the lock is.
``python -m examples.benchmarks latency`` measures what it is for: three roles of two wake-ups each.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Protocol

from zmqpipeline.protocol.commands import Ended

LOOK = 0.005
"""Seconds between two looks of the loop's own thread at whoever leads: in the second one, a call is taken for long."""

MAX_LOOK = 0.025
"""While whoever leads makes turns, the time between two looks grows up to this: each look takes the interpreter."""

IDLE_SECONDS = 0.1
"""After so long beside an idle leader the loop's own thread leads again: an idle role is not to be woken."""

BRIEF = 0.0005
"""A call that takes less (seconds) is made between two turns of the loop."""

STREAK = 3
"""So many brief calls in a row, and their thread is let lead."""

PENALTY = 1000
"""A call that is not brief counts against as many brief ones as would have taken its time, but no more than this.

The loop stands still in such a call, for two looks at most: so that costs it no more time than it has led well.
"""


class Calls(Protocol):
    """What one thread of a hand has to call."""

    def is_asked(self) -> bool:
        """Whether there is something to call."""

    def serve(self) -> bool:
        """Call it, on the hand's own thread, and post the answer; False if this thread calls no more. Never raises."""


class UserThread(ABC):
    """Threads of user code, as the loop sees them. What has no lead to gain makes it without a `leadership`."""

    brief = BRIEF
    """A call that takes less (seconds) is made between two turns of the loop."""

    look = LOOK
    """Seconds between two looks of the loop's own thread while this hand leads."""

    def __init__(self, leadership: Leadership | None) -> None:
        """It offers to lead when its calls are brief."""
        self._leadership = leadership
        self._streak = 0

    @abstractmethod
    def invite(self) -> bool:
        """Have `lead` called on one of the hand's threads, now or after its call; False if it does not come to that.

        From the loop's own thread.
        """

    def is_slack(self, calls: Calls) -> bool:
        """Whether the loop's own thread has to wait at the sockets, since one of several threads is idle."""
        return False

    def is_brief(self) -> bool:
        """Whether what it is asked for may be expected to be brief."""
        return self._streak > 0

    def is_given(self) -> bool:
        """Whether it leads: a thread of it that has time is to call `lead`."""
        return self._leadership is not None and self._leadership.is_given(self)

    def lead(self, calls: Calls) -> None:
        """Lead, if it is still wanted; on one of the hand's threads, which has these calls to make."""
        if self._streak < 0:
            # a call has gone on since it offered, and another one may
            self.give_back()
        elif self._leadership is not None:
            self._leadership.lead(self, calls)

    def give_back(self) -> None:
        """Have the loop's own thread lead again, unless one of this hand is at the loop, which looks for itself."""
        if self._leadership is not None:
            self._leadership.give_back(self)

    def served(self, seconds: float) -> None:
        """It has served on its own, for so long."""
        self._count(seconds)
        if self._streak >= STREAK and self._leadership is not None:
            self._leadership.offer(self)

    def observe(self, seconds: float) -> bool:
        """It has served while it led, for so long; returns whether it may go on."""
        if seconds >= self.brief:
            self._count(seconds)
        return self._streak > 0

    def _count(self, seconds: float) -> None:
        if seconds < self.brief:
            self._streak += 1
        else:
            self._streak = -min(PENALTY, int(seconds / self.brief))


class Steps(Protocol):
    """What a loop is made of, as far as the one who leads must know."""

    def turn(self, *, patient: bool) -> Ended | None:
        """Take what arrived, waiting for it if `patient`, and what was posted."""

    def settle(self) -> Ended | None:
        """Take what was posted."""

    def has_posts(self) -> bool:
        """Whether something is posted that nobody has taken."""

    def expect_posts(self) -> None:
        """Whoever leads will look at what is posted: nobody need wake it."""

    def wake(self) -> None:
        """End a wait for arrivals, from any thread."""


class Leadership:
    """The right to run the loop of one role. Its holder may use the machine and the sockets."""

    def __init__(self) -> None:
        # Re-entrant: an interrupt may come between taking it and knowing so, and whoever cleans up takes it again.
        self._held = threading.RLock()
        self._stepped_back = threading.Lock()
        self._stepped_back.acquire()
        self._offer: UserThread | None = None
        self._leader: UserThread | None = None
        self._is_called_back = False
        self._steps = 0
        """Goes up with each turn that a hand makes."""
        self._loop: Steps
        self._ended: Ended | None = None
        self._error: BaseException | None = None

    def offer(self, hand: UserThread) -> None:
        """This hand could lead; from any thread."""
        self._offer = hand

    def run(self, loop: Steps) -> Ended:
        """Run the loop until it ends, on this thread and on those that lead; raises what any of its steps raises."""
        self._loop = loop
        with self._held:
            while True:
                ended = loop.turn(patient=True)
                if ended is None and self._offer is not None:
                    ended = self._follow()
                if ended is not None:
                    return ended

    def is_given(self, hand: UserThread) -> bool:
        """Whether this hand leads; from any thread."""
        return self._leader is hand

    # the loop's own thread --------------------------------------------------------------------------------------------

    def _follow(self) -> Ended | None:
        """Let the hand lead that offered to, until the lead comes back; returns the end if it came meanwhile."""
        hand, self._offer = self._offer, None
        assert hand is not None
        self._is_called_back = False
        try:
            self._leader = hand
            self._held.release()
            # a busy hand may lead all the same: by an earlier invitation, which it was too late for
            if hand.invite() or not self._held.acquire(blocking=False):
                self._watch(hand.look)
            else:
                self._end_lead()
        except BaseException:
            self._call_back()
            raise
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._ended

    def _watch(self, look: float) -> None:
        """Wait until the lead comes back, or take it from a call that goes on; holds it then."""
        seen, idle = self._steps, 0.0
        while not self._stepped_back.acquire(timeout=look):
            steps = self._steps
            if steps != seen:
                seen, idle = steps, 0.0
                look = max(look, min(MAX_LOOK, look * 1.1))
            elif self._held.acquire(blocking=False):
                # For a whole look the lead was free, or given to a thread that did not come for it.
                self._end_lead()
                return
            else:
                idle += look
                if idle >= IDLE_SECONDS and not self._is_called_back:
                    self._is_called_back = True
                    self._loop.wake()
        self._held.acquire()

    def _end_lead(self) -> None:
        """The lead is taken; or it came back just now, of which the next watch shall hear nothing."""
        self._leader = None
        self._stepped_back.acquire(blocking=False)

    def _call_back(self) -> None:
        """An interrupt: what whoever leads would use is about to be closed."""
        self._is_called_back = True
        self._loop.wake()
        self._held.acquire()
        self._leader = None

    # the threads of a hand --------------------------------------------------------------------------------------------

    def lead(self, hand: UserThread, calls: Calls) -> None:
        """Run the loop on this thread of the hand, until it ends or there is more to call than a brief call."""
        if not self._take(hand):
            return
        # what was offered meanwhile, by its last call perhaps, is offered again when it is still wanted
        self._offer = None
        while self._run_to_call(hand, calls):
            began = time.perf_counter()
            goes_on = calls.serve()
            is_brief = hand.observe(time.perf_counter() - began)
            if not self._take(hand):
                return
            if not (goes_on and is_brief):
                self._step_back()
                return

    def give_back(self, hand: UserThread) -> None:
        """Give the lead back, if it is this hand's and none of its threads is at the loop."""
        if self._take(hand):
            self._step_back()

    def _take(self, hand: UserThread) -> bool:
        """Take the lead, if it is still this hand's."""
        if not self._held.acquire(blocking=False):
            return False
        if self._leader is hand:
            return True
        self._held.release()
        return False

    def _run_to_call(self, hand: UserThread, calls: Calls) -> bool:
        """Run the loop until there is a brief call to make: then the lead is free. Else it is given back; False."""
        loop = self._loop
        try:
            ended = loop.settle()
            while ended is None and not self._is_called_back and not hand.is_slack(calls):
                ended = loop.turn(patient=not calls.is_asked())
                self._steps += 1
                if ended is None and not self._is_called_back and calls.is_asked():
                    if not hand.is_brief():
                        break
                    if self._leave_between_calls(hand, calls):
                        return True
                    ended = loop.settle()
            self._ended = ended
        except BaseException as error:
            # a step of the loop raised: the loop's own thread raises it, where `run` was called
            self._error = error
        self._step_back()
        return False

    def _leave_between_calls(self, hand: UserThread, calls: Calls) -> bool:
        """Let go of the lead for a call; False if it is held again, since another thread left something to be done."""
        self._loop.expect_posts()
        self._held.release()
        # whoever found it held a moment ago, and had posted something or become idle, relies on this look
        return not (self._loop.has_posts() or hand.is_slack(calls)) or not self._take(hand)

    def _step_back(self) -> None:
        self._leader = None
        # in this order: while the lead is held, nobody takes it for that of a call that goes on
        self._stepped_back.release()
        self._held.release()
