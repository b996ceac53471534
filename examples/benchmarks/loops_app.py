"""The app of the benchmarks about work that computes: so many items, each of so many loops, or of another kind.

The environment says how many threads a worker has (`BENCH_THREADS`) and what kind of work it does (`BENCH_KIND`),
since an app says both when it is imported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from examples.benchmarks import meeting, roles, work
from zmqpipeline import Pipeline

KIND = os.environ.get("BENCH_KIND") or "loops"

app = Pipeline("benchmark-loops")


class Watch:
    """The tally, and what every role has used when the first result was there, and when the last was."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tally = work.Tally()
        self.count = 0
        self.last = 0.0
        self.folders: dict[str, Any] = {}
        self.used: dict[str, roles.Used] = {}

    def begin(self, metadata: dict[str, Any]) -> None:
        """Look at what all roles have used to be there at all."""
        self.count = int(metadata["items"])
        if roles.readable():
            self.folders = roles.folders()
        self.used = {role: roles.used(folders) for role, folders in self.folders.items()}

    def end(self) -> None:
        """All are there: keep when that was, and what was used since the first."""
        self.last = time.monotonic()
        self.used = {role: roles.used(folders) - self.used[role] for role, folders in self.folders.items()}


_watch = Watch()


@app.task("work")
def items(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says, all different."""
    sizes = {name: int(metadata[name]) for name in ("loops", "seed") if name in metadata}
    return work.items(KIND, int(metadata["items"]), **sizes)


@app.thread_init("work")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other threads and workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


app.add_worker("work", work.WORK[KIND], threads=int(os.environ.get("BENCH_THREADS", "1")))


@app.collector
def collect(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Count, and add up; look at the processes at the first and at the last."""
    tally = _watch.tally
    if not tally.count:
        _watch.begin(metadata)
    tally.add(data["double"])
    if tally.count == _watch.count:
        _watch.end()


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, and what each role used between them, if they are the right ones."""
    used = {role: asdict(one) for role, one in _watch.used.items()}
    _watch.tally.write(int(metadata["items"]), metadata["out"], last=_watch.last, used=used)
