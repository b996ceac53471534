"""The app of the memory benchmark: trivial items, and now and then a look at how large the processes are.

The looks are taken in the collector, which lives in the process that runs all others as its children. They are read
from ``/proc``, as Linux has it. With
the variable BENCH_KIND the results of its task become items of a second one.
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

SLOW, CHILDREN = "slow", "children"
"""Kinds: each item gives one of `next`, which takes ten times as long; one item gives all items of `next`."""

KIND = os.environ.get("BENCH_KIND", "")

app = Pipeline("benchmark-memory")


class Watch:
    """The tally, and the sizes (bytes) by role: at the first look and at each later one."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tally = work.Tally()
        self.looks: list[dict[str, int]] = []
        self.seen = self.next = 0
        self.step = 1

    def note(self, metadata: dict[str, Any]) -> None:
        """Another item: look at the one that the metadata says, and at some after it."""
        if not self.seen:
            self.next = int(metadata["mark"])
            self.step = max(1, (int(metadata["items"]) - self.next) // LOOKS)
        self.seen += 1
        if self.seen == self.next:
            self.look()

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
    """As many as the metadata says, all different; a single one that is to give all others."""
    return work.items("trivial", 1 if KIND == CHILDREN else int(metadata["items"]))


@app.thread_init("trivial")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


app.add_worker("trivial", work.double)


@app.collector
def collect(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Count, add up, and look at the sizes when it is time to."""
    _watch.tally.add(data["double"])
    _watch.note(metadata)


def following(data: dict[str, Any], metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One item for a result, or all of them; of these, looks at some while they are given."""
    loops = int(metadata["loops"])
    if KIND == SLOW:
        _watch.note(metadata)
        yield {"n": data["n"], "loops": loops}
        return
    for item in work.items("loops", int(metadata["items"]), loops=loops):
        _watch.note(metadata)
        yield item


if KIND:
    app.add_task("next", following, for_each="trivial")
    app.add_worker("next", work.count)


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write all looks, and one at the end, if all items have come."""
    _watch.look()
    _watch.tally.write(int(metadata["items"]), metadata["out"], looks=_watch.looks)
