"""The roles of a user's app in a simulated world: the real machines, and the user's own functions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.distributor import Distributor, DistributorRunner
from zmqpipeline.roles.worker import Worker, WorkerRunner
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.journal import Journal, JournalLost
from zmqpipeline.runtime.threads import batches
from zmqpipeline.runtime.threads.collecting import EachAck
from zmqpipeline.runtime.threads.lifetime import complete
from zmqpipeline.runtime.threads.source import Exhausted, Gated, Keep, PassOver, Step, Take
from zmqpipeline.serialization.pack import unpack
from zmqpipeline.testing.simulation import nodes
from zmqpipeline.testing.simulation.stages import StagesNode

if TYPE_CHECKING:
    from zmqpipeline.testing.simulation.pipeline import World

_NO_CRASH_LIMIT = 1 << 30
"""It is the simulation that kills the workers: no item is to blame for it."""

_RAISED = (Exception, SystemExit)
"""What user code raises on its own account. A KeyboardInterrupt is meant for the test."""


class AppWorker(nodes.WorkerNode):
    """A worker of the app: a process of its own, as far as `worker_init` can tell."""

    def __init__(self, world: World, name: str, task: str) -> None:
        """It executes the items of `task`."""
        self.role = cast(Worker, world.make("worker", task))
        runner = WorkerRunner.of(self.role)
        machine = WorkerMachine(
            task,
            slots=runner.slots(),
            incarnation=world.incarnation(),
            host=name,
            options=world.options,
            max_items=self.role.max_items,
            has_inits=runner.handler.has_inits(),
        )
        super().__init__(world, name, machine, task)
        self.world = world
        self.targets = {
            "workers": (lambda: world.distributor, "workers"),
            "results": (lambda: world.collector, "results"),
        }
        self._handler, self._preparation = runner.handler, runner.preparation()
        self._begun: set[int] = set()
        self._execution = self._handler.execution(world.options)
        self._outcomes: dict[int, bytes | m.ErrorInfo] = {}

    def stop(self) -> None:
        """Another one takes the place of a worker that has executed its `max_items`."""
        super().stop()
        for thread in sorted(self._begun):
            self._preparation.finish(thread)
        if self.machine.lifespan.has_ended and self.machine.lifespan.reason:
            self.world.note("retired", self.name)
            self.world.after(0.0, self.world.worker_starter(self.task, again=True))

    def set_metadata(self, metadata: bytes) -> None:
        """The role's functions get it from here on."""
        self.role.metadata = unpack(metadata) if metadata else {}
        self._execution = self._handler.execution(self.world.options)

    def begin(self, thread: int, number: int, attempt: int, payload: bytes) -> float:
        """Call the function now; that it is done, or has raised, is told when its time is over, if anybody is left."""
        if self._handler.concurrency():
            # each call is awaited at once: time is the simulation's, and no call waits for another
            self.world.use_event_loop()
            thread = 0
        if thread not in self._begun:
            self._begun.add(thread)
            try:
                self._preparation.begin(thread)
            except _RAISED:
                self._preparation.conclude(f"The worker for task {self.task!r}")
        self.world.note_execution(self.task, number)
        try:
            self._outcomes[number] = self._call(thread, payload, number, attempt)
        except _RAISED as error:
            self.world.raised[self.task, number] = error
            self._outcomes[number] = trouble_of(error)
        return self.world.draw_seconds(self.task)

    def _call(self, thread: int, payload: bytes, number: int, attempt: int) -> bytes:
        execution = self._execution
        item, pack, several = unpack(payload), execution.packer(), execution.batch
        place = (thread, [number] if several else number, attempt) if execution.placed else ()
        call = partial(execution.call, [item] if several else item, *place)
        result = complete(call) if execution.is_async else call()
        if not several:
            return pack(result)
        # in virtual time each comes alone
        (outcome,) = batches.outcomes(result, 1, pack, execution.what)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def outcome(self, number: int, payload: bytes) -> bytes | m.ErrorInfo:
        """What the function has returned or raised."""
        return self._outcomes.pop(number)


