"""What the acceptance programs print: each step, and its time."""

from __future__ import annotations

import time


class Clock:
    """Says what was done, and how long it took."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        print(f"{now - self._last:6.1f} s  {what}", flush=True)
        self._last = now
