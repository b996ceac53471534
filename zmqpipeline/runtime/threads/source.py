"""The source of one task on its own thread: so many steps as are asked for, in parts.

The first part is what there is after 2 ms, since a worker may be idle; each further one takes twice as long, up to
10 ms, since who got the first is busy with it: a part costs the distributor a turn of its loop, and a message. When a
step blocks, what is there is handed over after 2 to 10 ms.

The thread that steps only appends to a list; whoever hands over takes from its front under a lock. So the ticker can
hand over what is there while a step blocks, and a step costs no lock. As long as steps are quick, many are taken
between two looks at the clock, and the ticker looks ever less often: each look takes the interpreter.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.events import Produced
from zmqpipeline.protocol.messages import Blobs, ErrorInfo
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.leader import Leadership
from zmqpipeline.runtime.threads.serial import Post, SerialThread
from zmqpipeline.runtime.threads.ticker import INTERVAL, Ticker

Step: TypeAlias = bytes | tuple[bytes, bytes]
"""A packed item, or a packed item and the digest of its key. The steps of one task are all of one kind."""


class Exhausted(Exception):
    """Raised by a step: the source has no more; `last` is its last item, if it came with this step."""

    def __init__(self, last: Step | None = None) -> None:
        """The source has no more after `last`."""
        super().__init__(last)
        self.last = last


class Gated(Exception):
    """Raised by a step: the gate says no for now."""


Keep: TypeAlias = Callable[[Step], object]

Take: TypeAlias = Callable[[Produce, int, Keep], None]
"""``take(command, count, keep)``: takes `count` steps of a source and keeps each; raises what a step raises."""


class PassOver:
    """The `keep` of steps whose items are done already: it counts them. A source may add several at once to `count`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, step: Step) -> None:
        """One was passed over."""
        self.count += 1


class Source(ABC):
    """A source whose steps cost less when several are taken at once."""

    @abstractmethod
    def __call__(self, command: Produce) -> Step:
        """Take one step: return an item, or raise Exhausted or Gated."""

    @abstractmethod
    def take(self, command: Produce, count: int, keep: Keep) -> None:
        """Take `count` steps, and `keep` each; raises what a step raises, after what came before is kept."""


class Begun(Source):
    """A source that was told how many items are done from the first on, and begins after these."""

    def __init__(self, step: Callable[[Produce], Step], start: int) -> None:
        """`step` makes the items from number `start` on."""
        self._step, self._take = step, steps(step)
        self._start = start

    def __call__(self, command: Produce) -> Step:
        """Take one step."""
        return self._step(command)

    def take(self, command: Produce, count: int, keep: Keep) -> None:
        """The first that are to be passed over are those before `start`: there is nothing to do for them."""
        if self._start and isinstance(keep, PassOver):
            keep.count += self._start
            self._start = 0
            return
        self._take(command, count, keep)


def steps(step: Callable[[Produce], Step]) -> Take:
    """How several steps are taken of what makes one at a time."""
    if isinstance(step, Source):
        return step.take

    def take(command: Produce, count: int, keep: Keep) -> None:
        for _ in range(count):
            made = step(command)
            if forks.in_child:
                forks.end_child()
            keep(made)

    return take


STRIDE = 256
"""The most steps between two looks at the clock."""

MAX_PART = 0.01
"""The longest time (seconds) that a part takes, and between two looks at a source whose steps are quick.

Files below a folder, 14 us each, from a source to two workers that hash them: with 2 ms throughout, the distributor's
threads were woken 4,800 times in 2.3 s.
"""

MAX_PATIENCE = 0.02
"""The longest time (seconds) between two looks at a source whose step blocks: an idle role costs next to nothing."""


