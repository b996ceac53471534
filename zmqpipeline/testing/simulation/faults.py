"""What may strike a simulated pipeline, and when: drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from zmqpipeline.errors import ConfigurationError, did_you_mean

FAULTS = ("messages", "connections", "freezes", "workers", "distributor", "collector")
"""What may strike: messages are lost and doubled; connections break, or are cut off for some seconds; processes stand
still for some seconds; workers are killed, and others started; the distributor or the collector is killed, and started
again."""


@dataclass(frozen=True)
class Fault:
    """One thing that struck."""

    at: float
    """When, in virtual seconds since the beginning."""

    what: str
    """One of FAULTS, without "messages", which are only counted."""

    text: str
    """What happened, in words."""


@dataclass(frozen=True)
class Climate:
    """What the seed has drawn for a whole run: the network, how long things take, and how often something strikes."""

    lose: float
    double: float
    delay: float
    uneven: float
    item_seconds: float
    """How long an item takes, at least; at most four times as long."""
    collect_seconds: float
    commit_seconds: float
    """How long after the collector's calls it says that they are done: what dies in between is called again."""
    gap: float
    """After how many calls of user code something strikes, on the average."""
    strikes: int
    """How often something strikes at most."""
    kinds: tuple[str, ...]


def climate(rng: random.Random, faults: Iterable[str], item_seconds: float | None) -> Climate:
    """Draw one.

    Raises:
        ConfigurationError: one of `faults` is unknown.
    """
    wanted = tuple(dict.fromkeys([faults] if isinstance(faults, str) else faults))
    for one in wanted:
        if one not in FAULTS:
            known = ", ".join(map(repr, FAULTS))
            raise ConfigurationError(f"There is no fault {one!r}. Known: {known}.{did_you_mean(str(one), FAULTS)}")
    messages = "messages" in wanted
    lose, double = rng.choice([0.0, 0.01, 0.1]), rng.choice([0.0, 0.01, 0.1])
    drawn = rng.choice([1e-4, 0.01, 0.2])
    kinds = tuple(one for one in wanted if one != "messages")
    return Climate(
        lose=lose if messages else 0.0,
        double=double if messages else 0.0,
        delay=rng.choice([0.0001, 0.002, 0.05]),
        uneven=rng.choice([0.0, 1.0, 8.0]),
        item_seconds=drawn if item_seconds is None else item_seconds,
        collect_seconds=rng.choice([1e-6, 1e-3]),
        commit_seconds=rng.choice([0.0, 0.005, 0.05]),
        gap=rng.choice([2.0, 8.0, 30.0]),
        strikes=rng.choice([3, 10, 30]) if kinds else 0,
        kinds=kinds,
    )
