"""``python -m tests.acceptance.ssh --seeds 20``: workers behind `run --launch ssh` and a real sshd, which are killed.

An sshd is started on the loopback, with keys of its own. For each seed a run of the README's app has four workers
behind it, in a folder that has the app and nothing else. At random the ssh of `run` is killed with -9, or the far
worker, the process of sshd for its connection, or the sshd that listens, which comes back after a while; or one of them
is stopped for some seconds. Each item must be in the collector's table once and the status be 0. Then nothing is left:
no process on either side, no key. No command line and no environment may have shown a worker's key, whole or its half.

Then one run has workers on machines that have no network, but for the tunnels of their ssh (where the user may make
namespaces), and runs end in the middle: by SIGTERM, by Ctrl-C, and by -9. At last, but for ``--brief``, the far machine
is gone for five tries in each place, and a run is killed with -9 behind a network that passes nothing on.

The interpreter of this program must find the package by itself, since ssh passes no PYTHONPATH on.

Where sshd is not installed, or lets nobody in, this says so and ends with status 3 (with ``--if-installed``: 0).
"""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import click
import zmq

from tests.acceptance.conftest import Program, Workshop, wait_until
from tests.support.descendants import (
    adopt_orphans,
    children_of,
    descendants,
    end_all,
    fetch_orphans,
    name_of,
    parent_of,
    runs,
    signal_to,
    text_of,
)
from tests.support.ports import free_ports
from tests.support.sshd import Sshd, lacking
from tests.support.steps import Clock
from zmqpipeline.runtime.security import keyfiles

ITEMS = 400
WORKERS = 4
MISSING = 3
PATIENCE = 180.0

APP = """
import os, sqlite3, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("squares")
ITEMS = 400

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

@app.task("C", crash_limit=1000)
def numbers():
    for n in range(ITEMS):
        yield {"n": n}

@app.worker_init("C")
def begin():
    note("workers", os.getpid())

@app.worker("C", threads=2)
def square(data):
    n = data["n"]
    time.sleep(0.02)
    # the last ones are kept until all that is to happen has happened
    while n >= ITEMS * 0.8 and os.path.exists("wait"):
        time.sleep(0.01)
    note("done", n)
    return {"n": n, "square": n ** 2}

@app.collector
def collect(data):
    with sqlite3.connect("squares.db") as db:
        # no power is cut here
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE IF NOT EXISTS squares (n INTEGER, square INTEGER)")
        db.execute("INSERT INTO squares VALUES (:n, :square)", data)

if __name__ == "__main__":
    app.main()
"""


