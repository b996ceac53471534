"""The yardstick of a pipeline: ventilator - worker - sink over PUSH and PULL, in plain pyzmq and msgpack.

It is as thin as such a thing can be: no ledger, no acks, nothing is noticed, nothing is sent again, and batches are of
a size set by hand. The items of a batch are packed either one by one, with `msgpack.packb`, as whoever is to lose none
of them must have them, or the whole batch at once, which is the least that it can cost. Start a part with
``python -m examples.benchmarks.raw ventilator|worker|sink PLAN``; the service by ``echo broker|worker FOLDER``.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack
import zmq

from examples.benchmarks import meeting, work

BIG = 64 * 1024
"""Messages of so many bytes are sent and received without a copy; to copy smaller ones is cheaper."""

Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class Plan:
    """What to send, where. `batch` items share a message; `workers` processes take them on `threads` threads each."""

    kind: str
    items: int
    work: str
    results: str
    done: str
    """Where the ventilator hears that all items have come back; if it sends one at a time, of each."""
    meeting: str
    out: str
    batch: int = 1
    workers: int = 1
    threads: int = 1
    size: int = 0
    seconds: float = 0.0
    loops: int = 0
    one_at_a_time: bool = False
    packing: str = "item"
    """How batches are packed: item by item, or as a whole ("batch")."""

    def text(self) -> str:
        """As an argument of a command."""
        return json.dumps(asdict(self))

    @property
    def copies(self) -> bool:
        """Whether its messages are small enough to be copied."""
        return self.batch * self.size < BIG


def _open(context: zmq.Context[Socket], kind: int) -> Socket:
    socket = context.socket(kind)
    socket.linger = 30_000
    return socket


def _wait_for_peers(socket: Socket, count: int) -> Callable[[], None]:
    """Count handshakes from here on; what is returned waits for so many: PUSH deals to those who are there."""
    monitor = socket.get_monitor_socket(int(zmq.EVENT_HANDSHAKE_SUCCEEDED))

    def wait() -> None:
        for _ in range(count):
            monitor.recv_multipart()
        socket.disable_monitor()
        monitor.close()

    return wait


Pack = Callable[[list[Any]], bytes]
Unpack = Callable[[Any], list[Any]]


def codec(plan: Plan) -> tuple[Pack, Unpack]:
    """How a batch is packed and unpacked."""
    pack, unpack, pack_one = msgpack.Packer().pack, msgpack.unpackb, msgpack.packb
    if plan.batch == 1:
        return lambda batch: pack(batch[0]), lambda frame: [unpack(frame)]
    if plan.packing == "batch":
        return pack, unpack
    return (
        lambda batch: pack([pack_one(one) for one in batch]),
        lambda frame: [unpack(one) for one in unpack(frame)],
    )


def ventilator(plan: Plan) -> None:
    """Send all items, in batches or one at a time, once every worker is there."""
    context: zmq.Context[Socket] = zmq.Context()
    push, done = _open(context, zmq.PUSH), _open(context, zmq.PULL)
    wait = _wait_for_peers(push, plan.workers * plan.threads)
    done.bind(plan.done)
    push.bind(plan.work)
    wait()
    meeting.attend(plan.meeting)
    items = work.items(plan.kind, plan.items, size=plan.size, seconds=plan.seconds, loops=plan.loops)
    if plan.one_at_a_time:
        _send_each(plan, push, done, items)
    else:
        (pack, _), copy = codec(plan), plan.copies
        while batch := list(itertools.islice(items, plan.batch)):
            push.send(pack(batch), 0, copy)
    # libzmq drops what a full receiver has not read yet when the sender closes, whatever the sender's linger
    done.recv()
    for one in (push, done):
        one.close()
    context.term()


def _send_each(plan: Plan, push: Socket, done: Socket, items: Any) -> None:
    """Send an item when the one before has been collected; write how long each took."""
    pack, times = msgpack.Packer().pack, []
    for item in items:
        times.append(time.perf_counter())
        push.send(pack(item))
        done.recv()
    times.append(time.perf_counter())
    Path(f"{plan.out}.times").write_text(json.dumps([after - before for before, after in itertools.pairwise(times)]))


def worker(plan: Plan) -> None:
    """Execute what comes, on so many threads, until killed."""
    context: zmq.Context[Socket] = zmq.Context()
    others = [threading.Thread(target=_serve, args=(plan, context), daemon=True) for _ in range(plan.threads - 1)]
    for one in others:
        one.start()
    _serve(plan, context)


def _serve(plan: Plan, context: zmq.Context[Socket]) -> None:
    pull, push = _open(context, zmq.PULL), _open(context, zmq.PUSH)
    push.connect(plan.results)
    pull.connect(plan.work)
    execute, (pack, unpack), copy = work.WORK[plan.kind], codec(plan), plan.copies
    while True:
        batch = unpack(pull.recv() if copy else pull.recv(copy=False).buffer)
        push.send(pack([execute(one) for one in batch]), 0, copy)


def sink(plan: Plan) -> None:
    """Collect all items, and write when they came."""
    context: zmq.Context[Socket] = zmq.Context()
    pull, done = _open(context, zmq.PULL), _open(context, zmq.PUSH)
    wait = _wait_for_peers(pull, plan.workers * plan.threads)
    pull.bind(plan.results)
    done.connect(plan.done)
    wait()
    meeting.attend(plan.meeting)
    tally, (_, unpack), copy = work.Tally(), codec(plan), plan.copies
    expected = work.blob(plan.size) if plan.kind == "bytes" else None
    while tally.count < plan.items:
        results = unpack(pull.recv() if copy else pull.recv(copy=False).buffer)
        if not tally.count:
            tally.first = time.monotonic()
        tally.count += len(results)
        tally.total += sum([one["double"] for one in results])
        if expected is not None and any(one["data"] != expected for one in results):
            raise SystemExit("The bytes of an item are not those that were sent.")
        if plan.one_at_a_time:
            done.send(b"")
    tally.write(plan.items, plan.out)
    done.send(b"")
    for one in (pull, done):
        one.close()
    context.term()


# a service -----------------------------------------------------------------------------------------------------------

READY = b"ready"


def broker(folder: str) -> None:
    """Route requests to the one echo_worker, and its replies back, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    front.bind(f"ipc://{folder}/front")
    back.bind(f"ipc://{folder}/back")
    echo_worker = back.recv_multipart()[0]
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            if socket is front:
                back.send_multipart([echo_worker, *front.recv_multipart()])
            else:
                front.send_multipart(back.recv_multipart()[1:])


