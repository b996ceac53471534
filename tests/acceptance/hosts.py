"""``python -m tests.acceptance.hosts``: eight hosts, a slow network, and some of them cut off.

The hosts are network namespaces, each joined to the server's by a pair of virtual interfaces, and each with a path
(`slow_path`) of its own: 1 to 50 ms there and back, and one of a hundred segments lost. First a run with keys:

- a host is cut off for 30 s (its interface is down), another one for ever, and a third has a clock an hour fast;
- every item must be collected once, and the status 0; printed are the times until the distributor has noticed.

Then the throughput of trivial items, and of items of 2 ms, beside the plain pipeline of pyzmq (`benchmarks raw`) over
the same paths; neither has keys then.

That needs Linux, util-linux and iproute2, and a system on which its user may make namespaces; where that is not so,
this says so and ends with status 3 (with ``--if-permitted``: 0).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from examples.benchmarks.meeting import Meeting
from examples.benchmarks.raw import Plan
from tests.acceptance.conftest import ROOT, Program, wait_until
from tests.acceptance.two_machines import NOT_PERMITTED, lacking, network
from tests.support.steps import Clock
from zmqpipeline import Options
from zmqpipeline.addresses import EndpointAddress, derive
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.security import keyfiles
from zmqpipeline.runtime.status_client import StatusClient

HOSTS = 8
ROUND_TRIPS = [0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05]
LOSS = 0.01
PORT, RAW_PORT = 5550, 5570
CUT_SECONDS = 30.0
CUT, LOST, WRONG = 2, 5, 7
"""The host that is cut off for a time, the one that is cut off for ever, and the one with another clock."""

HOUR = 3600.0
ITEMS, SECONDS = 16_000, 0.02

APP = """
import os
import time
from pathlib import Path

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

app = Pipeline("hosts")
tally = work.Tally()

@app.task("item")
def items(metadata):
    return work.items(metadata["kind"], int(metadata["items"]), seconds=float(metadata["seconds"]))

@app.thread_init("item")
def begin(metadata):
    with open(os.environ["HOST_CLOCK"], "w") as file:
        file.write(str(time.time()))
    meeting.attend(metadata.get("meeting", ""))

@app.worker("item")
def execute(data):
    return work.nap(data) if "seconds" in data else work.double(data)

@app.collector
def collect(data):
    tally.add(data["double"])

@app.finished
def report(metadata):
    # it raises unless each has come once
    tally.write(int(metadata["items"]), metadata["out"])

if __name__ == "__main__":
    app.main()
"""

CLOCK = """
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {hour}
time.time_ns = lambda: _time_ns() + int({hour} * 1e9)
"""
"""A `sitecustomize`, which Python imports first: the clock of the day is wrong for all that is written in Python."""


class Host:
    """A namespace with a path to the server."""

    def __init__(self, number: int, folder: Path, stack: ExitStack) -> None:
        self.number, self.folder = number, folder
        self.near = f"near{number}"
        self.server = f"10.78.{number}.1"
        self._stack = stack
        folder.mkdir()
        self.clock = folder / "clock"
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        stack.callback(self._close)
        mine, its = Path("/proc/self/ns/net"), Path(f"/proc/{self._holder.pid}/ns/net")
        wait_until(lambda: its.readlink() != mine.readlink(), "the namespace of a host")
        self._enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]
        far = f"far{number}"
        network("link", "add", self.near, "type", "veth", "peer", "name", far)
        network("link", "set", far, "netns", str(self._holder.pid))
        network("addr", "add", f"{self.server}/30", "dev", self.near)
        network("link", "set", self.near, "up")
        for arguments in (f"addr add 10.78.{number}.2/30 dev {far}", f"link set {far} up", "link set lo up"):
            subprocess.run([*self._enter, "ip", *arguments.split()], check=True)
        delay = str(ROUND_TRIPS[number] / 2)
        ports = [str(port) for base in (PORT, RAW_PORT) for port in (base, base + 1)]
        path = self.start("-m", "tests.acceptance.slow_path", delay, str(LOSS), self.server, *ports, name="path")
        wait_until(lambda: "open" in path.out, "the path of a host")

    def _close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)

    def start(self, *arguments: str, name: str, stack: ExitStack | None = None) -> Program:
        """``python ARGUMENTS`` here, ended with this stack, or with everything else."""
        paths = [str(ROOT)]
        if self.number == WRONG:
            (self.folder / "sitecustomize.py").write_text(CLOCK.format(hour=HOUR))
            paths.insert(0, str(self.folder))
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HOST_CLOCK": str(self.clock)}
        environ["XDG_RUNTIME_DIR"] = str(self.folder)
        shutil.copy(self.folder.parent / "app.py", self.folder)
        program = Program(self.folder, name, [*self._enter, sys.executable, *arguments], environ)
        (stack or self._stack).callback(program.close)
        return program

    def cut(self) -> None:
        """Nothing gets through, and nobody is told."""
        network("link", "set", self.near, "down")

    def mend(self) -> None:
        """It does again."""
        network("link", "set", self.near, "up")


class Server:
    """The namespace of this program: distributor and collector, and who asks for their status."""

    def __init__(self, folder: Path, stack: ExitStack, flags: Sequence[str]) -> None:
        self.folder, self._stack, self._flags = folder, stack, flags
        self.out = folder / f"{len(list(folder.iterdir()))}.json"

    def start(self, role: str, **metadata: object) -> Program:
        """A role of the app."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOST_CLOCK": os.devnull}
        known = {**metadata, "out": self.out} if role == "distributor" else {}
        words = ["-m", "app", role, "--endpoint", f"tcp://*:{PORT}", *self._flags]
        command = [sys.executable, *words, *(f"--meta={key}={value}" for key, value in known.items())]
        program = Program(self.folder, f"{role}-{self.out.stem}", command, environ)
        self._stack.callback(program.close)
        return program

    def seconds(self) -> float:
        """From the first result to the last."""
        found = json.loads(self.out.read_text())
        return float(found["last"] - found["first"])


