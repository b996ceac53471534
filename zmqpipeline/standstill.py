"""What every role of a run that does not end waits for, in words; for the report of a test that hangs."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from zmqpipeline.protocol.messages import TaskCounts

FRAMES_SHOWN = 4
"""So many frames of a thread are shown, the innermost ones of user code and below."""

_PACKAGE = str(Path(__file__).resolve().parent)
_STDLIB_THREADING = threading.__file__

_DISTRIBUTOR = {
    "greeting": "waits for the collector's first answer",
    "metadata": "waits for the metadata function",
    "beginning": "waits for the collector to take the run over",
    "finishing": "waits for the collector, which calls `finished`",
    "farewell": "says goodbye to the workers",
    "draining": "was asked to end, and waits for what is with workers",
    "ended": "has ended",
}
_COLLECTOR = {
    "empty": "waits for a distributor",
    "draining": "was asked to end, and finishes what it has begun",
    "finishing": "calls `finished`",
    "finished": "has finished, and waits for the distributor's goodbye",
    "ended": "has ended",
}


def distributor_lines(snapshot: Any, needs: Mapping[str, Collection[str]]) -> list[str]:
    """What a distributor waits for: a line, and one for each task that is not over. `needs` is who depends on whom."""
    if snapshot.phase != "running":
        return [_DISTRIBUTOR.get(str(snapshot.phase), str(snapshot.phase))]
    states = {one.task: one.state for one in snapshot.tasks}
    unfinished = [one for one in snapshot.tasks if one.state in ("waiting", *_OPEN) or snapshot.leased.get(one.task)]
    return ["waits for its tasks", *(_task_line(one, snapshot, states, needs) for one in unfinished)]


_OPEN = ("open", "exhausted")


def _task_line(one: TaskCounts, snapshot: Any, states: Mapping[str, str], needs: Mapping[str, Collection[str]]) -> str:
    name = one.task
    if one.state == "waiting":
        before = [other for other in needs.get(name, ()) if states.get(other) in ("waiting", *_OPEN)]
        return f"task {name!r} waits for {', '.join(map(repr, before)) or 'its turn'}"
    leased, waiting = snapshot.leased.get(name, 0), snapshot.waiting.get(name, 0)
    done = one.collected + one.failed
    text = f"task {name!r}: {done} items done, {leased} with workers, {waiting} to be handed out"
    if not snapshot.workers.get(name, 0):
        return f"{text}; no worker of {name!r} is there"
    if one.state == "exhausted":
        return f"{text}; its source has no more"
    if not leased and not waiting:
        return f"{text}; it waits for its source, or for its gate"
    return text


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
