"""What one run is about: drawn from its seed, handed to the processes as one variable."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass

VARIABLE = "CHAOS_PLAN"
"""The environment variable that carries a plan to the processes of a run."""

WORK_SECONDS = 1.2
"""How long the workers of a task are busy with it, if nothing goes wrong and the machine has nothing else to do."""

STATUSES = (2, 0, 1, 3, 139, 70)
"""What user code may end a process with."""

MAX_ITEMS = 1500
"""Of short items, no more than so many: each one writes lines."""


@dataclass(frozen=True)
class Plan:
    """One run: its items, how long each takes, and what the app does beside."""

    seed: int
    fault: str
    transport: str
    """``ipc`` or ``tcp``."""
    folder: str = "."
    """Where the processes write."""
    items: int = 100
    """How many items task A has; B, which depends on it, has half as many. Of a service: requests of each client."""
    staged: bool = False
    """Whether results of A become items of A, in a circle, and of B, which does not wait for all of A then."""
    slower: int = 1
    """So many times as long as one of A takes an item of B."""
    seconds: float = 0.01
    """How long one item takes, in seconds."""
    threads: int = 2
    """The threads of a worker."""
    journal: bool = False
    """Whether the collector writes through the journal's transaction, else to a file."""
    with_credit: tuple[int, ...] = ()
    """The items of A that take all memory there is."""
    deadly: tuple[int, ...] = ()
    """The items of A that end their worker, with one of STATUSES each."""
    max_items: int | None = None
    """After so many items a worker process retires."""
    spare_bytes: int = 0
    """How much memory a worker may still allocate when its first item comes; 0: what the machine has."""
    file_bytes: int = 0
    """How large a collector's files may become; 0: no limit."""

    @property
    def may_fail(self) -> set[int]:
        """The items of A that are to fail."""
        return {*self.with_credit, *self.deadly}

    @property
    def sizes(self) -> dict[str, int]:
        """How many items each task has."""
        return {"A": self.items, "B": self.items // 2}

    def parents(self, task: str, n: int) -> set[int]:
        """The items of A whose results may give this one, if results become items; none of the first one of all."""
        if task == "B":
            return {2 * n}
        found = {one for one in ((n - 1) // 2, 2 * n, 2 * n + 1) if 0 <= one < self.items}
        return found if n else set()

    def children(self, n: int) -> list[int]:
        """The items of A that the result of this one gives: two further ones, and one that was there before."""
        return [one for one in (2 * n + 1, 2 * n + 2, n // 2) if one < self.items]

    def to_environ(self) -> dict[str, str]:
        """The variable that a process is started with."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Plan:
        """The plan that this process was started with."""
        given = json.loads(environ[VARIABLE])
        return cls(**{**given, "with_credit": tuple(given["with_credit"]), "deadly": tuple(given["deadly"])})


def draw_work(rng: random.Random, work: float = WORK_SECONDS) -> tuple[int, float, int]:
    """How many items of task A there are, how many seconds one takes, and how many threads a worker has.

    Together they keep two workers busy for `work` seconds.
    """
    seconds = rng.choice([0.0005, 0.003, 0.01, 0.04])
    threads = rng.choice([1, 2, 4])
    slots = 2 * threads
    return min(MAX_ITEMS, round(work * slots / seconds)), seconds, threads