class Producer:
    """Steps through the source of one task."""

    def __init__(self, task: str, take: Take, post: Post, leadership: Leadership | None = None) -> None:
        """`take` is called on this producer's thread, which may lead if there is a `leadership`."""
        self._task = task
        self._take = take
        self._stride = 1
        self._is_striding = False
        self._post = post
        self._part: list[Step] = []
        self._began = 0.0
        """When the last stride began (time.perf_counter)."""
        self._pause = INTERVAL
        """Of the ticker, while steps are quick."""
        self._patience = INTERVAL
        self._hand_over = threading.Lock()
        self._serial = SerialThread(f"zmqpipeline-produce-{task}", leadership, brief=1.5 * MAX_PART)
        self._ticker = Ticker(f"zmqpipeline-produce-{task}-ticker", self._look, longest=MAX_PART)

    def produce(self, command: Produce) -> None:
        """Take up to `count` steps; Produced answers, in one part or more. From the loop's thread only."""
        self._serial.submit(partial(self._serve, command, command.count, INTERVAL))

    def close(self, timeout: float) -> None:
        """End the thread after the step that it is in; wait for it at most `timeout` seconds."""
        self._serial.close(timeout)
        self._ticker.close(timeout)

    def _serve(self, command: Produce, left: int, seconds: float) -> Callable[[], object] | None:
        """Take steps for so long, and hand over; returns the next part, if any of these steps are left."""
        left, state, trouble = self._answer(command, left, seconds)
        if forks.in_child:
            forks.end_child()
        self._flush(state, trouble)
        return partial(self._serve, command, left, min(2 * seconds, MAX_PART)) if state == "more" else None

    def _answer(self, command: Produce, left: int, seconds: float) -> tuple[int, str, ErrorInfo | None]:
        """Take steps; returns how many are left, and the state and the trouble of the answer."""
        try:
            if command.over and left == command.count:
                self._pass_over(command)
            left = self._take_steps(command, left, seconds)
        except Exhausted as end:
            if end.last is not None:
                self._part.append(end.last)
            return 0, "exhausted", None
        except Gated:
            return 0, "gated", None
        except BaseException as error:
            return 0, "failed", trouble_of(error)
        return left, "more" if left else "ready", None

    def _pass_over(self, command: Produce) -> None:
        """Take the steps whose items are done; how many they were is said every 2 ms, as it is of others."""
        clock, passed, told = time.perf_counter, PassOver(), 0
        moment = said = clock()
        try:
            while (left := command.over - passed.count) > 0:
                began = moment
                self._take(command, min(left, self._stride), passed)
                moment = clock()
                self._look_back(moment - began)
                if moment - said > INTERVAL:
                    self._post(Produced(self._task, "more", over=passed.count - told))
                    said, told = moment, passed.count
        finally:
            if passed.count > told:
                self._post(Produced(self._task, "more", over=passed.count - told))

    def _take_steps(self, command: Produce, left: int, seconds: float) -> int:
        """Take as many steps as are left, or those of so long; returns how many are left then."""
        clock = time.perf_counter
        moment = clock()
        end = moment + seconds
        while left:
            count, self._began = min(left, self._stride), moment
            if count > 1 or self._part:
                # a step may block: what is there by then must not wait for it
                self._is_striding = count > 1
                self._ticker.kick()
            try:
                self._take(command, count, self._part.append)
            finally:
                self._is_striding = False
            left -= count
            began, moment = self._began, clock()
            self._look_back(moment - began)
            if moment > end:
                break
        return left

    def _look_back(self, spent: float) -> None:
        if spent < INTERVAL / 8:
            self._stride = min(STRIDE, 2 * self._stride)
        elif spent > INTERVAL / 2:
            self._stride = max(1, self._stride // 8)

    def _look(self, moment: float) -> float | None:
        """The ticker's look: hand over what waits because a step blocks."""
        if not self._part:
            # a step that blocks for long, a quiet queue say, is looked at ever less often
            self._patience = min(MAX_PATIENCE, 2 * self._patience)
            return self._patience if self._is_striding else None
        self._patience = INTERVAL
        if moment - self._began > INTERVAL:
            self._flush("more")
            self._pause = INTERVAL
        else:
            self._pause = min(2 * self._pause, MAX_PART)
        return self._pause

    def _flush(self, state: str, trouble: ErrorInfo | None = None) -> None:
        part = self._part
        # Posted under the lock, too: the parts must arrive in order.
        with self._hand_over:
            count = len(part)
            steps = part[:count]
            del part[:count]
            if steps or state != "more":
                payloads, keys = _split(steps)
                self._post(Produced(self._task, state, payloads, keys, trouble))


def _split(steps: list[Step]) -> tuple[Blobs, Blobs | None]:
    if steps and type(steps[0]) is tuple:
        return [step[0] for step in steps], [step[1] for step in steps]  # type: ignore[misc]
    return steps, None  # type: ignore[return-value]
