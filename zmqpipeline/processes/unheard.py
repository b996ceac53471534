"""Workers that an engine was asked for, and of which nothing was heard: what `run` says of them, and that it waits."""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.restarts import Slot

UNHEARD_LOOK = 2.0
"""Seconds between two looks."""

UNHEARD_SECONDS = 30.0
"""For so long nothing is said; then again each time that the run has gone on for twice as long."""


def unheard(places: Sequence[Slot], now: float) -> str:
    """Which of these workers have been waited for so long, as a short letter; empty if there are none."""
    placed = [place for place in places if place.engine is not THIS_MACHINE and place.child is not None]
    late = [place for place in placed if not _is_heard(place) and _waited(place, now) >= UNHEARD_SECONDS]
    if not late:
        return ""
    longest = max(_waited(place, now) for place in late)
    which = f"the {late[0].label}" if len(late) == 1 else f"{len(late)} of {len(placed)} workers"
    return (
        f"Nothing was heard of {which} for {longest:.0f} s: what was asked to start them has no room, or does not "
        "answer. The run waits, and goes on with those that are there."
    )


def _is_heard(place: Slot) -> bool:
    return place.child is not None and bool(place.child.has_told().host)


def _waited(place: Slot, now: float) -> float:
    return 0.0 if place.child is None else now - place.child.started
