"""The calls of an `async def` function: one event loop on a thread of its own, so many calls at a time.

A **place** makes one call after another. It is a task of the event loop that takes an item, awaits the function, packs
the result, and takes the next; when there is none, it ends, and items that come later begin new places. So an item
costs no task of its own, which would be more than half of what a call costs.

The law:

* At most `concurrency` places are there at once, so that so many calls go on. What a worker has at hand beyond these
  waits here, unopened, and may be taken back.
* Results are handed over by `parts`, with the turn of the event loop in the place of the stride.
* A call that runs past the time-out of its item is cancelled. The failure is told when the call has ended: a retry
  does not begin beside what the call still cleans up. One that has not ended after `GRACE` is told of all the same, and
  its place is lost until it ends.
* A function that never waits lets the event loop turn every `parts.TURN` seconds all the same.
* A task that was cancelled, by whomever, makes no other call: its place goes on in a new one. What user code raises
  out of the event loop, `sys.exit()` in a task that a call has begun, does not end it.

Whether the event loop turns at all is watched from another thread; see `watch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import InitFailed, TakenBack, ThreadLost
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads import batches
from zmqpipeline.runtime.threads.event_loop import cancel_settling, settle, turn_until
from zmqpipeline.runtime.threads.execution import Execution, Job, Piece
from zmqpipeline.runtime.threads.parts import Parts
from zmqpipeline.runtime.threads.places import Lot, Place, Queue
from zmqpipeline.runtime.threads.serial import Post
from zmqpipeline.runtime.threads.shares import QUANTUM
from zmqpipeline.runtime.threads.times import TimeCounter
from zmqpipeline.runtime.threads.watch import LoopWatch

BEGIN_AT_ONCE = 32
"""So many places begin in one turn at most: if their calls never wait, the first one makes them all."""

GRACE = 5.0
"""Seconds after which a call that was cancelled, and has not ended, is told of, and its place is lost."""

STOP_SECONDS = 1.0
"""How long the calls that the end of the worker cancels may clean up."""

_LOOK = 0.005
"""Between two looks at what runs past its time-out, at least."""

_log = logging.getLogger("zmqpipeline.worker")


class CoroutinePool:
    """Executes items as calls of a coroutine function. It has the methods of `Pool`, and answers by the same events."""

    def __init__(
        self,
        concurrency: int,
        execution: Execution,
        post: Post,
        *,
        thread_start: Callable[[int], object] | None = None,
        thread_end: Callable[[int], object] | None = None,
        quantum: float = QUANTUM,
        task: str = "",
        failures: FailureLog | None = None,
        what: str = "The worker function",
        times: TimeCounter | None = None,
    ) -> None:
        """`execution.call` returns what is to be awaited. `what` is the function, for messages.

        `thread_start(0)` is called on the event loop's thread, first, and may `complete` what is to be awaited; if it
        raises, no item is taken, and InitFailed tells. `thread_end(0)` is called there when the last call has ended.
        """
        self.execution = execution
        """May be replaced; an Execute is executed by what there is when it is submitted."""
        self._concurrency = concurrency
        self._post = post
        self._thread_start = thread_start
        self._thread_end = thread_end
        self._task = task
        self._failures = failures or FailureLog(_log)
        self._what = what
        self._queue = Queue()
        self._is_called = False
        """The event loop was told that items are there, and has not looked yet."""
        self._is_ready = self._is_ending = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._places: set[Place] = set()
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._parts = Parts(post, quantum, self.waiting, times)
        self._watch = LoopWatch(self, self._parts, what, post, self._failures)

    # from the role's loop ---------------------------------------------------------------------------------------------

    def submit(self, command: Execute) -> None:
        """Queue these items; Executed answers, in parts. From the role's thread only, as all that follows."""
        job = Job(command.attempt, command.timeout, command.trial)
        self._queue.put(Piece(job, self.execution, command.numbers, command.payloads))
        self.begin()
        if not self._is_called:
            self._is_called = True
            self._tell_loop(self._have_come)

    def take_back(self, count: int | None = None) -> None:
        """Take up to `count` unstarted items (None: all) off the queue, the last first; TakenBack answers."""
        self._post(TakenBack(self._queue.take_back(count)))

    def close(self, timeout: float) -> None:
        """Drop what is queued, cancel the calls, end the thread; wait for it at most `timeout` seconds."""
        self._closed = True
        self._queue.clear()
        if self._thread is not None:
            self._tell_loop(self._stop)
            self._thread.join(timeout + STOP_SECONDS)
        self._watch.close()
        self._failures.close()

    def begin(self) -> None:
        """Start the thread, if it is not there; `thread_start` comes first in it."""
        if self._thread is not None:
            return
        self._loop = self._parts.loop = asyncio.new_event_loop()
        self._watch.begin(self._loop)
        self._thread = threading.Thread(target=self._run, name="zmqpipeline-worker-loop", daemon=True)
        self._thread.start()

    def _tell_loop(self, call: Callable[[], object]) -> None:
        assert self._loop is not None
        # it is closed after an initialization that raised
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    # the thread of the event loop -------------------------------------------------------------------------------------

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        forks.calls_user_code(loop.call_soon)
        self._watch.is_on(threading.get_ident())
        try:
            if self._thread_start is not None:
                try:
                    self._thread_start(0)
                except BaseException as error:
                    self._post(InitFailed(trouble_of(error)))
                    return
            self._is_ready = True
            loop.call_soon(self._begin_places)
            turn_until(loop, lambda: self._closed, _log)
        except BaseException as error:
            forks.end_child(error)
            self._give_up(error)
            self._closed = True
        finally:
            self._end(loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the calls, close what was made for them, then whatever else goes on, and the event loop."""
        self._is_ending = True
        # from the last to the first, each whatever the others raise
        with contextlib.ExitStack() as last:
            last.callback(loop.close)
            last.callback(asyncio.set_event_loop, None)
            last.callback(lambda: settle(loop, loop.shutdown_asyncgens()))
            last.callback(lambda: _cancel(loop, asyncio.all_tasks(loop)))
            if self._thread_end is not None:
                last.callback(self._thread_end, 0)
            _cancel(loop, {place.task for place in self._places if place.task is not None})

    def _give_up(self, error: BaseException) -> None:
        """Our own code failed, or there is no memory for it: another process can go on."""
        if self._closed:
            return
        _log.critical("The worker cannot go on: its event loop failed.", exc_info=error)
        self._parts.hand_over()
        self._post(ThreadLost(0))

    def _stop(self) -> None:
        assert self._loop is not None
        if self._is_ending:
            return
        if not self._is_ready:
            # an init function that does not return may clean up
            cancel_settling(self._loop)
        self._loop.stop()

    def _have_come(self) -> None:
        self._is_called = False
        self._begin_places()

    def _begin_places(self) -> None:
        """Items are there: begin places for them, as far as there may be more."""
        if not self._is_ready or self._closed:
            return
        loop = self._loop
        assert loop is not None
        count = min(self._concurrency - len(self._places), self.waiting())
        for _ in range(min(count, BEGIN_AT_ONCE)):
            place = Place()
            self._places.add(place)
            place.go_on(self._serve(place), loop)
        if count > BEGIN_AT_ONCE:
            loop.call_soon(self._begin_places)
        if self._places:
            self._watch.kick()

    # the places -------------------------------------------------------------------------------------------------------

    async def _serve(self, place: Place) -> None:
        try:
            if place.rest:
                await self._execute_rest(place)
            await self._execute(place)
        except BaseException as error:
            # whoever cancels a task between two calls of it means one that is over
            if not (place.is_cancelled and isinstance(error, asyncio.CancelledError)):
                self._give_up(error)
        finally:
            self._leave(place)

    def _leave(self, place: Place) -> None:
        """Its task has no more to do: it goes on in another one if that was cancelled."""
        if place.is_lost:
            self._lost -= 1
            self._post(ThreadLost((self._concurrency - self._lost) * max(1, self.execution.batch)))
        if place.is_cancelled and not self._closed:
            assert self._loop is not None
            place.go_on(self._serve(place), self._loop)
            return
        self._places.discard(place)
        place.task = None

    async def _execute(self, place: Place) -> None:  # noqa: C901 - one loop, which is to be brief
        """Make one call after another until there is nothing to take, or one was cancelled."""
        clock, todo = time.perf_counter, self._queue.todo
        began = clock()
        while not (place.is_cancelled or self._closed):
            try:
                number, value, lot = todo.popleft()
            except IndexError:
                if self._queue.open():
                    continue
                return
            if lot.batch:
                place.lot, place.rest = lot, [self._queue.at_hand(number, value, lot)]
                await self._execute_rest(place)
                began = clock()
                continue
            self._begin_call(place, (number,), lot, began)
            result, trouble = b"", None
            try:
                made = await (lot.call(value, 0, number, lot.attempt) if lot.placed else lot.call(value))
                if forks.in_child:
                    forks.end_child()
                result = lot.pack(made)
            except BaseException as error:
                forks.end_child(error)
                if self._closed:
                    return
                if not place.is_late:
                    # if its time is over, that is said in the place of whatever it raised for that
                    trouble = self._failures.item(error, self._task, number, lot.attempt, value, "worker")
            ended = clock()
            if place.is_late:
                if not place.is_lost:
                    self._say_timeout(place, lot, ended)
                return
            place.numbers, place.due = (), 0.0
            self._parts.keep(number, lot.attempt, result, trouble, ended - began)
            began = ended
            if self._parts.is_long(ended):
                await asyncio.sleep(0)
                began = clock()

    def _begin_call(self, place: Place, numbers: Sequence[int], lot: Lot, began: float) -> None:
        place.numbers, place.lot, place.began = numbers, lot, began
        if lot.timeout:
            place.due = began + lot.timeout
            self._look_by(place.due)

    async def _execute_rest(self, place: Place) -> None:
        """Call with the items of a batch; if that raises, with their halves, until the bad item stands alone."""
        clock, lot, rest = time.perf_counter, place.lot, place.rest
        assert lot is not None
        while rest and not place.is_cancelled:
            some = rest.pop()
            numbers, began = [number for number, _ in some], clock()
            self._begin_call(place, numbers, lot, began)
            try:
                at = (0, numbers, lot.attempt) if lot.placed else ()
                results = await lot.call([value for _, value in some], *at)
                results = batches.outcomes(results, len(some), lot.pack, self._what)
            except BaseException as error:
                if self._closed:
                    return
                results = batches.failed(error, len(some))
            ended = clock()
            if place.is_late:
                if not place.is_lost:
                    self._say_timeout(place, lot, ended)
                return
            place.due = 0.0
            if len(results) < len(some):
                _, first = batches.halves(len(some))
                rest += [some[first:], some[:first]]
                continue
            for (number, value), result in zip(some, results, strict=True):
                if isinstance(result, bytes):
                    self._parts.keep(number, lot.attempt, result, None, ended - began)
                else:
                    trouble = self._failures.item(result, self._task, number, lot.attempt, value, "worker")
                    self._parts.keep(number, lot.attempt, b"", trouble, ended - began)
            if self._parts.is_long(ended):
                await asyncio.sleep(0)
        place.numbers = ()

    # time limits ------------------------------------------------------------------------------------------------------

    def _look_by(self, due: float) -> None:
        """There is something to look at then."""
        loop = self._loop
        assert loop is not None
        wait = max(_LOOK, due - time.perf_counter())
        if self._timer is not None:
            if self._timer.when() <= loop.time() + wait:
                return
            self._timer.cancel()
        self._timer = loop.call_later(wait, self._look_at_time)

    def _look_at_time(self) -> None:
        """Cancel the calls whose time is over; give up those that have not ended since they were cancelled."""
        self._timer = None
        now = time.perf_counter()
        for place in self._places:
            if place.due and place.due <= now:
                self._time_is_over(place, now)
        times = [place.due for place in self._places if place.due]
        if times:
            self._look_by(min(times))

    def _time_is_over(self, place: Place, now: float) -> None:
        lot = place.lot
        assert place.task is not None
        assert lot is not None
        if not place.is_late:
            place.is_late = True
            place.due = now + GRACE
            place.task.cancel()
            return
        place.due = 0.0
        place.is_lost = True
        self._lost += 1
        left = self._concurrency - self._lost
        _log.warning(
            "%s has not ended %g s after it was cancelled: it catches CancelledError and goes on. It was called for "
            "item %d, which ran longer than its timeout of %g s. Until it ends, %d calls go on at a time in this "
            "worker, one less than before. Let CancelledError pass.",
            *(self._what, GRACE, place.numbers[0], lot.timeout, left),
        )
        self._say_timeout(place, lot, now)
        # before the worker hears that nothing is left of it: from then on it takes no results
        self._parts.hand_over()
        self._post(ThreadLost(left * max(1, lot.batch)))

    def give_up_blocked(self, moment: float) -> bool:
        """From the thread that watches: the event loop does not turn, so that no call of it can be cancelled.

        The items of the call that it is in have failed if they are past their time-out, and the worker is at its end:
        its other items go to others. Returns whether that was so.
        """
        assert self._loop is not None
        task = asyncio.current_task(self._loop)
        place = next((one for one in self._places.copy() if one.task is task), None)
        lot = None if place is None else place.lot
        if place is None or lot is None or not lot.timeout or moment < place.began + lot.timeout + GRACE:
            return False
        place.is_late = place.is_cancelled = True
        numbers, place.numbers = place.numbers, ()
        ran = "The item" if len(numbers) == 1 else f"The batch of {len(numbers)} items"
        text = (
            f"{ran} ran longer than its timeout of {lot.timeout:g} s, in plain code that holds up the event loop: it "
            "could not be cancelled, and its process was replaced."
        )
        self._parts.fail_now(numbers, lot.attempt, ErrorInfo("TimeoutError", text), moment - place.began)
        self._post(ThreadLost(0))
        return True

    def _say_timeout(self, place: Place, lot: Lot, now: float) -> None:
        """The items of its call have failed; those that were to be called after it go to other places."""
        numbers, place.numbers, place.due = place.numbers, (), 0.0
        ran = "The item" if len(numbers) == 1 else f"The batch of {len(numbers)} items"
        text = f"{ran} ran longer than its timeout of {lot.timeout:g} s; the call was cancelled."
        for number in numbers:
            self._parts.keep(number, lot.attempt, b"", ErrorInfo("TimeoutError", text), now - place.began)
        rest, place.rest = place.rest, []
        self._queue.give_back(rest, lot)

    # for whoever watches ----------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """How many items have not begun."""
        return self._queue.count()

    def running(self) -> list[int]:
        """The items whose calls go on; from any thread."""
        return sorted(number for place in self._places.copy() for number in place.numbers)

    def is_full(self) -> bool:
        """Whether no call can begin before one of those that go on ends: also not in a place that has yet to begin."""
        places = self._places.copy()
        return len(places) >= self._concurrency and all(place.numbers or place.is_lost for place in places)


def _cancel(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        settle(loop, asyncio.wait(tasks, timeout=STOP_SECONDS))
