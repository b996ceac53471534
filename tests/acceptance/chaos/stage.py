"""The processes of one run: started, struck, started again, and waited for until a deadline.

A stage knows no faults; `faults.py` says what is done to it, and `runner.py` what comes before and after.
"""

from __future__ import annotations

import random
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.chaos.history import Hit, Item
from tests.acceptance.chaos.plan import Plan
from tests.acceptance.conftest import Program, Workshop

HUNG_SECONDS = 45.0
"""A run that is not over by then hangs: it has work for one or two seconds, and trouble for less than ten."""

DRAIN_SECONDS = 2
"""How long a role that is asked to end waits for what it has: a worker for its ACKs, which may never come."""

LOOK_SECONDS = 0.005
"""How often a condition is looked at."""

GRACE_SECONDS = 10.0
"""How long a role that nothing happened to has for its end, once the run is over."""

Bases = Callable[[str], str]
"""The base address of a role, by its name."""


class Hung(Exception):
    """Something did not happen by the run's deadline; the text says what."""


@dataclass
class Cast:
    """One process: the name of its part, the command, and whether something was done to it."""

    name: str
    program: Program
    struck: bool = False
    again: bool = False
    """Whether it was started after the beginning of the run, so that it may come too late for it."""
    wanted: set[int] = field(default_factory=lambda: {0})
    """The exit statuses that it may end with."""

    @property
    def role(self) -> str:
        """``worker`` of ``worker A 1``."""
        return self.name.split()[0]

    @property
    def task(self) -> str:
        """``A`` of ``worker A 1``; of others the same as the role."""
        return self.name.split()[1] if self.role == "worker" else self.role

    def ended_as_wanted(self) -> bool:
        """Whether its exit status, now that it has ended, is one that it may have.

        Nor is it wrong that SIGTERM ends a process at once that had said that its run is over.
        """
        status = self.program.wait(1)
        return status in self.wanted or (
            status == -signal.SIGTERM and self.struck and "run is over" in self.program.err
        )


def _catches(pid: int, signum: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; not if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signum - 1) & 1)


