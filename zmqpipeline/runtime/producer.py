"""The source of one task on its own thread: so many steps as are asked for, and what there is after 2 ms.

The thread that steps only appends to a list; whoever hands over takes from its front under a lock. So the ticker can
hand over what is there while a step blocks, and a step costs no lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.events import Produced
from zmqpipeline.protocol.messages import Blobs, Trouble
from zmqpipeline.runtime.calls import Post, trouble_of
from zmqpipeline.runtime.ticker import INTERVAL, Ticker

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


class Producer:
    """Steps through the source of one task."""

    def __init__(self, task: str, step: Callable[[Produce], Step], post: Post) -> None:
        """`step(command)` is called on this producer's thread; it returns an item, or raises Exhausted or Gated."""
        self._task = task
        self._step = step
        self._post = post
        self._part: list[Step] = []
        self._since = 0.0
        self._hand_over = threading.Lock()
        self._asked: SimpleQueue[Produce | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"zmqpipeline-produce-{task}", daemon=True)
        self._started = False
        self._ticker = Ticker(f"zmqpipeline-produce-{task}-ticker", self._look)

    def produce(self, command: Produce) -> None:
        """Take up to `count` steps; Produced answers, in one part or more. From the loop's thread only."""
        self._asked.put(command)
        if not self._started:
            self._started = True
            self._thread.start()

    def close(self, timeout: float) -> None:
        """End the thread after the step that it is in; wait for it at most `timeout` seconds."""
        self._asked.put(None)
        if self._started:
            self._thread.join(timeout)
        self._ticker.close(timeout)

    def _run(self) -> None:
        while (command := self._asked.get()) is not None:
            self._flush(*self._answer(command))

    def _answer(self, command: Produce) -> tuple[str, Trouble | None]:
        """Take the steps; returns the state and the trouble that end the answer."""
        try:
            self._take_steps(command)
        except Exhausted as end:
            if end.last is not None:
                self._part.append(end.last)
            return "exhausted", None
        except Gated:
            return "gated", None
        except BaseException as error:
            return "failed", trouble_of(error)
        return "ready", None

    def _take_steps(self, command: Produce) -> None:
        step, part, clock, kick = self._step, self._part, time.perf_counter, self._ticker.kick
        end = clock() + INTERVAL
        for left in reversed(range(command.count)):
            item = step(command)
            moment = clock()
            if not part:
                self._since = moment
                kick()
            part.append(item)
            if left and moment > end:
                self._flush("more")
                end = clock() + INTERVAL

    def _look(self, moment: float) -> float | None:
        """The ticker's look: hand over what has waited for 2 ms because a step blocks."""
        if not self._part:
            return None
        if moment - self._since > INTERVAL:
            self._flush("more")
        return INTERVAL

    def _flush(self, state: str, trouble: Trouble | None = None) -> None:
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
