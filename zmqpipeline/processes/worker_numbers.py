"""How many worker processes each task of a run is given: what `--workers` and `app.run(workers=)` say.

A number, ``"auto"`` (one for each core), or ``"MIN:MAX"`` between which `run` scales (`processes.autoscale`); for all
tasks, or for some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, did_you_mean
from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.status_records import MAX_WORKERS

MAX_DIGITS = 18
"""So many has a number at most."""

Number: TypeAlias = int | str
"""A whole number, ``"auto"``, or a range such as ``"1:8"`` or ``"0:auto"``."""

Workers: TypeAlias = "Number | Mapping[str, Number]"
"""Worker processes for every task, or for some."""


@dataclass(frozen=True)
class Bounds:
    """The fewest and the most workers of a task. Equal ones are a number."""

    least: int
    most: int

    @property
    def is_scaled(self) -> bool:
        """Whether the number changes with the work."""
        return self.least < self.most


def worker_bounds(
    app: Pipeline, given: Workers | None, cores: Callable[[], int] = usable_cores, *, most: int = MAX_WORKERS
) -> dict[str, Bounds]:
    """How many worker processes each task gets: what `given` says for all or some (key "": the others), or "auto".

    "auto" is as many as there are `cores` for this process; no task may have more than `most`.

    Raises:
        ConfigurationError: a task is unknown, or a number is none, below 0 or too large, or a range has its ends the
            wrong way.
    """
    if not isinstance(given, Mapping):
        given = {"": "auto" if given is None else given}
    unknown = [task for task in given if task and task not in app.worker_types]
    if unknown:
        known = ", ".join(repr(one) for one in app.worker_types) or "none"
        raise ConfigurationError(
            f"workers= names the task {unknown[0]!r}, for which there is no worker. Known: {known}."
            f"{did_you_mean(unknown[0], app.worker_types)}"
        )
    asked = {task: given.get(task, given.get("", "auto")) for task in app.worker_types}
    auto = cores() if any(isinstance(one, str) and "auto" in one for one in asked.values()) else 0
    bounds = {task: _bounds(task, number, auto) for task, number in asked.items()}
    for task, one in bounds.items():
        check_processes(f"workers={asked[task]}", task, one.most, most)
    return bounds


def check_processes(given: str, task: str, number: int, most: int = MAX_WORKERS) -> None:
    """Raise ConfigurationError if so many processes of one task, for which `given` asks, are too many."""
    if number > most:
        raise ConfigurationError(
            f"{given} asks for {number} processes of task {task!r}; at most {most} of one task are started by one "
            "command. Give a lower number: a worker may have several threads (threads=), and the command `worker` on "
            "other machines adds workers to a run that has an --endpoint."
        )


def _bounds(task: str, given: Number, auto: int) -> Bounds:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return Bounds(given, given)
    if given == "auto":
        return Bounds(auto, auto)
    least, colon, most = given.partition(":") if isinstance(given, str) else ("", "", "")
    if not colon or not _is_number(least) or not (most == "auto" or _is_number(most)):
        raise ConfigurationError(
            f"workers= asks for {given!r} processes of task {task!r}. Give a whole number, 0 or more, 'auto', or a "
            "range such as '1:8' or '1:auto'."
        )
    bounds = Bounds(int(least), auto if most == "auto" else int(most))
    if bounds.is_scaled and bounds.most > MAX_WORKERS:
        raise ConfigurationError(
            f"--workers {given} asks for up to {bounds.most} processes of task {task!r}. A range ends at "
            f"{MAX_WORKERS}, since the distributor names no more to whoever scales. Give a lower MAX."
        )
    if bounds.least > bounds.most:
        here = f" (auto is {auto} here)" if most == "auto" else ""
        raise ConfigurationError(
            f"--workers {given} asks for at least {bounds.least} and at most {bounds.most} processes of task "
            f"{task!r}{here}. Give MIN:MAX with a MIN that is not above MAX."
        )
    return bounds


def _is_number(text: str) -> bool:
    # more digits are no number of processes, and too many of them are none that Python reads
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def read_workers(app: Pipeline, given: Sequence[str]) -> Workers | None:
    """``--workers 2 --workers C=4,D=1:8``: for all, for some, or both (the key "" is for all).

    Raises:
        ConfigurationError: a text is none of these.
    """
    numbers: dict[str, Number] = {}
    for value in given:
        # the name of a task may have a comma in it
        whole = value.rpartition("=")[0] in app.worker_types
        for one in [value] if whole else value.split(","):
            task, _, number = one.rpartition("=")
            least, colon, most = number.partition(":")
            if number != "auto" and not (_is_number(least) and (not colon or most == "auto" or _is_number(most))):
                raise ConfigurationError(
                    "--workers takes a number of processes, auto, MIN:MAX, or TASK=NUMBER, TASK=auto, TASK=MIN:MAX; "
                    f"{one!r} is none of these."
                )
            numbers[task] = int(number) if _is_number(number) else number
    return numbers or None


def refuse_none(bounds: Mapping[str, Bounds]) -> None:
    """Without a worker a run would wait for ever, unless others can find its address."""
    none = [task for task, one in bounds.items() if one.most == 0]
    if none:
        raise ConfigurationError(
            f"There would be no worker for task {none[0]!r}, and none can join this run: its addresses are private. "
            "Ask for 1 worker or more; or give --endpoint ADDRESS, and start workers there."
        )
