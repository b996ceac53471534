"""The roles of a simulated world: what their sources and functions do is drawn from the seed, and is counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.support.invariants import check_alone, check_blame, check_kept, check_queued
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.delivery.gates import AckLog
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.testing.simulation import nodes
from zmqpipeline.testing.simulation.clock import SimulationError

if TYPE_CHECKING:
    from tests.support.harness import World

OVER = ("the run is over", "already finished")
"""Why a distributor ends that has seen the run through."""


class WorkerNode(nodes.WorkerNode):
    """A worker with `slots` threads."""

    init_seconds = 0.3

    def __init__(self, world: World, name: str, task: str, slots: int, options: Options) -> None:
        most, incarnation = world.plan.max_items, world.incarnation()
        machine = WorkerMachine(
            task,
            slots=slots,
            incarnation=incarnation,
            host=name,
            options=options,
            max_items=most,
            # in each fourth seed, without a number of chance being drawn for it
            has_inits=world.seed % 4 == 3,
        )
        super().__init__(world, name, machine, task)
        self.world = world
        self.targets = {
            "workers": (lambda: world.distributor, "workers"),
            "results": (lambda: world.collector, "results"),
        }

    def set_metadata(self, metadata: bytes) -> None:
        """It is the run's."""
        self.world.check_metadata(self.name, self.machine.run, metadata)

    def tell(self, event: e.Event) -> None:
        """Note what has arrived on trial; look at how much is kept after each event."""
        if isinstance(event, e.Received) and isinstance(body := event.envelope.body, m.Work) and body.trial:
            self.world.tried.update(self.world.ident(body.task, number) for number in numbers_of(body.spans))
        if self._leaves_items(event):
            self.world.touch(self)
        super().tell(event)
        check_kept(self)

    def _leaves_items(self, event: e.Event) -> bool:
        """Whether its drain time is over now: what is not done goes to others, however it came to end."""
        deadline = self.machine._deadline
        return isinstance(event, e.Tick) and deadline is not None and self.world.now >= deadline

    def is_cut_off(self) -> None:
        """The distributor may take what was sent here for lost, and give it to another one; the collector cannot."""
        connection = self.dealers.get("workers")
        if self.world.distributor.running and connection is not None and not connection.alive:
            self.world.touch(self)

    def begin(self, thread: int, number: int, attempt: int, payload: bytes) -> float:
        """An execution, which takes its time."""
        world, plan = self.world, self.world.plan
        seconds = plan.service * (1 + plan.spread * world.rng.random())
        if world.rng.random() < plan.heavy:
            seconds += plan.heavy_factor * plan.service
        world.executions[world.ident(self.task, number)] += 1
        return seconds

    def dies_of(self, numbers: list[int]) -> bool:
        """Some items are poison."""
        world = self.world
        if not any(world.ident(self.task, number) in world.poison for number in numbers):
            return False
        world.note("poison", self.name)
        world.kill_worker(self)
        return True

    def outcome(self, number: int, payload: bytes) -> bytes | m.ErrorInfo:
        """A result that tells its item, unless the fates have it raise."""
        world = self.world
        one = world.ident(self.task, number)
        if world.raises_left[one] <= 0:
            return world.result(int(payload))
        world.raises_left[one] -= 1
        world.faults[one] += 1
        return m.ErrorInfo("ValueError", "as planned")


