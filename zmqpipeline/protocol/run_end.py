"""How a run ended, in words that travel: what workers, collector and distributor are told, and raise.

A run ends in one of three ways: everything was collected; it came to its end with items that failed, were aborted or
were never sent; or one of those who cannot be replaced ended it early, at its user's word (Ctrl-C, `shutdown`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zmqpipeline.protocol.delivery.failure_kinds import said, told
from zmqpipeline.protocol.messages import ErrorInfo, RunEnded, TaskCounts

MAX_NAMED = 5
"""So many tasks are named in a letter."""

FUNCTIONS = ("metadata", "ack_data", "failed", "finished", "gather=")
"""Names of functions among troubles, which are otherwise those of tasks."""

AT_THE_END = ("ack_data", "failed", "finished", "gather=")
"""Those of them that cost no item: whether everything was collected is another question."""


def not_collected(
    counts: Iterable[TaskCounts], unsent: Mapping[str, ErrorInfo], failed: Mapping[str, ErrorInfo]
) -> str:
    """A letter about a run that did not go well: of which tasks what is missing, and why; which functions raised.

    `unsent` is what sources and functions raised, `failed` what the first failed item of a task failed of.
    """
    counts = list(counts)
    raised = [f"{_what(name)} {said(trouble).rstrip('.')}" for name, trouble in unsent.items()]
    lacking = [part for one in counts if (part := _lacking(one, failed.get(one.task)))]
    parts = [*raised, *lacking]
    more = [f"and {len(parts) - MAX_NAMED} more"] if len(parts) > MAX_NAMED else []
    named = "; ".join([*parts[:MAX_NAMED], *more])
    is_whole = not lacking and unsent.keys() <= set(AT_THE_END) and all(one.state != "failed" for one in counts)
    if raised and is_whole:
        return f"The run is over and everything was collected, but {named}."
    return f"The run is over, but not everything was collected{f': {named}' if parts else ''}."


def _lacking(one: TaskCounts, why: ErrorInfo | None) -> str:
    both = ((one.failed, "failed"), (one.aborted, "aborted"))
    numbers = [f"{number:,} {what}" for number, what in both if number]
    if not numbers and one.state == "aborted":
        numbers = ["aborted"]
    reason = "" if why is None else f" ({said(why).rstrip('.')})"
    return f"task {one.task!r}: {', '.join(numbers)}{reason}" if numbers else ""


def _what(name: str) -> str:
    return f"the {name} function raised" if name in FUNCTIONS else f"task {name!r} was not sent in whole:"


def early(role: str) -> str:
    """A letter about a run that was ended before its time, by this role."""
    return (
        f"The run ended early: the {role} was interrupted or shut down. What was collected stays collected; to have "
        "the rest, start the run again (with the collector's journal it goes on where it was)."
    )


def over(
    run: str, counts: Iterable[TaskCounts], unsent: Mapping[str, ErrorInfo], failed: Mapping[str, ErrorInfo]
) -> RunEnded:
    """What the workers are told of a run that was not collected in whole."""
    # there may be thousands of them: not all troubles go to each
    troubles = told({**unsent, **failed})[:MAX_NAMED]
    return RunEnded(run, ok=False, reason=not_collected(counts, unsent, failed), troubles=troubles)


def ended_early(run: str, reason: str) -> RunEnded:
    """What the others are told of a run that ends early."""
    return RunEnded(run, ok=False, reason=reason)
