"""What the threads of a pool have in common: pieces, shares, results that are to be handed over, and the ticker.

The law of handing over. A message of results costs the three roles some 100 us and wakes each of them, so a result is
sent when somebody waits for it, or when it is worth its message:

* A thread that has nothing left to execute hands over at once: this worker is about to be idle, and whoever waits for
  its results (a closed gate, the last items of a task) waits for these.
* A thread whose work at hand runs low, with less left than it has done since it handed over, hands over what is worth
  a message (`MESSAGE_SECONDS`): the distributor hears of room before there is nothing left.
* While there is enough to do, everybody is busy, and nobody gains by a message sooner than every `QUANTUM`.
* A full message goes at once, in items and in bytes (those of the last result of each stride, times its items).

The constants were measured by ``python -m examples.benchmarks granularity``; see `QUANTUM`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from zmqpipeline.protocol.credit import MAX_BATCH_BYTES, ServiceTime
from zmqpipeline.protocol.events import Executed, ThreadLost
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads import batches
from zmqpipeline.runtime.threads.busy import Busy
from zmqpipeline.runtime.threads.concurrency import CoreClock, CoreTime, StuckWatch, ThreadLimit
from zmqpipeline.runtime.threads.execution import Execution, Job, Piece, Slot
from zmqpipeline.runtime.threads.serial import Post
from zmqpipeline.runtime.threads.ticker import Ticker
from zmqpipeline.runtime.threads.times import TimeCounter

QUANTUM = 0.1
"""Seconds of work between two handings over, and between two turns of the loop, while there is enough to do.

