"""The standard streams of a worker that somebody else starts for `run`, somewhere else, without a pipe between them.

An engine that has a cluster execute a function or a command (Dask, a batch system) is not connected to it. There,
`run_far` starts the worker behind pipes of its own and connects to `run`, which has one socket for all of them
(`FarStreams`). What goes over it is what goes through the pipes of a launch command (`runtime.launched`): standard
input, which is the lifeline and begins with the greeting, one way; standard error and standard output the other.

The law:

* Each worker has a token, which the engine hands over with the command. It lets in once: who comes second with it is
  told to leave, and whoever had it is lost, since the engine has started it again by itself.
* Each side says something every BEAT seconds. Who has heard nothing for PATIENCE seconds, or whose connection has been
  broken for RECONNECT seconds, takes the other for dead: `run_far` then ends its worker, at once.
* What the workers write is written here by a thread of its own: a terminal that is stopped stops neither the signs of
  life nor the drain. When MAX_WAITING parts of it wait, nothing more is read, and the workers' pipes fill up.
* Over tcp all is encrypted (CURVE) to a key that `run` has made for this run; its public half goes with the token. So
  what the greeting holds is read by nobody on the way, and stands on no command line and in no log.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.bind import bindable, connectable, is_near
from zmqpipeline.runtime.launched import write_all

log = logging.getLogger("zmqpipeline.run")

BEAT = 2.0
"""Seconds between two signs of life."""

PATIENCE = 20.0
"""Seconds without one after which the other side is taken for dead."""

RECONNECT = 3.0
"""Seconds that a broken connection has to come back."""

FIRST = 30.0
"""Seconds within which the first connection must be there."""

LAST = 2.0
"""Seconds that the last words of a worker have to arrive."""

SLICE = 0.5
"""Seconds between two looks at the clock."""

MAX_READ = 65536
"""Bytes."""

READ_PAUSE = 0.1
"""Seconds between two looks whether it is written."""

MAX_WAITING = 1000
"""So many parts of what workers have written may wait to be written here."""

HELLO, ALIVE, ERR, OUT, END, IN, CUT, KILL = b"hello", b"alive", b"err", b"out", b"end", b"in", b"cut", b"kill"
"""What a message is: the first four and the fifth from the worker, the last three to it, `ALIVE` both ways."""

LOST = -int(signal.SIGKILL)
"""The status of a worker of which nothing is heard any more."""


@dataclass(frozen=True)
class FarCommand:
    """What `run_far` is to start, and where it is to connect to."""

    arguments: Sequence[str]
    """Behind the interpreter."""
    address: str
    token: bytes = field(repr=False)
    key: bytes
    """The public key of `run`; empty without encryption."""
    python: str | None = None
    """The interpreter; None: the one that calls `run_far`."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Added to what the environment is there."""
    folder: str | None = None
    """The working folder; None: that of whoever calls `run_far`."""


class FarEnd:
    """What `FarStreams` calls for one worker, on its own thread; see `runtime.far_child`."""

    def greeting(self) -> bytes:
        """The first bytes of standard input: it has come."""
        raise NotImplementedError

    def heard(self, stream: bytes, data: bytes) -> None:
        """It has written this to ERR or OUT."""
        raise NotImplementedError

    def ended(self, status: int, *, is_over: bool = False) -> None:
        """It has ended with this status, and `run_far` returns (`is_over`), or it is lost."""
        raise NotImplementedError


@dataclass
class _Peer:
    end: FarEnd
    route: bytes | None = None
    """By which it is reached; None before it has come."""
    heard_at: float = 0.0


