"""What is wrong when the handshakes of a socket fail, from what its monitor tells.

When two sides speak different mechanisms, or one has another server's key, one of them sees what is wrong, and which
one that is depends on who was faster; the other sees a connection that breaks off. So a break says nothing by itself,
but several of them within a moment do, if nothing better is known by then.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from zmqpipeline.runtime.telling import Teller

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

    def __init__(self) -> None:
        """None so far."""
        self._teller = Teller()
        self._forget()

    def _forget(self) -> None:
        self._cuts, self._first, self._explained = 0, 0.0, False

    def failed(self, event: int, value: int, now: float, words: Words) -> None:
        """One failed: the event and its value as the monitor has them; `now` is time.monotonic."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._say("refused", words.refused)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value in _PRECISE:
            kind = _PRECISE[value]
            self._say(kind, getattr(words, kind))
        else:
            self._cut(now, words)

    def _say(self, kind: str, text: str) -> None:
        if text:
            self._explained = True
            self._teller.tell(kind, text)

    def _cut(self, now: float, words: Words) -> None:
        if now - self._first > WINDOW:
            self._cuts, self._first, self._explained = 0, now, False
        self._cuts += 1
        if self._cuts >= CUTS and now - self._first >= MOMENT and not self._explained and words.cut:
            self._teller.tell("cut", words.cut)

    def succeeded(self) -> None:
        """One came to its end: what fails next is news."""
        self._forget()
        self._teller.forget()
