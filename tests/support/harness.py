"""A world for the machines: a heap of timed events, and a seeded generator of trouble.

Nothing here sleeps or opens anything: an hour of the pipeline's life takes a fraction of a second. Everything that
happens is drawn from one `random.Random(seed)`, so that a seed is a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.support.end_checks import judge
from tests.support.nodes import WorkerNode
from tests.support.trouble import Item, TroubledStage
from zmqpipeline.protocol import messages as m
from zmqpipeline.testing.simulation.clock import SimulationError

__all__ = ["SimulationError", "World"]


@dataclass
class World(TroubledStage):
    """The whole pipeline of one seed. `run()` returns when it is over, or raises SimulationError."""

    def _draw_fates(self) -> None:
        plan, rng = self.plan, self.rng
        every = [(task, number) for task, count in plan.items.items() for number in range(count)]
        self.raises_left = Counter({one: rng.choice([1, 2, 99]) for one in every if rng.random() < plan.raising})
        self.poison = {one for one in every if rng.random() < plan.poison}
        self.collector_raises = {one for one in every if rng.random() < plan.collector_raises}
        self.broken_sources = {task for task in plan.items if rng.random() < plan.source_raises}
        self.source_ends = {
            task: rng.randint(0, count) if task in self.broken_sources else count for task, count in plan.items.items()
        }
        self.gates = {plan.tasks[0].task_type} if plan.gated else set()

    def payload(self, task: str, number: int) -> bytes:
        """What the source yields in this step; every third step of a task with keys repeats an earlier item."""
        if task in self.plan.keyed and number % 3 == 2:
            return b"%d" % (number * 5 // 7)
        return b"%d" % number

    def _start_all(self) -> None:
        rng, plan = self.rng, self.plan
        starts: list[Callable[[], None]] = [lambda: self.distributor.connect("acks")]
        for task, slots in plan.workers.items():
            for one in slots:
                starts.append(lambda task=task, one=one: self.add_worker(task, one))
        for start in starts:
            self.after(rng.random() * 3, start)
        self.collector.arm()
        self.after(plan.turn, self.trouble)
        for _ in range(plan.drains):
            self.after(1 + rng.random() * 5, self.drain_a_worker)
        for which, role in enumerate(plan.restarts[:-1] if plan.restarts_late else plan.restarts):
            self.after(rng.random() * rng.choice([4.0, 20.0]) + 12.0 * which, self._restarter(role))
        for which, role in enumerate(plan.role_drains):
            self.after(rng.random() * rng.choice([4.0, 20.0]) + 30.0 * which, self._drainer(role))

    # the run's metadata -------------------------------------------------------------------------------------------

    def load_metadata(self, run: str) -> bytes:
        """What the metadata function of a distributor that proposes this run returns: never the same twice."""
        return self._metadata.setdefault(run, b"meta-%d" % self.serial())

    def check_metadata(self, whom: str, run: str, metadata: bytes) -> None:
        """Whoever takes part in a run is told the metadata of its beginning, whoever died since."""
        if metadata != self._metadata.get(run):
            raise SimulationError(f"{whom} was told {metadata!r} of {run}, not {self._metadata.get(run)!r}")

    # items -------------------------------------------------------------------------------------------------------

    def learn(self, task: str, numbers: list[int], payloads: list[bytes]) -> None:
        """These items are executed: of a task with keys, the payload is the key."""
        if task in self.plan.keyed:
            for number, payload in zip(numbers, payloads, strict=True):
                if self._keys.setdefault((task, number), int(payload)) != int(payload):
                    raise SimulationError(f"{task}/{number} stands for two keys")

    def ident(self, task: str, number: int) -> Item:
        """What an item is known by: its number, or its key."""
        return task, self._keys.get((task, number), number)

    def note_collected(self, task: str, number: int, result: bytes) -> Item:
        """The collector's function was called; an item must be the same each time, and the one that was yielded."""
        one = self.ident(task, number)
        self.collected[one] += 1
        self.done[task].add(one)
        if result != self.result(one[1]):
            raise SimulationError(f"{task}/{number} was collected with the result {result!r}")
        return one

    def result(self, number: int) -> bytes:
        """What the worker's function returns for this item."""
        return b"r%d" % number + b"." * (number % 6 * self.plan.result_bytes)

    @property
    def longest_result(self) -> int:
        """How many bytes the largest result may have."""
        return len(self.result(5)) + 8

    def note_failed(self, item: m.FailedItem) -> Item:
        """The `failed` function was called."""
        one = self.ident(item.task, item.number)
        if (item.task in self.plan.keyed) != bool(item.key):
            raise SimulationError(f"{one} failed with the key {item.key!r}")
        self.failed[one] += 1
        self.failed_there[one] += item.stage == "collector"
        self.done[item.task].add(one)
        return one

    def idents(self, task: str) -> list[Item]:
        """All that the source yields."""
        return [(task, int(self.payload(task, step))) for step in range(self.source_ends[task])]

    # the gate ----------------------------------------------------------------------------------------------------

    def ack_data(self) -> bytes:
        """What the collector attaches to an ACK: how many items of the gated task it has done, as its records say."""
        return b"%d" % len(self.done[self.plan.tasks[0].task_type]) if self.plan.ahead else b""

    def check_order(self, before: m.AckNote, after: m.AckNote) -> None:
        """A gate is asked with each ACK, in order; some may be missing where a process has died."""
        assert after.first == after.last > before.last, f"asked with {after} after {before}"
        is_whole = not (self.plan.restarts or self.plan.role_drains)
        assert after.first == before.last + 1 or not is_whole, f"asked with {after} after {before}"

    def is_open(self, task: str, ack: m.AckNote, yielded: int) -> bool:
        """What the gate of this task says before a step, when the source has yielded so many different items."""
        if task not in self.gates:
            return True
        ack_task, count, data = ack.task, ack.last, ack.data
        if not self.plan.ahead:
            # Lock-step: the next item only when every item yielded before is acknowledged.
            return count >= yielded
        if ack_task and not data and self.plan.may_fail:
            # A failed item brings no data, and may be the last: who only went by data would wait for ever.
            return True
        return yielded < int(data or b"0") + self.plan.ahead

    # workers -----------------------------------------------------------------------------------------------------

    def add_worker(self, task: str, slots: int) -> None:
        """One more worker; every second one has the plan's idle time-out."""
        if self.distributor.is_over:
            return
        options = self.options
        if len(self.workers) % 2:
            options = replace(options, idle_timeout=self.plan.idle_timeout)
        worker = WorkerNode(self, f"w{self.serial()}-{task}", task, slots, options)
        self.workers.append(worker)
        worker.connect("workers")
        worker.connect("results")

    def touch(self, worker: WorkerNode) -> None:
        """A fault strikes this worker: it may cost each item that it holds one more execution."""
        ledger = self.distributor.machine.tasks[worker.task].ledger
        touched = worker.held() | set(ledger.held_by(worker.machine._workers.incarnation))
        self.strike(self.ident(worker.task, number) for number in touched)

    def kill_worker(self, worker: WorkerNode) -> None:
        """SIGKILL; another one takes its place."""
        self.touch(worker)
        worker.kill()
        self.replace_worker(worker)

    def replace_worker(self, worker: WorkerNode) -> None:
        """Start another worker like this one, a little later."""
        self.after(0.5 + self.rng.random() * 3, lambda: self.add_worker(worker.task, worker.machine.slots))

    # the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen, then judge it."""
        steps = 0
        limit = self.plan.limit
        while self._heap and not self.is_over():
            self.step()
            steps += 1
            if self.now > limit or steps > 2_000_000:
                raise SimulationError(f"the run hangs: {self.describe()}")
            if steps % 64 == 0:
                self.check_bound()
                self.distributor.machine.check()
                self._replace_the_ended()
                self._await_the_collector()
        if not self.is_over():
            raise SimulationError(f"nothing happens any more: {self.describe()}")
        self._judge()

    def _judge(self) -> None:
        judge(self)

    def _await_the_collector(self) -> None:
        """One that has left, having waited for a distributor that cannot reach it, is started again some time later."""
        if self.distributor.machine._last is not None:
            # it has heard the end, and ends itself
            return
        if self.collector.is_over and not self.distributor.is_over and not self._is_awaited:
            if self.plan.is_soon_back and self.collector.ended.reason != "already finished":
                raise SimulationError(f"the collector left before the distributor had heard: {self.describe()}")
            self._is_awaited = True
            self.after(5 + self.rng.random() * 80, self._start_awaited)

    def _start_awaited(self) -> None:
        self._is_awaited = False
        if not self.distributor.is_over:
            self.note("collector again", "collector")
            self._new_collector()

    def is_over(self) -> bool:
        """Both have ended; a collector that was started anew after it had finished waits for the next run."""
        late = (
            bool(self.plan.restarts or self.plan.role_drains or self.plan.may_lose_the_end)
            and self.collector.machine.phase == "empty"
        )
        if self.distributor.is_over and self.left_at is None:
            self.left_at = self.now
        return self.distributor.is_over and (self.collector.is_over or late)

    def _replace_the_ended(self) -> None:
        """A worker that ended by its idle time-out, or has retired, is started again when it is needed."""
        for worker in self.workers:
            if worker.ended and worker.ended.reason == "drained":
                worker.ended = replace(worker.ended, reason="drained, replaced")
                self.replace_worker(worker)

    def describe(self) -> str:
        """Where everybody stands."""
        lines = [f"seed {self.seed}, {self.now:.1f} s", str(self.distributor.machine.snapshot())]
        lines += [str(self.collector.machine.snapshot())]
        lines += [str(one.machine.snapshot()) for one in self.workers if one.running]
        return "\n  ".join(lines)

    def check_bound(self) -> None:
        """Leased and waiting is never more than what the workers may hold, and what comes again after a back-off."""
        for name, task in self.distributor.machine.tasks.items():
            ledger = task.ledger
            served = max(len(self.plan.workers[name]), task.workers) + 1
            bound = self.options.max_held_items * 2 * (served + self.plan.drains)
            if ledger.leased + ledger.waiting > bound + len(ledger._raised):
                raise SimulationError(f"{ledger.leased} leased and {ledger.waiting} waiting of {name}, bound {bound}")
