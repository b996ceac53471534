"""The worker's threads: items in shares, results in batches.

A **piece** is what one Execute brought, or what is left of it. A thread takes a share of the first piece: all of it if
the thread is the only one that executes, else as many items as take a quantum. It executes them one by one, appends
each result to its own list, and looks at the clock once in a while, oftener the longer they take. Whoever hands over
takes from the front of that list under the thread's lock, so the ticker can hand over what is there while a long item
runs. What a thread has not begun of its share may be taken away again, from the other end: each `popleft` and `pop` of
a deque is atomic, so that no item can be both executed and taken back.

The law of handing over. A message of results costs the three roles some 100 us and wakes each of them, so a result is
sent when somebody waits for it, or when it is worth its message:

* A thread that has nothing left to execute hands over at once: this worker is about to be idle, and whoever waits for
  its results (a closed gate, the last items of a task) waits for these.
* A thread whose work at hand runs low, with less left than it has done since it handed over, hands over what is worth
  a message (`MESSAGE_SECONDS`): the distributor hears of room before there is nothing left.
* While there is enough to do, everybody is busy, and nobody gains by a message sooner than every `QUANTUM`.
* A full message goes at once, in items and in bytes (of the last result in each stride, times its items).

After each quantum, and after each handing over within one, the thread lets its role's loop have a turn (`leading`), so
that a worker which computes needs no second thread: no message waits for the interpreter, and no thread is woken beside
the one that computes.

The constants were measured by ``python -m examples.benchmarks granularity``; see `QUANTUM`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from zmqpipeline.protocol.batching import MAX_BATCH_BYTES, ServiceTime
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, InitFailed, TakenBack, ThreadLost
from zmqpipeline.protocol.messages import Trouble
from zmqpipeline.runtime import leading
from zmqpipeline.runtime.calls import Post
from zmqpipeline.runtime.concurrency import ThreadLimit, WantedTime
from zmqpipeline.runtime.execution import Execution, Job, Piece, Slot
from zmqpipeline.runtime.failurelog import FailureLog
from zmqpipeline.runtime.leading import Hand, Leadership
from zmqpipeline.runtime.raised import trouble_of
from zmqpipeline.runtime.ticker import INTERVAL, Ticker

QUANTUM = 0.02
"""Seconds of work between two handings over, and between two turns of the loop, while there is enough to do."""

MESSAGE_SECONDS = 0.002
"""Results of so much work (seconds) are worth a message when little is left to do."""

BATCH_ITEMS = 3000
"""The most results in one Executed."""

STUCK_SECONDS = 0.05
"""A thread that executes alone has the others back when one of its items takes longer."""

STRIDE = 256
"""The most items between two looks at the clock, which costs some 2 us."""

STRIDE_SECONDS = 0.001
"""The longest stride, about."""

_TIMEOUT_LOOK = 0.05


class Pool(Hand):
    """Executes items on `threads` threads, which start with the first `submit`, and which may lead."""

    # a quantum, its last item, and what a busy machine makes of them
    brief = look = 2.5 * QUANTUM

    def __init__(
        self,
        threads: int,
        execution: Execution,
        post: Post,
        *,
        thread_start: Callable[[int], object] | None = None,
        leadership: Leadership | None = None,
        quantum: float = QUANTUM,
        task: str = "",
        failures: FailureLog | None = None,
    ) -> None:
        """An item fails if `execution` raises; `failures` says so, of an item of `task`.

        `thread_start(thread_index)` is called once in each thread, first; a thread where it raises takes no item, and
        InitFailed tells. With the role's `leadership` the threads may lead.
        """
        super().__init__(leadership)
        self.execution = execution
        """May be replaced; an Execute is executed by what there is when it is submitted."""
        self._post = post
        self._quantum = quantum
        self._task = task
        self._failures = failures or FailureLog(logging.getLogger("zmqpipeline.worker"))
        self._thread_start = thread_start
        self._lock = threading.Lock()
        """For the pieces: several threads take from them, and give back."""
        self._waiting: deque[Piece] = deque()
        self._pace = ServiceTime()
        """Of all threads; one that loses an observation to another thread does no harm."""
        self._threads = threads
        self._slots = [Slot(index) for index in range(threads)]
        self._idle: deque[Slot] = deque()
        self._parked: deque[Slot] = deque()
        """Threads that execute nothing while one does as much as all."""
        self._limit = ThreadLimit(threads)
        """Under the lock, but for a look at the limit."""
        self._waiting_since = 0.0
        """Since when items wait (time.perf_counter) for the one that executes alone."""
        self._started = False
        self._all_here = threading.Event()
        """No user code runs before all threads have begun."""
        self._closed = False
        self._is_to_lead = False
        self._ticker = Ticker("zmqpipeline-worker-ticker", self._look, quantum)

    def submit(self, command: Execute) -> None:
        """Queue these items; Executed answers, in parts. From the loop's thread only, as all that follows."""
        job, were_waiting = Job(command.attempt, command.timeout), bool(self._waiting)
        self._waiting.append(Piece(job, self.execution, command.numbers, command.payloads))
        if not self._started:
            self._start()
        # Whoever is about to be idle looks at the deque once more after it has put itself on the list.
        if self._idle:
            self._wake(len(command.numbers))
        if not were_waiting:
            self._wait_for_one()

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

    def take_back(self, count: int | None = None) -> None:
        """Take up to `count` unstarted items (None: all) off the queue, the last first; TakenBack answers."""
        numbers: list[int] = []
        with self._lock:
            while self._waiting and (count is None or len(numbers) < count):
                last = self._waiting[-1]
                most = len(last.numbers) if count is None else count - len(numbers)
                numbers += last.drop(min(most, len(last.numbers)))
                if not last.numbers:
                    self._waiting.pop()
            for slot in self._slots:
                if count is None or len(numbers) < count:
                    numbers += slot.unload(None if count is None else count - len(numbers))[0]
        self._post(TakenBack(sorted(numbers)))

    def close(self, timeout: float) -> None:
        """Drop what is queued and end the threads; wait at most `timeout` seconds for the items that run."""
        self._closed = True
        # one of them may not have begun: the others wait for it
        self._all_here.set()
        with self._lock:
            self._waiting.clear()
            for slot in self._slots:
                slot.unload()
        self._wake(self._threads)
        self._wake(self._threads, self._parked)
        end = time.monotonic() + timeout
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(0.0, end - time.monotonic()))
        self._ticker.close(max(0.1, end - time.monotonic()))
        self._failures.close()

    def _start(self) -> None:
        self._started = True
        # Its thread starts now, and those of the slots before any of them calls user code: later there may be no memory
        # left for one. Then it does not begin, and whoever starts it waits for that for ever.
        self._ticker.kick()
        for slot in self._slots:
            name = f"zmqpipeline-worker-{slot.index}"
            thread = threading.Thread(target=self._run, args=(slot,), name=name, daemon=True)
            thread.start()
            slot.thread = thread
        self._all_here.set()

    # the threads ------------------------------------------------------------------------------------------------------

    def _run(self, slot: Slot) -> None:
        try:
            self._serve_to_the_end(slot)
            return
        except MemoryError:
            # in our own code, beside a function that takes all there is; what its frames hold is free after this
            is_known = False
        finally:
            if slot.wanted is not None:
                slot.wanted.close()
        while not is_known and not self._closed:
            is_known = self._leave()

    def _leave(self) -> bool:
        """Say that this worker cannot go on: its items go to others. False if there is no memory for that yet."""
        try:
            self._post(ThreadLost(0))
        except MemoryError:
            time.sleep(INTERVAL)
            return False
        return True

    def _serve_to_the_end(self, slot: Slot) -> None:
        self._all_here.wait()
        if self._closed:
            return
        if self._thread_start is not None:
            try:
                self._thread_start(slot.index)
            except BaseException as error:
                self._post(InitFailed(trouble_of(error)))
                return
        # A lost thread must not wait: it would be woken in the place of another.
        while not slot.lost and self._wait(slot):
            self._work(slot)

    def _work(self, slot: Slot) -> None:
        """Execute until there is nothing to take."""
        calls = Calls(self, slot)
        while not slot.lost:
            began = slot.last
            is_idle = not self._work_for_a_quantum(slot)
            if is_idle and self._threads > 1:
                self._streak = 0
            else:
                self.served(slot.last - began)
            if self.is_given():
                self.lead(calls)
                slot.last = time.perf_counter()
            elif is_idle:
                return

    def _work_for_a_quantum(self, slot: Slot) -> bool:
        """Execute until a quantum is over, and hand over; False if nothing is left to take before that."""
        slot.end = slot.last + self._quantum
        if self._threads > 1:
            self._begin_to_execute(slot)
        while (slot.todo or self._take_share(slot)) and self._execute(slot) and slot.last < slot.end:
            pass
        if self._threads > 1:
            self._have_executed(slot)
        if slot.lost:
            return False
        is_over = not self._is_asked(slot)
        if is_over or slot.last - slot.mark > self._quantum / 2:
            with slot.lock:
                self._hand_over(slot)
        return not is_over

    # how many execute -------------------------------------------------------------------------------------------------

    def _begin_to_execute(self, slot: Slot) -> None:
        if slot.wanted is None:
            slot.wanted = WantedTime()
        slot.executed, slot.wanted_before = 0, slot.wanted()
        with self._lock:
            self._limit.enter(slot.last)

    def _have_executed(self, slot: Slot) -> None:
        assert slot.wanted is not None
        wanted = slot.wanted() - slot.wanted_before
        with self._lock:
            has_changed = self._limit.leave(slot.last, wanted, slot.executed)
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

    # leading ----------------------------------------------------------------------------------------------------------

    def invite(self) -> bool:
        """Have a thread lead: the only one, if it is idle; else each that comes by, unless one of several is idle."""
        if self._limit.limit > 1:
            return not self._idle
        slot = self._slots[0]
        try:
            self._idle.remove(slot)
        except ValueError:
            return self._is_asked(slot)
        self._is_to_lead = True
        slot.gate.release()
        return True

    def is_slack(self, calls: leading.Calls) -> bool:
        """Whether one of several threads is idle."""
        return self._limit.limit > 1 and (bool(self._idle) or not calls.is_asked())

    def is_brief(self) -> bool:
        """Whether an item takes no longer than a call that is made between two turns may."""
        seconds = self._pace.seconds
        return super().is_brief() and seconds is not None and seconds < self.brief

    def _is_asked(self, slot: Slot) -> bool:
        """Whether there is something for this thread to execute."""
        return bool(slot.todo or (self._waiting and not self._is_parked(slot)))

    def _serve(self, slot: Slot) -> bool:
        """Execute what there is for a quantum, between two turns of the loop; False if the thread is lost."""
        now = time.perf_counter()
        if not slot.part:
            slot.mark = now
        slot.last = now
        if slot.todo or not self._execute_alone(slot):
            self._work_for_a_quantum(slot)
        return not slot.lost

    def _execute_alone(self, slot: Slot) -> bool:
        """Execute the item that waits, if it is the only one: no share that others may take from, no list of results.

        False if there are more, or it has a time-out.
        """
        with self._lock:
            piece = self._waiting[0] if len(self._waiting) == 1 else None
            if piece is None or len(piece.numbers) != 1 or piece.job.timeout or slot.part:
                return False
            self._waiting.popleft()
        numbers, (value,) = piece.take(1)
        slot.use(piece.execution)
        results: list[bytes] = []
        failures: list[tuple[int, Trouble]] = []
        try:
            place = (slot.index, numbers[0], piece.job.attempt) if piece.execution.placed else ()
            results.append(slot.pack(slot.call(value, *place)))
        except BaseException as error:
            number, attempt = numbers[0], piece.job.attempt
            failures.append((number, self._failures.item(error, self._task, number, attempt, value, "worker")))
            numbers = ()
        slot.last = time.perf_counter()
        spent = max(0.0, slot.last - slot.mark)
        self._pace.observe(1, spent)
        self._post(Executed(piece.job.attempt, numbers, results, failures, spent))
        return True

    # the threads, again -----------------------------------------------------------------------------------------------

    def _wait(self, slot: Slot) -> bool:
        """Wait until there is something to execute; False if it is over."""
        while not self._is_asked(slot) and not self._closed:
            is_parked = self._is_parked(slot)
            others = self._parked if is_parked else self._idle
            others.append(slot)
            is_over = self._is_asked(slot) or self._closed or is_parked is not self._is_parked(slot)
            if is_over and not self._is_called(slot, others):
                continue
            if not is_parked and self.is_given() and not self._is_called(slot, others):
                self._lead_idle(slot)
                continue
            slot.gate.acquire()
            if self._is_to_lead:
                self._is_to_lead = False
                self._lead_idle(slot)
            if slot.lost:
                return False
            if self._waiting and self._is_parked(slot):
                # it was woken for these while the limit changed
                self._wake(1)
        slot.mark = slot.last = time.perf_counter()
        return not self._closed and not slot.lost

    @staticmethod
    def _is_called(slot: Slot, idle: deque[Slot]) -> bool:
        """Whether this thread, which has put itself on the list of the idle, was taken off it: its gate is open then.

        If not, it takes itself off.
        """
        try:
            idle.remove(slot)
        except ValueError:
            return True
        return False

    def _lead_idle(self, slot: Slot) -> None:
        """The lead was given to this pool while this thread is idle: the only one waits at the sockets."""
        self.lead(Calls(self, slot))

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
        if execution.placed:
            call = _placed(call, slot)
        if slot.job.timeout:
            return self._execute_timed(slot, call)
        take, pack, keep, clock = slot.todo.popleft, slot.pack, slot.part.append, time.perf_counter
        threads, began = self._threads, slot.last
        while slot.todo and began < slot.end:
            stride = min(slot.stride, len(slot.todo))
            if stride > 1 or slot.part or (threads > 1 and (len(slot.todo) > 1 or self._waiting)):
                # what is there must not wait for an item that is a long one, nor what is behind it
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
                    keep(pack(call(value)))
                except BaseException as error:
                    self._fail(slot, error, value)
            slot.striding = False
            slot.last = ended = clock()
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
        if spent > STRIDE_SECONDS or size > MAX_BATCH_BYTES:
            slot.stride = max(1, slot.stride // 4)
        elif spent < STRIDE_SECONDS / 4 and size < MAX_BATCH_BYTES / 4:
            slot.stride = min(STRIDE, slot.stride * 2)
        if self._is_worth_a_message(slot):
            with slot.lock:
                self._hand_over(slot)
            if self.is_given():
                # nobody sends it before this thread lets the loop have a turn
                slot.end = slot.last

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
            slot.timed = (number, clock() + timeout)
            self._ticker.kick()
            began = slot.last
            try:
                result = slot.pack(call(value))
            except BaseException as error:
                self._fail(slot, error, value)
            else:
                with slot.lock:
                    slot.timed = None
                    if not slot.lost:
                        slot.part.append(result)
            if slot.lost:
                return False
            slot.last = clock()
            self._look_back(slot, 1, slot.last - began)
        return True

    def _fail(self, slot: Slot, error: BaseException, value: object) -> None:
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
        self._post(Executed(slot.job.attempt, numbers, results, failures, max(0.0, seconds)))

    # the ticker -------------------------------------------------------------------------------------------------------

    def _look(self, moment: float) -> float | None:
        """Hand over what a long item keeps waiting, and find the threads that ran out of time."""
        wait: float | None = None
        for slot in self._slots:
            if self._threads > 1 and (slot.todo or (self._waiting and not slot.index)):
                wait = self._quantum
                if moment - slot.last > self._quantum:
                    self._look_at_stuck(slot, moment)
            if slot.part or slot.striding:
                wait = self._quantum
                # a thread that comes by hands over itself, a little later than this
                if moment - slot.mark > 1.5 * self._quantum:
                    with slot.lock:
                        if slot.striding:
                            # it looks at the clock after the stride only; what it hands over took time all the same
                            slot.last = max(slot.last, moment)
                        self._hand_over(slot)
            if slot.timed is not None and not slot.lost:
                left = self._check_timeout(slot, moment)
                wait = left if wait is None else min(wait, left)
        sums = self._failures.look(moment)
        return sums if wait is None else wait

    def _look_at_stuck(self, slot: Slot, moment: float) -> None:
        """This thread is in a long item: others take what it has not begun, if they may execute."""
        if self._limit.limit > 1:
            self._share_again(slot)
        elif moment - max(slot.last, self._waiting_since) > STUCK_SECONDS:
            with self._lock:
                has_changed = self._limit.lift(moment)
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
            number, due = slot.timed
            if moment < due:
                return min(due - moment, _TIMEOUT_LOOK)
            slot.lost = True
            slot.last = moment
            text = f"The item ran longer than its timeout of {slot.job.timeout:g} s."
            slot.failures.append((number, Trouble("TimeoutError", text)))
            slot.part.append(None)
            self._hand_over(slot)
        with self._lock:
            self._limit.end()
        self._follow_limit()
        self._post(ThreadLost(sum(not one.lost for one in self._slots)))
        return _TIMEOUT_LOOK


def _placed(call: Callable[..., object], slot: Slot) -> Callable[[object], object]:
    """With the thread's index, the number and the attempt; for one share, from which items come in order."""
    numbers, index, attempt = slot.numbers, slot.index, slot.job.attempt
    return lambda value: call(value, index, next(numbers), attempt)


class Calls:
    """What one thread of a pool has to execute, for whoever leads."""

    __slots__ = ("_pool", "_slot")

    def __init__(self, pool: Pool, slot: Slot) -> None:
        self._pool = pool
        self._slot = slot

    def is_asked(self) -> bool:
        """Whether there is something to execute."""
        return self._pool._is_asked(self._slot)

    def serve(self) -> bool:
        """Execute for a quantum."""
        return self._pool._serve(self._slot)
