"""What an item costs the machine of the distributor with very many workers: pure, without sockets, threads or clock.

The machines of all roles are the real ones; between them is a queue in the order of a virtual time. Counted is the time
inside of the distributor's machine alone: what workers say beside their items, such as a full report a second while
they are busy, is in it. All workers come, then there are items, which take 250 to 500 ms; then each gets one
more, and all connections break while these run.

The collector of cycles is off meanwhile, since it would look at the workers, too, which are in this process. That the
machine's invariants hold is not looked at here, since that takes a look at each worker at each event.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from zmqpipeline import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.worker import WorkerMachine

WORKERS = (1_000, 10_000, 100_000)
BASE_WORKERS = 10
EACH = 2
"""Items for each worker, before the last."""

FEWEST = 1_000
"""Ten workers have as many items to do as so many."""

JOIN_SECONDS, ITEM_SECONDS = 2.0, 0.25
"""Virtual seconds in which all workers come, and that an item takes at least."""

WAY_SECONDS = 0.001
"""How long a message is on its way."""

COMMIT_SECONDS = 0.01
"""For so long the collector's thread gathers what it acknowledges."""

ITEM, TASK = bytes(20), "item"
NOT_COUNTED = (type, ModuleType, FunctionType, BuiltinFunctionType)


class Place:
    """One machine, whom its hops lead to, and when it wants to be woken."""

    __slots__ = ("hops", "link", "machine", "ticks_at")

    def __init__(self, machine: Machine, link: bytes) -> None:
        self.machine, self.link = machine, link
        """The latter is the name of its connections at the other end."""
        self.hops: dict[str, Place] = {}
        self.ticks_at = float("inf")


class Crowd:
    """One run: a distributor, a collector and so many workers, and what is on its way between them."""

    def __init__(
        self, workers: int, *, seconds: float = ITEM_SECONDS, item: bytes = ITEM, rate: float | None = None
    ) -> None:
        """Nothing has happened yet. An item takes so many seconds at least, and less than twice as many."""
        rng, options, spec = random.Random(1), Options(), TaskSpec(TASK, rate=rate)
        self.machine = DistributorMachine(
            "machines", [spec], incarnation=b"distributor", run="run", options=options, rng=rng
        )
        self.distributor = Place(self.machine, b"distributor")
        self.collector = Place(CollectorMachine("machines", incarnation=b"collector", options=options), b"collector")
        self.distributor.hops["acks"] = self.collector
        self.workers = [self._worker(number, options) for number in range(workers)]
        self.links = {one.link: one for one in (self.distributor, *self.workers)}
        """Who is behind a connection."""
        self.seconds = self.now = 0.0
        """Real ones inside of the distributor's machine, and virtual ones of the run."""
        self.collected = 0
        self._item, self._item_seconds = item, seconds
        self._left, self._is_last = 0, False
        """How many items the source may yield now, and whether these are all."""
        self._asked: list[c.Produce] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._rng = rng
        self._done: list[e.Event] = []
        self._after(0.0, self.distributor, e.Connected("acks"))
        for one in self.workers:
            self._come(one, rng.random() * JOIN_SECONDS)

    def _worker(self, number: int, options: Options) -> Place:
        name = number.to_bytes(8, "big")
        place = Place(WorkerMachine(TASK, slots=1, incarnation=name, host="bare", options=options), name)
        place.hops.update(workers=self.distributor, results=self.collector)
        return place

    def _come(self, place: Place, seconds: float) -> None:
        for hop in place.hops:
            self._after(seconds, place, e.Connected(hop))

    @property
    def yields(self) -> bool:
        """Whether the source has something left that it may yield."""
        return bool(self._left)

    def give(self, items: int, *, last: bool = False) -> None:
        """The source may yield so many more."""
        self._left, self._is_last = self._left + items, last
        asked, self._asked = self._asked, []
        for command in asked:
            self._produce(command)

    def storm(self) -> None:
        """All connections of workers break, and all come again, each in its own time."""
        for one in self.workers:
            seconds = self._rng.random()
            for hop, place in one.hops.items():
                self._after(seconds, place, e.PeerLost((hop, one.link)))
                self._after(seconds, one, e.Disconnected(hop))
            one.link += b"."
            self.links[one.link] = one
            self._come(one, seconds + self._rng.random() * JOIN_SECONDS)

    def until(self, is_so: Callable[[], bool]) -> float:
        """Let it go on; the seconds inside of the distributor's machine meanwhile."""
        before = self.seconds
        while not is_so():
            if not self._queue:
                raise SystemExit("The simulated run stands still.")
            self.now, _, act = heapq.heappop(self._queue)
            act()
        return self.seconds - before

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), act))

    def _after(self, seconds: float, place: Place, event: e.Event) -> None:
        self._at(self.now + seconds, lambda: self._tell(place, event))

    def _tell(self, place: Place, event: e.Event) -> None:
        began = time.thread_time()
        found = place.machine.handle(event, self.now)
        deadline = place.machine.next_deadline()
        if place is self.distributor:
            self.seconds += time.thread_time() - began
        for command in found:
            self._do(place, command)
        if deadline is not None and deadline < place.ticks_at:
            at = place.ticks_at = max(deadline, self.now)
            self._at(at, lambda: self._tick(place, at))

    def _tick(self, place: Place, at: float) -> None:
        # one that was set anew since does not count
        if at == place.ticks_at:
            place.ticks_at = float("inf")
            self._tell(place, e.Tick())

    def _do(self, place: Place, command: c.Command) -> None:
        match command:
            case c.Send((hop, link), envelope):
                if link:
                    self._after(WAY_SECONDS, self.links[link], e.Received((hop, b""), envelope))
                else:
                    self._after(WAY_SECONDS, place.hops[hop], e.Received((hop, place.link), envelope))
            case c.Produce():
                self._produce(command)
            case c.Execute(_, attempt, _, numbers, payloads):
                seconds = len(numbers) * self._item_seconds * (1 + self._rng.random())
                self._after(seconds, place, e.Executed(attempt, numbers, payloads, [], seconds))
            case c.TakeBack():
                self._after(0.0, place, e.TakenBack([]))
            case c.Collect(task, attempt, spans):
                self.collected += size(spans)
                self._done.append(e.Collected(task, spans, [], b"", attempt))
                if len(self._done) == 1:
                    self._at(self.now + COMMIT_SECONDS, self._commit)
            case c.CallFinished():
                self._after(0.0, place, e.FinishedCalled(None))
            case c.Ended(status, reason) if status:
                raise SystemExit(f"A simulated role ended with status {status}: {reason}")

    def _produce(self, command: c.Produce) -> None:
        if not self._left:
            self._asked.append(command)
            return
        count = min(command.count, self._left)
        self._left -= count
        state = "exhausted" if self._is_last and not self._left else "ready"
        self._after(0.0, self.distributor, e.Produced(command.task, state, [self._item] * count))

    def _commit(self) -> None:
        done, self._done = self._done, []
        for event in done:
            self._tell(self.collector, event)


