"""A worker whose standard streams come over the network (`far_streams`), as `run` sees it: a child like any other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from zmqpipeline.runtime.child import DRAIN, Child
from zmqpipeline.runtime.child_report import Told
from zmqpipeline.runtime.far_streams import CUT, ERR, IN, KILL, LOST, FarEnd, FarStreams
from zmqpipeline.runtime.launch_words import NO_KEYS, Words
from zmqpipeline.runtime.launched import greeting_line


class FarChild(Child, FarEnd):
    """One worker that an engine has somebody else start, by `run_far`; `told.pid` and `told.host` are its own."""

    def __init__(
        self,
        label: str,
        exited: Callable[[Child], None],
        streams: FarStreams,
        withdraw: Callable[[], None],
        *,
        stdout: int | None = None,
        keys: Mapping[str, str] = NO_KEYS,
    ) -> None:
        """Expect it with its `token`; `withdraw` has the engine start it no more, or forget it if it has.

        `keys` are handed to it by its standard input: see `keys_for_worker`.

        Raises OSError if the settings are more than a worker takes.
        """
        self.label = label
        self.token = os.urandom(16).hex().encode()
        self.started = time.monotonic()
        self.status: int | None = None
        self.told = Told()
        self._exited, self._streams, self._withdraw = exited, streams, withdraw
        self._stdout = 1 if stdout is None else stdout
        self._words = Words()
        self._end_guard = threading.Lock()
        self._has_ended = threading.Event()
        self._greeting = greeting_line(keys)
        streams.expect(self.token, self)

    @property
    def pid(self) -> int:
        """The process id that it has told, or 0."""
        return self.has_told().pid

    def greeting(self) -> bytes:
        """See `FarEnd`."""
        # the keys in it are the worker's now
        greeting, self._greeting = self._greeting, b""
        return greeting

    def heard(self, stream: bytes, data: bytes) -> None:
        """See `FarEnd`."""
        if stream == ERR:
            self._streams.write(2, self._words.take(data))
        else:
            self._streams.write(self._stdout, data)

    def ended(self, status: int, *, chosen: bool = False, is_over: bool = False) -> None:
        """See `FarEnd`; the engine may say it, too, and the first word counts.

        `is_over`: what has started it ends by itself, and need not be withdrawn. `chosen`: the worker would have said
        itself that it ends with this status, if it could have.
        """
        with self._end_guard:
            if self.status is not None:
                return
            self.status = status
        self._streams.write(2, self._words.last())
        self._streams.forget(self.token)
        if not is_over:
            self._withdraw()
        self.told = replace(self.has_told(), status=status) if chosen else self.has_told()
        self._has_ended.set()
        self._exited(self)

    def terminate(self) -> None:
        """Ask it to drain. One that has not come yet is withdrawn: nothing is lost by it."""
        if not self.tell(DRAIN):
            self.ended(LOST)

    def kill(self) -> None:
        """End it at once."""
        self._streams.send(self.token, KILL)
        self.ended(LOST)

    def join(self, timeout: float) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        self._has_ended.wait(timeout)

    def tell(self, line: str) -> bool:
        """As `Child.tell`."""
        return self._streams.send(self.token, IN, self.said(line))

    def cut(self) -> None:
        """Cut the lifeline, as our death would."""
        self._streams.send(self.token, CUT)

    def has_told(self) -> Told:
        """What it has told of itself until now."""
        return Told.read(self._words.told)
