"""Which tasks feed which: arrows of `for_each`, circles of them, and what they mean for the order and for waiting.

A **feeder** of a task is one whose results become its items. Tasks that feed each other, one way or another, are a
**circle**: they come to their end together. A task that feeds itself is a circle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zmqpipeline.errors import DependencyError, did_you_mean
from zmqpipeline.protocol.delivery.dependencies import TaskSpec


def reachable(names: Iterable[str], arrows: Callable[[str], Iterable[str]]) -> set[str]:
    """All that one comes to from these by at least one arrow."""
    found: set[str] = set()
    left = [other for name in names for other in arrows(name)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += arrows(name)
    return found


def circle_of(name: str, specs: Mapping[str, TaskSpec]) -> frozenset[str]:
    """The tasks of the same circle, this one included; of a task that is in none, none."""

    def feeders(one: str) -> Iterable[str]:
        return specs[one].for_each

    before = reachable([name], feeders)
    return (
        frozenset(other for other in before if name in reachable([other], feeders)) if name in before else frozenset()
    )


def all_before(names: Iterable[str], specs: Mapping[str, TaskSpec]) -> list[str]:
    """These tasks and all that feed them, one way or another: what is waited for by who depends on them."""
    given = list(names)
    further = reachable(given, lambda one: specs[one].for_each)
    return [*given, *sorted(further.difference(given))]


def inner_stages(specs: Iterable[TaskSpec]) -> frozenset[str]:
    """The tasks that feed another one than themselves: what they give is no last result."""
    return frozenset(feeder for spec in specs for feeder in spec.for_each if feeder != spec.task_type)


def check(specs: Mapping[str, TaskSpec]) -> None:
    """That each task that feeds another exists, and that none waits for what it feeds, or for itself.

    Raises:
        DependencyError: it is not so; the text shows the path.
    """
    if not any(spec.for_each for spec in specs.values()):
        return
    for name, spec in specs.items():
        for feeder in spec.for_each:
            if feeder not in specs:
                known = ", ".join(map(repr, sorted(specs)))
                raise DependencyError(
                    f"Task {name!r} is for each result of {feeder!r}, which is no task. Known: {known}."
                    f"{did_you_mean(feeder, sorted(specs))}"
                )
    for name, spec in specs.items():
        for needed in spec.depends_on:
            if way := path(needed, name, lambda one: (*specs[one].depends_on, *specs[one].for_each)):
                shown = " -> ".join(map(repr, (name, *way)))
                raise DependencyError(
                    f"Task {name!r} depends on {needed!r}, which cannot end before {name!r} does: {shown} (each needs "
                    "the next, to begin or to be fed). Take depends_on out."
                )


def path(start: str, end: str, arrows: Callable[[str], Iterable[str]]) -> list[str]:
    """A shortest way from one to the other, both included; empty if there is none."""
    ways = {start: [start]}
    left = [start]
    for name in left:
        if name == end:
            return ways[name]
        for other in arrows(name):
            if other not in ways:
                ways[other] = [*ways[name], other]
                left.append(other)
    return []
