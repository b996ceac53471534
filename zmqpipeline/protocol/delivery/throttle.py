"""How many items of a task may be handed out now: so many in a time, and so many at once, in the whole run.

The law:

* `rate` is a bucket that fills by so many items a second, up to those of `BURST_SECONDS` and one at least; each
  delivery takes one out, retries included. So in any time T no more than ``rate * T + burst`` are handed out.
* It begins empty: a distributor that is started again gives nothing that its predecessor may have given.
* A pause, which a worker's function asks for, lasts until the latest time that was asked for. The collector is told,
  and tells the next distributor (`protocol.collection.pauses`).
* `limit` counts what is leased: from the moment an item is handed out until it is acknowledged, or has failed.
* There is one distributor, so both hold for all workers together; nothing is handed out ahead of a free slot.
"""

from __future__ import annotations

BURST_SECONDS = 1.0
"""What may be handed out at once after a pause: what comes together in so many seconds."""

LOOK_SECONDS = 0.01
"""So seldom at most items are handed out by the clock: several come together then."""


class Throttle:
    """Of one task. Times in seconds."""

    __slots__ = ("_at", "_blocked", "_burst", "_limit", "_paused", "_rate", "_tokens")

    def __init__(self, rate: float | None, limit: int | None) -> None:
        """`rate` is in items a second. None: as many as there are."""
        self._rate, self._limit = rate, limit
        self._burst = 1.0 if rate is None else max(1.0, rate * BURST_SECONDS)
        self._tokens = 0.0
        self._paused: float | None = None
        """Nothing is handed out before this."""
        self._at: float | None = None
        self._blocked = False
        """Somebody wanted more than the rate allows."""

    def left(self, leased: int, now: float) -> int:
        """How many may be handed out now, while so many are leased."""
        most = 1 << 62 if self._limit is None else max(0, self._limit - leased)
        if self._rate is not None:
            self._fill(now)
        if self._paused is not None:
            if now < self._paused:
                return 0
            self._paused = None
        if self._rate is None:
            return most
        allowed = int(self._tokens)
        self._blocked = allowed < 1 and most > 0
        return min(most, allowed)

    def wake(self, now: float) -> bool:
        """Whether what was waited for has come. Who still wants more than there is says so by `left`."""
        due = self.next_time()
        if due is None or now < due:
            return False
        self._blocked = False
        if self._paused is not None and now >= self._paused:
            self._paused = None
        return True

    def gave(self, count: int) -> None:
        """So many were handed out."""
        if self._rate is not None:
            self._tokens -= count

    def pause(self, until: float) -> bool:
        """Hand out nothing before this, nor before what was said earlier; what comes together after it is one burst.

        Returns whether the pause has become longer by this.
        """
        if self._paused is not None and self._paused >= until:
            return False
        self._paused = until
        return True

    def pauses_for(self, now: float) -> float:
        """For how many seconds more nothing is handed out; 0 if it does not pause."""
        return 0.0 if self._paused is None else max(0.0, self._paused - now)

    def next_time(self) -> float | None:
        """When somebody who waits for the rate may have the next; None if nobody does."""
        if self._paused is not None:
            return self._paused
        if not self._blocked or self._rate is None or self._at is None:
            return None
        wanted = max(1.0, min(self._burst, self._rate * LOOK_SECONDS))
        # a little later, so that the sum of what has come by then is not short of one by rounding
        return self._at + (wanted - self._tokens) / self._rate + 1e-6

    def _fill(self, now: float) -> None:
        assert self._rate is not None
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
