"""What is wrong when the handshakes of a socket fail, from what its monitor tells.

When two sides speak different mechanisms, or one has another server's key, one of them sees what is wrong, and which
one that is depends on who was faster; the other sees a connection that breaks off. So a break says nothing by itself,
but several of them within a moment do, if nothing better is known by then. A bound side may get no second one: a peer
that sees what is wrong may not come again. There the first break is told, but once and for all, since it may as well be
a health check that comes each minute.
"""

from __future__ import annotations

import math

import zmq

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.security.warnings import RateLimitedWarnings

CUTS, MOMENT = 3, 1.0
"""So many handshakes must break off, the last so many seconds after the first, until that is told."""

WINDOW = 10.0
"""Seconds after which breaks are forgotten, so that now and then a port scan or a health check is no matter."""

_PRECISE = {
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "mechanism",
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "wrong_key",
}


@dataclass(frozen=True)
class Words:
    """What to say of each kind of failure; empty if nothing."""

    refused: str = ""
    mechanism: str = ""
    wrong_key: str = ""
    cut: str = ""


class Handshakes:
    """The failed handshakes of one socket, and of those that take its place."""

    def __init__(self, *, is_bound: bool) -> None:
        """None so far. `is_bound`: of a socket to which others connect."""
        self._is_bound = is_bound
        self._limited = RateLimitedWarnings()
        self._forget()

    def _forget(self) -> None:
        self._cuts, self._first, self._explained_at = 0, -math.inf, -math.inf

    def failed(self, event: int, value: int, now: float, words: Words) -> None:
        """One failed: the event and its value as the monitor has them; `now` is time.monotonic."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._say("refused", words.refused, now)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value in _PRECISE:
            kind = _PRECISE[value]
            self._say(kind, getattr(words, kind), now)
        else:
            self._cut(now, words)

    def _say(self, kind: str, text: str, now: float) -> None:
        if text:
            self._explained_at = now
            self._limited.tell(kind, text)

    def _cut(self, now: float, words: Words) -> None:
        if now - self._first > WINDOW:
            self._cuts, self._first = 0, now
        self._cuts += 1
        if now - self._explained_at < WINDOW or not words.cut:
            return
        if self._is_bound:
            self._limited.tell("cut", words.cut, again=math.inf)
        elif self._cuts >= CUTS and now - self._first >= MOMENT:
            self._limited.tell("cut", words.cut)

    def succeeded(self) -> None:
        """One came to its end: what fails next is news."""
        self._forget()
        self._limited.forget()
