"""``python -m tests.acceptance.two_machines``: a pipeline on two machines, with keys, of which a worker is killed.

The machines are two network namespaces, joined by a pair of virtual interfaces. The first hands out and collects; the
second has the workers, and asks for `status`. That needs Linux, util-linux and iproute2, and a system on which its user
may make namespaces; where that is not so, this says so and ends with status 3 (with ``--if-permitted``: 0). Everything
else that goes wrong is an AssertionError. Nothing is left behind: the namespaces live as long as this program does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import ROOT, Program
from tests.support.steps import Clock

SERVER, OTHER = "10.77.0.1", "10.77.0.2"
ENDPOINT = f"tcp://{SERVER}:5550"
NOT_PERMITTED = 3
PATIENCE = 120.0
ITEMS = 1000
HELD = "held"
"""A file on the machine of the workers: while it is there, each does a few items and stays in the next ones."""

APP = """
import os, time

from zmqpipeline import Pipeline

app = Pipeline("far")
sums = {"so_far": 0}
done = []

@app.task("square")
def numbers(metadata):
    for n in range(int(metadata["items"])):
        yield {"n": n}

@app.worker("square", threads=2)
def square(data):
    time.sleep(0.02)
    while len(done) >= 20 and os.path.exists("held"):
        time.sleep(0.02)
    done.append(data["n"])
    return {"n": data["n"], "square": data["n"] ** 2}

@app.collector("square")
def add(data):
    sums["so_far"] += data["square"]
    print(data["n"], flush=True)
    return {"sum": sums["so_far"]}

@app.task("report", depends_on=["square"])
def report(ack_data):
    yield {"sum": ack_data["sum"]}

@app.worker("report")
def word(data):
    return {"text": f"the sum is {data['sum']}"}

@app.collector("report")
def tell(data):
    print(data["text"])

if __name__ == "__main__":
    app.main()
"""


class Machine:
    """A folder, and a network namespace: this program's own, or that of another process."""

    def __init__(self, folder: Path, keys: str, namespace: int | None = None) -> None:
        self.folder, self.keys = folder, keys
        self._enter = [] if namespace is None else ["nsenter", f"--net=/proc/{namespace}/ns/net"]
        self._started: list[Program] = []
        folder.mkdir()
        (folder / "far.py").write_text(APP)

    def start(self, *arguments: str) -> Program:
        """``python -m far ARGUMENTS`` there."""
        command = [*self._enter, sys.executable, "-m", "far", *arguments]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        self._started.append(Program(self.folder, f"{len(self._started)}-{arguments[0]}", command, environ))
        return self._started[-1]

    def role(self, *arguments: str) -> Program:
        """The same at the server's address, with this machine's keys."""
        return self.start(*arguments, "--endpoint", ENDPOINT, "--keys", self.keys)

    def run(self, *arguments: str, role: bool = False) -> tuple[int, Program]:
        """To its end: the exit status, and what it said."""
        program = (self.role if role else self.start)(*arguments)
        return program.wait(PATIENCE), program

    def status(self) -> dict[str, Any]:
        """What the distributor says of itself to this machine; empty if it says nothing yet."""
        status, program = self.run("status", "--json", role=True)
        return json.loads(program.out) if status == 0 else {}

    def close(self) -> None:
        """End what is left."""
        for program in self._started:
            program.close()


def network(*arguments: str) -> None:
    """``ip ARGUMENTS``, or an error with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@contextmanager
def other_namespace() -> Iterator[int]:
    """A process in a second network namespace that is joined to this one; its process id."""
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        mine, its = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        until(lambda: its.readlink() != mine.readlink(), "the second namespace")
        network("link", "add", "near", "type", "veth", "peer", "name", "far")
        network("link", "set", "far", "netns", str(holder.pid))
        network("addr", "add", f"{SERVER}/24", "dev", "near")
        inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip"]
        for arguments in (f"addr add {OTHER}/24 dev far", "link set far up", "link set lo up"):
            subprocess.run([*inside, *arguments.split()], check=True)
        for name in ("near", "lo"):
            network("link", "set", name, "up")
        yield holder.pid
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(PATIENCE)


def until(is_so: Callable[[], Any], what: str) -> Any:
    """Ask again and again; the first answer that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := is_so()):
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.05)
    return answer


