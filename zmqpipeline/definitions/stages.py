"""The rules between tasks that feed each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from zmqpipeline.errors import DependencyError, RegistrationError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gathers import gathers
from zmqpipeline.protocol.delivery.stages import check, circle_of, path


def check_stages(
    specs: Mapping[str, TaskSpec], *, keyed: Collection[str], rooted: Collection[str], gates: Iterable[str]
) -> None:
    """That each circle has a key and a beginning, that what is gathered has an end, and nothing waits for itself.

    The `keyed` tasks have a key, the `rooted` ones first items of their own, those of `gates` a gate.

    Raises:
        DependencyError: it is not so; the text shows the path.
        RegistrationError: a fed task has a gate.
    """
    check(specs)
    gathers(specs)
    for name in gates:
        if name in specs and specs[name].for_each:
            raise RegistrationError(
                f"`@app.available({name!r})` is for a task whose items come from its own function, but {name!r} is for "
                f"each result of {', '.join(map(repr, specs[name].for_each))}. Take it out, or put it on that task."
            )
    fed_by = _fed_by(specs)
    for name, spec in specs.items():
        if spec.for_each:
            _check_end(name, fed_by, set(specs).difference(keyed))
            _check_beginning(name, specs, fed_by, rooted)


def _check_end(name: str, fed_by: Mapping[str, list[str]], unkeyed: Collection[str]) -> None:
    """Of each circle one task has a key: without one it would go round for ever."""
    if name not in unkeyed:
        return
    for first in fed_by[name]:
        if first in unkeyed and (way := path(first, name, lambda one: [to for to in fed_by[one] if to in unkeyed])):
            shown = " -> ".join(map(repr, (name, *way)))
            raise DependencyError(
                f"The results of {name!r} become items of {name!r} again: {shown}. Such a circle ends by a key: each "
                "key is an item once. Write key= for one of these tasks, such as key='url'."
            )


def _check_beginning(
    name: str, specs: Mapping[str, TaskSpec], fed_by: Mapping[str, list[str]], rooted: Collection[str]
) -> None:
    circle = circle_of(name, specs)
    if circle and not any(one in rooted or set(specs[one].for_each) - circle for one in circle):
        ways = [path(one, name, fed_by.__getitem__) for one in fed_by[name] if one in circle]
        shown = " -> ".join(map(repr, (name, *min(ways, key=len))))
        raise DependencyError(
            f"Task {name!r} has only the items that its own results give: {shown}. Nothing is the first. Write "
            "first=[...], or first=FUNCTION, for one of these tasks."
        )


def _fed_by(specs: Mapping[str, TaskSpec]) -> dict[str, list[str]]:
    """By task, those that its results feed."""
    found: dict[str, list[str]] = {name: [] for name in specs}
    for name, spec in specs.items():
        for feeder in spec.for_each:
            found[feeder].append(name)
    return found
