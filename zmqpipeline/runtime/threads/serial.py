"""One thread for calls of user code, in order.

It is a daemon, so that user code which never returns does not keep a process alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from zmqpipeline.protocol.events import Event
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.leader import BRIEF, LOOK, Leadership, UserThread

Post = Callable[[Event], None]
"""How the threads answer: `Loop.post`."""

Part = Callable[[], object]
"""What a `SerialThread` calls. If it returns another one, this is called next, before what was submitted since."""

_log = logging.getLogger("zmqpipeline.runtime")


class SerialThread(UserThread):
    """One thread that calls what is submitted, in order; with a `leadership` it may lead.

    A call that has much to do does a part of it and returns the next part: whoever leads makes a turn of the loop
    between two of them.
    """

    def __init__(self, name: str, leadership: Leadership | None = None, *, brief: float = BRIEF) -> None:
        """`name` is that of the thread, which starts with the first call; `brief` is for `UserThread`, in seconds."""
        super().__init__(leadership)
        self.brief, self.look = brief, max(LOOK, brief)
        self._waiting: SimpleQueue[Part | None] = SimpleQueue()
        self._next: Part | None = None
        """The next part of what was called last."""
        self._to_lead = partial(self.lead, self)
        self._is_invited = False
        """`_to_lead` is among what waits."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._started = False

    def submit(self, call: Part) -> None:
        """Have this called after all that was submitted before; from any thread. What it raises is logged."""
        self._waiting.put(call)
        if not self._started:
            with self._lock:
                if not self._started:
                    self._thread.start()
                    self._started = True

    def _run(self) -> None:
        forks.calls_user_code()
        while (call := self._next or self._waiting.get()) is not None:
            if call is self._to_lead:
                self._is_invited = False
                call()
                continue
            began = time.perf_counter()
            self._call(call)
            self.served(time.perf_counter() - began)
            if self.is_given():
                self.lead(self)

    def _call(self, call: Part) -> None:
        self._next = None
        try:
            rest = call()
        except BaseException:
            _log.exception("A call on the thread %r raised. The thread goes on with the next.", self._thread.name)
            return
        if callable(rest):
            self._next = rest

    def is_idle(self) -> bool:
        """Whether nothing waits to be called; to lead is no call."""
        return self._next is None and self._waiting.qsize() <= int(self._is_invited)

    def is_asked(self) -> bool:
        """Whether something waits to be called."""
        return self._next is not None or not self._waiting.empty()

    def invite(self) -> bool:
        """Have the thread lead: now, or after the call that it is at."""
        if not self.is_asked():
            self._is_invited = True
            self.submit(self._to_lead)
        return True

    def serve(self) -> bool:
        """Call what waits, between two turns of the loop; False if it is the end."""
        call = self._next or self._waiting.get_nowait()
        if call is None:
            # for `_run`
            self._waiting.put(None)
            return False
        if call is self._to_lead:
            # it leads, and was invited during a call that went on
            self._is_invited = False
        else:
            self._call(call)
        return True

    def close(self, timeout: float) -> None:
        """End the thread after what was submitted; wait for it at most `timeout` seconds."""
        self._waiting.put(None)
        if self._started:
            self._thread.join(timeout)
