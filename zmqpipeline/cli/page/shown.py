"""What the page is sent: texts and numbers, ready to be shown. Pure: it asks and serves nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zmqpipeline.cli.page.history import service_time
from zmqpipeline.cli.page.plan import PagePlan
from zmqpipeline.cli.status import longest, rate_of, rate_text, runs_text, seconds_left, size_text
from zmqpipeline.cli.tables import duration
from zmqpipeline.processes.worker_places import Staff
from zmqpipeline.protocol.messages import (
    FailureStatus,
    LogLine,
    LostWorker,
    Status,
    TaskCounts,
    TaskStatus,
    WorkerStatus,
)
from zmqpipeline.runtime.error_text import printable

PAGE_ROWS = 50
"""So many workers, or kinds of failure, are on one page of their table."""

MAX_TASKS = 200
"""So many tasks are shown; of the others their number."""

MAX_SLOW, MAX_LOST, MAX_LOG = 10, 20, 20
"""So many of the items that have run longest, of lost workers and of warnings are shown."""


@dataclass(frozen=True)
class View:
    """Which part of the long tables a browser shows; pages from 1."""

    workers: int = 1
    failures: int = 1
    task: str = ""
    """Only what is of this task, by the name that the page shows; empty: of all."""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> View:
        """What a request asks for; what cannot be read is the first page."""
        return cls(_page(query.get("workers", "")), _page(query.get("failures", "")), query.get("task", ""))


def _page(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) <= 6 else 1


@dataclass(frozen=True)
class RunOver:
    """How the run ended, from `run` itself: its summary as `run --json` prints it."""

    status: int
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """All that is known at a moment: the answers of one run, those before them, and what `run` has told."""

    answers: Sequence[Status] = ()
    before: Sequence[Status] = ()
    over: RunOver | None = None
    log: Sequence[LogLine] = ()
    """Warnings of the process of `run`."""
    was_seen: bool = False
    """A run has answered before."""
    staff: Mapping[int, Staff] = field(default_factory=dict)
    """How many workers those tasks of the plan have whose number may be changed now; by their place in it."""


def shown(plan: PagePlan, moment: Moment, view: View | None = None) -> dict[str, Any]:
    """The page at this moment, as far as `view` shows it."""
    view = view or View()
    answers = _at_the_end(moment)
    well, is_bad = _well(plan, replace(moment, answers=answers))
    tasks = [(task, status) for status in answers for task in status.tasks]
    return {
        "title": printable(plan.name),
        "run": _run(answers),
        "well": well,
        "is_bad": is_bad,
        "is_over": moment.over is not None,
        "failures": _failures(plan, answers, view),
        "tasks": [_task(task, status, _earlier(status, moment.before)) for task, status in tasks[:MAX_TASKS]],
        "more_tasks": max(0, len(tasks) - MAX_TASKS),
        "staff": _staff(plan, moment),
        "workers": _workers(answers, view),
        "lost": _lost(answers),
        "slow": _slow(answers),
        "log": _log(plan, moment),
    }


def _earlier(status: Status, before: Sequence[Status]) -> Status | None:
    return next((one for one in before if (one.pipeline, one.run) == (status.pipeline, status.run)), None)


# the end --------------------------------------------------------------------------------------------------------------


def _at_the_end(moment: Moment) -> Sequence[Status]:
    """The answers, with the last numbers from the summary if the run is over: no answer comes after that."""
    if moment.over is None or not moment.over.summary:
        return moment.answers
    counts, reasons = moment.over.summary.get("tasks", {}), moment.over.summary.get("reasons", [])
    first, *others = moment.answers or [Status("", "", "", 0.0, "", [], [])]
    unseen = counts.keys() - {task.counts.task for status in (first, *others) for task in status.tasks}
    new = [TaskStatus(TaskCounts(name, ""), None, 0, 0, 0, 0, 0.0, 0, "") for name in counts if name in unseen]
    first = replace(first, tasks=[*first.tasks, *new], failures=_last_failures(first, reasons))
    return [replace(one, tasks=[_last_of(task, counts) for task in one.tasks], why="") for one in (first, *others)]


def _last_of(task: TaskStatus, counts: Mapping[str, Mapping[str, int]]) -> TaskStatus:
    last = counts.get(task.counts.task)
    if last is None:
        return task
    is_final = task.counts.state in ("failed", "aborted")
    is_whole = last["collected"] + last["failed"] == last["sent"]
    state = task.counts.state if is_final else "complete" if is_whole else "ended"
    why = task.why if is_final else ""
    return replace(
        task,
        counts=TaskCounts(task.counts.task, state, **last),
        waiting=0,
        retrying=0,
        leased=0,
        workers=0,
        desired=None,
        why=why,
    )


def _last_failures(status: Status, reasons: Sequence[Mapping[str, Any]]) -> list[FailureStatus]:
    known = {(one.task, one.stage, one.error, one.place): one for one in status.failures}
    found = []
    for one in reasons:
        key = (one["task"], one["stage"], one["error"], one["place"])
        texts = (*key[:3], one["message"], one["place"])
        new = FailureStatus(*texts, "", one["items"], -1, 0, one["first"])
        found.append(replace(known[key], items=one["items"]) if key in known else new)
    return found


# is it well -----------------------------------------------------------------------------------------------------------


def _run(answers: Sequence[Status]) -> str:
    parts = [f"run {one.run[:8]}, {one.phase} for {duration(one.seconds)}" for one in answers if one.run]
    parts += [f"{size_text(one.queued_bytes)} of results wait for the collector" for one in answers if one.queued_bytes]
    parts += [f"{size_text(one.held_bytes)} of requests and replies wait" for one in answers if one.held_bytes]
    return printable("; ".join(parts))


def _well(plan: PagePlan, moment: Moment) -> tuple[str, bool]:
    """Is it well, in words, failures first; and whether somebody should look at it."""
    answers = moment.answers
    if moment.over is not None:
        return _ended(moment.over)
    if not answers:
        return _nobody(plan, moment)
    tasks = [task for status in answers for task in status.tasks]
    bad = [
        f"{printable(repr(task.counts.task))} is {task.counts.state}, with {task.counts.failed} failed."
        for task in tasks
        if _is_bad(task)
    ]
    unstaffed = {one.task for which, one in enumerate(plan.scalable) if _is_set_to_none(moment.staff.get(which))}
    waits = [f"It waits: {printable(status.why)}." for status in answers if status.why] or [
        f"{printable(repr(task.counts.task))}: {printable(task.why)}."
        + (" It was set to 0 workers on this page: set another number." if task.counts.task in unstaffed else "")
        for task in tasks
        if task.counts.state in ("open", "exhausted") and task.why
    ]
    if not bad and not waits:
        return f"All is well: {sum(task.counts.collected for task in tasks)} items are collected.", False
    needs = any(not task.workers and task.desired != 0 and task.counts.state == "open" for task in tasks)
    lacks = any(status.why.startswith("no collector") for status in answers)
    return " ".join((*bad, *waits)), bool(bad) or needs or lacks


def _is_set_to_none(staff: Staff | None) -> bool:
    return staff is not None and staff.is_ordered and not staff.wanted


def _nobody(plan: PagePlan, moment: Moment) -> tuple[str, bool]:
    if plan.is_beside and not moment.was_seen:
        return "The run starts: its distributor does not answer yet.", False
    if plan.is_beside:
        return "The distributor does not answer; `run` starts it again if it died. What was collected is kept.", True
    return "Nobody answers: no run is up, or it cannot be reached.", True


def _ended(over: RunOver) -> tuple[str, bool]:
    tasks = over.summary.get("tasks", {})
    collected = sum(one["collected"] for one in tasks.values())
    failed = sum(one["failed"] for one in tasks.values())
    told = f"The run is over, with status {over.status}: {collected} items are collected"
    stopped = over.summary.get("stopped", "")
    told += f", {failed} failed" if failed else ""
    return f"{told}{f'; stopped: {printable(stopped)}' if stopped else ''}.", over.status != 0


def _is_bad(task: TaskStatus) -> bool:
    return task.counts.failed > 0 or task.counts.state in ("failed", "aborted")


# failures -------------------------------------------------------------------------------------------------------------


def _failures(plan: PagePlan, answers: Sequence[Status], view: View) -> dict[str, Any]:
    kinds = [one for status in answers for one in status.failures if _is_of(view, one.task)]
    failed = sum(task.counts.failed for status in answers for task in status.tasks if _is_of(view, task.counts.task))
    rows, pages = _part(kinds, view.failures)
    return {
        "items": failed,
        "kinds": len(kinds),
        **pages,
        "rows": [_failure(plan, one) for one in rows],
        # of an earlier life of the run, or of more kinds than are told apart
        "others": max(0, failed - sum(one.items for one in kinds)),
        **_commands(plan),
    }


def _commands(plan: PagePlan) -> dict[str, str]:
    if not plan.dead:
        return {"list": "", "retry": ""}
    dead, journal = plan.dead
    where = shlex.join(["--journal", journal])
    return {"list": printable(f"{dead} list {where}"), "retry": printable(f"{dead} retry --all {where}")}


def _failure(plan: PagePlan, kind: FailureStatus) -> dict[str, Any]:
    show = ""
    if plan.dead and kind.number >= 0 and kind.items:
        dead, journal = plan.dead
        show = printable(f"{dead} retry {shlex.join([kind.task, str(kind.number), '--journal', journal])}")
    return {
        "task": printable(kind.task),
        "stage": kind.stage,
        "error": printable(kind.error),
        "message": printable(kind.message, lines=True),
        "place": printable(kind.place),
        "traceback": printable(kind.traceback, lines=True),
        "items": kind.items,
        "number": kind.number if kind.number >= 0 else None,
        "attempts": kind.attempts,
        "item": printable(kind.item),
        "retry": show,
    }


# tasks ----------------------------------------------------------------------------------------------------------------


def _task(task: TaskStatus, status: Status, before: Status | None) -> dict[str, Any]:
    counts, rate = task.counts, rate_of(task, status, before)
    left, done = seconds_left(task, rate), task.counts.collected + task.counts.failed
    seconds = service_time(task, status.workers)
    return {
        "name": printable(counts.task),
        "state": counts.state,
        "is_bad": _is_bad(task),
        "percent": None if not task.total else min(done, task.total) * 100 // task.total,
        "total": task.total,
        "sent": counts.sent,
        "waiting": task.waiting + task.retrying,
        "running": task.leased,
        "collected": counts.collected,
        "failed": counts.failed,
        "aborted": counts.aborted,
        "skipped": counts.skipped,
        "duplicates": counts.duplicates,
        "redelivered": counts.redelivered,
        "rate": rate_text(rate) if counts.state in ("open", "exhausted") else "",
        "left": "" if left is None else duration(left),
        "item_seconds": "" if seconds is None else short(seconds),
        "workers": str(task.workers) if task.desired is None else f"{task.workers} of {task.desired}",
        "why": printable(task.why),
    }


def short(seconds: float) -> str:
    """A time that may be short: ``12 us``, ``3.4 ms``, else as `duration`."""
    if seconds >= 1:
        return duration(seconds)
    return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1_000_000:.0f} us"


# workers --------------------------------------------------------------------------------------------------------------


def _staff(plan: PagePlan, moment: Moment) -> list[dict[str, Any]]:
    """The tasks whose number of worker processes may be changed."""
    if moment.over is not None:
        return []
    return [
        {
            "which": which,
            "task": printable(one.task),
            "there": moment.staff[which].there,
            "wanted": moment.staff[which].wanted,
            "limit": one.limit,
            "own": one.own.replace(":", " to "),
            "is_ordered": moment.staff[which].is_ordered,
        }
        for which, one in enumerate(plan.scalable)
        if which in moment.staff
    ]


def _workers(answers: Sequence[Status], view: View) -> dict[str, Any]:
    """Those whose items have run longest come first."""
    workers = sorted(
        (one for status in answers for one in status.workers if _is_of(view, one.task)),
        key=lambda one: (-int(longest(one)), one.task, one.address),
    )
    there = sum(task.workers for status in answers for task in status.tasks if _is_of(view, task.counts.task))
    rows, pages = _part(workers, view.workers)
    more = max(0, there - len(workers))
    return {"count": len(workers) + more, "unnamed": more, **pages, "rows": [_worker(one) for one in rows]}


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "name": printable(worker.address),
        "task": printable(worker.task),
        "host": printable(worker.host),
        "pid": worker.pid,
        "state": worker.state,
        "threads": worker.threads,
        "holds": worker.leased,
        "results": size_text(worker.kept_bytes),
        "done": worker.executed,
        "item_seconds": short(worker.service_time) if worker.service_time else "",
        "runs": runs_text(worker.running),
    }


def _lost(answers: Sequence[Status]) -> dict[str, Any]:
    lost = sorted((one for status in answers for one in status.lost), key=lambda one: one.seconds)
    return {
        "count": sum(status.lost_workers for status in answers),
        "rows": [_lost_worker(one) for one in lost[:MAX_LOST]],
    }


def _lost_worker(one: LostWorker) -> dict[str, Any]:
    return {
        "name": printable(one.worker),
        "task": printable(one.task),
        "why": printable(one.why),
        "ago": duration(one.seconds),
    }


def _slow(answers: Sequence[Status]) -> list[dict[str, Any]]:
    running = [(item, worker) for status in answers for worker in status.workers for item in worker.running]
    running.sort(key=lambda one: -one[0].seconds)
    return [
        {
            "task": printable(worker.task),
            "number": item.number,
            "attempt": item.attempt,
            "seconds": duration(item.seconds),
            "worker": printable(worker.address),
        }
        for item, worker in running[:MAX_SLOW]
    ]


# the log --------------------------------------------------------------------------------------------------------------


def _log(plan: PagePlan, moment: Moment) -> list[dict[str, Any]]:
    lines = [("distributor", one) for status in moment.answers for one in status.log]
    lines += [("run", one) for one in moment.log]
    lines.sort(key=lambda one: one[1].seconds)
    return [
        {
            "role": role,
            "level": one.level,
            "message": printable(one.message, lines=True),
            "ago": duration(one.seconds),
        }
        for role, one in lines[:MAX_LOG]
    ]


# pages ----------------------------------------------------------------------------------------------------------------


def _is_of(view: View, task: str) -> bool:
    return not view.task or printable(task) == view.task


def _part(rows: Sequence[Any], page: int) -> tuple[Sequence[Any], dict[str, int]]:
    """The rows of this page, or of the last one there is; and which that is, of how many."""
    pages = max(1, -(-len(rows) // PAGE_ROWS))
    page = min(page, pages)
    return rows[(page - 1) * PAGE_ROWS : page * PAGE_ROWS], {"page": page, "pages": pages}