def workers_of(found: Sequence[Status]) -> int:
    """How many the distributor has."""
    return sum(task.workers for status in found for task in status.tasks)


def cut_off(hosts: Sequence[Host], folder: Path, done: Clock) -> None:
    """The run with keys, of which hosts are cut off."""
    with ExitStack() as stack:
        keys = folder / "keys"
        keyfiles.make_all(keys)
        server = Server(folder, stack, ["--keys", str(keys)])
        collector = server.start("collector")
        distributor = server.start("distributor", kind="nap", items=ITEMS, seconds=SECONDS)
        place = EndpointAddress(f"tcp://127.0.0.1:{PORT}")
        client = stack.enter_context(StatusClient([derive(place, "status")], Options(keys=str(keys), linger=0.0)))

        def workers() -> int:
            assert not distributor.ended(), distributor.err
            return workers_of(list(client.ask().values()))

        started = [
            host.start(
                "-m", "app", "worker", "item", "--endpoint", str(place), "--keys", str(keys), name="worker", stack=stack
            )
            for host in hosts
        ]
        wait_until(lambda: workers() == HOSTS, "all workers", 60.0)
        wait_until(lambda: all(host.clock.exists() and host.clock.read_text() for host in hosts), "all to work", 60.0)
        wrong = float(hosts[WRONG].clock.read_text()) - time.time()
        assert abs(wrong - HOUR) < 60, wrong
        far = f"{1000 * ROUND_TRIPS[0]:.0f} to {1000 * ROUND_TRIPS[-1]:.0f} ms away"
        done(f"{HOSTS} hosts at work, {far}, {LOSS:.0%} of all segments lost, one host an hour fast")

        for index, left in ((CUT, HOSTS - 1), (LOST, HOSTS - 2)):
            began = time.monotonic()
            hosts[index].cut()
            wait_until(lambda left=left: workers() == left, "a cut to be noticed", 20.0)  # type: ignore[misc]
            done(f"host {index} is cut off: noticed after {time.monotonic() - began:.2f} s")
        time.sleep(max(0.0, CUT_SECONDS - 5.0))
        began = time.monotonic()
        hosts[CUT].mend()
        wait_until(lambda: workers() == HOSTS - 1, "a host that is back", 30.0)
        done(f"host {CUT} is back after some {CUT_SECONDS:.0f} s, and at work {time.monotonic() - began:.2f} s later")

        assert (distributor.wait(300), collector.wait(60)) == (0, 0), distributor.err + collector.err
        late = time.monotonic() - json.loads(server.out.read_text())["last"]
        for index, one in enumerate(started):
            if index != LOST:
                assert one.wait(60) == 0, one.err
        assert server.out.exists()
        assert not started[LOST].ended()
        done(f"the run is over, {late:.2f} s after its last item: {ITEMS:,} items collected, each once; status 0")
    hosts[LOST].mend()


