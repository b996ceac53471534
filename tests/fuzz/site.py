"""A real run over tcp without keys, for hostile peers to talk to: five processes, and what became of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import zmq

from zmqpipeline import ServiceClient
from zmqpipeline.addresses import ROLE_OFFSETS

ROOT = Path(__file__).resolve().parents[2]
HOST = "tcp://127.0.0.1"
RECORDED = 2000
"""So many messages are kept to be replayed."""

OLD = 1.0
"""Seconds after which a recorded message may be replayed: its receiver has had it by then."""


class Tap(threading.Thread):
    """Stands between the one worker and a bound hop, and keeps what the worker says."""

    def __init__(self, front: str, back: str) -> None:
        super().__init__(name="tap")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._front, self._back = self._context.socket(zmq.ROUTER), self._context.socket(zmq.DEALER)
        for one in (self._front, self._back):
            one.linger, one.rcvhwm, one.sndhwm = 0, 0, 0
        self._front.bind(front)
        self._back.connect(back)
        self._over = threading.Event()
        self._fresh: list[tuple[float, list[bytes]]] = []
        self.recorded: list[list[bytes]] = []

    def run(self) -> None:
        """Pass on, until `close`."""
        worker = b""
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while not self._over.is_set():
            ready = dict(poller.poll(100))
            if self._front in ready:
                worker, *frames = self._front.recv_multipart()
                self._back.send_multipart(frames)
                self._fresh.append((time.monotonic(), frames))
            if self._back in ready:
                self._front.send_multipart([worker, *self._back.recv_multipart()])
            while self._fresh and time.monotonic() - self._fresh[0][0] > OLD:
                if len(self.recorded) < RECORDED:
                    self.recorded.append(self._fresh[0][1])
                del self._fresh[0]

    def close(self) -> None:
        """End it."""
        self._over.set()
        self.join()
        self._context.destroy(0)


class Site:
    """The roles at ``tcp://127.0.0.1:base``; the worker comes by way of taps at `tapped`. Use it with `with`."""

    def __init__(self, folder: Path, base: int, tapped: int) -> None:
        self.base = base
        self._folder = folder
        self._stop = folder / "stop"
        self.taps = {
            hop: Tap(f"{HOST}:{tapped + offset}", f"{HOST}:{base + offset}")
            for hop, offset in (("workers", 0), ("results", 1))
        }
        self._tapped = tapped
        self.roles: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Site:
        """Start all of it."""
        for tap in self.taps.values():
            tap.start()
        for role in ("distributor", "collector", "service", "service-worker double"):
            self._start(role, self.base)
        self._start("worker C", self._tapped)
        return self

    def _start(self, role: str, base: int) -> None:
        name = role.split(maxsplit=1)[0]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ZMQPIPELINE_")}
        environ |= {"FUZZ_STOP": str(self._stop), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with (self._folder / f"{name}.out").open("wb") as out, (self._folder / f"{name}.err").open("wb") as err:
            command = [sys.executable, "-m", "tests.fuzz.app", *role.split(), "--endpoint", f"{HOST}:{base}"]
            self.roles[name] = subprocess.Popen(
                command, cwd=self._folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def __exit__(self, *raised: object) -> None:
        """End whatever is left."""
        for one in self.roles.values():
            if one.poll() is None:
                one.kill()
            one.wait()
        for tap in self.taps.values():
            tap.close()

    def address(self, hop: str) -> str:
        """Where this hop is bound."""
        return f"{HOST}:{self.base + ROLE_OFFSETS[hop]}"

    def client(self) -> ServiceClient:
        """A client of the service."""
        return ServiceClient(f"{HOST}:{self.base + ROLE_OFFSETS['service-clients']}", "double")

    def resident(self) -> dict[str, float]:
        """The resident size of each role, in MB."""
        page = os.sysconf("SC_PAGE_SIZE") / 1e6
        found = {}
        for name, process in self.roles.items():
            statm = Path(f"/proc/{process.pid}/statm")
            found[name] = int(statm.read_text().split()[1]) * page if process.poll() is None else 0.0
        return found

    def lines(self) -> list[str]:
        """What was collected so far, a line a result."""
        return (self._folder / "collector.out").read_text().splitlines()

    def err(self, name: str) -> str:
        """What a role has written to stderr."""
        return (self._folder / f"{name}.err").read_text(errors="replace")

    def wait_until_collecting(self, more: int = 1, seconds: float = 60.0) -> None:
        """Return when so many further results are there."""
        wanted = len(self.lines()) + more
        end = time.monotonic() + seconds
        while len(self.lines()) < wanted:
            died = [name for name, one in self.roles.items() if one.poll() is not None]
            assert not died, f"{died[0]} died: {self.err(died[0])}"
            assert time.monotonic() < end, f"{len(self.lines())} of {wanted} results after {seconds} s"
            time.sleep(0.05)

    def finish(self, seconds: float = 60.0) -> list[str]:
        """Let the source come to its end, and the roles; what is wrong with what they made of it."""
        self._stop.touch()
        wrong = []
        end = time.monotonic() + seconds
        for name in ("distributor", "collector", "worker"):
            try:
                status = self.roles[name].wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                wrong.append(f"{name} does not end; the collector has {len(self.lines())} results")
            else:
                wrong += [f"{name} ended with status {status}: {self.err(name)[-2000:]}"] if status else []
        for name in ("service", "service-worker"):
            died = self.roles[name].poll()
            wrong += [f"{name} died with status {died}: {self.err(name)[-2000:]}"] if died is not None else []
            self.roles[name].send_signal(signal.SIGTERM)
        wrong += [
            f"{name} has a traceback: {self.err(name)[-2000:]}" for name in self.roles if "Traceback" in self.err(name)
        ]
        return wrong + self._wrong_items()

    def _wrong_items(self) -> list[str]:
        lines = self.lines()
        seen = sorted(int(line.split()[0]) for line in lines)
        forged = [line for line in lines if int(line.split()[0]) ** 2 != int(line.split()[1])]
        wrong = [f"forged results: {forged[:5]}"] if forged else []
        if seen != list(range(len(lines))):
            wrong.append(f"lost or doubled items: {len(lines)} results, {len(set(seen))} numbers, up to {max(seen)}")
        return wrong