What the roles exchange once a quantum costs them some 2 ms of two busy cores, since each wakes up to cold caches.
``python -m examples.benchmarks granularity --workers 2 --seconds 1`` with 40 and with 100 ms, two cores: 0.82 and 0.91
of the limit with items of 50 us, 0.81 and 0.92 with 500 us, 0.84 and 0.90 with 5 ms. With 200 ms the roles use less,
but at the end of a task one worker waits for another's quantum, and it was no better.
"""

LOOK_SECONDS = 0.04
"""Seconds between two looks of the ticker, at the most, while there is something to look after: a thread that is at the
same item for so long is in a long one, and others take what it has not begun."""

MESSAGE_SECONDS = 0.002
"""Results of so much work (seconds) are worth a message when little is left to do."""

BATCH_ITEMS = 3000
"""The most results in one Executed."""

STRIDE = 256
"""The most items between two looks at the clock, which costs some 2 us."""

STRIDE_PART = 0.04
"""The longest stride, about, as a part of the quantum."""

_TIMEOUT_LOOK = 0.05


class Shares:
    """Gives the items that wait to so many threads, and takes the results of each; `Pool` has the threads."""

    def __init__(
        self,
        threads: int,
        execution: Execution,
        post: Post,
        quantum: float = QUANTUM,
        *,
        task: str = "",
        failures: FailureLog | None = None,
        times: TimeCounter | None = None,
    ) -> None:
        """See `Pool`."""
        self.execution = execution
        """May be replaced; an Execute is executed by what there is when it is submitted."""
        self._post = post
        self._quantum = quantum
        self._look_seconds = min(quantum, LOOK_SECONDS)
        self._stride_seconds = STRIDE_PART * quantum
        self._task = task
        self._failures = failures or FailureLog(logging.getLogger("zmqpipeline.worker"))
        self._lock = threading.Lock()
        """For the pieces: several threads take from them, and give back."""
        self._waiting: deque[Piece] = deque()
        self._times = times or TimeCounter(threads)
        self._pace = ServiceTime()
        """Of all threads; one that loses an observation to another thread does no harm."""
        self._threads = threads
        self._slots = [Slot(index) for index in range(threads)]
        self._idle: deque[Slot] = deque()
        self._parked: deque[Slot] = deque()
        """Threads that execute nothing while one does as much as all."""
        self._limit = ThreadLimit(threads)
        """Under the lock, but for a look at the limit."""
        self._stuck = StuckWatch()
        self._waiting_since = 0.0
        """Since when items wait (time.perf_counter) for the one that executes alone."""
        self._closed = False
        self._ticker = Ticker("zmqpipeline-worker-ticker", self._look, self._look_seconds)
        self._busy = Busy(self._slots, post)

    def _wait_for_one(self) -> None:
        """Items wait from now on; if only one thread may execute, the ticker looks whether it is in a long item."""
        if self._limit.limit < self._threads:
            self._waiting_since = time.perf_counter()
            self._ticker.kick()

    def _wake(self, count: int, among: deque[Slot] | None = None) -> None:
        """Open the gates of up to `count` idle threads."""
        idle = self._idle if among is None else among
        try:
            for _ in range(count):
                idle.popleft().gate.release()
        except IndexError:
            pass  # All are at work.

    def _is_asked(self, slot: Slot) -> bool:
        """Whether there is something for this thread to execute."""
        return bool(slot.todo or (self._waiting and not self._is_parked(slot)))

    # how many execute -------------------------------------------------------------------------------------------------

    def _begin_to_execute(self, slot: Slot) -> None:
        if slot.clock is None:
            slot.clock = CoreClock()
        slot.executed, slot.entered = 0, slot.clock()
        with self._lock:
            self._limit.enter(slot.last, slot.index)

    def _have_executed(self, slot: Slot) -> None:
        assert slot.clock is not None
        core = slot.clock().since(slot.entered)
        with self._lock:
            has_changed = self._limit.leave(slot.last, slot.index, core, slot.executed)
        if has_changed:
            self._follow_limit()
        elif self._is_parked(slot):
            self._share_again(slot)

    def _follow_limit(self) -> None:
        """Wake those who may execute again, and have them share what the one has that executed alone."""
        if self._limit.limit > 1:
            self._share_again(self._slots[0])
            self._wake(self._threads, self._parked)
        else:
            for slot in self._slots[1:]:
                self._share_again(slot)
            if self._waiting:
                self._wait_for_one()
                self._wake(1)

    def _is_parked(self, slot: Slot) -> bool:
        """Whether this thread is not to execute, since one does as much as all."""
        return slot.index >= self._limit.limit

    # shares and results -----------------------------------------------------------------------------------------------

    def _take_share(self, slot: Slot) -> bool:
        """Load this thread's next share; False if there is nothing to take."""
        with self._lock:
            if not self._waiting or slot.lost or self._is_parked(slot):
                return False
            piece = self._waiting[0]
            if piece.job is not slot.job:
                self._begin(slot, piece.job)
            slot.load(piece, self._share_of(piece))
            if not piece.numbers:
                self._waiting.popleft()
            return True

    def _share_of(self, piece: Piece) -> int:
        count = len(piece.numbers)
        if self._limit.limit == 1:
            return count
        if piece.execution.batch:
            return piece.execution.batch
        # the last items are spread over all threads
        most = 1 if self._pace.seconds is None else int(self._quantum / max(self._pace.seconds, 1e-9))
        return max(1, min(most, -(-count // self._limit.limit)))

    def _begin(self, slot: Slot, job: Job) -> None:
        """Items of another Execute follow: those of another attempt do not share a batch."""
        with slot.lock:
            if job.attempt != slot.job.attempt:
                self._hand_over(slot)
            slot.job = job

    def _execute(self, slot: Slot) -> bool:
        """Execute this thread's share for a quantum, handing over on the way; False if the thread is lost."""
        execution, call = slot.execution, slot.call
        assert execution is not None
        if execution.batch:
            return self._execute_batches(slot, execution)
        if execution.placed:
            call = _placed(call, slot)
        if slot.job.timeout:
            return self._execute_timed(slot, call)
        take, pack, keep, clock = slot.todo.popleft, slot.pack, slot.part.append, time.perf_counter
        call, note = self._times.of_share(call, slot)
        began = slot.last
        while slot.todo and began < slot.end:
            stride = min(slot.stride, len(slot.todo))
            if stride > 1 or slot.part or len(slot.todo) > 1 or self._waiting:
                # what is there must not wait for a long item, nor be what is behind it blamed for what it does
                self._ticker.kick()
            executed = stride
            # the ticker must not fall asleep before the end of the stride, should the items become long ones
            slot.striding = stride > 1
            for at in range(stride):
                try:
                    value = take()
                except IndexError:
                    executed = at
                    break
                try:
                    result = call(value)
                    if forks.in_child:
                        forks.end_child()
                    keep(pack(result))
                except BaseException as error:
                    self._fail(slot, error, value)
            slot.striding = False
            slot.last = ended = clock()
            note(slot.index, executed, ended - began)
            self._look_back(slot, executed, ended - began)
            began = ended
        return True

    def _look_back(self, slot: Slot, executed: int, spent: float) -> None:
        """A thread has executed so many items, which took so long."""
        slot.executed += executed
        self._pace.observe(executed, spent)
        size = 0
        # the ticker may have taken it
        for result in slot.part[-1:]:
            size = executed * len(result or b"")
        slot.bytes += size
        if spent > self._stride_seconds or size > MAX_BATCH_BYTES:
            slot.stride = max(1, slot.stride // 4)
        elif spent < self._stride_seconds / 4 and size < MAX_BATCH_BYTES / 4:
            slot.stride = min(STRIDE, slot.stride * 2)
        if self._is_worth_a_message(slot):
            with slot.lock:
                self._hand_over(slot)
            self._has_handed_over(slot)

    def _has_handed_over(self, slot: Slot) -> None:
        """This thread has handed over, and goes on."""

    def _is_worth_a_message(self, slot: Slot) -> bool:
        """The law of handing over, for a thread that goes on; see the module."""
        done, left, seconds = len(slot.part), len(slot.todo), slot.last - slot.mark
        if done + max(1, min(slot.stride, left)) > BATCH_ITEMS or slot.bytes >= MAX_BATCH_BYTES:
            return True
        if seconds > self._quantum:
            return True
        return seconds > MESSAGE_SECONDS and done >= left + self._left()

    def _left(self) -> int:
        """How many items wait, for each thread."""
        # a copy, made in one step: the loop appends without the lock
        return sum(len(one.numbers) for one in tuple(self._waiting)) // self._limit.limit

    def _execute_timed(self, slot: Slot, call: Callable[..., object]) -> bool:
        """The same for items with a timeout: the thread and the ticker must agree on who was first."""
        clock, timeout = time.perf_counter, slot.job.timeout
        while slot.todo and slot.last < slot.end:
            try:
                value = slot.todo.popleft()
            except IndexError:
                break
            with slot.lock:
                number = slot.number_of_next()
            slot.timed = ((number,), clock() + timeout)
            self._ticker.kick()
            began = slot.last
            try:
                result = call(value)
                if forks.in_child:
                    forks.end_child()
                packed = slot.pack(result)
            except BaseException as error:
                self._fail(slot, error, value)
            else:
                with slot.lock:
                    slot.timed = None
                    if not slot.lost:
                        slot.part.append(packed)
            if slot.lost:
                return False
            slot.last = clock()
            self._times.one(slot.index, number, slot.job.attempt, slot.last - began)
            self._look_back(slot, 1, slot.last - began)
        return True

    def _execute_batches(self, slot: Slot, execution: Execution) -> bool:
        """The same for a call that takes several items: those at hand, up to as many as it takes."""
        clock, job = time.perf_counter, slot.job
        while slot.todo and slot.last < slot.end:
            most = slot.sizes.pop() if slot.sizes else 1 if job.trial else execution.batch
            values = batches.take(slot, most, partial(self._load_more, slot, execution))
            if not values:
                break
            with slot.lock:
                numbers = [slot.number_of_next(ahead) for ahead in range(len(values))]
            if job.timeout:
                slot.timed = (numbers, clock() + job.timeout)
            self._ticker.kick()
            began = slot.last
            call = batches.placed(execution.call, slot, numbers) if execution.placed else execution.call
            try:
                results = batches.outcomes(call(list(values)), len(values), slot.pack, execution.what)
            except BaseException as error:
                results = batches.failed(error, len(values))
            with slot.lock:
                slot.timed = None
                if slot.lost:
                    return False
            slot.last = clock()
            if len(results) < len(values):
                # no other one takes from the left
                slot.todo.extendleft(reversed(values))
                slot.sizes += batches.halves(len(values))
                continue
            self._keep_batch(slot, numbers, values, results)
            spent = slot.last - began
            slot.extra += spent * (len(values) - 1)
            self._times.one(slot.index, numbers[0], job.attempt, spent, len(values))
            self._look_back(slot, len(values), spent)
        return True

    def _load_more(self, slot: Slot, execution: Execution, count: int) -> bool:
        """Load up to so many items of what waits, if they may go into the same call."""
        with self._lock:
            piece = self._waiting[0] if self._waiting else None
            if piece is None or piece.job != slot.job or piece.execution is not execution or self._is_parked(slot):
                return False
            slot.load(piece, min(count, len(piece.numbers)))
            if not piece.numbers:
                self._waiting.popleft()
            # it could not be opened
            return slot.execution is execution

    def _keep_batch(
        self, slot: Slot, numbers: Sequence[int], values: list[Any], results: Sequence[batches.Outcome]
    ) -> None:
        attempt = slot.job.attempt
        for number, value, result in zip(numbers, values, results, strict=True):
            if isinstance(result, bytes):
                with slot.lock:
                    slot.part.append(result)
                continue
            trouble = self._failures.item(result, self._task, number, attempt, value, "worker")
            with slot.lock:
                slot.failures.append((number, trouble))
                slot.part.append(None)

    def _fail(self, slot: Slot, error: BaseException, value: object) -> None:
        forks.end_child(error)
        with slot.lock:
            slot.timed = None
            if slot.lost:
                # its item ran past its time-out, which was said: what it raises is nobody's
                return
            number = slot.number_of_next()
        trouble = self._failures.item(error, self._task, number, slot.job.attempt, value, "worker")
        with slot.lock:
            slot.failures.append((number, trouble))
            slot.part.append(None)
        # it must not wait for the next item, either
        self._ticker.kick()

    def _hand_over(self, slot: Slot) -> None:
        """Post what the thread has; under its lock."""
        if not slot.part:
            return
        numbers, results, failures = slot.take_results()
        slot.bytes = 0
        seconds, slot.mark = slot.last - slot.mark, slot.last
        seconds, slot.extra = max(0.0, seconds) + slot.extra, 0.0
        self._post(Executed(slot.job.attempt, numbers, results, failures, seconds))

    # the ticker -------------------------------------------------------------------------------------------------------

    def _look(self, moment: float) -> float | None:
        """Hand over what a long item keeps waiting, and find the threads that ran out of time."""
        wait: float | None = None
        for slot in self._slots:
            if self._threads > 1 and (slot.todo or (self._waiting and not slot.index)):
                wait = self._look_seconds
                if moment - slot.last > self._look_seconds:
                    self._look_at_stuck(slot, moment)
            if slot.part or slot.striding:
                wait = self._look_seconds
                # a thread that comes by hands over itself, a little later than this
                if moment - slot.mark > 1.5 * self._quantum:
                    with slot.lock:
                        if slot.striding and slot.part:
                            # it looks at the clock after the stride only; what it hands over took time all the same
                            slot.last = max(slot.last, moment)
                        self._hand_over(slot)
            if slot.timed is not None and not slot.lost:
                left = self._check_timeout(slot, moment)
                wait = left if wait is None else min(wait, left)
        sums = self._failures.look(moment)
        if self._busy.tell(waiting=bool(self._waiting)):
            wait = self._look_seconds if wait is None else min(wait, self._look_seconds)
        return sums if wait is None else wait

    def _look_at_stuck(self, slot: Slot, moment: float) -> None:
        """This thread is in a long item: others take what it has not begun, if they may execute."""
        if self._limit.limit > 1 or slot.index:
            self._share_again(slot)
            return
        with self._lock:
            # closed under the lock, at the end of the thread
            core = slot.clock() if slot.clock is not None and slot.clock.is_shared else CoreTime(0.0, 0.0)
            is_stuck = self._stuck.is_stuck(moment, slot.last, self._waiting_since, core)
            has_changed = is_stuck and self._limit.lift(moment)
        if has_changed:
            self._follow_limit()

    def _share_again(self, slot: Slot) -> None:
        """What this thread has not begun goes back to the pieces: it is busy with a long item."""
        with self._lock:
            numbers, values = slot.unload()
            if values and slot.execution is not None and not self._closed:
                self._waiting.appendleft(Piece(slot.job, slot.execution, numbers, (), values))
        if values:
            self._wait_for_one()
            self._wake(len(values))

    def _check_timeout(self, slot: Slot, moment: float) -> float:
        """Give the thread up if its item ran too long; returns in how many seconds to look again."""
        with slot.lock:
            if slot.timed is None:
                return _TIMEOUT_LOOK
            numbers, due = slot.timed
            if moment < due:
                return min(due - moment, _TIMEOUT_LOOK)
            slot.lost = True
            spent = slot.job.timeout + moment - due
            self._times.one(slot.index, numbers[0], slot.job.attempt, spent, len(numbers))
            slot.last = moment
            ran = "The item" if len(numbers) == 1 else f"The batch of {len(numbers)} items"
            text = f"{ran} ran longer than its timeout of {slot.job.timeout:g} s."
            slot.failures += [(number, ErrorInfo("TimeoutError", text)) for number in numbers]
            slot.part += [None] * len(numbers)
            self._hand_over(slot)
        # what of a batch is to be tried again in parts others do, and what waits behind it
        self._share_again(slot)
        with self._lock:
            self._limit.end()
        self._follow_limit()
        free = sum(not one.lost for one in self._slots)
        self._post(ThreadLost(free * (self.execution.batch or 1)))
        return _TIMEOUT_LOOK


def _placed(call: Callable[..., object], slot: Slot) -> Callable[[object], object]:
    """With the thread's index, the number and the attempt; for one share, from which items come in order."""
    numbers, index, attempt = slot.numbers, slot.index, slot.job.attempt
    return lambda value: call(value, index, next(numbers), attempt)
