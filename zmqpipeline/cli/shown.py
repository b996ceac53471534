"""What the page of `dashboard` is sent: texts and numbers, ready to be shown. Pure: it asks and serves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zmqpipeline.cli.status import longest, rate_of, rate_text, runs_text, seconds_left, size_text
from zmqpipeline.cli.tables import duration, printable
from zmqpipeline.protocol.messages import Status, TaskStatus, WorkerStatus

MAX_WORKERS = 200
"""So many workers are shown, those whose items have run longest; of the others their number."""


def shown(name: str, answers: Sequence[Status], before: Sequence[Status] = ()) -> dict[str, Any]:
    """The page for these answers of one run; `before` are earlier ones, from which the rates are told."""
    workers = sorted(
        (one for status in answers for one in status.workers),
        key=lambda one: (-int(longest(one)), one.task, one.address),
    )
    tasks = [
        _task(task, rate_of(task, status, _earlier(status, before))) for status in answers for task in status.tasks
    ]
    there = sum(task.workers for status in answers for task in status.tasks)
    well, is_bad = _well(answers)
    return {
        "title": printable(name),
        "run": _run(answers),
        "well": well,
        "is_bad": is_bad,
        "tasks": tasks,
        "workers": [_worker(one) for one in workers[:MAX_WORKERS]],
        "more": max(there, len(workers)) - min(len(workers), MAX_WORKERS),
    }


def _earlier(status: Status, before: Sequence[Status]) -> Status | None:
    return next((one for one in before if (one.pipeline, one.run) == (status.pipeline, status.run)), None)


def _run(answers: Sequence[Status]) -> str:
    parts = [f"run {one.run[:8]}, {one.phase} for {duration(one.seconds)}" for one in answers if one.run]
    parts += [f"{size_text(one.queued_bytes)} of results wait for the collector" for one in answers if one.queued_bytes]
    parts += [f"{size_text(one.held_bytes)} of requests and replies wait" for one in answers if one.held_bytes]
    return printable("; ".join(parts))


def _well(answers: Sequence[Status]) -> tuple[str, bool]:
    """Is it well, in words, failures first; and whether somebody should look at it."""
    if not answers:
        return "Nobody answers: no run is up, or it cannot be reached.", True
    tasks = [task for status in answers for task in status.tasks]
    bad = [
        f"{printable(repr(task.counts.task))} is {task.counts.state}, with {task.counts.failed} failed."
        for task in tasks
        if _is_bad(task)
    ]
    waits = [f"It waits: {printable(status.why)}." for status in answers if status.why] or [
        f"{printable(repr(task.counts.task))}: {printable(task.why)}."
        for task in tasks
        if task.counts.state in ("open", "exhausted") and task.why
    ]
    if not bad and not waits:
        return f"All is well: {sum(task.counts.collected for task in tasks)} items are collected.", False
    needs = any(not task.workers and task.counts.state == "open" for task in tasks)
    lacks = any(status.why.startswith("no collector") for status in answers)
    return " ".join((*bad, *waits)), bool(bad) or needs or lacks


def _is_bad(task: TaskStatus) -> bool:
    return task.counts.failed > 0 or task.counts.state in ("failed", "aborted")


def _task(task: TaskStatus, rate: float) -> dict[str, Any]:
    counts, left = task.counts, seconds_left(task, rate)
    done = counts.collected + counts.failed
    return {
        "name": printable(counts.task),
        "state": counts.state,
        "is_bad": _is_bad(task),
        "percent": None if not task.total else min(done, task.total) * 100 // task.total,
        "total": task.total,
        "sent": counts.sent,
        "waiting": task.waiting + task.retrying,
        "leased": task.leased,
        "collected": counts.collected,
        "failed": counts.failed,
        "redelivered": counts.redelivered,
        "rate": rate_text(rate),
        "left": "" if left is None else duration(left),
        "workers": task.workers,
        "why": printable(task.why),
    }


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "name": printable(worker.address),
        "task": printable(worker.task),
        "state": worker.state,
        "threads": worker.threads,
        "holds": worker.leased,
        "results": size_text(worker.kept_bytes),
        "done": worker.executed,
        "runs": runs_text(worker.running),
    }
