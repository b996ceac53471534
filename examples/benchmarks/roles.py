"""The processes of a run by role, and what they have used: read from ``/proc``, as Linux has it.

It is to be called in the collector's process, which lives in that of `run`; the others are its children.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

ROLES = ("distributor", "worker", "collector")


@dataclass(frozen=True)
class Used:
    """What processes have used since they were started, all their threads together."""

    cpu: float = 0.0
    """Seconds that they had a processor."""
    voluntary: float = 0
    """Context switches because a thread waited for something."""
    forced: float = 0
    """Context switches because another one was to have the processor."""

    def __add__(self, other: Used) -> Used:
        """Both together."""
        return Used(self.cpu + other.cpu, self.voluntary + other.voluntary, self.forced + other.forced)

    def __sub__(self, other: Used) -> Used:
        """What came after `other`."""
        return Used(self.cpu - other.cpu, self.voluntary - other.voluntary, self.forced - other.forced)


def readable() -> bool:
    """Whether this system tells what a thread has used."""
    return PROC.joinpath("self", "schedstat").exists()


def folders() -> dict[str, list[Path]]:
    """The folder in ``/proc`` of each process, by role."""
    mine = os.getpid()
    found = {"collector": [PROC / str(mine)]}
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and _parent(folder) == mine:
            arguments = (folder / "cmdline").read_text().split("\0")
            role = next((one for one in ("distributor", "worker") if one in arguments), None)
            if role is not None:
                found.setdefault(role, []).append(folder)
    return found


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended since the folder was listed


def used(processes: list[Path]) -> Used:
    """What the threads of these processes have used, those that have not ended; none ends while items are executed."""
    return sum((_used_by_thread(thread) for one in processes for thread in (one / "task").iterdir()), Used())


def _used_by_thread(thread: Path) -> Used:
    nanoseconds = (thread / "schedstat").read_text().split()[0]
    status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
    switches = (int(status[f"{kind}_ctxt_switches"]) for kind in ("voluntary", "nonvoluntary"))
    return Used(int(nanoseconds) / 1e9, *switches)
