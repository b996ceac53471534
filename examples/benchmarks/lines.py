"""Results that are kept: a file with one JSON object a line, as ``--json`` prints them, and what they were made with.

`record` puts two things before each result: the command that printed it, and the date. The first line is the machine.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import zmq

Line = dict[str, Any]

MACHINE = "machine"
"""The `benchmark` of the line that tells the machine."""

PEERS = ("distributed", "celery", "redis", "ray")
"""Packages whose version is worth telling where they are installed."""


def machine() -> Line:
    """The line of this machine: processor, system, and the versions of what was measured."""
    return {
        "benchmark": MACHINE,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "pyzmq": zmq.__version__,
        "msgpack": ".".join(map(str, msgpack.version)),
        **{name: importlib.metadata.version(name) for name in PEERS if _is_there(name)},
    }


def _is_there(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    """What Linux calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def told(line: Line) -> str:
    """The machine as words: "2 cores (AMD EPYC), Linux 6.18, Python 3.11.7, libzmq 4.3.5, ..."."""
    line = dict(line)
    line.pop("benchmark")
    cores, processor, system = line.pop("cores"), line.pop("processor"), line.pop("system")
    names = {"python": "Python", "distributed": "Dask", "celery": "Celery", "ray": "Ray"}
    versions = [f"{names.get(name, name)} {version}" for name, version in line.items()]
    return ", ".join([f"{cores} cores ({processor})", system, *versions])


def read(path: Path) -> list[Line]:
    """All lines of a file.

    Raises:
        SystemExit: one is not the JSON of a result; it says which.
    """
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            found.append({**line, "benchmark": line["benchmark"]})
        except (ValueError, TypeError, KeyError) as error:
            raise SystemExit(f"{path}:{number} is no line that --json prints: {error!r}. Record it again.") from None
    return found


def write(path: Path, lines: Iterable[Line]) -> None:
    """Write the file anew, by a file beside it, so that there is always a whole one."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    beside.replace(path)


def of(lines: Sequence[Line], benchmark: str, unit: str = "") -> list[Line]:
    """Those of one benchmark, and perhaps of one unit only, in their order."""
    return [line for line in lines if line["benchmark"] == benchmark and unit in ("", line.get("unit"))]