class FarStreams:
    """The side of `run`: one socket, and a thread that serves it. Methods may be called from any thread."""

    def __init__(self, address: EndpointAddress) -> None:
        """Bind to this address. Raises OSError if that cannot be."""
        self.address = address
        self.key = b""
        self._context = zmq.Context()
        self._guard = threading.Lock()
        self._peers: dict[bytes, _Peer] = {}
        self._out: list[tuple[bytes, bytes, bytes]] = []
        """What is to be sent: by which route, kind and data. The last word may be to one that is forgotten since."""
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.maxmsgsize = 2 * MAX_READ
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._is_over = False
        self._texts: queue.Queue[tuple[int, bytes] | None] = queue.Queue()
        try:
            if address.protocol == "tcp" and not zmq.has("curve") and not is_near(address):
                raise zmq.ZMQError(errno.EPROTONOSUPPORT, "libzmq here has no CURVE, and others could read along")
            if address.protocol == "tcp" and zmq.has("curve"):
                self.key, secret = zmq.curve_keypair()
                self._socket.curve_server, self._socket.curve_secretkey = True, secret
            self._socket.bind(bindable(address))
        except zmq.ZMQError as error:
            self._close()
            raise OSError(error.errno, error.strerror or str(error)) from error
        self._writer = threading.Thread(target=self._write_all, name="far output", daemon=True)
        self._thread = threading.Thread(target=self._run, name="far streams", daemon=True)
        self._writer.start()
        self._thread.start()

    def expect(self, token: bytes, end: FarEnd) -> None:
        """Let in who comes with this token."""
        with self._guard:
            self._peers[token] = _Peer(end)

    def forget(self, token: bytes) -> None:
        """Let in nobody with this token any more."""
        with self._guard:
            self._peers.pop(token, None)

    def send(self, token: bytes, kind: bytes, data: bytes = b"") -> bool:
        """Send IN, CUT or KILL; False if it has not come, or is gone."""
        with self._guard:
            peer = self._peers.get(token)
            if peer is None or peer.route is None:
                return False
            self._out.append((peer.route, kind, data))
        with suppress(BlockingIOError):
            os.write(self._woken, b"x")
        return True

    def write(self, number: int, data: bytes) -> None:
        """Have this written to one of our files, in order."""
        if data:
            self._texts.put((number, data))

    def _write_all(self) -> None:
        while (part := self._texts.get()) is not None:
            write_all(*part)

    def close(self) -> None:
        """Tell whoever is there to end, and close."""
        with self._guard:
            if self._is_over:
                return
            self._out += [(peer.route, KILL, b"") for peer in self._peers.values() if peer.route is not None]
            self._is_over = True
        with suppress(BlockingIOError):
            os.write(self._woken, b"x")
        self._thread.join()
        self._texts.put(None)
        self._writer.join(LAST)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        beat_at = time.monotonic()
        while not self._is_over:
            poller.poll(int(SLICE * 1000))
            with suppress(BlockingIOError):
                os.read(self._wake, MAX_READ)
            self._receive()
            self._send()
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + BEAT
                self._beat(now)
        self._send()
        self._socket.linger = int(LAST * 1000)
        self._close()

    def _receive(self) -> None:
        for _ in range(1000):
            if self._texts.qsize() > MAX_WAITING:
                # who is not listened to is not silent
                self._hear_all()
                time.sleep(READ_PAUSE)
                return
            try:
                route, token, kind, data = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue  # it is none of ours
            self._take(route, token, kind, data)

    def _take(self, route: bytes, token: bytes, kind: bytes, data: bytes) -> None:
        with self._guard:
            peer = self._peers.get(token)
        if peer is None or (peer.route is not None and peer.route != route):
            self._say(route, KILL, b"")
            if peer is not None and kind == HELLO:
                # the engine has started it again by itself, elsewhere: the one before is gone
                self._end(token, peer, LOST)
            return
        peer.heard_at = time.monotonic()
        if kind == HELLO and peer.route is None:
            peer.route = route
            self._say(route, IN, peer.end.greeting())
        elif kind in (ERR, OUT):
            peer.end.heard(kind, data)
        elif kind == END:
            self._end(token, peer, int(data), is_over=True)

    def _hear_all(self) -> None:
        with self._guard:
            for peer in self._peers.values():
                peer.heard_at = time.monotonic()

    def _end(self, token: bytes, peer: _Peer, status: int, *, is_over: bool = False) -> None:
        self.forget(token)
        peer.end.ended(status, is_over=is_over)

    def _send(self) -> None:
        with self._guard:
            out, self._out = self._out, []
        for one in out:
            self._say(*one)

    def _say(self, route: bytes, kind: bytes, data: bytes) -> None:
        with suppress(zmq.Again):
            self._socket.send_multipart([route, kind, data], zmq.NOBLOCK)

    def _beat(self, now: float) -> None:
        with self._guard:
            there = [(token, peer) for token, peer in self._peers.items() if peer.route is not None]
        for token, peer in there:
            assert peer.route is not None
            if now - peer.heard_at > PATIENCE:
                log.warning("Nothing was heard for %.0f s of a worker elsewhere: it is taken for dead.", PATIENCE)
                self._say(peer.route, KILL, b"")
                self._end(token, peer, LOST)
            else:
                self._say(peer.route, ALIVE, b"")

    def _close(self) -> None:
        self._socket.close()
        self._context.term()
        os.close(self._wake)
        os.close(self._woken)


