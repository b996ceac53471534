"""Which results are gathered by which task, and what may belong to a group: the arrows of `gather`, checked once.

A task with `for_each="B", gather="A"` is called once for each collected result of A, with all results of B that came of
it. Its **members** are the tasks on the ways from A to B: an item of these belongs to the group of the result of A that
it came of, the nearest one if A is in a circle of its own.

Items of a gathered task came of the result that began their group, and of no other one: of these, none was alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zmqpipeline.errors import DependencyError, did_you_mean
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.stages import path, reachable


@dataclass(frozen=True)
class Gather:
    """How one task gathers."""

    task: str
    """The task that gets what is made of the groups."""
    of: str
    """Each collected result of this one begins a group."""
    results: tuple[str, ...]
    """The tasks whose results are gathered, in this order."""
    members: frozenset[str]
    """The tasks on the ways to these: what is waited for."""
    levels: int
    """The most results that lead from an item of `of` to one of `task`."""


def gathers(specs: Mapping[str, TaskSpec]) -> list[Gather]:
    """All of a pipeline, whose feeders are known to exist.

    Raises:
        DependencyError: there is no such task, nothing comes of it, it lies in a circle, or a member has `rate_by`; the
            text shows the path.
    """
    return [_gather(spec, specs) for spec in specs.values() if spec.gather]


def _gather(spec: TaskSpec, specs: Mapping[str, TaskSpec]) -> Gather:
    name, of = spec.task_type, spec.gather
    if of not in specs:
        known = ", ".join(map(repr, sorted(specs)))
        raise DependencyError(
            f"Task {name!r} gathers by the results of {of!r}, which is no task. Known: {known}."
            f"{did_you_mean(of, sorted(specs))}"
        )
    if of in spec.for_each:
        raise DependencyError(
            f"Task {name!r} has for_each={of!r} and gather={of!r}: each group would be one result. Take gather= away, "
            f"or gather by a task that feeds {of!r}."
        )
    members = frozenset().union(*(_between(of, result, specs) for result in spec.for_each))
    for result in spec.for_each:
        if result not in members:
            raise DependencyError(_unrelated(name, of, result, specs))
    for one in (name, *sorted(members)):
        if way := _circle(one, specs):
            shown = " -> ".join(map(repr, way))
            raise DependencyError(
                f"Task {name!r} gathers by the results of {of!r} inside of a circle: {shown}. There is no last result "
                "in a circle before its end. Take gather= away, or gather outside of it."
            )
    for one in sorted(members):
        if specs[one].rate_by is not None:
            raise DependencyError(
                f"Task {name!r} gathers what comes of {one!r}, which has rate_by={specs[one].rate_by!r}: its items get "
                f"their numbers when their time comes, and until then belong to no group. Give {one!r} a rate= without "
                "rate_by=, or take gather= away."
            )
    return Gather(name, of, spec.for_each, members, _levels(name, of, specs))


def came_of(spec: TaskSpec) -> tuple[str, ...]:
    """The tasks of whose results items of this one came, one each."""
    return (spec.gather,) if spec.gather else spec.for_each


def _between(start: str, end: str, specs: Mapping[str, TaskSpec]) -> frozenset[str]:
    """The tasks on the ways from one to the other, the other one included; none is the start."""
    after = reachable([start], lambda one: [to for to, spec in specs.items() if to != start and one in came_of(spec)])
    if end not in after:
        return frozenset()
    before = reachable([end], lambda one: [by for by in came_of(specs[one]) if by != start])
    return frozenset(after & (before | {end}))


def _circle(name: str, specs: Mapping[str, TaskSpec]) -> list[str]:
    """A shortest way from this task to itself, along what feeds what; empty if there is none."""
    fed = {one: [to for to, spec in specs.items() if one in spec.for_each] for one in specs}
    ways = [way for first in fed[name] if (way := path(first, name, fed.__getitem__))]
    return [name, *min(ways, key=len)] if ways else []


def _levels(name: str, of: str, specs: Mapping[str, TaskSpec]) -> int:
    """The length of the longest way; there are no circles on it."""
    counts = {of: 0}

    def count(one: str) -> int:
        if one not in counts:
            # those that no way leads to from there count for nothing
            counts[one] = -1
            longest = max((count(by) for by in specs[one].for_each), default=-1)
            counts[one] = longest + 1 if longest >= 0 else -1
        return counts[one]

    return count(name)


def _unrelated(name: str, of: str, result: str, specs: Mapping[str, TaskSpec]) -> str:
    fed: Iterable[str] = [one for one in specs if of in came_of(specs[one]) and one != name]
    into = f" What is made of the results of {of!r}: {', '.join(map(repr, sorted(fed)))}." if fed else ""
    inner = [
        one for one in (result, *sorted(reachable([result], lambda one: specs[one].for_each))) if specs[one].gather
    ]
    why = f" ({inner[0]!r} gathers: its items came of {specs[inner[0]].gather!r}.)" if inner else ""
    return (
        f"Task {name!r} gathers the results of {result!r} by those of {of!r}, but no item of {result!r} comes of a "
        f"result of {of!r}.{into}{why} Name a task in gather= from which a way of for_each= leads to {result!r}."
    )
