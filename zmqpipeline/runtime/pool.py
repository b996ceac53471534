"""The worker's threads: items from one deque, results in batches.

A thread takes one item at a time (`popleft` is atomic, and so is `pop`, by which items are taken back: none can be both
executed and returned). It appends the result to its own list; whoever hands over takes from the list's front under the
thread's lock. So the ticker can hand over what is there while a long item runs, and an item costs no lock. Only items
with a timeout take it, since there the thread and the ticker must agree on who was first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, InitFailed, TakenBack, ThreadLost
from zmqpipeline.protocol.messages import Trouble
from zmqpipeline.runtime.calls import Post, trouble_of
from zmqpipeline.runtime.ticker import INTERVAL, Ticker

SLOW_ITEM = 0.0002
"""The result of an item that took longer (seconds) is handed over at once."""

BATCH_SECONDS = 0.004
"""Results of short items are handed over when the first of them is so old."""

BATCH_ITEMS = 2000
"""The most results in one Executed."""

_TIMEOUT_LOOK = 0.05


class Job(NamedTuple):
    """What the items of one Execute have in common."""

    attempt: int
    timeout: float


class _Slot:
    """One thread and what it has to hand over."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.lock = threading.Lock()
        self.gate = threading.Lock()
        """Closed while the thread is at work; an idle one waits here."""
        self.gate.acquire()
        self.part: list[Any] = []
        self.failures: list[tuple[int, Trouble]] = []
        self.job = Job(0, 0.0)
        # Handed over up to `mark`, busy up to `last` (time.perf_counter).
        self.mark = self.last = 0.0
        self.timed: tuple[int, float] | None = None
        self.lost = False
        self.thread: threading.Thread | None = None


