"""How many bytes wait at a broker of services: requests and replies, of all clients, as one sum.

The law:

* A **request** counts from its arrival until it is answered or refused; a **reply** from its arrival until the client
  says that it does not wait for it any more.
* All of them have at most `max_held_bytes`. A request that does not fit is refused as unavailable; a single one may be
  larger, and is taken when nothing else waits.
* Replies have at most half of that, so that a client which does not read leaves room for the requests of the others.
  Of each client one reply of any size is kept. What is too much is dropped, the newest first, of the clients with the
  most: such a request is refused, with the words that it was executed.
* A client is told its **room**: of a quarter of `max_held_bytes` the part that falls to it, at least 64 KiB (less, if
  little may be held). It asks for no more at once than has replies of so many bytes, by their size so far (`client`).
  So what is dropped is for those who do not keep to it, or whose replies become much larger.
* So many bytes of replies are sent to a client beyond those that it has confirmed: libzmq holds what is sent, too.
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST_ROOM = 64 * 1024
"""A client's room is not less, however many there are, unless little may be held."""


class BrokerBytes:
    """See the module; whoever takes in or lets go of requests and replies counts them here."""

    __slots__ = ("most", "replies", "requests")

    def __init__(self, most: int) -> None:
        """`most` is `max_held_bytes`."""
        self.most = most
        self.requests = self.replies = 0

    @property
    def total(self) -> int:
        """The sum."""
        return self.requests + self.replies

    @property
    def most_replies(self) -> int:
        """So many bytes of it replies may have."""
        return self.most // 2

    @property
    def excess(self) -> int:
        """How many bytes of replies there are too many."""
        return self.replies - self.most_replies

    def room_for(self, payloads: Sequence[bytes]) -> int:
        """How many of the first of these requests are taken."""
        room, count = self.most - self.total, 0
        for payload in payloads:
            if len(payload) > room and (count or self.total):
                break
            room -= len(payload)
            count += 1
        return count

    def reply_room(self, clients: int) -> int:
        """What each of so many clients is told."""
        return max(1, min(LEAST_ROOM, self.most // 8), self.most // 4 // max(1, clients))