class Witness(threading.Thread):
    """Sees the command lines and environments of all that came of this program, and the keys that were issued."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.seen: dict[str, set[str]] = {"cmdline": set(), "environ": set()}
        self.publics: set[str] = set()
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            self.look()

    def look(self) -> None:
        """Once."""
        for pid in descendants(os.getpid()):
            for which, texts in self.seen.items():
                texts.add(text_of(pid, which))
        for file in self.folder.glob("zmqpipeline-*/issued/*"):
            if not file.name.startswith("new-"):
                self.publics.add(bytes.fromhex(file.name.partition("-")[0]).decode())

    def close(self) -> None:
        """Say what it saw of keys, by an AssertionError."""
        self._is_over.set()
        self.join()
        assert any("--lifeline" in line for line in self.seen["cmdline"]), "it saw no worker"
        assert len(self.publics) >= WORKERS
        for which, texts in self.seen.items():
            assert not shown(texts, self.publics), f"a key is in a {which}"


def shown(texts: Iterable[str], publics: set[str]) -> set[str]:
    """What is in these texts that is one of these keys, or the secret half of one."""
    words = {word for text in texts for word in re.findall(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40,}", text)}
    parts = {word[at : at + 40] for word in words for at in range(len(word) - 39)}
    return {part for part in parts if part in publics or _public_of(part) in publics}


def _public_of(text: str) -> str:
    """The public half, if this is a secret one."""
    with suppress(zmq.ZMQError):  # not all such texts are keys
        return zmq.curve_public(text.encode()).decode()
    return ""


class Site:
    """Both sides of a run: the folder where `run` is, with keys, and the one of its workers, with the app alone."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.sshd = sshd
        self.head, self.away = Workshop(folder / "head"), Workshop(folder / "away")
        for side in (self.head, self.away):
            side.folder.mkdir()
            side.write("app.py", APP)
        self.head.environ["TMPDIR"] = str(self.head.folder)
        del self.head.environ["PYTHONPATH"]
        keyfiles.make_all(self.head.folder / "keys")
        self.port = free_ports(8)[0]

    def start(self, host: str = "127.0.0.1", *options: str) -> Program:
        """A `run`, as the page about it says, at an address with this host, with these options of ssh."""
        for name in ("squares.db", "workers", "done"):
            for side in (self.head, self.away):
                (side.folder / name).unlink(missing_ok=True)
        self.away.write("wait", "")
        ssh = shlex.join(["ssh", "-F", str(self.sshd.config), *options])
        launch = f"{ssh} node{{index}} cd {shlex.quote(str(self.away.folder))} && exec"
        flags = ("--keys", "keys", "--encryption", "required", "--endpoint", f"tcp://{host}:{self.port}")
        return self.head.start(
            *("-m", "app", "run", "--no-progress", "--workers", str(WORKERS), *flags),
            *("--launch", launch, "--python", sys.executable),
        )

    def go(self) -> None:
        """Let the last items be done."""
        (self.away.folder / "wait").unlink()

    @property
    def workers(self) -> list[int]:
        """The far workers that run and were initialized."""
        return [pid for pid in self.away.numbers("workers") if self._is_far(pid)]

    def _is_far(self, pid: int) -> bool:
        with suppress(OSError):
            return runs(pid) and Path(f"/proc/{pid}/cwd").readlink() == self.away.folder
        return False

    def commands(self, run: Program) -> list[int]:
        """The ssh that `run` has started."""
        return [pid for pid in children_of(run.pid) if runs(pid) and name_of(pid) == "ssh"]

    @property
    def connections(self) -> list[int]:
        """The processes of sshd that workers are children of; since OpenSSH 9.8 they are named sshd-session."""
        return [pid for pid in map(parent_of, self.workers) if name_of(pid) in ("sshd", "sshd-session")]

    def is_whole(self, run: Program) -> bool:
        """Whether all workers are there, and all that is between them and `run`."""
        return len(self.workers) == len(self.connections) == len(self.commands(run)) == WORKERS

    @property
    def admitted(self) -> int:
        """How many keys are let in now."""
        names = [file.name for file in self.head.folder.glob("zmqpipeline-*/issued/*")]
        return sum(name.partition("-")[1] == "" for name in names)

    @property
    def left(self) -> list[str]:
        """What runs of all that was started here, but for the sshd that listens."""
        known = {self.sshd.pid}
        fetch_orphans(known | {program.pid for program in self.head.programs})
        return [f"{pid} {text_of(pid, 'cmdline')}" for pid in descendants(os.getpid()) if pid not in known]

    def empty(self) -> float:
        """Wait until nothing is left; after how many seconds that is."""
        began = time.monotonic()
        wait_until(lambda: not self.left, "nothing is left", PATIENCE)
        return time.monotonic() - began

    def collected(self) -> list[int]:
        """The numbers in the collector's table."""
        with closing(sqlite3.connect(self.head.folder / "squares.db")) as db:
            return [n for (n,) in db.execute("SELECT n FROM squares ORDER BY n")]