def run_far(command: FarCommand, is_wanted: Callable[[], bool] = lambda: True) -> tuple[int | None, str]:
    """Start the worker here, see it through, and return its exit status; None, and why, if it could not be.

    `is_wanted` is asked now and then whether it may go on. Raises nothing: whoever executes this may log what it was
    called with.
    """
    address = EndpointAddress(command.address)
    if address.protocol == "ipc" and not Path(address.path).parent.is_dir():
        return None, f"the address {address} is in a folder of the machine of `run`, which this one does not see"
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.DEALER))
        socket.linger = int(LAST * 1000)
        if command.key:
            socket.curve_serverkey = command.key
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        monitor = stack.enter_context(socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED))
        socket.connect(connectable(address))
        link = _Link(socket, monitor, command.token)
        link.say(HELLO)
        first = link.first_input(is_wanted)
        if first is None:
            socket.linger = 0
            if not link.has_met:
                return None, f"nobody answers at {address} within {FIRST:.0f} s from this machine"
            return LOST, ""
        try:
            return _see_through(command, link, first, is_wanted), ""
        except OSError as error:
            where = f" in {command.folder}" if command.folder else ""
            return None, f"{command.python or sys.executable} cannot be started{where}: {error}"


class _Link:
    """The connection to `run`, as the far side sees it."""

    def __init__(self, socket: Any, monitor: Any, token: bytes) -> None:
        self.socket, self.monitor, self.token = socket, monitor, token
        self.has_met = False
        """There was a connection."""
        self.is_killed = False
        self.is_cut = False
        self.heard_at = time.monotonic()
        self.broken_at: float | None = None
        self.beat_at = 0.0
        self.inputs: list[bytes] = []

    def say(self, kind: bytes, data: bytes = b"") -> None:
        """Send it, unless too much waits already."""
        with suppress(zmq.Again):
            self.socket.send_multipart([self.token, kind, data], zmq.NOBLOCK)

    @property
    def has_room(self) -> bool:
        """Whether what is said is sent."""
        return bool(self.socket.poll(0, zmq.POLLOUT))

    def take(self) -> None:
        """Take what has come."""
        with suppress(zmq.Again):
            while True:
                event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
                is_up = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                self.has_met = self.has_met or is_up
                self.broken_at = None if is_up else self.broken_at or time.monotonic()
        with suppress(zmq.Again):
            while True:
                kind, data = self.socket.recv_multipart(zmq.NOBLOCK)
                self.heard_at = time.monotonic()
                if kind == IN:
                    self.inputs.append(data)
                self.is_killed = self.is_killed or kind == KILL
                self.is_cut = self.is_cut or kind == CUT

    def is_dead(self) -> bool:
        """Whether `run` is gone, or wants this worker to be."""
        now = time.monotonic()
        if now >= self.beat_at:
            self.beat_at = now + BEAT
            self.say(ALIVE)
        is_broken = self.has_met and self.broken_at is not None and now - self.broken_at > RECONNECT
        return self.is_killed or is_broken or now - self.heard_at > (PATIENCE if self.has_met else FIRST)

    def first_input(self, is_wanted: Callable[[], bool]) -> bytes | None:
        """The greeting; None if it does not come."""
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        while not self.inputs:
            poller.poll(int(SLICE * 1000))
            self.take()
            if not self.inputs and (self.is_dead() or not is_wanted()):
                return None
        return self.inputs.pop(0)


def _see_through(command: FarCommand, link: _Link, first: bytes, is_wanted: Callable[[], bool]) -> int:
    """Start the worker and pass on what goes to it and comes from it, until it has ended."""
    process = subprocess.Popen(
        [command.python or sys.executable, *command.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **command.environ},
        cwd=command.folder,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        streams = {process.stderr.fileno(): ERR, process.stdout.fileno(): OUT}
        for number in (*streams, process.stdin.fileno()):
            os.set_blocking(number, False)
        _give(process, first)
        poller = zmq.Poller()
        poller.register(link.socket, zmq.POLLIN)
        for number in streams:
            poller.register(number, zmq.POLLIN)
        while process.poll() is None:
            poller.poll(int(SLICE * 1000))
            for number in [number for number in streams if not _pass_on(number, streams[number], link)]:
                poller.unregister(number)
                del streams[number]
            link.take()
            for data in link.inputs:
                _give(process, data)
            link.inputs.clear()
            if link.is_cut and not process.stdin.closed:
                process.stdin.close()
            if link.is_dead() or not is_wanted():
                _kill(process)
        for number, kind in streams.items():
            _pass_on(number, kind, link)
    link.say(END, b"%d" % process.returncode)
    return process.returncode


def _give(process: subprocess.Popen[bytes], data: bytes) -> None:
    """To its standard input: at once, or not at all."""
    with suppress(OSError, ValueError):
        assert process.stdin is not None
        os.write(process.stdin.fileno(), data)


def _pass_on(number: int, kind: bytes, link: _Link) -> bool:
    """What there is of a stream; False at its end."""
    with suppress(BlockingIOError):
        for _ in range(100):
            if not link.has_room:
                break
            data = os.read(number, MAX_READ)
            if not data:
                return False
            link.say(kind, data)
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The worker, and what it has started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
