"""How many of a worker's threads execute: all of them, or one, if that is as fast.

Python code holds the interpreter, so several threads that compute only take it from each other. On two cores, with
loops of 80 us and turns of 5 ms, two threads do 0.93 and ten 0.83 of what one does; functions that let go of the
interpreter for microseconds (small files that are read and hashed) fare worse, since each time another thread takes it.
Threads that wait, or compute without the interpreter, gain by each other. Which of the two an item does cannot be seen
from outside, so it is tried.

The law:

* All threads execute until they are seen to compete: several execute, and in sum they want a core (`MIN_LOAD`).
  Threads that run for clearly more than one core's time (`PARALLEL`) do let go of the interpreter: nothing is tried.
* Then one executes alone for a window. It goes on alone if it is not slower (`ALONE`); else all go on.
* Slower is who does fewer items per second, and has less of a core, too: items may be of very different lengths, and
  who has the same core for as long does as much of those that hold the interpreter, however many they are.
* While another one is still in a long item, how one alone does cannot be seen: then all go on (`PATIENCE`).
* The other way is tried again after a while, which doubles each time that nothing changes. All threads come back only
  if they are clearly faster (`TOGETHER`): with a core to spare two are nearly twice as fast.
* One that executes alone and waits, so that it leaves its core idle, has the others back at once: also if it waits in
  one long item (`STUCK_SECONDS`). One that computes that long has them back later (`LONG_SECONDS`): they would only
  share its core with it, and each of them begin another long one.

What is compared is items per second in which anybody executes, so that times without work do not count. A thread wants
a core while it runs or is kept from running by other programs: the kernel's own account, so that a busy machine is not
taken for work that waits.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

WINDOW = 0.03
"""The shortest time (seconds) that is compared.
"""

MIN_LOAD = 0.7
"""Seconds a second in which threads want a core; below it they wait, and do not compete."""

PARALLEL = 1.3
"""Seconds a second which threads run; above it they cannot be taking the interpreter from each other only.

A thread that waits for the interpreter looks up once a turn, which is some hundredths.
"""

ALONE = 0.93
"""One thread goes on alone if it does so much of what all did, or has so much of the one core that they had in sum."""

ONE_CORE = 1.1
"""Seconds a second which threads run; up to here they share one core, since one of them holds the interpreter."""

TOGETHER = 1.15
"""All threads come back if they do so many times what one did."""

HOLD, SURE_HOLD, MAX_HOLD = 0.5, 2.0, 8.0
"""Seconds before the other way is tried again: at first, where one had the same core as all, and at most."""

PATIENCE = 0.05
"""So long (seconds), for each thread, one executes alone while others are still in what they had begun.