class Tail:
    """Counts the lines of a file that grows, reading each byte once."""

    def __init__(self, path: Path) -> None:
        """Of this file, which may not be there yet."""
        self._path = path
        self._offset = self._count = 0

    def count(self) -> int:
        """How many complete lines there are now."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            self._count += new.count(b"\n")
        return self._count


class Stage(ABC):
    """See the module. `commands` gives the arguments of python for a part, by its name."""

    def __init__(self, plan: Plan, workshop: Workshop, commands: Callable[[str], list[str]]) -> None:
        """Nothing runs yet."""
        self.plan = plan
        self.workshop = workshop
        self.casts: list[Cast] = []
        """Every process that was ever started, in order."""
        self.hits: list[Hit] = []
        self.began = time.monotonic()
        self.deadline = self.began + HUNG_SECONDS
        self.to_come = 0
        """How many strikes follow the one that is under way, so that it has to leave them some of the run."""
        self.prefixes: dict[str, list[str]] = {}
        """A command that starts python for a part (by its role), in its place."""
        self._commands = commands
        self._calls = Tail(workshop.folder / "calls")
        self._starts = 0

    # processes --------------------------------------------------------------------------------------------------------

    def start(self, name: str, *, again: bool = False) -> Cast:
        """Start the process of this part; `again` if it is not the first one of this name."""
        self._starts += 1
        label = f"{self._starts:02}-{name.replace(' ', '-')}"
        command = [*self.prefixes.get(name.split(maxsplit=1)[0], []), sys.executable, *self._commands(name)]
        environ = {**self.workshop.environ, **self.plan.to_environ(), "ZMQPIPELINE_DRAIN_TIMEOUT": str(DRAIN_SECONDS)}
        program = Program(self.workshop.folder, label, command, environ)
        self.workshop.programs.append(program)
        cast = Cast(name, program, again=again)
        self.casts.append(cast)
        return cast

    def one(self, role: str) -> Cast:
        """The newest process of a role that there is one of."""
        return next(cast for cast in reversed(self.casts) if cast.role == role)

    def running(self, role: str) -> list[Cast]:
        """Those of a role that have not ended."""
        return [cast for cast in self.casts if cast.role == role and not cast.program.ended()]

    def kill(self, *casts: Cast, costs: int) -> Hit:
        """SIGKILL these at once, and wait until they are gone."""
        pids = frozenset(cast.program.pid for cast in casts)
        hit = self._hit("killed", casts, costs, died=pids)
        for cast in casts:
            cast.struck, cast.wanted = True, {-signal.SIGKILL, *cast.wanted}
            cast.program.signal(signal.SIGKILL)
        for cast in casts:
            self.wait(cast.program.ended, f"{cast.name} is gone after SIGKILL")
        return hit

    def terminate(self, cast: Cast, status: int, *, costs: int = 0) -> Hit:
        """SIGTERM; it must end with this status, or have ended by itself before."""
        hit = self._hit("asked to end", (cast,), costs)
        self._ask(cast, status)
        self.wait(cast.program.ended, f"{cast.name} ends after SIGTERM")
        return hit

    def freeze(self, cast: Cast, seconds: float, *, costs: int) -> Hit:
        """SIGSTOP, and SIGCONT after so many seconds, or as soon as the rest of the run is over."""
        hit = self._hit("stopped", (cast,), costs)
        cast.struck = True
        cast.program.signal(signal.SIGSTOP)
        self.pass_time(seconds, until=lambda: self.is_over() or cast.program.ended())
        cast.program.signal(signal.SIGCONT)
        hit.healed = time.monotonic()
        return hit

    def hit(self, what: str, pids: frozenset[int] = frozenset(), *, costs: int) -> Hit:
        """Write down that something is done now, to these workers or (none) to something else."""
        hit = Hit(what, time.monotonic(), pids, costs=costs)
        self.hits.append(hit)
        return hit

    def _hit(self, what: str, casts: tuple[Cast, ...], costs: int, died: frozenset[int] = frozenset()) -> Hit:
        workers = frozenset(cast.program.pid for cast in casts if cast.role in ("worker", "service-worker"))
        names = ", ".join(cast.name for cast in casts)
        hit = self.hit(f"{names} {what}", workers, costs=costs)
        hit.died = died
        return hit

    # waiting ----------------------------------------------------------------------------------------------------------

    def done(self) -> int:
        """How many items were collected (requests answered) so far."""
        return self._calls.count()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until it holds. Raises Hung if it does not by the deadline, or never will, a process being gone."""
        while not condition():
            if time.monotonic() > self.deadline:
                raise Hung(f"not within {HUNG_SECONDS:g} s: {what}; {self.done()} calls were seen")
            for cast in self.casts:
                if cast.program.ended() and not cast.ended_as_wanted():
                    raise Hung(f"{cast.name} ended with {cast.program.wait(1)}, so not: {what}")
            select.select([], [], [], LOOK_SECONDS)

    def pass_time(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> None:
        """Let so much time go by, or less, if this holds before. The length is part of what is done to the run."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            select.select([], [], [], min(LOOK_SECONDS, seconds))

    def moment(self, rng: random.Random, *, more: int = 0) -> None:
        """Wait for a random moment of what is left of the run: mostly in the middle, now and then at its ends.

        Where so many `more` are to come, and those that the stage knows of, it is an earlier one.
        """
        more += self.to_come
        total = self.total()
        done = self.done()
        fraction = rng.choice([0.0, 1.0, *(rng.random() for _ in range(8))]) / (1 + more)
        after = rng.random() * (0.5 if fraction == 0.0 else 0.03)
        wanted = done + fraction * (total - done)
        self.wait(lambda: self.done() >= wanted or self.is_over(), f"{wanted:.0f} items are collected")
        self.pass_time(after)

    def left_out(self) -> set[str]:
        """The tasks (clients) that nobody cares for any more."""
        return set()

    def behind(self, links: list[str]) -> list[Cast]:
        """The running workers whose way to whom they work for is one of these links of the network."""
        return []

    # to be filled in --------------------------------------------------------------------------------------------------

    @abstractmethod
    def total(self) -> int:
        """How many items (requests) there are."""

    @abstractmethod
    def expected(self) -> set[Item]:
        """What must be collected (answered) in the end, or fail if that is the plan."""

    @abstractmethod
    def is_over(self) -> bool:
        """Whether all has been done, so that what is left are the ends of processes."""

    @abstractmethod
    def begin(self, rng: random.Random) -> None:
        """Start all processes."""

    @abstractmethod
    def end(self) -> list[str]:
        """Wait until the run is over and every process has ended; what was wrong with their ends."""

    # the end ----------------------------------------------------------------------------------------------------------

    def end_by_itself(self, cast: Cast) -> None:
        """Wait for the end of a process that nothing happened to."""
        limit = time.monotonic() + GRACE_SECONDS
        self.wait(lambda: cast.program.ended() or time.monotonic() > limit, f"{cast.name} ends by itself")
        if not cast.program.ended():
            raise Hung(f"{cast.name} has not ended {GRACE_SECONDS:g} s after the run was over")

    def ask_to_end(self, status: int, *casts: Cast) -> None:
        """SIGTERM for processes that cannot know that the run is over; each must end with this status."""
        for cast in casts:
            self._ask(cast, status)
        for cast in casts:
            self.wait(cast.program.ended, f"{cast.name} ends after SIGTERM, the run being over")

    def _ask(self, cast: Cast, status: int) -> None:
        cast.struck = True
        cast.wanted = {*cast.wanted, status}
        if not _catches(cast.program.pid, signal.SIGTERM) or self.is_over():
            # python is not yet, or no more, at the program that would answer
            cast.wanted.add(-signal.SIGTERM)
        cast.program.signal(signal.SIGTERM)

    def wrong_ends(self) -> list[str]:
        """The exit statuses that are not as they should be."""
        return [
            f"{cast.name} ended with {cast.program.wait(1)}, not {' or '.join(map(str, sorted(cast.wanted)))}"
            for cast in self.casts
            if not cast.ended_as_wanted()
        ]

    def last_words(self, lines: int = 12) -> str:
        """The last lines that each process logged."""
        parts = []
        for cast in self.casts:
            state = f"ended with {cast.program.wait(1)}" if cast.program.ended() else "still running"
            text = "\n    ".join(cast.program.err.splitlines()[-lines:])
            parts.append(f"  {cast.name} (pid {cast.program.pid}, {state}):\n    {text}")
        return "\n".join(parts)
