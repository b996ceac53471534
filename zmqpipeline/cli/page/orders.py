"""What the page asks `run` for about its workers: read from a request, and handed on as a line.

Pure. Tasks are named by their place in the plan of the page (`PagePlan.scalable`).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from zmqpipeline.cli.page.plan import Scalable
from zmqpipeline.runtime.error_text import printable

SCALE = "scale"
"""The word of such an order."""

AUTO = "auto"
"""In the place of a number: as many workers as `--workers` says."""

MAX_FIELDS = 10
"""So many fields of a request are read."""

MAX_DIGITS = 6
"""So many digits a number has at most."""


@dataclass(frozen=True)
class Order:
    """A task shall have so many workers; None: as many as `--workers` says."""

    which: int
    number: int | None

    def line(self) -> str:
        """As a line for `run`."""
        return f"{SCALE} {self.which} {AUTO if self.number is None else self.number}"

    @classmethod
    def of_line(cls, line: str) -> Order | None:
        """What `line` has made; None if it is another one."""
        word, which, number = (*line.split(), "", "", "")[:3]
        if word != SCALE or not _is_number(which) or not (number == AUTO or _is_number(number)):
            return None
        return cls(int(which), None if number == AUTO else int(number))


def read_order(scalable: Sequence[Scalable], open_now: Container[int], body: bytes) -> Order | str:
    """What the fields ``task=0&workers=4`` of a request ask for, or why that cannot be, as a sentence.

    `open_now` are the tasks whose number may be changed at this moment.
    """
    try:
        fields = parse_qs(body.decode("ascii", "replace"), max_num_fields=MAX_FIELDS)
    except ValueError:
        fields = {}
    which, number = (fields.get(name, [""])[-1] for name in ("task", "workers"))
    if not _is_number(which) or int(which) >= len(scalable):
        return "There is no such task: load the page again."
    task = scalable[int(which)]
    if int(which) not in open_now:
        return "The run ends: the number of its workers is not changed any more."
    if number != AUTO and not (_is_number(number) and int(number) <= task.limit):
        return f"Task {printable(repr(task.task))} can have from 0 to {task.limit} workers, in whole numbers."
    return Order(int(which), None if number == AUTO else int(number))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
