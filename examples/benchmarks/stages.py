"""Where the time of one trivial item goes: each stage of its way by itself, in one process, without any socket.

Beside each stage stands what the same costs in plain Python and msgpack; bookkeeping has no such thing. What a real run
costs beyond the sum is the way between threads and processes: system calls, wake-ups, and waiting for the interpreter.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgpack

from examples.benchmarks import work
from examples.benchmarks.figures import Row, row, show, standard
from zmqpipeline import Pipeline
from zmqpipeline.protocol import codec, commands, events, messages
from zmqpipeline.protocol.data.collected import CollectedItems
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.roles.collector import CollectorRunner
from zmqpipeline.roles.distributor import DistributorRunner
from zmqpipeline.roles.worker import WorkerRunner
from zmqpipeline.runtime.threads.collecting import Collection, CollectorThread
from zmqpipeline.runtime.threads.execution import Execution, Piece
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.source import Producer, steps
from zmqpipeline.runtime.threads.ticker import INTERVAL
from zmqpipeline.runtime.threads.values import open_all
from zmqpipeline.serialization.packed import Packed

BATCH = 500
"""So many items go through a stage at once, as they do in a run."""

SECONDS = 0.2
"""How long each stage is measured in a round."""

Stage = Callable[[], object]
"""Brings one batch through; called again and again."""


def stages() -> dict[str, tuple[Stage, Stage | None]]:
    """Each stage by name, and what it is in plain Python and msgpack, if it is anything there."""
    app, numbers = Pipeline("benchmark-stages"), itertools.count()
    app.task("C")(lambda: ({"n": n} for n in numbers))
    app.add_worker("C", work.double)
    tally = work.Tally()
    app.collector(lambda data: tally.add(data["double"]))
    items = [msgpack.packb(one) for one in work.items("trivial", BATCH)]
    results = [msgpack.packb(work.double(one)) for one in work.items("trivial", BATCH)]
    return {
        "distributor: the source, packed": (_source(app), _plain_source()),
        "distributor: the ledger": (_ledger(items), None),
        "worker: unpack, execute, pack": (_execution(app, items), lambda: [_plain(one) for one in items]),
        "worker: its threads around that": (_pool(items), None),
        "worker: the machine": (_worker_machine(items, results), None),
        "collector: unpack, call": (_calls(app, results), lambda: _plain_calls(results)),
        "collector: the machine": (_progress(), None),
        "all: a message to frames": (_encode(results), lambda: msgpack.packb(results)),
        "all: frames to a message": (_decode(results), _plain_decode(results)),
    }


def _to_the_end(part: Any) -> None:
    """Call the parts that are left, one after the other."""
    while part is not None:
        part = part()


def _source(app: Pipeline) -> Stage:
    runner = DistributorRunner.of(app.compile("distributor"))
    runner.prepare()
    (source,) = runner.calls.sources
    said: list[Any] = []
    producer = Producer("C", steps(source.start({})), said.append)
    command = commands.Produce("C", BATCH, "", "", 0, b"")

    def produce() -> None:
        said.clear()
        _to_the_end(producer._serve(command, command.count, INTERVAL))
        assert sum(len(one.payloads) for one in said) == BATCH

    return produce


def _plain_source() -> Stage:
    items = work.items("trivial", 1 << 60)
    pack = msgpack.Packer().pack
    return lambda: [pack(one) for one in itertools.islice(items, BATCH)]


def _ledger(items: list[bytes]) -> Stage:
    ledger = Ledger(TaskSpec("C"))

    def lease_and_close() -> None:
        start = ledger.next_number
        ledger.add(items)
        batch = ledger.take(b"w", BATCH, 1, 1 << 20, 1)
        assert batch is not None
        released = ledger.acknowledge((start, start + BATCH), ())
        assert released == {b"w": [start, start + BATCH]}
        assert not ledger.unfinished

    return lease_and_close


def _plain(item: bytes) -> bytes:
    packed: bytes = msgpack.packb(work.double(msgpack.unpackb(item)))
    return packed


def _execution(app: Pipeline, items: list[bytes]) -> Stage:
    execution = WorkerRunner.of(app.compile("worker", "C")).execution()
    call, pack = execution.call, execution.packer()
    packed = Packed(len(items), b"".join(items))

    def execute() -> list[bytes]:
        return [pack(call(one)) for one in open_all(packed) or ()]

    assert [msgpack.unpackb(one) for one in execute()] == [work.double(msgpack.unpackb(one)) for one in items]
    return execute


def _pool(items: list[bytes]) -> Stage:
    """A pool whose function does nothing to items that are opened already, on this thread."""
    execution = Execution(bytes, lambda: bytes)
    said: list[Any] = []
    pool = Pool(1, execution, said.append)
    slot = pool._slots[0]
    pool._ticker.close(0.0)

    def execute_all() -> None:
        said.clear()
        pool._waiting.append(Piece(slot.job, execution, range(BATCH), (), list(items)))
        slot.mark = slot.last = time.perf_counter()
        slot.end = float("inf")
        assert pool._take_share(slot)
        while slot.todo:
            pool._execute(slot)
        with slot.lock:
            pool._hand_over(slot)
        assert sum(len(one.numbers) for one in said) == BATCH

    return execute_all


def _worker_machine(items: list[bytes], results: list[bytes]) -> Stage:
    machine = WorkerMachine("C", slots=1, incarnation=b"worker")
    machine.run, machine.phase, machine._connected = "run", "working", {"results"}
    starts = itertools.count(0, BATCH)

    def hold_and_release() -> None:
        start = next(starts)
        machine._out = []
        machine._work(messages.Work("run", "C", 1, 0.0, (start, start + BATCH), (), items), 0.0)
        machine._executed(events.Executed(1, range(start, start + BATCH), results, [], 0.001), 0.0)
        machine._release((start, start + BATCH))
        assert not machine.snapshot().kept

    return hold_and_release


def _calls(app: Pipeline, results: list[bytes]) -> Stage:
    calls = CollectorRunner.of(app.compile("collector")).calls()
    said: list[Any] = []
    gatherer = CollectorThread(
        calls.collecting,
        calls.call_failed,
        lambda command: None,
        said.append,
        note=calls.note,
        ack_data=calls.take_ack_data,
    )
    command = commands.Collect("C", 1, (0, BATCH), Packed(len(results), b"".join(results)))

    def collect() -> None:
        said.clear()
        _to_the_end(gatherer._collect(Collection(command)))
        assert sum(size(one.spans) for one in said) == BATCH

    return collect


def _plain_calls(results: list[bytes]) -> None:
    tally = work.Tally()
    for one in results:
        tally.add(msgpack.unpackb(one)["double"])


def _progress() -> Stage:
    progress, starts = CollectedItems(), itertools.count(0, BATCH)

    def note() -> None:
        start = next(starts)
        spans = progress.new_of((start, start + BATCH), b"")
        progress.expect(spans, [])
        progress.collect(spans)
        assert len(progress.collected) == start + BATCH

    return note


def _envelope(results: list[bytes]) -> messages.Envelope:
    return messages.Envelope(b"sender", b"addressee", 7, 7, messages.Results("run", "C", 1, (0, BATCH), results))


def _encode(results: list[bytes]) -> Stage:
    encode, envelope = codec.Encoder(end_to_end=True).encode, _envelope(results)
    return lambda: encode(envelope)


def _decode(results: list[bytes]) -> Stage:
    frames = codec.Encoder(end_to_end=True).encode(_envelope(results))
    return lambda: codec.decode(frames)


def _plain_decode(results: list[bytes]) -> Stage:
    packed = msgpack.packb(results)
    return lambda: msgpack.unpackb(packed)


def micros(stage: Stage | None, seconds: float) -> float:
    """Microseconds an item: the best of many batches, since what else the machine does only adds to it."""
    if stage is None:
        return 0.0
    end, best = time.perf_counter() + seconds, float("inf")
    while (began := time.perf_counter()) < end:
        stage()
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / BATCH


def measure(rounds: int, seconds: float) -> Iterator[Row]:
    """Each stage, and the sum."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    made = stages()
    for _, (name, (stage, plain)) in itertools.product(range(rounds), made.items()):
        found[name][0].append(micros(plain, seconds))
        found[name][1].append(micros(stage, seconds))
    for name, (raw, ours) in found.items():
        yield row(name, "us", raw, ours)
    # two messages of items and results are written and read on the way; ACKs are a few bytes a batch
    yield row(
        "the sum, with two messages",
        "us",
        *(
            [
                sum(one[side][n] * (2 if name.startswith("all:") else 1) for name, one in found.items())
                for n in range(rounds)
            ]
            for side in (0, 1)
        ),
    )


@click.command("stages")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=SECONDS, show_default=True, help="A stage.")
@standard
def command(seconds: float, rounds: int, as_json: bool) -> None:
    """Microseconds that a trivial item takes in each stage of its way, beside plain Python and msgpack."""
    rows = list(measure(rounds, seconds))
    show("stages", rows, as_json=as_json, sides=("plain", "zmqpipeline"), compared="difference")
