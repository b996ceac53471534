"""The worker's threads: items in shares, results in batches.

A **piece** is what one Execute brought, or what is left of it. A thread takes a share of the first piece: all of it if
the thread is the only one, else so many items as take half a millisecond. It executes them one by one, appends each
result to its own list, and looks at the clock once in a while, oftener the longer they take. Whoever hands over takes
from the front of that list under the thread's lock, so the ticker can hand over what is there while a long item runs.
What a thread has not begun of its share may be taken away again, from the other end: each `popleft` and `pop` of a
deque is atomic, so that no item can be both executed and taken back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from zmqpipeline.protocol.batching import ServiceTime
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, InitFailed, Running, TakenBack, ThreadLost
from zmqpipeline.protocol.messages import Trouble
from zmqpipeline.runtime.calls import Post, trouble_of
from zmqpipeline.runtime.execution import Execution, Job, Piece, Slot
from zmqpipeline.runtime.leading import BRIEF, Hand, Leadership
from zmqpipeline.runtime.ticker import INTERVAL, Ticker

SLOW_ITEM = 0.0002
"""The result of an item that took longer (seconds) is handed over at once."""

BATCH_SECONDS = 0.004
"""Results of short items are handed over when the first of them is so old."""

BATCH_ITEMS = 3000
"""The most results in one Executed."""

SHARE_SECONDS = 0.0005
"""One of several threads takes items for so long at once."""

STRIDE = 64
"""The most items between two looks at the clock, which costs a tenth of the shortest item."""

_TIMEOUT_LOOK = 0.05


class Pool(Hand):
    """Executes items on `threads` threads, which start with the first `submit`; the only one of a pool may lead."""

    def __init__(
        self,
        threads: int,
        execution: Execution,
        post: Post,
        *,
        thread_start: Callable[[int], object] | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        """An item fails if `execution` raises.

        `thread_start(thread_index)` is called once in each thread, first; a thread where it raises takes no item, and
        InitFailed tells. With the role's `leadership` the thread may lead, if it is the only one.
        """
        super().__init__(leadership if threads == 1 else None)
        self.execution = execution
        """May be replaced; an Execute is executed by what there is when it is submitted."""
        self._post = post
        self._thread_start = thread_start
        self._lock = threading.Lock()
        """For the pieces: several threads take from them, and give back."""
        self._waiting: deque[Piece] = deque()
        self._pace = ServiceTime()
        """Of all threads; one that loses an observation to another thread does no harm."""
        self._slots = [Slot(index) for index in range(threads)]
        self._idle: deque[Slot] = deque()
        self._started = False
        self._all_here = threading.Event()
        """No user code runs before all threads have begun."""
        self._closed = False
        self._is_to_lead = False
        self._busy_with: list[int | None] = []
        """What the threads were at when the ticker looked last, if all were busy for long."""
        self._told_busy = False
        self._ticker = Ticker("zmqpipeline-worker-ticker", self._look)

    def submit(self, command: Execute) -> None:
        """Queue these items; Executed answers, in parts. From the loop's thread only, as all that follows."""
        job = Job(command.attempt, command.timeout)
        self._waiting.append(Piece(job, self.execution, command.numbers, command.payloads))
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
        with self._lock:
            self._waiting.clear()
            for slot in self._slots:
                slot.unload()
        self._wake(len(self._slots))
        end = time.monotonic() + timeout
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(0.0, end - time.monotonic()))
        self._ticker.close(max(0.1, end - time.monotonic()))

    def _start(self) -> None:
        self._started = True
        # Its thread starts now, and those of the slots before any of them calls user code: later there may be no memory
        # left for one. Then it does not begin, and whoever starts it waits for that for ever.
        self._ticker.kick()
        for slot in self._slots:
            name = f"zmqpipeline-worker-{slot.index}"
            thread = threading.Thread(target=self._serve, args=(slot,), name=name, daemon=True)
            thread.start()
            slot.thread = thread
        self._all_here.set()

    # the threads ------------------------------------------------------------------------------------------------------

    def _serve(self, slot: Slot) -> None:
        try:
            self._serve_to_the_end(slot)
            return
        except MemoryError:
            # in our own code, beside a function that takes all there is; what its frames hold is free after this
            is_known = False
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
        if self._thread_start is not None:
            try:
                self._thread_start(slot.index)
            except BaseException as error:
                self._post(InitFailed(trouble_of(error)))
                return
        # A lost thread must not wait: it would be woken in the place of another.
        while not slot.lost and self._wait(slot):
            began = slot.mark
            self._work(slot)
            self.served(time.perf_counter() - began)

    def _work(self, slot: Slot) -> None:
        """Execute until there is nothing to take."""
        while self._take_share(slot) and self._execute(slot):
            pass
        with slot.lock:
            self._hand_over(slot)

    # leading ----------------------------------------------------------------------------------------------------------

    def invite(self) -> bool:
        """Have the only thread lead; False if it is at work."""
        slot = self._slots[0]
        try:
            self._idle.remove(slot)
        except ValueError:
            return False
        self._is_to_lead = True
        slot.gate.release()
        return True

    def is_asked(self) -> bool:
        """Whether there are items to take."""
        return bool(self._waiting)

    def serve(self) -> bool:
        """Execute what there is, on the only thread; False if that is lost."""
        slot = self._slots[0]
        slot.mark = slot.last = time.perf_counter()
        if not self._execute_alone(slot):
            self._work(slot)
        return not slot.lost

    def _execute_alone(self, slot: Slot) -> bool:
        """Execute the item that waits, if it is the only one: no share that others may take from, no list of results.

        False if there are more, or it has a time-out.
        """
        with self._lock:
            piece = self._waiting[0] if len(self._waiting) == 1 else None
            if piece is None or len(piece.numbers) != 1 or piece.job.timeout:
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
            failures.append((numbers[0], trouble_of(error)))
            numbers = ()
        slot.last = time.perf_counter()
        spent = max(0.0, slot.last - slot.mark)
        self._pace.observe(1, spent)
        self._post(Executed(piece.job.attempt, numbers, results, failures, spent))
        return True

    def is_brief(self) -> bool:
        """Whether what waits takes no longer than a call that is made between two turns may."""
        seconds = self._pace.seconds
        return (
            super().is_brief()
            and seconds is not None
            and seconds * sum(len(one.numbers) for one in self._waiting) < BRIEF
        )

    # the threads, again -----------------------------------------------------------------------------------------------

    def _wait(self, slot: Slot) -> bool:
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
            if self._is_to_lead:
                self._is_to_lead = False
                self.lead()
                if slot.lost:
                    return False
        slot.mark = slot.last = time.perf_counter()
        return not self._closed

    def _take_share(self, slot: Slot) -> bool:
        """Load this thread's next share; False if there is nothing to take."""
        with self._lock:
            if not self._waiting or slot.lost:
                return False
            piece = self._waiting[0]
            if piece.job is not slot.job:
                self._begin(slot, piece.job)
            slot.load(piece, self._share_of(piece))
            if not piece.numbers:
                self._waiting.popleft()
            return True

    def _share_of(self, piece: Piece) -> int:
        count, threads = len(piece.numbers), len(self._slots)
        if threads == 1:
            return count
        # the last items are spread over all threads
        most = 1 if self._pace.seconds is None else int(SHARE_SECONDS / max(self._pace.seconds, 1e-9))
        return max(1, min(most, -(-count // threads)))

    def _begin(self, slot: Slot, job: Job) -> None:
        """Items of another Execute follow: those of another attempt do not share a batch."""
        with slot.lock:
            if job.attempt != slot.job.attempt:
                self._hand_over(slot)
            slot.job = job

    def _execute(self, slot: Slot) -> bool:
        """Execute this thread's share, handing over on the way; False if the thread is lost."""
        execution, call = slot.execution, slot.call
        assert execution is not None
        if execution.placed:
            call = _placed(call, slot)
        if slot.job.timeout:
            return self._execute_timed(slot, call)
        take, pack, keep, clock = slot.todo.popleft, slot.pack, slot.part.append, time.perf_counter
        began = slot.last
        while slot.todo:
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
                    keep(pack(call(value)))
                except BaseException as error:
                    self._fail(slot, error)
            slot.striding = False
            slot.last = ended = clock()
            self._look_back(slot, executed, ended - began)
            began = ended
        return True

    def _look_back(self, slot: Slot, executed: int, spent: float) -> None:
        """A thread has executed so many items, which took so long."""
        self._pace.observe(executed, spent)
        if spent > SLOW_ITEM:
            slot.stride = max(1, slot.stride // 8)
        elif spent < SLOW_ITEM / 4:
            slot.stride = min(STRIDE, slot.stride * 2)
        # that a stride of short ones took longer is the machine's doing, and no reason for a message
        full = len(slot.part) + max(1, min(slot.stride, len(slot.todo))) > BATCH_ITEMS
        if full or spent > SLOW_ITEM * executed or slot.last - slot.mark > BATCH_SECONDS:
            with slot.lock:
                self._hand_over(slot)

    def _execute_timed(self, slot: Slot, call: Callable[..., object]) -> bool:
        """The same for items with a timeout: the thread and the ticker must agree on who was first."""
        clock, timeout = time.perf_counter, slot.job.timeout
        while slot.todo:
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
                self._fail(slot, error)
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

    def _fail(self, slot: Slot, error: BaseException) -> None:
        trouble = trouble_of(error)
        with slot.lock:
            slot.timed = None
            if not slot.lost:
                slot.failures.append((slot.number_of_next(), trouble))
                slot.part.append(None)
        # it must not wait for the next item, either
        self._ticker.kick()

    def _hand_over(self, slot: Slot) -> None:
        """Post what the thread has; under its lock."""
        if not slot.part:
            return
        numbers, results, failures = slot.take_results()
        seconds, slot.mark = slot.last - slot.mark, slot.last
        self._post(Executed(slot.job.attempt, numbers, results, failures, max(0.0, seconds)))

    # the ticker -------------------------------------------------------------------------------------------------------

    def _look(self, moment: float) -> float | None:
        """Hand over what a long item keeps waiting, and find the threads that ran out of time."""
        wait: float | None = None
        for slot in self._slots:
            if slot.todo and len(self._slots) > 1:
                wait = INTERVAL
                if moment - slot.last > INTERVAL:
                    self._share_again(slot)
            if slot.part or slot.striding:
                wait = INTERVAL
                if moment - slot.mark > BATCH_SECONDS:
                    with slot.lock:
                        if slot.striding:
                            # it looks at the clock after the stride only; what it hands over took time all the same
                            slot.last = max(slot.last, moment)
                        self._hand_over(slot)
            if slot.timed is not None and not slot.lost:
                left = self._check_timeout(slot, moment)
                wait = left if wait is None else min(wait, left)
        return INTERVAL if self._tell_busy() else wait

    def _tell_busy(self) -> bool:
        """Tell once when all threads are at items that take long, and others wait; whether to look again soon."""
        slots = [slot for slot in self._slots if not slot.lost]
        if not (self._waiting or any(slot.todo for slot in slots)):
            return False
        numbers = [slot.running() for slot in slots]
        if numbers != self._busy_with:
            self._busy_with, self._told_busy = numbers, False
        elif not self._told_busy and None not in numbers:
            self._told_busy = True
            self._post(Running([number for number in numbers if number is not None]))
        return not self._told_busy

    def _share_again(self, slot: Slot) -> None:
        """What this thread has not begun goes back to the pieces: it is busy with a long item."""
        with self._lock:
            numbers, values = slot.unload()
            if values and slot.execution is not None and not self._closed:
                self._waiting.appendleft(Piece(slot.job, slot.execution, numbers, (), values))
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
        self._share_again(slot)
        self._post(ThreadLost(sum(not one.lost for one in self._slots)))
        return _TIMEOUT_LOOK


def _placed(call: Callable[..., object], slot: Slot) -> Callable[[object], object]:
    """With the thread's index, the number and the attempt; for one share, from which items come in order."""
    numbers, index, attempt = iter(slot.share), slot.index, slot.job.attempt
    return lambda value: call(value, index, next(numbers), attempt)
