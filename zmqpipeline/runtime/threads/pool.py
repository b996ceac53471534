"""The worker's threads: items in shares, results in batches.

A **piece** is what one Execute brought, or what is left of it. A thread takes a share of the first piece: all of it if
the thread is the only one that executes, else as many items as take a quantum. It executes them one by one, appends
each result to its own list, and looks at the clock once in a while, oftener the longer they take. Whoever hands over
takes from the front of that list under the thread's lock, so the ticker can hand over what is there while a long item
runs. What a thread has not begun of its share may be taken away again, from the other end: each `popleft` and `pop` of
a deque is atomic, so that no item can be both executed and taken back.

When results are handed over, and how the items are shared, `shares` says.

After each quantum, and after each handing over within one, a thread lets its role's loop have a turn (`leader`), so
that a worker which computes needs no second thread: no message waits for the interpreter, and no thread is woken beside
the one that computes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, InitFailed, TakenBack, ThreadLost
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime import forks, leader
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.leader import Leadership, UserThread
from zmqpipeline.runtime.threads.execution import Execution, Job, Piece, Slot
from zmqpipeline.runtime.threads.serial import Post
from zmqpipeline.runtime.threads.shares import QUANTUM, Shares
from zmqpipeline.runtime.threads.ticker import INTERVAL
from zmqpipeline.runtime.threads.times import TimeCounter


class Pool(UserThread, Shares):
    """Executes items on `threads` threads, which start with the first `submit`, and which may lead."""

    # a quantum, its last item, and what a busy machine makes of them
    brief = look = 1.5 * QUANTUM

    def __init__(
        self,
        threads: int,
        execution: Execution,
        post: Post,
        *,
        thread_start: Callable[[int], object] | None = None,
        thread_end: Callable[[int], object] | None = None,
        leadership: Leadership | None = None,
        quantum: float = QUANTUM,
        task: str = "",
        failures: FailureLog | None = None,
        times: TimeCounter | None = None,
    ) -> None:
        """An item fails if `execution` raises; `failures` says so, of an item of `task`. `times` counts them all.

        `thread_start(thread_index)` is called once in each thread, first; a thread where it raises takes no item, and
        InitFailed tells. `thread_end(thread_index)` is called last, also there. With the role's `leadership` the
        threads may lead.
        """
        UserThread.__init__(self, leadership)
        Shares.__init__(self, threads, execution, post, quantum, task=task, failures=failures, times=times)
        self._thread_start = thread_start
        self._thread_end = thread_end
        self._started = False
        self._all_here = threading.Event()
        """No user code runs before all threads have begun."""
        self._is_to_lead = False

    def submit(self, command: Execute) -> None:
        """Queue these items; Executed answers, in parts. From the loop's thread only, as all that follows."""
        job, were_waiting = Job(command.attempt, command.timeout, command.trial), bool(self._waiting)
        self._waiting.append(Piece(job, self.execution, command.numbers, command.payloads))
        self.begin()
        # Whoever is about to be idle looks at the deque once more after it has put itself on the list.
        if self._idle:
            self._wake(len(command.numbers))
        if not were_waiting:
            self._wait_for_one()

    def begin(self) -> None:
        """Start the threads, if they are not there; what comes first in each is `thread_start`."""
        if not self._started:
            self._start()

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
        forks.calls_user_code()
        try:
            self._serve_to_the_end(slot)
            return
        except MemoryError:
            # in our own code, beside a function that takes all there is; what its frames hold is free after this
            is_known = False
        finally:
            if slot.clock is not None:
                with self._lock:
                    slot.clock.close()
            # a thread that was given up may be the only one that holds what others still use
            if self._thread_end is not None and not slot.lost:
                self._thread_end(slot.index)
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
            # another thread may be at the loop: who has nothing to execute waits, and does not ask for it again
            if is_idle and not self._is_asked(slot):
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

    def is_slack(self, calls: leader.Calls) -> bool:
        """Whether one of several threads is idle: one that executes, or this one, which is not to execute."""
        if self._limit.limit > 1:
            return bool(self._idle) or not calls.is_asked()
        return isinstance(calls, Calls) and calls.is_parked()

    def is_brief(self) -> bool:
        """Whether an item takes no longer than a call that is made between two turns may."""
        seconds = self._pace.seconds
        return super().is_brief() and seconds is not None and seconds < QUANTUM

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

        False if there are more, or it has a time-out, or its call takes several.
        """
        with self._lock:
            piece = self._waiting[0] if len(self._waiting) == 1 else None
            if piece is None or len(piece.numbers) != 1 or piece.job.timeout or slot.part or piece.execution.batch:
                return False
            self._waiting.popleft()
        numbers, (value,) = piece.take(1)
        alone = numbers[0]
        slot.use(piece.execution)
        results: list[bytes] = []
        failures: list[tuple[int, ErrorInfo]] = []
        try:
            place = (slot.index, numbers[0], piece.job.attempt) if piece.execution.placed else ()
            result = slot.call(value, *place)
            if forks.in_child:
                forks.end_child()
            results.append(slot.pack(result))
        except BaseException as error:
            number, attempt = numbers[0], piece.job.attempt
            failures.append((number, self._failures.item(error, self._task, number, attempt, value, "worker")))
            numbers = ()
        slot.last = time.perf_counter()
        spent = max(0.0, slot.last - slot.mark)
        self._pace.observe(1, spent)
        self._times.one(slot.index, alone, piece.job.attempt, spent)
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
            if not is_parked and self.is_given():
                if self._limit.limit > 1:
                    # it stays on the list, so that another one that is at the loop gives it back after its turn
                    self.give_back()
                elif not self._is_called(slot, others):
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

    def _has_handed_over(self, slot: Slot) -> None:
        if self.is_given():
            # nobody sends it before this thread lets the loop have a turn
            slot.end = slot.last

    def _lead_idle(self, slot: Slot) -> None:
        """The lead was given to this pool while this thread is idle: the only one waits at the sockets."""
        self.lead(Calls(self, slot))


class Calls:
    """What one thread of a pool has to execute, for whoever leads."""

    __slots__ = ("_pool", "_slot")

    def __init__(self, pool: Pool, slot: Slot) -> None:
        self._pool = pool
        self._slot = slot

    def is_asked(self) -> bool:
        """Whether there is something to execute."""
        return self._pool._is_asked(self._slot)

    def is_parked(self) -> bool:
        """Whether the thread is not to execute, since one does as much as all."""
        return self._pool._is_parked(self._slot)

    def serve(self) -> bool:
        """Execute for a quantum."""
        return self._pool._serve(self._slot)
