"""The cores for `--workers auto`: the least of what affinity and control groups leave, read from given files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zmqpipeline.processes.cores import cores_under, cpu_quota, usable_cores

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)
DOCKER_V1 = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"


def quota(groups: str, mounts: str, **files: str) -> float | None:
    """The quota with these two files of /proc, and these others: ``a__b`` stands for ``/sys/fs/cgroup/a/b``."""
    texts = {"/proc/self/cgroup": groups, "/proc/self/mountinfo": mounts}
    for name, text in files.items():
        texts["/sys/fs/cgroup/" + name.replace("__", "/").replace("cpu_", "cpu.")] = text
    return cpu_quota(texts.get)


def test_there_is_no_quota_without_control_groups() -> None:
    """No such files, empty ones, and some that are no control groups: None."""
    assert cpu_quota(lambda path: None) is None
    assert quota("", "") is None
    assert quota("nonsense\n::\n", "1 2 3\n - \nx - cgroup2\n") is None


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("max", None), ("0 0", None)],
)
def test_version_2_is_read_from_cpu_max(text: str, cores: float | None) -> None:
    """The file has quota and period in microseconds, or says that there is no quota."""
    assert quota("0::/a/b\n", V2, a__b__cpu_max=text) == cores


def test_a_group_is_bound_by_those_above_it() -> None:
    """The least of all groups on the way to the root counts: a pod's quota binds each container in it."""
    files = {"a__b__cpu_max": "max 100000", "a__cpu_max": "200000 100000", "cpu_max": "800000 100000"}
    assert quota("0::/a/b\n", V2, **files) == 2.0
    assert quota("0::/a/b\n", V2, **{**files, "a__b__cpu_max": "100000 100000"}) == 1.0


def test_version_1_is_read_from_two_files() -> None:
    """The hierarchy with the controller cpu holds them; -1 is no quota."""
    groups = "9:cpuset:/x\n4:cpu,cpuacct:/job\n0::/\n"
    found = {"cpu,cpuacct__job__cpu_cfs_quota_us": "300000\n", "cpu,cpuacct__job__cpu_cfs_period_us": "100000\n"}
    assert quota(groups, V1, **found) == 3.0
    assert quota(groups, V1, **{**found, "cpu,cpuacct__job__cpu_cfs_quota_us": "-1\n"}) is None


def test_a_container_sees_its_own_group_only() -> None:
    """The path is that of the host; the mount begins at the group of the container, or the path leads out of it."""
    found = {"cpu,cpuacct__cpu_cfs_quota_us": "250000", "cpu,cpuacct__cpu_cfs_period_us": "100000"}
    assert quota("4:cpu,cpuacct:/docker/ab\n", DOCKER_V1, **found) == 2.5
    assert quota("4:cpu,cpuacct:/elsewhere\n", DOCKER_V1, **found) == 2.5
    assert quota("0::/../other\n", V2, cpu_max="100000 100000") == 1.0


@pytest.mark.parametrize(
    ("available", "limit", "cores"),
    [(8, None, 8), (8, 1.5, 2), (8, 2.0, 2), (8, 2.0000000001, 2), (2, 16.0, 2), (4, 0.1, 1), (0, None, 1)],
)
def test_the_least_limit_counts(available: int, limit: float | None, cores: int) -> None:
    """A part of a core is a whole one; there is at least one."""
    assert cores_under(available, limit) == cores


def test_affinity_counts() -> None:
    """A process that may use one processor has one core, however many there are."""
    program = (
        "import os; from zmqpipeline.processes.cores import usable_cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert usable_cores() >= 1
