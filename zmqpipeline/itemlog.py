"""What a log line is about, for `--log-json`: the item whose function writes it, and the worker that it is in.

A thread that executes items says which one it is at, but only where log lines are JSON: elsewhere an item pays nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

About = Mapping[str, "str | int"]
"""Any of task, item, attempt, worker."""

_here = threading.local()
_process: dict[str, str | int] = {}


def about_process(**fields: str | int) -> None:
    """From now on every line of this process is about this, too."""
    _process.update(fields)


def about_thread(**fields: str | int) -> None:
    """From now on every line of this thread is about this, and nothing else."""
    _here.about = fields


def about_now() -> dict[str, str | int]:
    """What a line that is written here and now is about."""
    return {**_process, **getattr(_here, "about", {})}


def about_items(task: str, call: Callable[[Any, int, int, int], Any]) -> Callable[[Any, int, int, int], Any]:
    """The same function; what is logged while it executes an item is about that item.

    It takes the item, the thread's index, the item's number and the attempt.
    """

    def telling(item: Any, index: int, number: int, attempt: int) -> Any:
        about_thread(task=task, item=number, attempt=attempt)
        try:
            return call(item, index, number, attempt)
        finally:
            about_thread()

    return telling


def about_results(task: str, attempt: int, call: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
    """The same for what a collector calls with the results of one attempt, and with their numbers."""

    def telling(number: int, data: Any) -> Any:
        about_thread(task=task, item=number, attempt=attempt)
        try:
            return call(number, data)
        finally:
            about_thread()

    return telling
