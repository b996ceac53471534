"""One run of either side: all of its processes, from a common start to the last item collected."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.benchmarks.figures import processes
from examples.benchmarks.meeting import Meeting
from examples.benchmarks.raw import Plan

TRANSPORTS = ("ipc", "tcp")
HOPS = ("work", "results", "done")
"""The addresses of the yardstick's plan."""

LONGEST = 600.0
"""Seconds that a run may take."""

_LOOK = 0.1


@dataclass(frozen=True)
class Run:
    """What one run measured; all points in time are of time.monotonic, in seconds."""

    items: int
    launched: float
    began: float
    """When all workers were ready and went on."""
    first: float
    last: float
    """When the last of all items had been collected."""
    head: int = 1
    """So many items had come when the first message had."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else the collector found out."""

    @property
    def rate(self) -> float:
        """Items a second, from the first that was collected to the last."""
        return (self.items - self.head) / max(self.last - self.first, 1e-9)

    @property
    def whole(self) -> float:
        """Seconds from the start to the last item."""
        return self.last - self.began

    @property
    def until_first(self) -> float:
        """Seconds from the start of the first process to the first item collected."""
        return self.first - self.launched


def run_ours(
    app: str,
    *,
    workers: int = 1,
    threads: int = 1,
    transport: str = "ipc",
    kind: str = "",
    flags: Sequence[str] = (),
    before: Callable[[], object] = lambda: None,
    **metadata: Any,
) -> Run:
    """Run this app, named as `-A` takes it, with everything as it is by default, and check its status.

    An app that is about work of several kinds takes the `kind` from the environment, as it does the threads. `flags`
    are added to the command line; `before` is called when it has started, and returns when the items may begin.

    Raises:
        SystemExit: it failed; the message says how.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        start = stack.enter_context(Meeting(folder / "start"))
        said = stack.enter_context((folder / "said").open("wb"))
        out = folder / "figures.json"
        command = ["-m", "zmqpipeline", "-A", app, "run", "--no-progress", "--workers", str(workers), *flags]
        if transport == "tcp":
            command += ["--endpoint", f"tcp://127.0.0.1:{free_ports(8)}"]
        for key, value in {**metadata, "meeting": start.path, "out": out}.items():
            command += ["--meta", f"{key}={value}"]
        environ = {**os.environ, "BENCH_THREADS": str(threads), "BENCH_KIND": kind}
        launched = time.monotonic()
        (run,) = stack.enter_context(processes(command, stderr=said, env=environ))
        before()
        began = hold(start, workers * threads, [run], folder / "said")
        wait_for([run], folder / "said")
        return _read(out, launched, began, 1)


def run_raw(
    kind: str, items: int, *, workers: int = 1, threads: int = 1, transport: str = "ipc", batch: int = 1, **more: Any
) -> Run:
    """Run the yardstick with these items; `more` is what else its plan says.

    Raises:
        SystemExit: it failed; the message says how.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        start = stack.enter_context(Meeting(folder / "start"))
        said = stack.enter_context((folder / "said").open("wb"))
        places = {hop: f"ipc://{folder}/{hop}" for hop in HOPS}
        if transport == "tcp":
            port = free_ports(3)
            places = {hop: f"tcp://127.0.0.1:{port + step}" for step, hop in enumerate(HOPS)}
        out = folder / "figures.json"
        plan = Plan(
            kind=kind,
            items=items,
            batch=batch,
            workers=workers,
            threads=threads,
            meeting=str(start.path),
            out=str(out),
            work=places["work"],
            results=places["results"],
            done=places["done"],
            **more,
        )
        parts = ["sink", "ventilator", *["worker"] * workers]
        commands = [["-m", "examples.benchmarks.raw", part, plan.text()] for part in parts]
        launched = time.monotonic()
        sink, *others = stack.enter_context(processes(*commands, stderr=said))
        began = hold(start, 2, [sink, *others], folder / "said")
        ventilator, *workers_beside = others
        wait_for([sink, ventilator], folder / "said", workers_beside)
        return _read(out, launched, began, min(batch, items - 1))


def hold(start: Meeting, count: int, hosts: list[subprocess.Popen[bytes]], said: Path) -> float:
    """Wait until so many have come to the start, let them go, and return when that was.

    Raises:
        SystemExit: one of the `hosts` ended before, with what they `said`.
    """
    try:
        return start.hold(count, hosts)
    except SystemExit as error:
        raise SystemExit(f"{error}\n{said.read_text(errors='replace')}") from None


def wait_for(
    ending: Sequence[subprocess.Popen[bytes]], said: Path, beside: Sequence[subprocess.Popen[bytes]] = ()
) -> None:
    """Wait until these processes have ended with status 0, which the ones `beside` them must not do before.

    Raises:
        SystemExit: one of them failed, with what they `said`, or it takes too long.
    """
    deadline = time.monotonic() + LONGEST
    waiting = list(ending)
    while waiting:
        with suppress(subprocess.TimeoutExpired):
            waiting[0].wait(_LOOK)
        status = next((one.returncode for one in (*ending, *beside) if one.poll()), 0)
        if status:
            raise SystemExit(f"A process ended with status {status}:\n{said.read_text(errors='replace')}")
        if time.monotonic() > deadline:
            raise SystemExit(f"A run was not over within {LONGEST:.0f} s.")
        waiting = [one for one in waiting if one.returncode is None]


def _read(out: Path, launched: float, began: float, head: int) -> Run:
    found = json.loads(out.read_text())
    times = Path(f"{out}.times")
    if times.exists():
        found["times"] = json.loads(times.read_text())
    return Run(found.pop("items"), launched, began, found.pop("first"), found.pop("last"), head, found)


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports of the loopback that are free now.

    They are below those that the system gives to whoever connects, which may take any of these at any time.
    """
    for port in random.sample(range(10_000, 15_000 - count), 100):
        if all(_is_free(port + step) for step in range(count)):
            return port
    raise SystemExit(f"No {count} neighbouring ports of the loopback are free.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