def size_of(machine: Machine) -> int:
    """The bytes of all objects that can be reached from this machine, modules, classes and functions aside."""
    seen: set[int] = set()
    total, left = 0, [machine]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, NOT_COUNTED):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        left += gc.get_referents(one)
    return total


@dataclass(frozen=True)
class Found:
    """What one run measured: microseconds inside of the machine, and bytes."""

    item: float
    """For each item."""
    come: float
    """For each worker, until it was in."""
    again: float
    """For each worker: an item more, meanwhile a broken connection, and another one."""
    memory: float
    """For each worker, when all are in and nothing was handed out."""


def measure_round(workers: int, each: int) -> Found:
    """One run."""
    crowd, items = Crowd(workers), each * max(workers, FEWEST)
    gc.collect()
    gc.disable()
    try:
        come = crowd.until(lambda: crowd.now > JOIN_SECONDS + 1)
        memory = size_of(crowd.machine)
        crowd.give(items)
        item = crowd.until(lambda: crowd.machine.tasks[TASK].ledger.done == items)
        crowd.give(workers, last=True)
        again = crowd.until(lambda: not crowd.yields)
        crowd.storm()
        again += crowd.until(lambda: crowd.machine.phase != "running")
    finally:
        gc.enable()
    counts = crowd.machine.counts()[0]
    if counts.collected != items + workers or counts.failed:
        raise SystemExit(f"{counts.collected} of {items + workers} items were collected, {counts.failed} failed.")
    return Found(1e6 * item / items, 1e6 * come / workers, 1e6 * again / workers, memory / workers)


def measure(workers: Sequence[int], each: int, rounds: int) -> list[Row]:
    """All rounds, in turn."""
    found: dict[int, list[Found]] = defaultdict(list)
    for _, number in itertools.product(range(rounds), (BASE_WORKERS, *workers)):
        found[number].append(measure_round(number, each))
    rows = []
    for number in workers:
        for what, unit, of in KINDS:
            few, many = ([of(one) for one in found[side]] for side in (BASE_WORKERS, number))
            rows.append(row(f"{named(number, 'worker')}, {what}", unit, few, many))
    return rows


KINDS: tuple[tuple[str, str, Callable[[Found], float]], ...] = (
    ("an item", "us", lambda found: found.item),
    ("a worker that comes", "us", lambda found: found.come),
    ("a worker that is lost and comes again", "us", lambda found: found.again),
    ("memory a worker", "kB", lambda found: found.memory / 1000),
)


@click.command("machines")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=WORKERS, show_default=True)
@click.option("--each", type=click.IntRange(1), default=EACH, show_default=True, help="Items for each worker.")
@standard
def command(workers: Sequence[int], each: int, rounds: int, as_json: bool) -> None:
    """The cost of an item in the distributor's machine, simulated, with up to 100,000 workers."""
    show("machines", measure(workers, each, rounds), as_json=as_json, sides=("10 workers", "so many"))