class _Watched(PassOver):
    """Keeps the items that are passed over: that a source yields the same each time is looked at here."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        """One was passed over."""
        super().__call__(step)
        self.steps.append(step)


def _payload(step: Step) -> bytes:
    return step[0] if isinstance(step, tuple) else step


class AppDistributor(nodes.DistributorNode):
    """The distributor of the app, with its tasks, gates, keys and metadata."""

    def __init__(self, world: World) -> None:
        """Its sources begin anew."""
        role = cast(Distributor, world.make("distributor", None))
        self.runner = runner = DistributorRunner.of(role)
        runner.prepare()
        self._calls = calls = runner.calls
        machine = DistributorMachine(
            world.app.name,
            [replace(spec, crash_limit=_NO_CRASH_LIMIT) for spec in runner.specs()],
            incarnation=world.incarnation(),
            run=f"run-{world.serial()}",
            options=world.options,
            rng=random.Random(world.rng.random()),
            metadata="local" if calls.has_metadata else "none",
        )
        super().__init__(world, machine)
        self.world = world
        role.machine = machine
        self.targets = {"acks": (lambda: world.collector, "acks")}
        sources = zip(calls.names, calls.sources, strict=True)
        self._steps: dict[str, Take] = {name: calls.steps_of(source) for name, source in sources}
        self._taken = dict.fromkeys(self._steps, 0)

    def load_metadata(self) -> e.MetadataLoaded:
        """Call the app's function."""
        return self._calls.load_metadata()

    def start_tasks(self, command: c.StartTasks) -> None:
        """The sources get the metadata."""
        self._calls.start_tasks(command)

    def part(self, count: int) -> int:
        """Some at once, some in two parts."""
        return count if self.world.rng.random() < 0.7 else self.world.rng.randint(0, count)

    def pass_over(self, command: c.Produce) -> e.Produced:
        """Take the steps whose items are done, as the source's thread does."""
        passed = _Watched()
        state, trouble, last = self._take(command, command.over, passed)
        # a source that was told how many are done has begun after these
        self._taken[command.task] += passed.count - len(passed.steps)
        # an item that comes with the end is no step that was passed over
        beside = [] if last is None else [last]
        payloads, keys = [_payload(one) for one in beside], [one[1] for one in beside if isinstance(one, tuple)]
        self._note_steps(command.task, state, [*(_payload(one) for one in passed.steps), *payloads], [])
        return e.Produced(command.task, state or "more", payloads, keys or None, trouble, passed.count)

    def _take(self, command: c.Produce, count: int, keep: Keep) -> tuple[str, m.ErrorInfo | None, Step | None]:
        """Take so many steps: how the answer ends, if it does, the trouble that ends it, and an item beside the end."""
        try:
            self._steps[command.task](command, count, keep)
        except Exhausted as end:
            return "exhausted", None, end.last
        except Gated:
            return "gated", None, None
        except _RAISED as error:
            return "failed", trouble_of(error), None
        return "", None, None

    def steps(self, command: c.Produce, part: int, count: int) -> e.Produced:
        """Take these steps of the source, as its thread does."""
        taken: list[Step] = []
        ended, trouble, last = self._take(command, part, taken.append)
        state = ended or ("ready" if part == count else "more")
        if last is not None:
            taken.append(last)
        payloads = [_payload(one) for one in taken]
        keys = [one[1] for one in taken if isinstance(one, tuple)]
        self._note_steps(command.task, state, payloads, keys)
        return e.Produced(command.task, state, payloads, keys or None, trouble)

    def _note_steps(self, task: str, state: str, payloads: list[bytes], keys: list[bytes]) -> None:
        for index, payload in enumerate(payloads):
            self.world.note_step(task, self._taken[task], payload, keys[index] if keys else b"")
            self._taken[task] += 1
        if state == "exhausted":
            self.world.note_end_of_source(task, self._taken[task])

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """What is sent has a number: of a task with keys, the world learns for which key it stands."""
        self.world.note_sent(self, envelope.body)
        super().send(peer, envelope)