def echo_worker(folder: str) -> None:
    """Answer each request with itself, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"ipc://{folder}/back")
    socket.send(READY)
    while True:
        client, payload = socket.recv_multipart()
        data = msgpack.unpackb(payload)
        socket.send_multipart([client, msgpack.packb(data)])


class EchoClient:
    """Asks one request after the other, or a window of them at a time."""

    def __init__(self, folder: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(f"ipc://{folder}/front")

    def ask(self, data: dict[str, Any]) -> Any:
        """The reply to one request."""
        self._socket.send(msgpack.packb(data))
        return msgpack.unpackb(self._socket.recv())

    def ask_many(self, requests: list[dict[str, Any]], window: int) -> list[Any]:
        """The replies to all, with at most `window` of them under way; one echo_worker answers in order."""
        socket, replies = self._socket, []
        waiting = iter(requests)
        for data in itertools.islice(waiting, window):
            socket.send(msgpack.packb(data))
        for data in waiting:
            replies.append(msgpack.unpackb(socket.recv()))
            socket.send(msgpack.packb(data))
        while len(replies) < len(requests):
            replies.append(msgpack.unpackb(socket.recv()))
        return replies

    def close(self) -> None:
        """Close."""
        self._socket.close(0)
        self._context.term()


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        {"broker": broker, "worker": echo_worker}[sys.argv[2]](sys.argv[3])
    else:
        {"ventilator": ventilator, "worker": worker, "sink": sink}[sys.argv[1]](Plan(**json.loads(sys.argv[2])))
