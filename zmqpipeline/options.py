"""The settings of a role: one dataclass, a docstring a field, each that is a text also an environment variable.

A flag beats a variable, a variable beats an argument, an argument beats the default. The variable of a field is
``ZMQPIPELINE_`` and its name in capitals: ``ZMQPIPELINE_DRAIN_TIMEOUT=60``.

Sizes of memory as people write them: ``2GiB``, ``500 MB``, or a number of bytes.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError

if TYPE_CHECKING:
    # a program that has no observers does not pay for their events
    from zmqpipeline.events import Observer

LOG_LEVELS = ("debug", "info", "warning", "error")
"""What `Options.log_level` may be."""

ENCRYPTION = ("auto", "required", "off")
"""What `Options.encryption` may be."""


IN_PROGRAMS = ("observers",)
"""Options that have no variable: their values are no text."""

MAX_RUN_ID = 200
"""So many characters a `run_id` may have."""


@dataclass(frozen=True)
class Options:
    """How the roles of a pipeline behave. All times are in seconds, all sizes in bytes."""

    endpoint: str | None = None
    """The base address of all roles: ``ipc://FOLDER``, ``tcp://HOST:PORT`` or ``inproc://NAME``."""

    journal: str | None = None
    """The file in which a collector writes down what is done, so that all roles may be killed and started again."""

    run_id: str | None = None
    """What the run is called in its journal: one of this id goes on, in the place of any other a new one begins."""

    keys: str | None = None
    """The folder of keys that `keygen` made: with it every connection is encrypted, and only known keys are let in."""

    encryption: str = "auto"
    """``auto``: when there are `keys`. ``required``: a role without `keys` does not start. ``off``: never."""

    insecure: bool = False
    """Bind to addresses that other machines can reach although nothing is encrypted; a warning says so each time."""

    drain_timeout: float = 25.0
    """How long a role that was asked to end waits for what still runs."""

    idle_timeout: float | None = None
    """A worker that had no item for so long (0.01 or more) ends, with status 0. None: it waits for ever."""

    max_failures: int | None = None
    """Of a `run`: when more items than this have failed for good since it was started, it drains. None: any number."""
    exit_when_idle: float | None = None
    """A role that has waited for so long (0.01 or more) for one that is not there ends. None: it waits for ever.

    A distributor or a collector ends with status 75, since not every item is collected as far as it knows, and so does
    a metadata worker whose metadata nobody took; a worker that executes nothing with 0. Who waits for whom: a
    distributor for a collector that answers, and for a metadata worker; a collector and a metadata worker for a
    distributor; a worker for both, a service worker for its broker. A `run` waits for its own roles. A shorter time
    than a minute also shortens the minute after which a distributor gives up a task of which no worker can be
    initialized.
    """

    heartbeat_interval: float = 0.5
    """How often libzmq asks whether the other side of a connection is still there."""

    heartbeat_timeout: float = 2.0
    """After how much silence a connection counts as broken."""

    linger: float = 5.0
    """How long a closing socket tries to send what is queued."""

    io_threads: int = 1
    """How many threads of libzmq serve the connections of a role (1 to 64). One is enough for a thousand workers.

    What a thread does for its heartbeats grows with the square of its connections: for ten thousand give distributor
    and collector eight, or ask less often (`heartbeat_interval`).
    """

    max_message_bytes: int = 64 * 1024 * 1024
    """The largest packed item or result; a larger one is a failed item and is never sent.

    Give all roles the same: a message that has more than this, and more than a batch of smaller ones, is not read.
    """

    max_header_bytes: int = 64 * 1024
    """The largest header of a message that is read; fields that would make it longer travel in a frame of their own.

    Give all roles the same.
    """

    max_depth: int = 1000
    """How deeply lists, dicts and the like may be nested in an item, a result, a request or a reply that is opened."""

    prefetch_seconds: float = 0.08
    """How much work, by the observed service time, a worker has at hand.

    Of items that are shorter than a quarter of it up to three times as much.
    """

    max_prefetch: int = 12288
    """The most items that a worker has at hand unstarted, however short they are."""

    max_held_items: int = 32768
    """The most items that one worker holds: unstarted, running, and done but not yet acknowledged."""

    max_held_bytes: int = 64 * 1024 * 1024
    """The most bytes of packed items that all workers of a distributor hold, of results that one worker keeps, of
    results that are with the collector or on their way there, and of the requests and replies that wait at a broker.

    A single value may have more, and passes alone; a worker has two items for each of its threads at any size. Give
    all roles the same.
    """

    max_waiting_bytes: int = 1024 * 1024 * 1024
    """A task whose results feed another one is not handed out while more bytes of items than this wait for that one."""

    max_queued_requests: int = 10_000
    """The most requests that wait for one service in its broker; a client is told when there are more."""

    log_level: str = "warning"
    """What a role started from the command line writes: debug, info, warning or error."""

    log_json: bool = False
    """Write log lines as JSON objects."""

    traces: bool = False
    """Make spans of OpenTelemetry for each item (extra ``otel``). Give all roles the same."""

    observers: Sequence[Observer] = ()
    """Functions that are called with each event of the role (`zmqpipeline.events`). Only a program can give them."""

    def __post_init__(self) -> None:
        """Check what would do harm if it were misspelt.

        Raises:
            ConfigurationError: a number is none, or out of its bounds: with it a run would hang, or libzmq refuse; or
                `encryption` is none of ENCRYPTION.
        """
        if self.encryption not in ENCRYPTION:
            raise ConfigurationError(
                f"The option encryption is {self.encryption!r}. It must be one of {', '.join(ENCRYPTION)}. "
                f"Its variable is {variable('encryption')}."
            )
        run_id = self.run_id
        if run_id is not None and not (0 < len(run_id) <= MAX_RUN_ID and run_id.isprintable()):
            raise ConfigurationError(
                f"The option run_id is {run_id[: MAX_RUN_ID + 1]!r}. It must be a printable text of 1 to {MAX_RUN_ID} "
                f"characters. Its variable is {variable('run_id')}."
            )
        if not isinstance(self.observers, (list, tuple)) or not all(map(_is_function, self.observers)):
            raise ConfigurationError(
                f"The option observers is {self.observers!r}. It must be a list of functions, not async ones, that "
                "take an event."
            )
        # options can be compared, and are not changed by who changes his list
        object.__setattr__(self, "observers", tuple(self.observers))
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise ConfigurationError(
                    f"The option {name} is {value!r}. It must be a number from {least:g} to {most:g}. "
                    f"Its variable is {variable(name)}."
                )

    @classmethod
    def from_environ(cls, base: Options | None, environ: Mapping[str, str]) -> Options:
        """Return `base` (or the defaults) with what the variables say instead; an empty variable says nothing.

        Raises ConfigurationError, naming variable and value, for one that cannot be read.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in IN_PROGRAMS:
                continue
            text = environ.get(variable(field.name), "").strip()
            if text:
                found[field.name] = _read(field.name, str(field.type), text)
        return replace(base or cls(), **found)

    def merge(self, **given: Any) -> Options:
        """Return these options with what is given instead, where it is not None: the flags of a command line."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _is_function(value: object) -> bool:
    # an async one would be called, and never executed
    return callable(value) and not any(map(inspect.iscoroutinefunction, (value, type(value).__call__)))