class DistributorNode(nodes.DistributorNode):
    """The distributor and its sources, which begin anew with it."""

    def __init__(self, world: World, run: str, *, is_first: bool = True) -> None:
        machine = DistributorMachine(
            "sim",
            world.plan.tasks,
            incarnation=world.incarnation(),
            run=run,
            options=world.options,
            rng=random.Random(world.rng.random()),
            metadata="local",
        )
        super().__init__(world, machine)
        self.world = world
        self.targets = {"acks": (lambda: world.collector, "acks")}
        self.proposed, self.is_first = run, is_first
        self.heard: set[bytes] = set()
        """The workers that have told this distributor, since its run goes on, what they hold."""
        self.yielded = dict.fromkeys(world.plan.items, 0)
        self.different: dict[str, set[bytes]] = {task: set() for task in world.plan.items}
        self.asked = dict.fromkeys(world.plan.items, m.AckNote("", 0, 0, b""))
        """With which ACK the gate of each task was asked last."""
        self.unasked = {task: AckLog() for task in world.plan.items}
        self.served: dict[str, c.Produce] = {}

    def load_metadata(self) -> e.MetadataLoaded:
        """Never the same twice."""
        return e.MetadataLoaded(self.world.load_metadata(self.proposed))

    def start_tasks(self, command: c.StartTasks) -> None:
        """The metadata is the run's."""
        self.world.check_metadata(self.name, self.machine.run, command.metadata)

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """What is sent may be executed from now on."""
        body = envelope.body
        if isinstance(body, m.Work):
            numbers = numbers_of(body.spans)
            self.world.learn(body.task, numbers, body.payloads)
            check_alone(
                self.machine.tasks[body.task].ledger, self.machine._dispatcher.members[envelope.addressee], numbers
            )
            if not self.is_first:
                self.world.note_sent(self, peer[1], body.task, numbers)
        elif isinstance(body, m.GiveUp):
            check_blame(self.world, body.failures)
        super().send(peer, envelope)

    def tell(self, event: e.Event) -> None:
        """Note who has told what it holds, before the answer."""
        if not self.is_first and isinstance(event, e.Received) and self.machine.phase == "running":
            body = event.envelope.body
            if isinstance(body, m.WorkerReport) and body.held is not None and body.run == self.machine.run:
                self.heard.add(event.envelope.sender)
        super().tell(event)
        if self.machine.phase == "farewell":
            self.world.note_farewell()

    def pause(self) -> float:
        """A slow source takes longer."""
        return super().pause() + self.world.plan.source_seconds

    def part(self, count: int) -> int:
        """How many of these steps come in the next part: a slow source's items one at a time."""
        if self.world.plan.source_seconds >= 0.002:
            return 1
        return count if self.world.rng.random() < 0.7 else self.world.rng.randint(0, count)

    def steps(self, command: c.Produce, part: int, count: int) -> e.Produced:
        """Take so many steps of a source of which `count` are asked for."""
        task = command.task
        for note in command.acks if command is not self.served.get(task) else ():
            self.unasked[task].add(note)
        self.served[task] = command
        payloads, state = self.take(task, part, count)
        keys = [one.rjust(16, b".") for one in payloads] if task in self.world.plan.keyed else None
        trouble = m.ErrorInfo("ValueError", "the source raised") if state == "failed" else None
        return e.Produced(task, state, payloads, keys, trouble)

    def pass_gate(self, task: str) -> bool:
        """Ask the gate with the ACK of the last time, then with each of the later ones, until it says yes."""
        yielded = len(self.different[task])
        while not self.world.is_open(task, self.asked[task], yielded):
            following = self.unasked[task].next()
            if following is None:
                return False
            self.world.check_order(self.asked[task], following)
            self.asked[task] = following
        return True

    def take(self, task: str, part: int, count: int) -> tuple[list[bytes], str]:
        """The payloads of these steps, and how it goes on."""
        world = self.world
        payloads: list[bytes] = []
        for _ in range(part):
            number = self.yielded[task]
            if number == world.source_ends[task]:
                return payloads, "failed" if task in world.broken_sources else "exhausted"
            if not self.pass_gate(task):
                return payloads, "gated"
            self.yielded[task] += 1
            payloads.append(world.payload(task, number))
            self.different[task].add(payloads[-1])
        return payloads, "ready" if part == count else "more"

    def stop(self) -> None:
        """The process ended; one that was drained is started again."""
        super().stop()
        if self.ended is not None and self.ended.reason in OVER and not self.world.reports:
            raise SimulationError(f"the distributor says {self.ended.reason!r}, but `finished` has not returned")
        if self.is_drained:
            self.world.distributor_drained()


