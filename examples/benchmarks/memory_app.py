"""The app of the memory benchmark: trivial items, and now and then a look at how large the processes are.

The looks are taken in the collector, which lives in the process that runs all others as its children. They are read
from ``/proc``, as Linux has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks import meeting, roles, work
from zmqpipeline import Pipeline

LOOKS = 10
"""So many looks follow the first one."""

app = Pipeline("benchmark-memory")


class Watch:
    """The tally, and the sizes (bytes) by role: at the first look and at each later one."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tally = work.Tally()
        self.looks: list[dict[str, int]] = []
        self.next = 0
        self.step = 1

    def begin(self, metadata: dict[str, Any]) -> None:
        """Learn at how many items to look first, and at which ones then."""
        self.next = int(metadata["mark"])
        self.step = max(1, (int(metadata["items"]) - self.next) // LOOKS)

    def look(self) -> None:
        """Note how large every role is."""
        self.looks.append(sizes())
        self.next += self.step


_watch = Watch()


def sizes() -> dict[str, int]:
    """The resident bytes of this process, which is the collector's, and of its children, by role."""
    return {role: max(map(_resident, folders)) for role, folders in roles.folders().items()}


def _resident(folder: Path) -> int:
    pages = int((folder / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@app.task("trivial")
def numbers(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says, all different."""
    return work.items("trivial", int(metadata["items"]))


@app.thread_init("trivial")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("trivial")
def double(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work."""
    return work.double(data)


@app.collector
def collect(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Count, add up, and look at the sizes when it is time to."""
    watch = _watch
    if not watch.tally.count:
        watch.begin(metadata)
    watch.tally.add(data["double"])
    if watch.tally.count == watch.next:
        watch.look()


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write all looks, and one at the end, if all items have come."""
    _watch.look()
    _watch.tally.write(int(metadata["items"]), metadata["out"], looks=_watch.looks)


if __name__ == "__main__":
    app.main()