class AppCollector(nodes.CollectorNode):
    """The collector of the app, with its functions, and its journal in a file, if it has one."""

    def __init__(self, world: World, journal: Path | None) -> None:
        """A journal is opened, and what it holds is told to the machine."""
        self.role = role = cast(Collector, world.make("collector", None))
        self._runner = runner = CollectorRunner.of(role)
        machine = CollectorMachine(world.app.name, incarnation=world.incarnation(), options=world.options)
        super().__init__(world, machine, world.climate.collect_seconds)
        self.world = world
        role.machine = machine
        self._calls = runner.calls()
        self._held: list[e.Event] = []
        """What was called, and is neither in the journal nor said yet."""
        stages = runner.stages
        fed = () if stages is None else stages.fed
        place = world.scratch if journal is None and fed else journal
        self.journal = None
        if place is not None:
            name, is_scratch = world.app.name, journal is None
            self.journal = Journal(place, pipeline=name, durable=False, fed=fed, scratch=is_scratch)
        runner.handler.journal = None if journal is None else self.journal
        self._stages = StagesNode(self, stages) if stages is not None and self.journal is not None else None
        if self.journal is not None and self.journal.restored is not None:
            self.tell(self.journal.restored)

    def set_run(self, command: c.SetRun) -> None:
        """The role's functions get the metadata; it is written down."""
        self._runner.set_run(command)
        journal = self.journal
        if journal is not None:
            self.later(lambda: journal.begin(command), 0)
        if self._stages is not None:
            self.later(self._stages.begin, 0)

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        if isinstance(command, c.Fetch) and self._stages is not None:
            stages = self._stages
            self.later(lambda: stages.fetch(command), 0)
        else:
            super().act(command)

    def keep_pauses(self, command: c.KeepPauses) -> None:
        """They are written down."""
        if (journal := self.journal) is not None:
            self.later(lambda: journal.pause(command.pauses), 0)

    def collect(self, task: str, attempt: int, numbers: list[int], payloads: m.Blobs, keys: bytes, each: bool) -> None:
        """Call the function for each of these."""
        (call, placed), world = self._calls.collecting(task, attempt), self.world
        if self._stages is not None:
            call, placed = self._stages.around(task, attempt, numbers, payloads, call, placed=placed)
        told = EachAck(self._ack_data_of_one, lambda error, _: self._broken(error)) if each else None
        good: list[int] = []
        digests = b""
        failures: list[tuple[int, m.ErrorInfo, bytes]] = []
        for index, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            try:
                data = unpack(payload)
                self._calls.note(call(number, data) if placed else call(data))
                if told is not None:
                    told.collected(b"")
            except JournalLost:
                raise
            except _RAISED as error:
                world.raised[task, number] = error
                failures.append((number, trouble_of(error), payload))
            else:
                world.note_collected(task, number, payload)
                good.append(number)
                digests += keys[m.KEY_BYTES * index : m.KEY_BYTES * (index + 1)]
        ack, trouble = b"", None
        try:
            ack = self._calls.take_ack_data() if told is None else told.newest
        except _RAISED as error:
            trouble = self._broken(error)
        if self.journal is not None:
            self.journal.collected(task, good, digests, ack)
        if told is not None:
            trouble = told.trouble
        runs = [] if told is None else told.runs
        unfed = {} if self._stages is None else self._stages.feeder.take_failed()
        self.hold(e.Collected(task, spans_of(good), failures, ack, attempt, trouble, runs, unfed=unfed))

    def call_failed(self, failures: list[m.FailedItem]) -> None:
        """Call the `failed` function for each."""
        if self.journal is not None:
            self.journal.failed(failures)
        ungathered = {} if self._stages is None else self._stages.fail(failures)
        by_task: dict[str, list[int]] = {}
        troubles: dict[str, m.ErrorInfo] = {}
        for item in failures:
            by_task.setdefault(item.task, []).append(item.number)
            self.world.note_failed(item)
            try:
                self._calls.call_failed(item)
            except JournalLost:
                raise
            except _RAISED as error:
                troubles.setdefault(item.task, self._broken(error))
        for task, numbers in by_task.items():
            self.hold(e.FailedCalled(task, spans_of(numbers), troubles.get(task), ungathered=ungathered.get(task)))

    def finish(self, command: c.CallFinished) -> None:
        """Write down that all is done, call `finished`, then write down that it returned."""
        journal = self.journal
        if journal is not None:
            journal.over(command.ok, command.counts)
        self._settle()
        try:
            data = self._calls.call_finished([one.task for one in self.machine.counts])
        except JournalLost:
            raise
        except _RAISED as error:
            if journal is not None:
                journal.rollback()
            self.tell(e.FinishedCalled(self._broken(error)))
            return
        if journal is not None:
            journal.finish()
        self._settle()
        self.tell(e.FinishedCalled(None, data))

    def stop(self) -> None:
        """The process ended in good order."""
        super().stop()
        self.close()

    def kill(self) -> None:
        """SIGKILL: what was called and not said is called again; what was not committed is not in the journal."""
        super().kill()
        self._held.clear()
        self.close()

    def close(self) -> None:
        """Let go of the journal, without a commit."""
        if self.journal is not None:
            self.journal.rollback()
            self.journal.close()
            self.journal = self._runner.handler.journal = None

    def _ack_data_of_one(self) -> bytes:
        try:
            return self._calls.take_ack_data()
        except _RAISED as error:
            self._broken(error)
            raise

    def _broken(self, error: BaseException) -> m.ErrorInfo:
        """A function that is for no one item raised: the run goes on, and the test fails at its end."""
        self.world.broken = self.world.broken or error
        return trouble_of(error)

    def hold(self, event: e.Event) -> None:
        """Say it a little later, when it is written down."""
        self._held.append(event)
        self.world.after(self.world.climate.commit_seconds, self._settler())

    def _settler(self) -> Callable[[], None]:
        return lambda: self.carry_out(self._settle)

    def _settle(self) -> None:
        if self.journal is not None:
            self.journal.commit()
        held, self._held = self._held, []
        for event in held:
            if isinstance(event, e.Collected):
                self.world.note_said(event)
            self.tell(event if self._stages is None else self._stages.with_outboxes(event))
