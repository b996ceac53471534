"""The last warnings and errors that this process has logged, for whoever asks a role how the run stands.

They are heard by filters, which let everything pass: a handler would keep Python from showing the lines of a program
that has configured no logging.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from zmqpipeline.protocol.messages import LogLine

MAX_LINES, MAX_TEXT = 50, 1000
"""So many lines are kept, each with so many characters."""


class RecentLines(logging.Filter):
    """Keeps what is logged by these loggers while it listens."""

    def __init__(self, *loggers: str) -> None:
        """Nothing is heard before `listen`."""
        super().__init__()
        self._loggers = [logging.getLogger(name) for name in loggers]
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=MAX_LINES)

    def listen(self, *, is_up: bool) -> None:
        """Begin to hear, or end."""
        for logger in self._loggers:
            if is_up:
                logger.addFilter(self)
            else:
                logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep it if it is a warning or worse; let it pass."""
        if record.levelno >= logging.WARNING:
            self._lines.append((time.monotonic(), record.levelname.lower(), record.getMessage()[:MAX_TEXT]))
        return True

    def lines(self) -> list[LogLine]:
        """The last lines, the newest first."""
        now = time.monotonic()
        return [LogLine(level, text, max(0.0, now - at)) for at, level, text in reversed(self._lines.copy())]