Items that compute for longer lift the limit themselves, and those of all threads share the interpreter.
"""

STUCK_SECONDS, LONG_SECONDS = 0.1, 0.5
"""A thread that executes alone has the others back when one of its items takes longer: if it waits, and in any case."""

_NEWEST = 0.6
"""The weight of the newest window in a rate."""


class CoreTime(NamedTuple):
    """What one thread had of a core, in seconds."""

    ran: float
    """It was on a core."""
    wanted: float
    """It was on a core, or ready to run and in the queue for one."""

    def since(self, before: CoreTime) -> CoreTime:
        """What came after that."""
        return CoreTime(self.ran - before.ran, self.wanted - before.wanted)


class ThreadLimit:
    """See the module. Not thread-safe: the pool calls it under its lock. Times in seconds, of any one clock."""

    def __init__(self, threads: int) -> None:
        """All of them execute at first."""
        self.threads = threads
        self.limit = threads
        """How many execute."""
        self._rates: dict[int, float] = {}
        """Items a second, by how many executed."""
        self._cores: dict[int, float] = {}
        """Seconds a second which they ran, by how many executed; of the newest window."""
        self._active: dict[int, float] = {}
        """The threads that execute, by their index, and since when."""
        self._since = 0.0
        self._hold = HOLD
        self._held_since = self._alone_since = 0.0
        self._is_trial = self._is_over = False
        self._open(0.0)

    def _open(self, now: float) -> None:
        """Begin a window."""
        self._opened = now
        self._busy = self._shared = self._wanted = self._ran = self._spent = 0.0
        self._items = 0

    def enter(self, now: float, thread: int) -> None:
        """A thread begins to execute."""
        self._count(now)
        self._active[thread] = now

    def leave(self, now: float, thread: int, core: CoreTime, items: int) -> bool:
        """A thread has executed so many items since it entered, and has had and wanted so much of a core for that.

        Returns whether the limit has changed.
        """
        self._count(now)
        began = self._active.pop(thread, now)
        if began >= self._opened:
            self._spent += max(0.0, now - began)
            self._items += items
            self._wanted += core.wanted
            self._ran += core.ran
        if self.limit == 1 and self._active:
            # others have not ended what they had begun: this is no time of one alone
            self._open(now)
            if now - self._alone_since > PATIENCE * self.threads:
                self._decide(self.threads, now)
                return True
        if self._is_over or self._busy < WINDOW or self._items < 2 * self.limit:
            return False
        before = self.limit
        self._close(now)
        return self.limit != before

    def lift(self, now: float) -> bool:
        """The one that executes alone waits: all execute; returns whether the limit has changed."""
        if self.limit == self.threads:
            return False
        self._set(self.threads, now)
        return True

    def end(self) -> None:
        """All execute from here on: one of them is lost, and could be the one that executes alone."""
        self.limit, self._is_over = self.threads, True

    def _count(self, now: float) -> None:
        if self._active:
            self._busy += max(0.0, now - self._since)
            self._shared += len(self._active) * max(0.0, now - self._since)
        self._since = now

    def _close(self, now: float) -> None:
        """A window is over."""
        together = self._shared / self._busy
        # of one thread, by the quanta that began and ended within: what is done in others is not known, or was before
        seconds = max(self._spent, 1e-6)
        rate, load = together * self._items / seconds, together * self._wanted / seconds
        ran = together * self._ran / seconds
        known = self._rates.get(self.limit)
        if known is not None and not self._is_trial:
            rate = known + _NEWEST * (rate - known)
        self._rates[self.limit], self._cores[self.limit] = rate, ran
        self._open(now)
        if self.limit == 1:
            self._judge_one(now, load)
        else:
            self._judge_all(now, load, together, is_parallel=ran > PARALLEL)

    def _judge_one(self, now: float, load: float) -> None:
        is_busy = load >= MIN_LOAD
        if self._is_trial:
            is_as_good = self._is_same_core() or self._rates[1] >= ALONE * self._rates.get(self.threads, 0.0)
            self._decide(1 if is_busy and is_as_good else self.threads, now)
        elif not is_busy:
            self._set(self.threads, now)
        elif now - self._held_since >= self._hold:
            self._is_trial, self.limit = True, self.threads

    def _judge_all(self, now: float, load: float, together: float, *, is_parallel: bool) -> None:
        if self._is_trial:
            is_faster = self._rates[self.threads] > TOGETHER * self._rates[1] and not self._is_same_core()
            self._decide(self.threads if is_faster else 1, now)
        elif is_parallel or load < MIN_LOAD or together <= 1.5:
            return
        elif not self._held_since or now - self._held_since >= self._hold:
            self.try_one(now)

    def _is_same_core(self) -> bool:
        """Whether all have one core in sum, and one alone has it as well."""
        together = self._cores.get(self.threads, 0.0)
        return ALONE * together <= self._cores.get(1, 0.0) and together <= ONE_CORE

    def try_one(self, now: float) -> None:
        """One executes alone for a window."""
        self.limit, self._is_trial, self._alone_since = 1, True, now

    def _decide(self, limit: int, now: float) -> None:
        """The trial is over: the limit is what it was before, or the one that was tried."""
        self._hold = HOLD if limit == self.limit else min(MAX_HOLD, 2 * self._hold)
        if limit == 1 and self._is_same_core():
            self._hold = max(self._hold, SURE_HOLD)
        if limit != self.limit:
            self._alone_since = now
        self.limit, self._is_trial, self._held_since = limit, False, now

    def _set(self, limit: int, now: float) -> None:
        """Change the limit without a trial."""
        self._rates.pop(1, None)
        self.limit, self._is_trial, self._held_since, self._hold = limit, False, now, HOLD


class StuckWatch:
    """Whether the thread that executes alone is in an item for so long that the others are to execute, too.

    For the ticker: it looks again and again, and reads the clock of the other thread. Times in seconds, of any one
    clock.
    """

    __slots__ = ("_began", "_first", "_seen")

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._began = self._first = -1.0
        self._seen = CoreTime(0.0, 0.0)

    def is_stuck(self, now: float, began: float, since: float, core: CoreTime) -> bool:
        """The thread is at an item since `began`, others wait since `since`, and it has had so much of a core."""
        if began != self._began:
            self._began, self._first, self._seen = began, now, core
        waited = now - max(began, since)
        if waited <= STUCK_SECONDS:
            return False
        watched = now - self._first
        return waited > LONG_SECONDS or (watched > 0 and core.wanted - self._seen.wanted < MIN_LOAD * watched)


class CoreClock:
    """What the thread that makes it has had of a core so far.

    The kernel's schedstat of a thread: time on a core and time in the queue for one. Where there is none, the first,
    and only that thread itself may ask.
    """

    __slots__ = ("_file",)

    @property
    def is_shared(self) -> bool:
        """Whether other threads may ask, too."""
        return self._file >= 0

    def __init__(self) -> None:
        """For the thread that calls this."""
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def __call__(self) -> CoreTime:
        """Seconds so far."""
        if self._file < 0:
            return CoreTime(time.thread_time(), time.thread_time())
        running, waiting, _ = os.pread(self._file, 64, 0).split()
        ran = int(running) * 1e-9
        return CoreTime(ran, ran + int(waiting) * 1e-9)

    def close(self) -> None:
        """Once the thread ends."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
