"""Which task may start when: `depends_on`, checked once and followed as tasks end.

States of a task, and who moves it:

==========  ===========================================================================================
state       meaning
==========  ===========================================================================================
waiting     something that it depends on is not over
open        its items are handed out
exhausted   its source has no more; some items are still out
complete    every item is collected, or failed for good
failed      its source, gate or key function raised: what it had yielded still finishes; or no worker of it could be
            initialized: what was not done is given up
aborted     it never started, or was given up, since something it depends on failed
==========  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqpipeline.errors import DependencyError, did_you_mean
from zmqpipeline.protocol.dataclass import dataclass

STATES = ("waiting", "open", "exhausted", "complete", "failed", "aborted")


@dataclass(frozen=True)
class TaskSpec:
    """What a distributor must know of one task; times in seconds. The fields are those of `@app.task`."""

    task_type: str
    depends_on: tuple[str, ...] = ()
    retries: int = 0
    backoff: float = 1.0
    timeout: float | None = None
    crash_limit: int = 3
    on_failed: str = "abort"
    total: int | None = None
    keyed: bool = False
    """Whether its items have keys."""
    has_gate: bool = False
    """Whether its items wait for ACKs."""
    for_each: tuple[str, ...] = ()
    """The tasks whose results become its items."""
    gather: str = ""
    """They do so together: all that came of one result of this task."""
    rate: float | None = None
    """So many items a second are handed out at most; of each value, if there is a `rate_by`."""
    rate_by: str | None = None
    """The field of the items by whose value the rate counts."""
    limit: int | None = None
    """So many are leased at once at most."""


def order(specs: Iterable[TaskSpec]) -> list[str]:
    """The task types so that each comes after what it depends on, and what feeds it; otherwise in the order given.

    Of tasks that feed each other in a circle any may come first.

    Raises:
        DependencyError: a dependency is unknown, or goes in a circle; the text shows the path.
    """
    by_type = {spec.task_type: spec for spec in specs}
    done: dict[str, None] = {}
    for name in by_type:
        _visit(name, by_type, done, ())
    return list(done)


def _visit(name: str, by_type: dict[str, TaskSpec], done: dict[str, None], path: tuple[str, ...]) -> None:
    if name in done:
        return
    if name in path:
        circle = " -> ".join(repr(one) for one in (*path[path.index(name) :], name))
        raise DependencyError(f"The tasks depend on each other in a circle: {circle}. Take one of these arrows out.")
    for needed in by_type[name].depends_on:
        if needed not in by_type:
            raise DependencyError(_unknown(needed, (*path, name), by_type))
        _visit(needed, by_type, done, (*path, name))
    for feeder in by_type[name].for_each:
        # a circle of these is none of those that are refused here
        if feeder in by_type and feeder not in (*path, name):
            _visit(feeder, by_type, done, (*path, name))
    done[name] = None


def _unknown(needed: str, path: tuple[str, ...], known: Iterable[str]) -> str:
    names = sorted(known)
    hint = did_you_mean(needed, names)
    way = " -> ".join(repr(one) for one in (*path, needed))
    listed = ", ".join(repr(one) for one in names)
    return f"Task {path[-1]!r} depends on {needed!r}, which is no task ({way}). Known: {listed}.{hint}"
