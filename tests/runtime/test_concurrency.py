"""ThreadLimit: how many of a worker's threads execute."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from zmqpipeline.runtime.threads.concurrency import HOLD, CoreClock, CoreTime, StuckWatch, ThreadLimit

QUANTUM = 0.04


@dataclass
class Work:
    """What so many threads at once do: items a second in all, and how many cores they want."""

    rate: Callable[[int], float]
    load: Callable[[int], float]


HOLDS_THE_INTERPRETER = Work(rate=lambda threads: 10_000 * (1.0 if threads == 1 else 0.85), load=lambda threads: 1.0)
LETS_GO_OF_IT = Work(rate=lambda threads: 5_000 * min(2.0, threads), load=lambda threads: min(2.0, threads))
CROWDED = Work(rate=lambda threads: 2_500 * min(2.0, threads), load=lambda threads: 0.6 * min(2.0, threads))
WAITS = Work(rate=lambda threads: 100.0 * threads, load=lambda threads: 0.01 * threads)
HALF_AND_HALF = Work(rate=lambda threads: 500 * min(2.0, threads), load=lambda threads: min(1.0, 0.5 * threads))


class Pool:
    """Threads that execute by quanta, all of those that may at once."""

    def __init__(self, threads: int, work: Work, quantum: float = QUANTUM) -> None:
        self.limit = ThreadLimit(threads)
        self.quantum = quantum
        self.work = work
        self.now = 100.0
        self.items = 0.0
        self.ran = 1.0
        """The part of the core that they want which they get."""
        self.spent: dict[int, float] = {}
        """Seconds at each limit."""

    def run(self, seconds: float) -> Pool:
        """Be busy for so long."""
        end = self.now + seconds
        while self.now < end:
            count = self.limit.limit
            for index in range(count):
                self.limit.enter(self.now, index)
            self.now += self.quantum
            wanted = self.quantum * self.work.load(count) / count
            done = self.quantum * self.work.rate(count)
            before, self.items = int(self.items), self.items + done
            each, rest = divmod(int(self.items) - before, count)
            for index in range(count):
                self.limit.leave(self.now, index, CoreTime(self.ran * wanted, wanted), each + (index < rest))
            self.spent[count] = self.spent.get(count, 0.0) + self.quantum
        return self

    def share(self, limit: int) -> float:
        """Which part of the time so many were allowed to execute."""
        return self.spent.get(limit, 0.0) / sum(self.spent.values())


@pytest.mark.parametrize("quantum", [0.01, QUANTUM, 0.1])
@pytest.mark.parametrize("threads", [2, 10])
def test_one_executes_alone_if_all_hold_the_interpreter(threads: int, quantum: float) -> None:
    """Threads that only take the interpreter from each other are as good as one, and cost as much as one."""
    assert Pool(threads, HOLDS_THE_INTERPRETER, quantum).run(10.0).share(1) > 0.95


@pytest.mark.parametrize("quantum", [0.01, QUANTUM, 0.1])
@pytest.mark.parametrize("threads", [2, 10])
def test_all_execute_if_they_let_go_of_the_interpreter(threads: int, quantum: float) -> None:
    """Threads that run for two cores' time in sum are seen to let go of it: nothing is tried."""
    assert Pool(threads, LETS_GO_OF_IT, quantum).run(10.0).share(threads) == 1.0


def test_all_execute_if_they_let_go_of_the_interpreter_and_other_programs_have_the_cores() -> None:
    """They want two cores and get one, as threads that hold the interpreter may; to try it costs less than 3 %."""
    assert Pool(2, CROWDED).run(10.0).share(2) > 0.95


def test_threads_that_wait_are_left_alone() -> None:
    """Nothing is tried while the process is idle: one alone would do a tenth of what ten do."""
    assert Pool(10, WAITS).run(10.0).share(10) == 1.0


def test_threads_that_compute_and_wait_all_execute() -> None:
    """Two that wait half of the time keep the process busy; one would not."""
    assert Pool(2, HALF_AND_HALF).run(10.0).share(2) > 0.97


def test_one_that_begins_to_wait_has_the_others_back_at_once() -> None:
    """The work may change: a worker that computed and now waits uses all of its threads within two windows."""
    pool = Pool(10, HOLDS_THE_INTERPRETER).run(10.0)
    assert pool.limit.limit == 1
    pool.work = WAITS
    pool.run(0.2)
    assert pool.limit.limit == 10


def test_work_that_lets_go_of_the_interpreter_later_is_found_out() -> None:
    """A computing process is tried again with all threads, if more and more seldom."""
    pool = Pool(2, HOLDS_THE_INTERPRETER).run(2 * HOLD)
    pool.work, pool.spent = LETS_GO_OF_IT, {}
    assert pool.run(20 * HOLD).share(2) > 0.8


