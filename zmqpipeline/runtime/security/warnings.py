"""Warnings about doors that stay closed, or that are left open: said to people, now and then, not at each attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable

REPEAT = 60.0
"""Seconds before the same is said again."""

log = logging.getLogger("zmqpipeline.security")


class RateLimitedWarnings:
    """Says each thing once, and again after a while if it is still so."""

    def __init__(self, most: int = 100) -> None:
        """At most so many things are told apart; all others count as one."""
        self._most = most
        self._again: dict[Hashable, float] = {}

    def tell(self, what: Hashable, text: str, again: float = REPEAT) -> bool:
        """Say `text`, unless it was said of `what` in the last `again` seconds; whether it was said."""
        now = time.monotonic()
        if what not in self._again and len(self._again) >= self._most:
            self._again = {one: at for one, at in self._again.items() if at > now}
            if len(self._again) >= self._most:
                what = None
        if now < self._again.get(what, now):
            return False
        self._again[what] = now + again
        warn(text)
        return True

    def forget(self) -> None:
        """It is over: what is said of it next is news."""
        self._again.clear()


def warn(text: str) -> None:
    """Log a warning; it reaches stderr if this program has not said where log lines go."""
    log.warning("%s", text)