class Pool:
    """Executes items on `threads` threads, which start with the first `submit`."""

    def __init__(
        self,
        threads: int,
        execute: Callable[[int, bytes, int, int], bytes],
        post: Post,
        *,
        thread_start: Callable[[int], object] | None = None,
    ) -> None:
        """`execute(thread_index, payload, number, attempt)` returns a packed result, and fails the item if it raises.

        `thread_start(thread_index)` is called once in each thread, first; a thread where it raises takes no item, and
        InitFailed tells.
        """
        self.execute = execute
        """May be replaced; an Execute is executed by what there is when its first item is taken."""
        self._post = post
        self._thread_start = thread_start
        self._waiting: deque[tuple[int, bytes, Job]] = deque()
        self._slots = [_Slot(index) for index in range(threads)]
        self._idle: deque[_Slot] = deque()
        self._started = False
        self._closed = False
        self._ticker = Ticker("zmqpipeline-worker-ticker", self._look)

    def submit(self, command: Execute) -> None:
        """Queue these items; Executed answers, in parts. From the loop's thread only, as all that follows."""
        job = Job(command.attempt, command.timeout)
        self._waiting.extend(zip(command.numbers, command.payloads, repeat(job)))
        if not self._started:
            self._start()
        # Whoever is about to be idle looks at the deque once more after it has put itself on the list.
        if self._idle:
            self._wake(len(command.numbers))

    def _wake(self, count: int) -> None:
        """Open the gates of up to `count` idle threads."""
        try:
            for _ in range(count):
                self._idle.popleft().gate.release()
        except IndexError:
            pass  # All are at work.

    def take_back(self, count: int | None = None) -> None:
        """Take up to `count` unstarted items (None: all) off the queue, the last first; TakenBack answers."""
        numbers: list[int] = []
        while self._waiting and (count is None or len(numbers) < count):
            try:
                numbers.append(self._waiting.pop()[0])
            except IndexError:
                break  # A thread was faster.
        self._post(TakenBack(sorted(numbers)))

    def close(self, timeout: float) -> None:
        """Drop what is queued and end the threads; wait at most `timeout` seconds for the items that run."""
        self._closed = True
        self._waiting.clear()
        self._wake(len(self._slots))
        end = time.monotonic() + timeout
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(0.0, end - time.monotonic()))
        self._ticker.close(max(0.1, end - time.monotonic()))

    def _start(self) -> None:
        self._started = True
        # Its thread starts now: later there may be no memory left for one, and whoever kicks it would not survive that.
        self._ticker.kick()
        for slot in self._slots:
            name = f"zmqpipeline-worker-{slot.index}"
            thread = threading.Thread(target=self._serve, args=(slot,), name=name, daemon=True)
            thread.start()
            slot.thread = thread

    def _serve(self, slot: _Slot) -> None:
        if self._thread_start is not None:
            try:
                self._thread_start(slot.index)
            except BaseException as error:
                self._post(InitFailed(trouble_of(error)))
                return
        # A lost thread must not wait: it would be woken in the place of another.
        while not slot.lost and self._wait(slot):
            self._work(slot)
            with slot.lock:
                self._hand_over(slot)

    def _wait(self, slot: _Slot) -> bool:
        """Wait until there is something to take; False if it is over."""
        while not self._waiting and not self._closed:
            self._idle.append(slot)
            if self._waiting or self._closed:
                try:
                    self._idle.remove(slot)
                    break
                except ValueError:
                    pass  # It was taken off the list a moment ago: the gate is open, or will be.
            slot.gate.acquire()
        slot.mark = slot.last = time.perf_counter()
        return not self._closed

    def _work(self, slot: _Slot) -> None:
        """Execute items until the deque is empty, handing over on the way."""
        take, execute, clock = self._waiting.popleft, self.execute, time.perf_counter
        index, part = slot.index, slot.part
        began, known, (attempt, timeout) = slot.last, slot.job, slot.job
        while True:
            try:
                number, payload, job = take()
            except IndexError:
                return
            if job is not known:
                self._begin(slot, job)
                execute, known, (attempt, timeout) = self.execute, job, job
            if len(part) == 2:
                # what is there must not wait for this item, should it be a long one
                self._ticker.kick()
            if timeout:
                slot.timed = (number, clock() + timeout)
                self._ticker.kick()
            try:
                result = execute(index, payload, number, attempt)
            except BaseException as error:
                if not self._fail(slot, number, error):
                    return
            else:
                if not timeout:
                    part += (number, result)
                elif not self._finish(slot, number, result):
                    return
            slot.last = ended = clock()
            if ended - began > SLOW_ITEM or ended - slot.mark > BATCH_SECONDS or len(part) >= 2 * BATCH_ITEMS:
                with slot.lock:
                    self._hand_over(slot)
            began = ended

    def _begin(self, slot: _Slot, job: Job) -> None:
        """Items of another Execute follow: those of another attempt do not share a batch."""
        with slot.lock:
            if job.attempt != slot.job.attempt:
                self._hand_over(slot)
            slot.job = job

    def _finish(self, slot: _Slot, number: int, result: bytes) -> bool:
        """Keep the result of an item with a timeout, unless the ticker found it late."""
        with slot.lock:
            slot.timed = None
            if not slot.lost:
                slot.part += (number, result)
            return not slot.lost

    def _fail(self, slot: _Slot, number: int, error: BaseException) -> bool:
        trouble = trouble_of(error)
        with slot.lock:
            slot.timed = None
            if not slot.lost:
                slot.failures.append((number, trouble))
        # it must not wait for the next item, either
        self._ticker.kick()
        return not slot.lost

    def _hand_over(self, slot: _Slot) -> None:
        """Post what the thread has; under its lock."""
        part, failures = slot.part, slot.failures
        count = len(part)
        if not count and not failures:
            return
        numbers, payloads = part[0:count:2], part[1:count:2]
        del part[:count]
        slot.failures = []
        seconds, slot.mark = slot.last - slot.mark, slot.last
        self._post(Executed(slot.job.attempt, numbers, payloads, failures, max(0.0, seconds)))

    def _look(self, moment: float) -> float | None:
        """The ticker's look: hand over what a long item keeps waiting, and find the threads that ran out of time."""
        wait: float | None = None
        for slot in self._slots:
            if slot.part or slot.failures:
                wait = INTERVAL
                if moment - slot.mark > BATCH_SECONDS:
                    with slot.lock:
                        self._hand_over(slot)
            if slot.timed is not None and not slot.lost:
                left = self._check_timeout(slot, moment)
                wait = left if wait is None else min(wait, left)
        return wait

    def _check_timeout(self, slot: _Slot, moment: float) -> float:
        """Give the thread up if its item ran too long; returns in how many seconds to look again."""
        with slot.lock:
            if slot.timed is None:
                return _TIMEOUT_LOOK
            number, due = slot.timed
            if moment < due:
                return min(due - moment, _TIMEOUT_LOOK)
            slot.lost = True
            slot.last = moment
            text = f"The item ran longer than its timeout of {slot.job.timeout:g} s."
            slot.failures.append((number, Trouble("TimeoutError", text)))
            self._hand_over(slot)
        self._post(ThreadLost(sum(not one.lost for one in self._slots)))
        return _TIMEOUT_LOOK