class CollectorNode(nodes.CollectorNode):
    """The collector and its one thread; with a journal, what it does and marks is one step, and then it is said."""

    def __init__(self, world: World) -> None:
        machine = CollectorMachine("sim", incarnation=world.incarnation(), options=world.options)
        super().__init__(world, machine, world.plan.collect_seconds)
        self.world = world
        self.open: list[tuple[str, int]] = []
        """What was called and is not in the journal yet."""
        held = world.disk.restored() if world.disk is not None else None
        if held is not None:
            self.tell(held)

    def tell(self, event: e.Event) -> None:
        """Look at how much waits after each event."""
        super().tell(event)
        if self.running:
            check_queued(self.world, self.machine)

    def set_run(self, command: c.SetRun) -> None:
        """The metadata is the run's; it is written down."""
        self.world.check_metadata(self.name, command.run, command.metadata)
        if self.world.disk is not None:
            self.later(lambda: self.begin(command), 0)

    def is_finishing(self) -> None:
        """Now the connection of the ACKs may be cut."""
        self.world.note_finishing()

    def begin(self, command: c.SetRun) -> None:
        """Write down the run."""
        assert self.world.disk is not None
        self.world.disk.begin(command)

    def finish(self, command: c.CallFinished) -> None:
        """Write down that all is done, call `finished`, which takes a while, and write down that it returned."""
        if self.world.disk is not None:
            self.world.disk.finish = command
        self.world.after(
            self.world.rng.random() * self.world.plan.finish_seconds, lambda: self.carry_out(self.returned)
        )

    def returned(self) -> None:
        """`finished` has returned; what it wrote is there with the mark that says so."""
        self.world.reports += 1
        if self.world.disk is not None:
            self.world.disk.reports += 1
        self.say(e.FinishedCalled())

    def say(self, event: e.Event) -> None:
        """Answer the machine: at once, or after the commit, so that the process may die in between."""
        if self.world.disk is None:
            self.tell(event)
        else:
            self.world.after(0.001, lambda: self.tell(event))

    def collect(self, task: str, attempt: int, numbers: list[int], payloads: m.Blobs, keys: bytes, each: bool) -> None:
        """Call the collector's function for these; it raises where the fates have it so."""
        world = self.world
        good, rows, failures, digests = [], [], [], b""
        told: list[tuple[int, bytes]] = []
        called = []
        for index, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            one = world.note_collected(task, number, payload)
            called.append(one)
            if one in world.collector_raises:
                failures.append((number, m.ErrorInfo("KeyError", "as planned"), payload))
            else:
                good.append(number)
                rows.append(one)
                told.append((1, world.ack_data()))
                digests += keys[m.KEY_BYTES * index : m.KEY_BYTES * (index + 1)]
        data = world.ack_data() if good else b""

        def commit() -> None:
            if world.disk is not None:
                world.disk.collected(task, good, digests, data, rows)
            self.say(e.Collected(task, spans_of(good), failures, data, attempt, None, told if each else []))

        self.commit(called, commit)

    def commit(self, called: list[tuple[str, int]], write: Callable[[], None]) -> None:
        """The calls for these are made: write that down and say it, at once or a little later."""
        seconds = self.world.plan.commit_seconds
        if not seconds:
            write()
            return
        self.open += called

        def close() -> None:
            for one in called:
                self.open.remove(one)
            write()

        self.world.after(seconds, lambda: self.carry_out(close))

    def stop(self) -> None:
        """The process ended; one that was drained is started again."""
        super().stop()
        if self.is_drained:
            self.world.collector_drained()

    def kill(self) -> None:
        """What was called and is not in the journal is called again, and nothing else."""
        for one in set(self.open):
            self.world.note("open batch lost", self.name)
            self.world.forgotten[one] += 1
        super().kill()

    def call_failed(self, failures: list[m.FailedItem]) -> None:
        """Call the `failed` function."""
        by_task: dict[str, list[int]] = {}
        called = []
        for item in failures:
            called.append(self.world.note_failed(item))
            by_task.setdefault(item.task, []).append(item.number)

        def commit() -> None:
            if self.world.disk is not None:
                self.world.disk.failed(failures)
            for task, numbers in by_task.items():
                self.say(e.FailedCalled(task, spans_of(numbers)))

        self.commit(called, commit)
