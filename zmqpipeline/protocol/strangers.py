"""What peers say that cannot be true: counted, told once a peer, and dropped."""

from __future__ import annotations

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol.events import Peer

MOST_TOLD = 1000
"""So many peers are told of; what others say is counted only: who comes again and again shall not fill the log."""


class Strangers:
    """The lies that one machine was told; `count` is how many."""

    __slots__ = ("_lines", "_told", "count")

    def __init__(self) -> None:
        self.count = self._lines = 0
        self._told: set[Peer] = set()

    def note(self, peer: Peer, said: str) -> list[c.Command]:
        """This peer said something that is dropped; `said` completes a sentence that begins with "A peer on ..."."""
        self.count += 1
        if peer in self._told or self._lines >= MOST_TOLD:
            return []
        self._lines += 1
        self._told.add(peer)
        text = (
            f"A peer on {peer[0]} {said}; that is dropped. Further things of this kind are dropped silently; see what "
            "else connects to this address."
        )
        return [c.Log(30, text)]

    def lost(self, peer: Peer) -> None:
        """This connection is gone."""
        self._told.discard(peer)
