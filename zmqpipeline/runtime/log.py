"""Logging: the names of the loggers, the lines as text or JSON, and what a line is about.

The logger names of the library, and configureLogging, by which a program says where they write.

The library only writes to its loggers, and sets no handler. Unless the program configures logging, Python itself shows
warnings and errors on stderr (`logging.lastResort`); a program that wants silence adds a `logging.NullHandler` to the
logger ``zmqpipeline``.

What a log line is about, for `--log-json`: the item whose function writes it, and the worker that it is in.

A thread that executes items says which one it is at, but only where log lines are JSON: elsewhere an item pays nothing.

How a process started from the command line writes log lines: to stderr, as text or as JSON objects, one a line.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from zmqpipeline.runtime.error_text import printable

LOGGERS = (
    "zmqpipeline.distributor",
    "zmqpipeline.collector",
    "zmqpipeline.task",
    "zmqpipeline.worker",
    "zmqpipeline.metadataworker",
    "zmqpipeline.service",
    "zmqpipeline.serviceworker",
    "zmqpipeline.serviceclient",
)
"""The loggers of the roles. Name your own below them, as in ``zmqpipeline.task.Resize``."""


def configureLogging(config: dict[str, Any]) -> None:  # noqa: N802 - the first edition's name
    """Configure logging by a dictionary, exactly as `logging.config.dictConfig` does, with its errors.

    Say ``'disable_existing_loggers': False`` in it: else the loggers that it does not name are switched off.
    """
    # with what it imports it would be five per cent of all that a role imports
    from logging.config import dictConfig

    dictConfig(config)


About = Mapping[str, "str | int"]
"""Any of task, item, attempt, worker."""

_here = threading.local()
_call: ContextVar[dict[str, str | int] | None] = ContextVar("zmqpipeline_about", default=None)
"""What a line of a coroutine is about, and of the tasks that it begins."""
_process: dict[str, str | int] = {}


def about_process(**fields: str | int) -> None:
    """From now on every line of this process is about this, too."""
    _process.update(fields)


def about_thread(**fields: str | int) -> None:
    """From now on every line of this thread is about this, and nothing else."""
    _here.about = fields


@contextmanager
def about_call(**fields: str | int) -> Iterator[None]:
    """Within it every line of this coroutine, and of the tasks that it begins, is about this."""
    token = _call.set(fields)
    try:
        yield
    finally:
        _call.reset(token)


def about_now() -> dict[str, str | int]:
    """What a line that is written here and now is about."""
    return {**_process, **(getattr(_here, "about", None) or _call.get() or {})}


TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
"""When, how serious, which logger and process, what."""


CLEAR = "\x1b[K"
"""Clears the rest of a terminal's line."""


class TextLines(logging.Formatter):
    """A record as text: a line, perhaps with a traceback below it, and nothing in it that would change a terminal."""

    def __init__(self, begin: str = "") -> None:
        """`begin` comes before each record, as it is."""
        super().__init__(TEXT_FORMAT)
        self._begin = begin

    def format(self, record: logging.LogRecord) -> str:
        """The text, without its end."""
        return self._begin + printable(super().format(record), lines=True)


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
    handler.setFormatter(JsonLines() if as_json else TextLines(begin))
    top.addHandler(handler)
    top.setLevel(level.upper())
    top.propagate = False


def _is_configured() -> bool:
    """True if the root logger, or one of the library's, has a handler that is not there for show."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "zmqpipeline"]
    loggers = [logging.getLogger(name) for name in names] + [logging.root]
    return any(not isinstance(handler, logging.NullHandler) for logger in loggers for handler in logger.handlers)