@pytest.mark.parametrize("threads", [2, 4, 10])
@pytest.mark.parametrize("load", [1.0, 0.6])
def test_items_of_very_different_lengths_do_not_mislead(threads: int, load: float) -> None:
    """Ten times as many in one window as in the next say nothing: who has as much of a core does as much."""
    chance = random.Random(1)
    wanted = Work(rate=lambda threads: 10 ** chance.uniform(3, 4), load=lambda threads: 1.0)
    pool = Pool(threads, wanted, 0.1)
    pool.ran = load
    assert pool.run(10.0).share(1) > 0.9


def test_one_that_has_less_of_the_core_than_all_had_is_judged_by_its_items() -> None:
    """The others of the machine's programs take their part of it: four threads have more of a core than one."""
    crowd = Work(rate=lambda threads: 5_000 * load_of(threads), load=lambda threads: load_of(threads))

    def load_of(threads: int) -> float:
        return 1.0 if threads == 4 else 0.8

    assert Pool(4, crowd).run(10.0).share(4) > 0.9


@pytest.mark.parametrize(("wanted", "expected"), [(0.0, 0.12), (0.5, 0.12), (0.9, 0.52)])
def test_others_come_back_at_once_for_one_that_waits_and_later_for_one_that_computes(
    wanted: float, expected: float
) -> None:
    """The one that executes alone is in a long item: what it has of a core says which of the two it is."""
    watch, began, now = StuckWatch(), 50.0, 50.0
    watch.is_stuck(now, began - 1.0, began - 1.0, CoreTime(7.0, 7.0))
    while not watch.is_stuck(now, began, began, CoreTime(7.0, 7.0 + wanted * (now - began))):
        now += 0.04
        assert now < began + 1.0
    assert now - began == pytest.approx(expected, abs=0.045)


def test_one_that_has_just_begun_its_item_is_not_stuck() -> None:
    """Others wait for long, and it has been at work: what counts is how long it is at this item."""
    watch, now = StuckWatch(), 50.0
    for _ in range(100):
        now += 0.04
        assert not watch.is_stuck(now, now - 0.05, 0.0, CoreTime(0.0, 0.0))


def test_a_thread_that_is_in_its_quantum_counts_as_much_as_one_that_has_ended_it() -> None:
    """Two that let go of the interpreter: one ends its quanta, the other one is in a long one. Nothing is tried."""
    limit, now = ThreadLimit(2), 100.0
    limit.enter(now, 1)
    for _ in range(100):
        limit.enter(now, 0)
        now += QUANTUM
        limit.leave(now, 0, CoreTime(QUANTUM, QUANTUM), 10)
        assert limit.limit == 2


def test_a_lost_thread_ends_the_choice() -> None:
    """The one that executes alone could be the one that is lost."""
    pool = Pool(2, HOLDS_THE_INTERPRETER).run(1.0)
    assert pool.limit.limit == 1
    pool.limit.end()
    assert pool.run(10.0).limit.limit == 2
    assert pool.spent[2] > 9.9


@pytest.mark.alone
def test_a_thread_that_sleeps_wants_no_core_and_one_that_computes_does() -> None:
    """The kernel says so, whatever else keeps the machine busy: who has slept may wait for a core then, for once."""
    clock, naps = CoreClock(), list[float]()
    try:
        while len(naps) < 20 and min(naps, default=1.0) >= 0.05:
            began = clock()
            time.sleep(0.1)
            slept = clock()
            naps.append(slept.since(began).wanted)
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
        computed = clock()
    finally:
        clock.close()
    assert min(naps) < 0.05
    assert computed.since(slept).wanted > 0.05
    assert 0 < computed.since(slept).ran <= computed.since(slept).wanted


def test_one_does_not_execute_alone_for_as_long_as_another_is_in_a_long_item() -> None:
    """What one does alone cannot be seen then; threads that wait now and then would all wait for that item's end."""
    limit, now, alone, executing = ThreadLimit(4), 100.0, 0.0, 4
    while now < 120.0:
        for index in range(executing):
            limit.enter(now, index)
        now += QUANTUM
        alone += QUANTUM if executing == 1 else 0.0
        # the last of these is in an item of 20 s from its second one on
        for index in range(executing if now < 100.0 + 1.5 * QUANTUM else min(3, executing)):
            limit.leave(now, index, CoreTime(0.25 * QUANTUM, 0.25 * QUANTUM), 1)
        executing = 1 if limit.limit == 1 else 4 if now < 100.0 + 1.5 * QUANTUM else 3
    assert 0.0 < alone < 2.0