def await_run(run: Program, condition: Callable[[], object], what: str) -> None:
    """Wait until this holds; the run must not end before. A failure says what the run wrote by then."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert not run.ended(), f"it ended before: {what}\n{run.err}"
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}\n{run.err}"
        time.sleep(0.01)


class Trouble:
    """What befalls one run, by a seed."""

    def __init__(self, site: Site, run: Program, rng: random.Random) -> None:
        self.site, self.run, self.rng = site, run, rng
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """One more thing."""
        what = self.rng.choice([self._kill, self._kill, self._kill, self._sshd, self._stop])
        self.done[what()] += 1

    def _victim(self) -> tuple[str, int]:
        """One of those that are between `run` and the items of a worker, or that worker."""
        kinds: dict[str, Callable[[], list[int]]] = {
            "ssh": lambda: self.site.commands(self.run),
            "worker": lambda: self.site.workers,
            "connection": lambda: self.site.connections,
        }
        kind = self.rng.choice(list(kinds))
        pids: list[int] = []

        def are_there() -> bool:
            pids[:] = pids or kinds[kind]()
            return bool(pids)

        await_run(self.run, are_there, f"a {kind} to strike")
        # not `choice`, which draws more often for some numbers: the next kinds would not be the seed's
        return kind, pids[int(self.rng.random() * len(pids))]

    def _kill(self) -> str:
        kind, pid = self._victim()
        signal_to(pid, signal.SIGKILL)
        return f"{kind} killed"

    def _sshd(self) -> str:
        """It is gone for a while, and with it one connection, or one of its ends."""
        # while it is gone nobody comes who could be struck
        _, pid = self._victim()
        self.site.sshd.kill()
        signal_to(pid, signal.SIGKILL)
        time.sleep(self.rng.uniform(0.3, 2.0))
        self.site.sshd.start_again()
        return "sshd killed"

    def _stop(self) -> str:
        kind, pid = self._victim()
        signal_to(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.5, 3.0))
        signal_to(pid, signal.SIGCONT)
        return f"{kind} stopped"


def whole(site: Site, run: Program) -> float:
    """Wait for the good end of a run, and of all that came of it; after how many seconds more the latter was."""
    await_run(run, lambda: site.is_whole(run), "all places are filled")
    await_run(run, lambda: site.admitted == WORKERS, "each worker has a key, and nobody else")
    site.go()
    assert run.wait(PATIENCE) == 0, run.err
    assert site.collected() == list(range(ITEMS)), f"{len(site.collected())} collected\n{run.err}"
    after = site.empty()
    assert not list(site.head.folder.glob("zmqpipeline-*")), "the keys are still let in"
    return after


def trial(seed: int, site: Site) -> str:
    """One run with trouble; what happened, for people."""
    rng = random.Random(seed)
    began = time.monotonic()
    run = site.start()
    witness = Witness(site.head.folder)
    witness.start()
    await_run(run, lambda: site.workers, "the run has begun")
    trouble = Trouble(site, run, rng)
    for _ in range(rng.randint(3, 6)):
        time.sleep(rng.uniform(0.0, 1.0))
        trouble.strike()
    after = whole(site, run)
    seconds = time.monotonic() - began
    witness.close()
    said = ", ".join(f"{number} {what}" for what, number in sorted(trouble.done.items()))
    return f"seed {seed}: {said}; {seconds:.1f} s; nothing left after {after:.1f} s"


@contextmanager
def at_work(site: Site) -> Iterator[Program]:
    """A run whose workers are all in the middle of an item."""
    run = site.start()
    await_run(run, lambda: len(site.workers) == WORKERS, "all are at work")
    await_run(run, lambda: len(site.away.lines("done")) >= ITEMS * 0.8, "all that do not wait are done")
    yield run
    run.close()


def outage(site: Site) -> str:
    """The far machine is gone for as many tries as end a run that has not begun: this one goes on when it is back."""
    with at_work(site) as run:
        site.sshd.kill()
        for pid in site.connections:
            signal_to(pid, signal.SIGKILL)
        tries = 5 * WORKERS
        await_run(run, lambda: run.err.count("Connection refused") >= tries, "it is asked in vain")
        site.sshd.start_again()
        began = time.monotonic()
        await_run(run, lambda: len(site.workers) == WORKERS, "all are back")
        seconds = time.monotonic() - began
        whole(site, run)
    return f"far machine gone for {tries} tries; all workers were back {seconds:.1f} s after it, each item once"


def tunnelled(site: Site) -> str:
    """The far machine, one for each worker, has no network: its addresses lead through its ssh."""
    machine = site.head.write("machine", site.sshd.machine_without_network())
    machine.chmod(0o755)
    ports = [f"{port}:localhost:{port}" for port in (site.port, site.port + 1)]
    options = ("-o", f"ProxyCommand={machine}", "-R", ports[0], "-R", ports[1])
    run = site.start("localhost", *options)
    await_run(run, lambda: len(site.workers) == WORKERS, "all are at work")
    assert run.err.count("leads to this machine (far)") >= WORKERS, run.err
    signal_to(site.workers[0], signal.SIGKILL)
    await_run(run, lambda: " on far) ended by" in run.err, "its death is seen")
    whole(site, run)
    return f"{WORKERS} far machines without a network, through tunnels, one killed: each item once"


def may_unshare() -> bool:
    """Whether there can be a machine without a network."""
    command = ["unshare", "--net", "--uts", "sh", "-c", "ip link set lo up && hostname far"]
    return (
        all(map(shutil.which, ("unshare", "ip", "hostname"))) and subprocess.run(command, check=False).returncode == 0
    )


def drained(site: Site, how: signal.Signals) -> str:
    """A signal: what runs is finished and collected."""
    with at_work(site) as run:
        run.signal(how, group=how == signal.SIGINT)
        await_run(run, lambda: "The run drains" in run.err, "the run drains")
        began = time.monotonic()
        site.go()
        assert run.wait(PATIENCE) == 128 + how, run.err
        seconds = time.monotonic() - began
        # one that was done twice is collected once
        assert site.collected() == sorted(set(site.away.numbers("done"))), run.err
        assert "killed" not in run.err, run.err
        after = site.empty()
    assert not list(site.head.folder.glob("zmqpipeline-*"))
    return (
        f"run ended by {how.name}: what ran is collected, over after {seconds:.1f} s, nothing left after {after:.1f} s"
    )


def killed(site: Site) -> str:
    """With -9: the far side leaves by itself."""
    with at_work(site) as run:
        run.signal(signal.SIGKILL)
        run.wait()
        began = time.monotonic()
        wait_until(lambda: not site.workers, "the far workers leave", PATIENCE)
        seconds = time.monotonic() - began
        after = site.empty()
    return f"run killed with -9: its far workers left after {seconds:.2f} s, all else after {after:.2f} s more"


def cut_off(site: Site) -> str:
    """With -9, behind a network that passes nothing on: sshd notices."""
    with at_work(site) as run:
        commands = site.commands(run)
        for pid in commands:
            signal_to(pid, signal.SIGSTOP)
        run.signal(signal.SIGKILL)
        run.wait()
        began = time.monotonic()
        try:
            wait_until(lambda: not site.workers, "the far workers leave", PATIENCE)
        finally:
            for pid in commands:
                signal_to(pid, signal.SIGCONT)
        seconds = time.monotonic() - began
        site.empty()
    return f"run killed with -9 while each ssh was stopped: its far workers left after {seconds:.1f} s"


def look_for_keys() -> None:
    """The search of the witness finds what is there."""
    public, secret = (half.decode() for half in zmq.curve_keypair())
    assert shown([f"worker x={key}y" for key in (public, secret)], {public}) == {public, secret}
    assert not shown([f"worker --lifeline {'/work' * 20}"], {public})


@click.command()
@click.option("--seeds", type=click.IntRange(0), default=20, show_default=True)
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--brief", is_flag=True, help="Without a far machine that is gone, and a network that is silent.")
@click.option("--if-installed", is_flag=True, help="Status 0 where there is no sshd.")
def main(seeds: int, first: int, *, brief: bool, if_installed: bool) -> None:
    """Run it with all seeds, then end runs in the middle."""
    why = lacking()
    folder = Path(tempfile.mkdtemp(prefix="zp-", dir="/tmp"))
    adopt_orphans()
    try:
        if not why:
            sshd = Sshd(folder)
            why = sshd.refuses()
        if why:
            print(f"There can be no sshd here: {why}", file=sys.stderr)
            sys.exit(0 if if_installed else MISSING)
        look_for_keys()
        site = Site(folder, sshd)
        done = Clock()
        for seed in range(first, first + seeds):
            done(trial(seed, site))
        if may_unshare():
            done(tunnelled(site))
        for how in (signal.SIGTERM, signal.SIGINT):
            done(drained(site, how))
        done(killed(site))
        if not brief:
            done(outage(site))
            done(cut_off(site))
        done(f"{seeds} seeds: each item once, and nothing is left")
    finally:
        end_all(os.getpid())
        shutil.rmtree(folder)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
