"""Judges a run's history, in the spirit of Jepsen's total-queue: what went in came out, once, and nothing else did.

========== =========================================================================================================
lost       went in, and was neither collected nor failed
unexpected was collected and never went in, failed without a reason, or was collected although it had to fail
duplicated was collected more than once
repeated   was collected again by a collector that was started after a crash: calls of its open batch, which is the
           one exception that is promised without a journal; counted apart
again      was executed more than once (recovered from somebody's loss)
excess     was executed more often than what was done to the run explains
early      of B, executed before all of A was collected
orphaned   executed before any item was collected whose result gives it
========== =========================================================================================================

Times, in seconds. **Notice**: from what was done to a worker until another one executes an item that it held.
**Recover**: from what was done to a worker until the last item that it held is collected; of everything else, from the
moment when it was over (started again, continued, connected) until the next item is collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from tests.acceptance.chaos.history import History, Hit, Item, Line

OPEN_BATCH = 0.25
"""So many seconds before a collector's crash a call may be that is repeated.

Its batch is open for 10 ms. The rest is how long a busy machine of two cores may take to bring the ACK on its way.
"""


KINDS = ("lost", "unexpected", "duplicated", "excess", "early", "orphaned")
"""What must not be."""


@dataclass
class Verdict:
    """What became of a run."""

    items: int = 0
    lost: set[Item] = field(default_factory=set)
    unexpected: set[Item] = field(default_factory=set)
    duplicated: set[Item] = field(default_factory=set)
    repeated: set[Item] = field(default_factory=set)
    again: set[Item] = field(default_factory=set)
    excess: set[Item] = field(default_factory=set)
    early: set[Item] = field(default_factory=set)
    orphaned: set[Item] = field(default_factory=set)
    failed: set[Item] = field(default_factory=set)
    notice: list[float] = field(default_factory=list)
    recover: list[float] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is wrong, as sentences; empty if nothing is."""
        kinds = {name: getattr(self, name) for name in KINDS}
        return [f"{len(items)} items {name}: {_some(items)}" for name, items in kinds.items() if items]


def _some(items: set[Item]) -> str:
    shown = ", ".join(f"{task} {n}" for task, n in sorted(items)[:10])
    return shown if len(items) <= 10 else f"{shown}, ..."


def judge(history: History) -> Verdict:
    """What became of each item, and how long it took to notice and to recover."""
    collected = {line.item for line in history.collected}
    failed = {line.item for line in history.failures}
    executed = Counter(line.item for line in history.executions)
    verdict = Verdict(items=len(history.expected), failed=failed)
    verdict.lost = history.expected - collected - failed
    verdict.unexpected = (collected - history.expected) | (failed - history.may_fail) | (collected & history.may_fail)
    verdict.again = {item for item, times in executed.items() if times > 1}
    allowed = 1 + sum(hit.costs for hit in history.hits)
    verdict.excess = {item for item in verdict.again - history.may_fail if executed[item] > allowed}
    _judge_repeats(history, verdict)
    if history.ordered:
        verdict.early = _early(history)
    if history.parents is not None:
        verdict.orphaned = _orphaned(history, history.parents)
    for hit, next_at in _with_next(history.hits):
        _measure(history, hit, next_at, verdict)
    return verdict


def _judge_repeats(history: History, verdict: Verdict) -> None:
    lines: dict[Item, list[Line]] = {}
    for line in sorted([*history.collected, *history.failures], key=lambda line: line.at):
        lines.setdefault(line.item, []).append(line)
    died = {pid: hit.at for hit in history.hits for pid in hit.died}
    for item, its in lines.items():
        for earlier, _ in pairwise(its):
            crash = died.get(earlier.pid, -inf)
            excused = not history.journal and abs(crash - earlier.at) <= OPEN_BATCH
            (verdict.repeated if excused else verdict.duplicated).add(item)


def _early(history: History) -> set[Item]:
    first_done: dict[Item, float] = {}
    for line in (*history.collected, *history.failures):
        first_done[line.item] = min(line.at, first_done.get(line.item, inf))
    last = max((at for (task, _), at in first_done.items() if task == "A"), default=-inf)
    return {line.item for line in history.executions if line.item[0] == "B" and line.at < last}


def _orphaned(history: History, parents: Callable[[Item], set[Item]]) -> set[Item]:
    first_done: dict[Item, float] = {}
    for line in history.collected:
        first_done[line.item] = min(line.at, first_done.get(line.item, inf))
    return {
        line.item
        for line in history.executions
        if (its := parents(line.item)) and line.at < min(first_done.get(one, inf) for one in its)
    }


def _with_next(hits: list[Hit]) -> Iterable[tuple[Hit, float]]:
    """Each hit with the time of the next one."""
    return zip(hits, [*(hit.at for hit in hits[1:]), inf], strict=False)


def _measure(history: History, hit: Hit, next_at: float, verdict: Verdict) -> None:
    if not hit.pids:
        _measure_next(history, hit.healed, verdict)
        return
    again = [line for line in _held(history, hit) if hit.at <= line.at < next_at]
    if not again:
        _measure_next(history, hit.healed, verdict)
        return
    held = {line.item for line in again}
    verdict.notice.append(min(line.at for line in again) - hit.at)
    ends = [line.at for line in history.collected if line.item in held]
    if ends:
        verdict.recover.append(max(ends) - hit.at)


def _held(history: History, hit: Hit) -> list[Line]:
    """The executions, by others, of what a struck worker held: it had begun it, or nobody had."""
    before: dict[Item, set[int]] = {}
    for line in history.executions:
        if line.at < hit.at:
            before.setdefault(line.item, set()).add(line.pid)
    unbegun = {0} if hit is history.hits[0] else set()
    return [
        line
        for line in history.executions
        if line.attempt > 1 and line.pid not in hit.pids and before.get(line.item, unbegun) & (hit.pids | {0})
    ]


def _measure_next(history: History, healed: float | None, verdict: Verdict) -> None:
    later = [line.at for line in history.collected if healed is not None and line.at > healed]
    if later and healed is not None:
        verdict.recover.append(min(later) - healed)
