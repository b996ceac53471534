"""The law of `run --workers MIN:MAX`, before a simulated cluster whose clock is a number."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from zmqpipeline.processes.autoscale import LOOK, MAX_PATIENCE, REST, Autoscale, Look, enough

STEP = 0.02
"""Seconds of a turn of the simulation."""

Source = Iterator[tuple[float, float]]
"""Items: when each is there at the earliest, and how many seconds it takes."""


@dataclass
class Worker:
    """One process: comes at a time, has room for an item a thread."""

    comes: float
    asked: float
    init: float = 0.0
    ends: list[float] = field(default_factory=list)
    """When its items are done."""
    leaving: bool = False
    told: bool = False


@dataclass
class World:
    """A task with a source, and an engine that gives a worker `start(number)` seconds after it is asked (None: never).

    `init` is what the init functions take, before a worker's first item.
    """

    source: Source
    least: int = 1
    most: int = 8
    total: int | None = None
    start: Callable[[int], float | None] = lambda number: 0.4
    init: float = 0.0
    threads: int = 1
    now: float = 0.0
    law: Autoscale = field(init=False)
    workers: list[Worker] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    asked: int = 0
    done: int = 0
    sent: int = 0
    exhausted: bool = False
    seen: list[tuple[float, int]] = field(default_factory=list)
    """The desired numbers, when they changed."""
    worked: float = 0.0
    """Seconds for which workers were there."""

    def __post_init__(self) -> None:
        self.law = Autoscale(self.least, self.most)
        self.next = next(self.source, None)
        self.follow()

    def follow(self) -> None:
        """Have as many workers as are desired."""
        staying = [one for one in self.workers if not one.leaving]
        for _ in range(self.law.desired - len(staying)):
            takes = self.start(self.asked)
            self.asked += 1
            self.workers.append(Worker(self.now + takes if takes is not None else float("inf"), self.now))
        spare = sorted(staying, key=lambda one: (one.comes <= self.now, len(one.ends)))
        for one in spare[: max(0, len(staying) - self.law.desired)]:
            assert not one.ends, "only who is idle, or has not come, is asked to leave"
            one.leaving = True
        if not self.seen or self.seen[-1][1] != self.law.desired:
            self.seen.append((self.now, self.law.desired))

    @property
    def there(self) -> list[Worker]:
        """Those that have come and stay."""
        return [one for one in self.workers if one.comes <= self.now and not one.leaving]

    def turn(self) -> None:
        """A step of time: items end, others are given to whoever has room."""
        self.now += STEP
        for one in self.workers:
            while one.ends and one.ends[0] <= self.now:
                heapq.heappop(one.ends)
                self.done += 1
        self.workers = [one for one in self.workers if not one.leaving or one.ends]
        there = self.there
        self.worked += STEP * len(there)
        for one in there:
            while len(one.ends) < self.threads and self.next is not None and self.next[0] <= self.now:
                ready = max(self.now, one.comes) + (0.0 if one.init else self.init)
                if not one.init:
                    one.init = ready + STEP / 2
                heapq.heappush(one.ends, max(self.now, one.init) + self.next[1])
                self.sent += 1
                self.next = next(self.source, None)
        self.exhausted = self.next is None

    def look(self) -> None:
        """What `run` does every half second."""
        there = self.there
        for one in there:
            if one.init and one.init <= self.now and not one.told:
                one.told = True
                self.law.started(one.init - one.asked)
        working = [one for one in there if one.ends and one.init <= self.now]
        held = sum(len(one.ends) for one in there)
        left = held if self.total is None else self.total - self.done
        is_full = bool(working) and all(len(one.ends) >= self.threads for one in there)
        self.law.look(
            Look(
                is_open=not (self.exhausted and not held),
                there=len(there),
                idle=sum(not one.ends for one in there),
                is_full=is_full,
                working=len(working),
                threads=self.threads,
                done=self.done,
                left=left,
                is_all=self.exhausted or self.total is not None,
            ),
            self.now,
        )
        self.follow()

    def run(self, until: float | None = None) -> float:
        """To the last item, or to a time; the seconds that it took."""
        began, looked = self.now, self.now
        while self.now < until if until is not None else not self.is_done:
            self.turn()
            if self.now - looked >= LOOK:
                self.look()
                looked = self.now
            assert self.now - began < 20_000, "it never ends"
        return self.now - began

    @property
    def is_done(self) -> bool:
        """Whether everything that there was is done."""
        return self.exhausted and self.done == self.sent

    def growths(self, since: float = 0.0) -> int:
        """How often more were started."""
        return sum(at >= since and now > before for (_, before), (at, now) in itertools.pairwise(self.seen))

    def changes(self, since: float = 0.0) -> int:
        """How often the desired number changed."""
        return sum(at >= since for at, _ in self.seen[1:])


def burst(number: int, seconds: float, at: float = 0.0) -> Source:
    """All at once."""
    return iter([(at, seconds)] * number)


def poisson(rate: float, seconds: float, until: float, seed: int) -> Source:
    """So many a second, at random times, each of a length that is random, too."""
    rng, at = random.Random(seed), 0.0
    while (at := at + rng.expovariate(rate)) < until:
        yield at, rng.expovariate(1 / seconds)


@pytest.mark.parametrize("total", [2000, None])
def test_a_burst_is_done_nearly_as_fast_as_by_all_from_the_start(total: int | None) -> None:
    """With a total or without; then there is one worker again, within 15 s."""
    items = itertools.chain(burst(2000, 0.2), burst(1, 0.2, at=100.0))
    world = World(items, total=total and total + 1)
    while world.done < 2000:
        world.run(world.now + 1)
    assert world.now <= 1.2 * 2000 * 0.2 / 8
    done_at = world.now
    world.run(done_at + 15)
    assert len(world.there) == 1
    world.run()
    assert world.changes(done_at) == 1


def test_a_short_run_does_not_grow() -> None:
    """What is left takes less than two starts: others would come when it is over."""
    world = World(burst(20, 0.05), total=20)
    world.run()
    assert world.seen == [(0.0, 1)]


@pytest.mark.parametrize("init", [5.0, 60.0])
def test_slow_starts_are_paid_only_for_much_work(init: float) -> None:
    """A worker that loads a model for a minute is started for what takes longer than that, and kept as long."""
    short = World(burst(100, 0.01 * init), total=100, init=init)
    short.run()
    assert short.law.desired == 1
    long = World(burst(2000, 0.1 * init), total=2000, init=init, most=16)
    took = long.run()
    assert max(number for _, number in long.seen) == 16
    assert took <= 1.35 * (2000 * 0.1 * init / 16 + init)
    assert long.law.rest >= min(init, 30)


def test_items_of_unknown_length_are_not_waited_for() -> None:
    """The first item takes ten minutes: others are given workers long before it is done."""
    world = World(burst(64, 600.0), total=64, most=64)
    took = world.run()
    assert took < 615


def test_a_long_tail_lets_the_others_go() -> None:
    """Seven are idle while one executes the last item for a minute."""
    world = World(iter([(0.0, 0.5)] * 200 + [(0.0, 60.0)]), total=201)
    while world.done < 200:
        world.run(world.now + 1)
    world.run(world.now + REST + 2)
    assert len(world.there) == 1
    assert world.there[0].ends, "the one that executes stays"
    assert world.run() < 60


@pytest.mark.parametrize("given", [0, 1, 3])
def test_a_cluster_that_gives_nothing_is_asked_once(given: int) -> None:
    """Those that it gives do the work; the others stay asked for, and nothing swings."""
    world = World(burst(2000, 0.5), total=2000, start=lambda number: 0.4 if number < given else None)
    world.run(until=60)
    assert world.changes() <= 2
    assert world.asked <= 8
    assert len(world.there) == given
    assert world.done == pytest.approx(60 / 0.5 * given, rel=0.1)


def test_a_cluster_that_gives_late_is_used() -> None:
    """Half of the workers come after two minutes: they are wanted still, and take part."""
    world = World(burst(4000, 0.5), total=4000, start=lambda number: 0.4 if number < 2 else 120.0)
    world.run(until=130)
    assert len(world.there) == 8
    took = world.run()
    assert took + 130 < 120 + (4000 * 0.5 - 2 * 120) / 8 + 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("load", [0.4, 1.5, 3.5, 6.0])
def test_a_steady_load_does_not_swing(load: float, seed: int) -> None:
    """Ten minutes of a source that is slower than the workers: few changes, fewer and fewer, and no more than it takes.

    In the second half there are hardly any.
    """
    world = World(poisson(load / 0.5, 0.5, 600.0, seed))
    world.run()
    assert world.growths() <= 20
    assert world.growths(since=300.0) <= 10
    assert world.worked / 600 <= load + 4
    # nobody is missing for long: what is done is done about when it comes
    assert world.now <= 600 + 10


def test_bursts_and_pauses() -> None:
    """A burst each two minutes: each is met by all, each pause by one, and no growth is held up by those before."""
    source = itertools.chain.from_iterable(burst(400, 0.5, at=120.0 * number) for number in range(10))
    world = World(source)
    world.run()
    assert world.law.patience <= 2
    assert world.changes() <= 10 * 5
    assert world.worked < 10 * (400 * 0.5 + 8 * (REST + 4) + 120)
    assert world.now < 9 * 120 + 1.5 * (400 * 0.5 / 8) + 5


def test_what_is_over_or_waits_has_the_least() -> None:
    """Of a task that waits for others nobody is started beyond MIN, and what was, leaves when it is over."""
    law = Autoscale(2, 8)
    for number in range(40):
        assert law.look(Look(is_open=False, there=2, idle=2), number * LOOK) == 2
    law.desired = 8
    for number in range(40, 80):
        law.look(Look(is_open=False, there=8, idle=8), number * LOOK)
    assert law.desired == 2


def test_none_at_first() -> None:
    """With a least of 0 a task has its first worker when it opens, and none when it is over."""
    law = Autoscale(0, 4)
    assert law.look(Look(is_open=False), 0.0) == 0
    assert law.look(Look(is_open=True), 0.5) == 1
    for number in range(2, 100):
        law.look(Look(is_open=True, there=1, idle=1), number * LOOK)
    assert law.desired == 1, "as long as it is open"
    for number in range(100, 140):
        law.look(Look(is_open=False, there=1, idle=1), number * LOOK)
    assert law.desired == 0


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_seen_the_bounds_hold(seed: int) -> None:
    """Any looks in any order: between the least and the most, one at least while it is open, patience bounded."""
    rng = random.Random(seed)
    least = rng.randint(0, 3)
    law = Autoscale(least, least + rng.randint(1, 20))
    now = 0.0
    for _ in range(300):
        now += rng.choice([0.0, LOOK, LOOK, 30.0])
        there = rng.randint(0, 25)
        look = Look(
            is_open=rng.random() < 0.8, there=there, idle=rng.randint(0, there), is_full=rng.random() < 0.6,
            working=rng.randint(0, there), threads=rng.choice([1.0, 2.5, 8.0]), done=rng.randint(0, 1000),
            left=rng.randint(0, 10_000), is_all=rng.random() < 0.5,
        )  # fmt: skip
        if rng.random() < 0.1:
            law.started(rng.choice([0.0, 1.0, 500.0]))
        assert law.least <= law.look(look, now) <= law.most
        assert law.desired >= 1 or not look.is_open
        assert law.patience <= MAX_PATIENCE


def test_enough() -> None:
    """6,000 items of a second in a minute; never more threads than items."""
    assert enough(6000, 1.0, 1, 60.0) == 100
    assert enough(8, 1000.0, 1, 60.0) == 8
    assert enough(8, 1000.0, 3, 60.0) == 3
    assert enough(0, 5.0, 1, 60.0) == 0