_OPTIONAL = ("idle_timeout", "exit_when_idle", "max_failures")
_YEAR = 366 * 24 * 3600.0
_HUGE = float(1 << 53)
_BOUNDS: dict[str, tuple[float, float]] = {
    "drain_timeout": (0, _YEAR),
    "idle_timeout": (0.01, _YEAR),
    "max_failures": (0, _HUGE),
    "exit_when_idle": (0.01, _YEAR),
    "heartbeat_interval": (0, 6553),
    "heartbeat_timeout": (0, 6553),
    "linger": (0, 2_000_000),
    "io_threads": (1, 64),
    "max_message_bytes": (1, _HUGE),
    "max_header_bytes": (8 * 1024, 1024 * 1024),
    "max_depth": (1, 1000),
    "prefetch_seconds": (0, _YEAR),
    "max_prefetch": (0, _HUGE),
    "max_held_items": (1, _HUGE),
    "max_held_bytes": (1, _HUGE),
    "max_waiting_bytes": (0, _HUGE),
    "max_queued_requests": (0, _HUGE),
}
"""The least and the most of each number; those of heartbeats and linger are libzmq's."""


def variable(field: str) -> str:
    """Return the name of a field's environment variable."""
    return f"ZMQPIPELINE_{field.upper()}"


def _read(field: str, kind: str, text: str) -> Any:
    optional = kind.endswith(" | None")
    if optional and text.lower() == "none":
        return None
    read, expected = _SPECIAL.get(field) or _READERS[kind.removesuffix(" | None")]
    try:
        return read(text)
    except (ValueError, ConfigurationError) as error:
        expected += ", or none" if optional else ""
        reason = f" {error}" if isinstance(error, ConfigurationError) else ""
        raise ConfigurationError(
            f"The environment variable {variable(field)} is {text!r}. It must be {expected}.{reason}"
        ) from error


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _truth(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(text)
    return text.lower()


def _encryption(text: str) -> str:
    if text.lower() not in ENCRYPTION:
        raise ValueError(text)
    return text.lower()


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "float": (_seconds, "a number of seconds, 0 or more"),
    "int": (_count, "a whole number, 0 or more"),
    "bool": (_truth, "one of 1, true, yes, 0, false, no"),
}
_SPECIAL: dict[str, tuple[Callable[[str], Any], str]] = {
    "endpoint": (EndpointAddress, "an address"),
    "journal": (str, "a path"),
    "run_id": (str, "a text"),
    "keys": (str, "a path"),
    "encryption": (_encryption, f"one of {', '.join(ENCRYPTION)}"),
    "log_level": (_level, f"one of {', '.join(LOG_LEVELS)}"),
}


_UNITS = {"": 1, "B": 1}
_UNITS.update({f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)})
_UNITS.update({f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)})
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)

EXPECTED = "a number of bytes, 1 or more, or a text such as '2GiB' or '500MB' (KB, MB, GB, TB, KiB, MiB, GiB, TiB)"
"""What a size may be, for messages."""


def size_in_bytes(size: object) -> int:
    """A size as a number of bytes.

    Raises:
        ValueError: it is none, or less than one byte.
    """
    found = -1.0
    if isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        found = float(match[1]) * _UNITS.get(match[2].upper(), -1)
    elif isinstance(size, int) and not isinstance(size, bool):
        found = size
    if not 1 <= found < math.inf:
        raise ValueError(f"{size!r} is no size; it must be {EXPECTED}.")
    return int(found)


def shown_size(size: int) -> str:
    """A number of bytes for people: ``1.5 GiB``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} B"
