"""How much a worker wants to have at hand, and when it is worth a message to say so."""

from __future__ import annotations

from zmqpipeline.options import Options
from zmqpipeline.protocol import credit

ROOM_SECONDS = 0.005
"""How long a report of room waits while the distributor knows of enough: whoever sends item by item hears one of many.

Well below the 20 ms after which items are recalled from who seems to do nothing.
"""


class CreditWindow:
    """The window of one worker, in items, and what its distributor or broker was told of it."""

    __slots__ = ("_known", "_options", "_service", "_told", "tell_at", "window")

    def __init__(self, slots: int, options: Options) -> None:
        self.window = slots
        self.tell_at: float | None = None
        """When room that is known of is to be told of again, at the latest."""
        self._told = self._known = slots
        self._service = credit.ServiceTime()
        self._options = options

    def observe(self, items: int, seconds: float) -> None:
        """So many items took a thread so long."""
        self._service.observe(items, seconds)

    @property
    def service_time(self) -> float:
        """Seconds that one of the last items took; 0 before the first."""
        return self._service.seconds or 0.0

    def resize(self, slots: int, max_prefetch: int) -> None:
        """Let the window follow what was observed."""
        seconds = self._options.prefetch_seconds
        self.window = credit.window(
            slots, self._service.seconds, self.window, prefetch_seconds=seconds, max_prefetch=max_prefetch
        )

    def shrink(self, most: int) -> None:
        """Want no more than this."""
        self.window = min(self.window, most)

    def took(self, items: int) -> None:
        """So many came: the distributor knows of so much less room."""
        self._known -= items

    def told(self, held: int) -> None:
        """The window was told, and that so many are held."""
        self._told, self._known, self.tell_at = self.window, self.window - held, None

    def tell_soon(self, now: float) -> None:
        """There is something to be told that may wait as long as room may."""
        if self.tell_at is None:
            self.tell_at = now + ROOM_SECONDS

    def is_another(self) -> bool:
        """Whether a broker, which knows by the answers what a worker still has, should hear of the window."""
        return credit.is_another(self.window, self._told)

    def is_news(self, held: int, slots: int, now: float) -> bool:
        """Whether a distributor should hear now how many are held; if only some time soon, `tell_at` says when."""
        if credit.is_too_much(held, self.window, self._told):
            return True
        if credit.is_room(held, self.window, slots):
            if not credit.is_known(self._known, self._told):
                return True
            if self.tell_at is None:
                self.tell_at = now + ROOM_SECONDS
        return False