def trial(first: Machine, second: Machine, done: Clock) -> None:
    """Everything that the page tells; see `docs/explanation/first-hour.md`."""
    status, program = first.run("collector", "--endpoint", ENDPOINT)
    assert status == 2, program.err
    assert "keygen DIR" in program.err
    done("without keys a role refuses to listen, and says what to do")

    for arguments in (["keys"], ["keys", "--worker", "second", "--client", "second-client"]):
        status, program = first.run("keygen", *arguments)
        assert status == 0, program.err
    handed = second.folder / second.keys
    handed.mkdir(mode=0o700)
    for name in ("server.pub", "second.secret", "second-client.secret"):
        shutil.copy2(first.folder / first.keys / name, handed)
    done("keys are made, and two of them handed out")

    held = second.folder / HELD
    held.touch()
    collector = first.role("collector")
    distributor = first.role("distributor", "--meta", f"items={ITEMS}")
    victim, *others = [second.role("worker", task) for task in ("square", "square", "report")]
    seen = until(lambda: busy(second.status(), victim.pid), "the worker to be at work")
    done(f"the other machine sees the run: {seen['tasks']['square']['collected']} of {ITEMS} collected, 2 workers")

    victim.signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    until(lambda: knows_one(second.status()), "the dead worker to be gone from the status")
    done("one of them is killed with -9, and gone from the status")
    held.unlink()

    assert [one.wait(PATIENCE) for one in (distributor, collector, *others)] == [0, 0, 0, 0], distributor.err
    assert re.search(rf"/{victim.pid} was lost .* go to other workers", distributor.err), distributor.err
    *numbers, last = collector.out.splitlines()
    assert sorted(map(int, numbers)) == list(range(ITEMS)), "lost or collected twice"
    assert last == f"the sum is {sum(n * n for n in range(ITEMS))}"
    done(f"the run is over: {ITEMS} items collected, each once, and the report after them")


def busy(status: dict[str, Any], pid: int) -> dict[str, Any]:
    """The status, if there are two workers of the first task of which this one has done something; else nothing."""
    workers = [one for one in status.get("workers", ()) if one["task"] == "square"]
    is_so = len(workers) == 2 and any(one["pid"] == pid and one["executed"] and one["leased"] for one in workers)
    return status if is_so else {}


def knows_one(status: dict[str, Any]) -> bool:
    """Whether there is one worker of the first task."""
    return len([one for one in status.get("workers", ()) if one["task"] == "square"]) == 1


def inside() -> None:
    """In a network namespace of its own."""
    done = Clock()
    with tempfile.TemporaryDirectory() as scratch, other_namespace() as namespace:
        first = Machine(Path(scratch) / "first", "keys")
        second = Machine(Path(scratch) / "second", "handed", namespace)
        done(f"two machines: {SERVER} and {OTHER}")
        try:
            trial(first, second, done)
        finally:
            second.close()
            first.close()


def lacking() -> str:
    """Why it cannot be done here; empty if it can."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        return f"there is no {' and no '.join(missing)}"
    tried = "ip link add near type veth peer name far && unshare --net true"
    done = subprocess.run([*_NEW, "sh", "-c", tried], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


_NEW = ["unshare", "--map-root-user", "--net"]


def main(arguments: list[str]) -> int:
    """The exit status."""
    if arguments == ["--inside"]:
        inside()
        return 0
    if why := lacking():
        print(f"No network namespaces can be made here: {why}", file=sys.stderr)
        return 0 if arguments == ["--if-permitted"] else NOT_PERMITTED
    return subprocess.run(
        [*_NEW, sys.executable, "-m", "tests.acceptance.two_machines", "--inside"], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
