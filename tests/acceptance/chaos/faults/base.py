"""What a fault is, the register of all of them, and what several of them do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.acceptance.chaos.history import Hit
from tests.acceptance.chaos.stage import Cast, Stage

SHORT_PAUSES = (0.1, 0.5, 1.0)
"""Seconds for which a process may stand still, or a network, without anybody taking it for dead."""

LONG_PAUSES = (3.5, 5.0)
"""Seconds after which whoever stands still was taken for dead, the heartbeat time-out being 2 s."""

DOWN_SECONDS = 0.8
"""The longest that a role is down before it is started again."""


@dataclass(frozen=True)
class Fault:
    """One sort of trouble."""

    name: str
    kind: type[Stage]
    strike: Callable[..., None]
    """Called with the stage, the run's random numbers, and the network or the disk if it has one."""
    says: str
    network: bool = False
    journal: bool = False
    disk: bool = False
    staged: bool = False
    """Whether results become items, as in a crawl; B is the slower of both, or not."""
    with_credit: int = 0
    deadly: int = 0
    retiring: bool = False
    spare_bytes: int = 0


FAULTS: dict[str, Fault] = {}
"""All of them, by name."""


def fault(name: str, kind: type[Stage], **options: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the function strikes a stage; the first line of its docstring goes into the report."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        says = (function.__doc__ or "").splitlines()[0]
        FAULTS[name] = Fault(name, kind, function, says, **options)  # type: ignore[arg-type]
        return function

    return register


def again(stage: Stage, cast: Cast, rng: random.Random, hit: Hit | None = None) -> None:
    """Start a part again after a moment; the hit is healed by that."""
    stage.pass_time(rng.random() * DOWN_SECONDS)
    restart(stage, cast.name)
    if hit is not None:
        hit.healed = time.monotonic()


def restart(stage: Stage, name: str) -> Cast:
    """Start a part again now."""
    return stage.start(name, again=True)


def pause(rng: random.Random) -> tuple[float, int]:
    """How long something stands still, and what that may cost."""
    if rng.random() < 0.4:
        return rng.choice(SHORT_PAUSES), 0
    return rng.choice(LONG_PAUSES), 1


def kill_one(stage: Stage, rng: random.Random, role: str, *, costs: int) -> None:
    """SIGKILL at some moment; it is started again."""
    stage.moment(rng)
    victim = stage.one(role)
    again(stage, victim, rng, stage.kill(victim, costs=costs))


def end_one(stage: Stage, rng: random.Random, role: str, *, costs: int) -> None:
    """SIGTERM at some moment, which ends it with status 143; it is started again."""
    stage.moment(rng)
    victim = stage.one(role)
    again(stage, victim, rng, stage.terminate(victim, 143, costs=costs))


def stop_one(stage: Stage, rng: random.Random, role: str) -> None:
    """SIGSTOP at some moment, and SIGCONT later; a long pause may cost each item one more execution."""
    stage.moment(rng)
    seconds, costs = pause(rng)
    stage.freeze(stage.one(role), seconds, costs=costs)