def ours(hosts: Sequence[Host], folder: Path, kind: str, items: int, seconds: float) -> float:
    """Items a second."""
    with ExitStack() as stack:
        start = stack.enter_context(Meeting(folder / f"start-{time.monotonic_ns()}"))
        server = Server(folder, stack, ["--insecure"])
        roles = [
            server.start("collector"),
            server.start("distributor", kind=kind, items=items, seconds=seconds, meeting=start.path),
        ]
        for host in hosts:
            host.start(
                "-m",
                "app",
                "worker",
                "item",
                "--endpoint",
                f"tcp://127.0.0.1:{PORT}",
                name=f"worker-{server.out.stem}",
                stack=stack,
            )
        start.hold(len(hosts), [one._process for one in roles])
        assert [one.wait(300) for one in roles] == [0, 0], roles[1].err
        return items / server.seconds()


def raw(hosts: Sequence[Host], folder: Path, kind: str, items: int, seconds: float, batch: int) -> float:
    """Items a second of the plain pipeline: it deals its items out in turn, and waits for no word of any."""
    with ExitStack() as stack:
        start = stack.enter_context(Meeting(folder / f"start-{time.monotonic_ns()}"))
        out = folder / f"raw-{time.monotonic_ns()}.json"

        def plan(host: str) -> str:
            return Plan(
                kind=kind,
                items=items,
                seconds=seconds,
                batch=batch,
                workers=len(hosts),
                work=f"tcp://{host}:{RAW_PORT}",
                results=f"tcp://{host}:{RAW_PORT + 1}",
                done=f"ipc://{folder}/done",
                meeting=str(start.path),
                out=str(out),
            ).text()

        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        roles = []
        for part in ("sink", "ventilator"):
            command = [sys.executable, "-m", "examples.benchmarks.raw", part, plan("*")]
            roles.append(Program(folder, f"{part}-{out.stem}", command, environ))
            stack.callback(roles[-1].close)
        for host in hosts:
            host.start(
                "-m", "examples.benchmarks.raw", "worker", plan("127.0.0.1"), name=f"raw-{out.stem}", stack=stack
            )
        start.hold(2, [one._process for one in roles])
        assert [one.wait(300) for one in roles] == [0, 0], roles[0].err + roles[1].err
        found = json.loads(out.read_text())
        return float(items / (found["last"] - found["first"]))


def throughput(hosts: Sequence[Host], folder: Path, rounds: int, done: Clock) -> None:
    """Of both, in turn."""
    for what, kind, items, seconds, batch in (
        ("items of 2 ms", "nap", 16_000, 0.002, 1),
        ("trivial items", "trivial", 200_000, 0.0, 100),
    ):
        sides: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            sides[0].append(raw(hosts, folder, kind, items, seconds, batch))
            sides[1].append(ours(hosts, folder, kind, items, seconds))
        plain, own = (statistics.median(side) for side in sides)
        done(f"{what}: {own:,.0f} a second; the plain pipeline, {batch} a message, {plain:,.0f}: {own / plain:.2f}")


@contextmanager
def all_hosts() -> Iterator[tuple[list[Host], Path]]:
    """The hosts, and the folder of the server; nothing is left of them."""
    with tempfile.TemporaryDirectory(prefix="zp-", dir="/tmp") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        (folder / "app.py").write_text(APP)
        network("link", "set", "lo", "up")
        yield [Host(number, folder / f"host{number}", stack) for number in range(HOSTS)], folder


def inside(rounds: int) -> None:
    """In a network namespace of its own."""
    done = Clock()
    with all_hosts() as (hosts, folder):
        done(f"{HOSTS} hosts, and a path to each")
        cut_off(hosts, folder, done)
        throughput(hosts, folder, rounds, done)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of the throughput: medians.")
@click.option("--if-permitted", is_flag=True, help="Status 0 where no namespaces can be made.")
@click.option("--inside", "is_inside", is_flag=True, hidden=True)
def main(rounds: int, if_permitted: bool, is_inside: bool) -> None:
    """Run a pipeline over eight hosts and a slow network, and cut some of them off."""
    if is_inside:
        inside(rounds)
        return
    if why := lacking():
        print(f"No network namespaces can be made here: {why}", file=sys.stderr)
        sys.exit(0 if if_permitted else NOT_PERMITTED)
    new = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.acceptance.hosts", "--inside"]
    sys.exit(subprocess.run([*new, f"--rounds={rounds}"], check=False).returncode)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
