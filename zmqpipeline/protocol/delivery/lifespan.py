"""How much one worker process does before it leaves in good order, so that another one takes its place.

It retires after `max_items` items, or when a Retire comes: it takes nothing more, and ends as in a drain, but without a
time limit, since what runs there and what is not acknowledged shall not be given to anybody else.
"""

from __future__ import annotations


class Lifespan:
    """Of one worker; `most` is how many items it executes, None for any number."""

    __slots__ = ("has_ended", "most", "reason")

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.reason = ""
        """Why it retires, if it does."""
        self.has_ended = False
        """All that it did is acknowledged, and it left."""

    def left(self, executed: int) -> int:
        """How many more items it may execute."""
        return 1 << 53 if self.most is None else max(0, self.most - executed)
