"""How a process started from the command line writes log lines: to stderr, as text or as JSON objects, one a line."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from zmqpipeline.itemlog import about_now

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
"""When, how serious, which logger and process, what."""


CLEAR = "\x1b[K"
"""Clears the rest of a terminal's line."""


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (ISO 8601, UTC), level, logger, process, message, perhaps traceback.

    Where it is about one of these, also task, item (its number), attempt and worker (``HOST/PID``).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **about_now(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log_to_stderr(level: str, *, as_json: bool = False) -> None:
    """Show the library's lines from this level on, unless the program has configured handlers of its own."""
    top = logging.getLogger("zmqpipeline")
    if _is_configured():
        return
    handler = logging.StreamHandler()
    # of what the progress line has drawn there, by whichever process, nothing shall be left beside a line
    begin = f"\r{CLEAR}" if handler.stream.isatty() else ""
    handler.setFormatter(JsonLines() if as_json else logging.Formatter(begin + TEXT_FORMAT))
    top.addHandler(handler)
    top.setLevel(level.upper())
    top.propagate = False


def _is_configured() -> bool:
    """True if the root logger, or one of the library's, has a handler that is not there for show."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "zmqpipeline"]
    loggers = [logging.getLogger(name) for name in names] + [logging.root]
    return any(not isinstance(handler, logging.NullHandler) for logger in loggers for handler in logger.handlers)
