"""How many processes this process may keep busy at once: what `--workers auto` means.

Three limits, of which the least counts:

- the processors of the machine, or those of ``PYTHON_CPU_COUNT`` where Python reads that (3.13 and later);
- the affinity of this process: ``taskset``, ``docker --cpuset-cpus``, ``sbatch --cpus-per-task`` with binding;
- the CPU quota of its control groups: ``docker --cpus``, the ``limits.cpu`` of Kubernetes, ``CPUQuota=`` of systemd.
  Version 2 has it in ``cpu.max``, version 1 in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``; a group is bound by
  those above it, too.

A part of a core is counted as a whole one: with a quota of 1.5 cores two processes use all of it, and one does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

Read = Callable[[str], str | None]
"""Returns the text of a file, or None if it cannot be read."""


def usable_cores() -> int:
    """As many processes as this process has cores for, at least 1."""
    return cores_under(_available(), cpu_quota(_read))


def cores_under(available: int, quota: float | None) -> int:
    """The whole number of cores that these processors and this quota (in cores; None for none) give, at least 1."""
    limit = available if quota is None else min(available, math.ceil(quota - 1e-6))
    return max(1, limit)


def _available() -> int:
    counted = getattr(os, "process_cpu_count", None)
    if counted is not None:
        return counted() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def cpu_quota(read: Read) -> float | None:
    """The least quota of the control groups of this process, in cores; None if there is none, or no control groups."""
    groups, mounts = read("/proc/self/cgroup") or "", read("/proc/self/mountinfo") or ""
    found = [quota for folder in _folders(groups, mounts) if (quota := _quota(folder, read)) is not None]
    return min(found, default=None)


def _folders(groups: str, mounts: str) -> Iterator[PurePosixPath]:
    """The folders of the groups that this process is in, and those of the groups above them."""
    paths = dict(_groups(groups))
    for version, root, mounted in _mounts(mounts):
        path = PurePosixPath(paths.get(version, "/"))
        # in a container the path may be that of the host, of which only the part below the mount is to be seen
        below = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        folder = PurePosixPath(mounted, below)
        yield folder
        yield from (each for each in folder.parents if each.is_relative_to(mounted))


def _groups(text: str) -> Iterator[tuple[int, str]]:
    """Version and path of the groups that may hold a CPU quota: lines such as ``0::/a`` and ``4:cpu,cpuacct:/a``."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _mounts(text: str) -> Iterator[tuple[int, str, str]]:
    """Version, root and mount point of their hierarchies; see proc(5) for the line."""
    for line in text.splitlines():
        first, _, second = line.partition(" - ")
        before, after = first.split(), second.split()
        if len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            yield 2, before[3], before[4]
        elif after[0] == "cgroup" and "cpu" in after[2].split(","):
            yield 1, before[3], before[4]


def _quota(folder: PurePosixPath, read: Read) -> float | None:
    """The quota of one group: ``150000 100000`` are 1.5 cores, ``max 100000`` and ``-1`` are none."""
    both = (read(f"{folder}/cpu.max") or "").split()
    if not both:
        both = [(read(f"{folder}/cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
    if len(both) != 2 or not all(one.isdecimal() for one in both):
        return None
    quota, period = int(both[0]), int(both[1])
    return quota / period if quota and period else None
