"""What every role of a run that does not end waits for, in words; for the report of a test that hangs."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from zmqpipeline.protocol.messages import TaskStatus
from zmqpipeline.protocol.status import StatusSource, status_of

FRAMES_SHOWN = 4
"""So many frames of a thread are shown, the innermost ones of user code and below."""

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_STDLIB_THREADING = threading.__file__

_COLLECTOR = {
    "empty": "waits for a distributor",
    "draining": "was asked to end, and finishes what it has begun",
    "finishing": "calls `finished`",
    "finished": "has finished, and waits for the distributor's goodbye",
    "ended": "has ended",
}


def distributor_lines(facts: StatusSource, now: float) -> list[str]:
    """What a distributor waits for, as `status` puts it: a line, and one for each task that is not over."""
    # its own thread may go on: what it changes is looked at in a copy
    standing = status_of(replace(facts, members=dict(facts.members)), now)
    if standing.phase not in ("running", "draining"):
        return [standing.why or "has ended"]
    return [standing.why or "waits for its tasks", *(_task_line(one) for one in standing.tasks if _is_under_way(one))]


def _is_under_way(one: TaskStatus) -> bool:
    return one.counts.state in ("waiting", "open", "exhausted") or one.leased > 0


def _task_line(one: TaskStatus) -> str:
    counts = one.counts
    if counts.state == "waiting":
        return f"task {counts.task!r} {one.why}"
    done = counts.collected + counts.failed
    text = f"task {counts.task!r}: {done} items done, {one.leased} with workers, {one.waiting} to be handed out"
    why = one.why or ("its source has no more" if counts.state == "exhausted" else "")
    return f"{text}; {why}" if why else text


def collector_line(snapshot: Any) -> str:
    """What a collector waits for."""
    if snapshot.phase == "active":
        if snapshot.queued:
            return f"calls its functions; {snapshot.queued} results wait for them"
        return "waits for results"
    return _COLLECTOR.get(str(snapshot.phase), str(snapshot.phase))


def worker_line(snapshot: Any) -> str:
    """What a worker waits for."""
    if snapshot.phase == "ended":
        return "has ended"
    if not snapshot.run:
        return "waits for the distributor"
    if snapshot.queued_or_running:
        return f"executes: {snapshot.queued_or_running} items begun or queued, {snapshot.executed} executed"
    if snapshot.kept:
        return f"waits for the ACK of {snapshot.kept} results"
    return f"waits for items; {snapshot.executed} executed"


def thread_lines(threads: Iterable[threading.Thread]) -> list[str]:
    """Where these threads are in user code; one that waits for work is left out."""
    frames = sys._current_frames()
    lines = []
    for thread in sorted(threads, key=lambda one: one.name):
        shown = _users_stack(frames.get(thread.ident or 0))
        if shown:
            lines.append(f"thread {thread.name} is at:\n{shown}")
    return lines


def _users_stack(frame: FrameType | None) -> str:
    """The frames from the first of user code on, the innermost ones at most; empty if there is none."""
    stack = traceback.extract_stack(frame) if frame is not None else []
    ours = [index for index, one in enumerate(stack) if one.filename.startswith(_PACKAGE)]
    users = stack[ours[-1] + 1 :] if ours else stack
    if ours and all(one.filename == _STDLIB_THREADING for one in users):
        # one of our own waits, at an event or for a lock
        return ""
    return "".join(traceback.format_list(users[:FRAMES_SHOWN])).rstrip()
