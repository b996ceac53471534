"""SimulatedPipeline: a user's app under lost messages, broken connections and killed processes, by seed.

The machines of all roles are the real ones, and the functions are the app's own; sockets, threads and time are not: an
item that takes a second takes none, and a seed is always the same run, if the functions are.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zmqpipeline.errors import PipelineTimeout
from zmqpipeline.events import Event
from zmqpipeline.options import Options
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.collector import CollectorRunner
from zmqpipeline.roles.results import Failure, Summary
from zmqpipeline.roles.runner import RoleRunner
from zmqpipeline.serialization.pack import unpack
from zmqpipeline.testing.hang_report import collector_line, distributor_lines, worker_line
from zmqpipeline.testing.run import TestRun, raise_failure, worker_numbers
from zmqpipeline.testing.simulation.clock import SimulationError, Stage
from zmqpipeline.testing.simulation.faults import FAULTS, Fault, climate
from zmqpipeline.testing.simulation.roles import AppCollector, AppDistributor, AppWorker
from zmqpipeline.testing.simulation.strikes import Striker
from zmqpipeline.testing.simulation.trace import Traced, shown

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline

IDLE_SECONDS = 900.0
"""A run in which no user code was called for so long, in virtual seconds, will never end."""

Item = tuple[str, int]


@dataclass
class SimulatedRun(TestRun):
    """What came of `SimulatedPipeline.run()`.

    An item is known by its task and its number, from 0 in the order of its source; of a task with keys, by its task and
    the number of the first item with that key.
    """

    __test__ = False

    seed: int = 0
    """The seed of the run."""

    faults: list[Fault] = field(default_factory=list)
    """What struck, in order."""

    notes: dict[str, int] = field(default_factory=dict)
    """How often what happened: "lost" messages, "retired" workers, and each sort of fault."""

    executions: Counter[Item] = field(default_factory=Counter)
    """How often the worker's function was called for each item."""

    collections: Counter[Item] = field(default_factory=Counter)
    """How often the collector's function returned for each item: more than once only if the collector was killed."""

    def __repr__(self) -> str:
        struck = ", ".join(f"{what} {times} x" for what, times in sorted(self.notes.items())) or "nothing struck"
        done = f"{len(self.results)} collected, {len(self.failures)} failed"
        return f"<SimulatedRun seed={self.seed}: {done}; {struck}; {self.summary.seconds:.1f} virtual s>"


class SimulatedPipeline:
    """An app in a simulated world: ``SimulatedPipeline(app, seed=17).run()``.

    Its tasks, workers and collector run as with `app.test_run`, but in one thread, on virtual time, through the trouble
    that the seed has drawn. A worker with `max_items=` retires, and another one takes its place. Services, the
    `timeout=` of tasks and the `max_memory=` of workers are not simulated: all processes are one here.
    """

    def __init__(
        self,
        app: Pipeline,
        *,
        seed: int,
        workers: int | Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        faults: Iterable[str] = FAULTS,
        journal: bool | None = None,
        item_seconds: float | None = None,
        on_restart: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare a run; nothing is called yet.

        Args:
            app: the pipeline; its set-up ends here.
            seed: which run; every number is one.
            workers: how many for every task, or a dict by task type; by default 1 to 3 each, as the seed has it.
            metadata: added to what the metadata function returns.
            faults: what may strike; see `FAULTS`. An empty list: a run without trouble.
            journal: whether the collector keeps a journal, in a file of its own for the run; by default if a function
                takes it. With one, distributor and collector may be killed at the same time.
            item_seconds: virtual seconds that an item takes; by default as the seed has it.
            on_restart: called with "distributor", "collector" or "worker" when one is started again after it was
                killed, or has retired. A process forgets its variables then; yours it can make forget theirs here.

        Raises:
            ConfigurationError: the app does not fit together, or an argument is wrong.
        """
        self._app, self._seed = app, seed
        rng = random.Random(seed)
        app.freeze()
        if workers is None:
            workers = {name: rng.randint(1, 3) for name in app.worker_types}
        self._workers = worker_numbers(app, workers)
        self._climate = climate(rng, faults, item_seconds)
        self._metadata, self._journal, self._on_restart = metadata, journal, on_restart

    def run(self, *, raise_failures: bool = True, verbose: bool = False, timeout: float = 60.0) -> SimulatedRun:
        """Run it from the beginning to the end. Running it again is the same run, if the app's functions are the same.

        Args:
            raise_failures: raise what the first failed item failed of, as `app.test_run` does.
            verbose: print what happens, step by step.
            timeout: seconds, real ones, for the whole run.

        Raises:
            PipelineTimeout: it will never end, or was not over in time; the text says what each role waits for.
            SimulationError: an item was lost or collected twice, or a source did not give the same items when it was
                called again; it is an `AssertionError`.
            Exception: what a function raised. Each error says, in a note or on stderr, which seed it came of.
        """
        __tracebackhide__ = True
        with tempfile.TemporaryDirectory(prefix="zmqpipeline-simulated-") as folder:
            world = World(self._seed, verbose)
            try:
                world.scratch = Path(folder, "outbox.db")
                world.begin(self._app, self._workers, self._climate, self._metadata, self._path(Path(folder)))
                world.on_restart = self._on_restart
                world.run(timeout)
                if raise_failures:
                    world.raise_first()
            except Exception as error:
                _tell(error, self._story(world))
                raise
            finally:
                world.close()
        return world.answer()

    def _path(self, folder: Path) -> Path | None:
        wanted = self._journal
        if wanted is None:
            collector = self._app.compile("collector", options=_OPTIONS)
            wanted = bool(CollectorRunner.of(collector).handler.journal_user())
        return folder / "run.db" if wanted else None

    def _story(self, world: World) -> str:
        lines = [f"  {one.at:9.3f} s  {one.text}" for one in world.struck[-20:]]
        return "\n".join(
            [
                f"This is seed {self._seed} of the simulation of {self._app.name!r}, at {world.now:.3f} virtual s. "
                "Run it again with verbose=True to see each step:",
                f"  SimulatedPipeline(app, seed={self._seed}, ...).run(verbose=True)",
                "What struck:" if lines else "Nothing had struck.",
                *lines,
            ]
        )


_OPTIONS = Options(endpoint="inproc://zmqpipeline-simulated")


def _tell(error: Exception, story: str) -> None:
    """Add the story to the error, which is shown with its traceback; Python 3.10 has no notes, and prints it."""
    add_note = getattr(error, "add_note", None)
    if add_note is None:
        import sys

        print(story, file=sys.stderr)
    else:
        add_note(story)


@dataclass
class World(Stage):
    """The roles of one run, and what is known of its items."""

    scratch: Path | None = field(default=None, init=False)
    """Where what results give to other tasks is kept, if there is no journal."""

    def begin(
        self,
        app: Pipeline,
        workers: Mapping[str, int],
        drawn: Any,
        metadata: Mapping[str, Any] | None,
        journal: Path | None,
    ) -> None:
        """Start all roles, each a little later than the other."""
        self.app, self.climate, self.weather = app, drawn, drawn
        self.options = replace(app.options, endpoint=_OPTIONS.endpoint, journal=None, idle_timeout=None)
        self.metadata, self.journal = metadata, journal
        self.on_restart: Callable[[str], object] | None = None
        self.executions: Counter[Item] = Counter()
        self.collections: Counter[Item] = Counter()
        self.said: Counter[Item] = Counter()
        """How often the collector has said that it has an item: what it did and could not say, it does again."""
        self.raised: dict[Item, BaseException] = {}
        self.broken: BaseException | None = None
        self.struck: list[Fault] = []
        self.events: list[Event] = []
        self._results: dict[Item, tuple[str, dict[str, Any]]] = {}
        self._failures: dict[Item, Failure] = {}
        self._first: tuple[Failure, BaseException | None] | None = None
        self._steps: dict[str, list[bytes]] = {}
        self._keys: dict[tuple[str, bytes], int] = {}
        self._key_of: dict[Item, bytes] = {}
        self._ends: dict[str, int] = {}
        self._called_at = 0.0
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._made: list[Role] = []
        self._striker = Striker(self)
        self.distributor = AppDistributor(self)
        self.collector = AppCollector(self, journal)
        self.workers: list[AppWorker] = []
        self.after(self.rng.random(), lambda: self.distributor.connect("acks"))
        self.collector.arm()
        for task, count in workers.items():
            for _ in range(count):
                self.after(self.rng.random(), self.worker_starter(task))

    def make(self, role: str, task: str | None) -> Role:
        """A role of the app, as a new process would have it."""
        metadata = self.metadata if role == "distributor" else None
        made = self.app.compile(role, task, options=self.options, metadata=metadata)
        self._made.append(made)
        return made

    def front_of(self, machine: Any) -> Machine:
        """Each role is observed."""
        return Traced(machine, self._trace)

    def _trace(self, event: Event) -> None:
        self.events.append(event)
        if self.verbose:
            self.log(event.role, 20, shown(event))

    # processes -------------------------------------------------------------------------------------------------------

    def worker_starter(self, task: str, *, again: bool = False) -> Callable[[], None]:
        """What starts a worker."""

        def start() -> None:
            if not self.distributor.is_over:
                if again:
                    self.tell_restart("worker")
                    self.workers = [one for one in self.workers if one.running]
                worker = AppWorker(self, f"w{self.serial()}-{task}", task)
                self.workers.append(worker)
                worker.connect("workers")
                worker.connect("results")

        return start

    def start_distributor(self) -> None:
        """Another one, which knows nothing."""
        self.tell_restart("distributor")
        self.distributor = AppDistributor(self)
        self.distributor.connect("acks")

    def start_collector(self) -> None:
        """Another one, which knows nothing but what its journal holds."""
        self.tell_restart("collector")
        self.collector = AppCollector(self, self.journal)
        self.collector.arm()

    def tell_restart(self, role: str) -> None:
        """A process that was killed, or has retired, is started again."""
        if self.on_restart is not None:
            self.on_restart(role)

    # what user code does ---------------------------------------------------------------------------------------------

    def draw_seconds(self, task: str) -> float:
        """How long an item takes: less than the task's timeout."""
        seconds = float(self.climate.item_seconds) * (1 + 3 * self.rng.random())
        limit = self.app.registry.tasks[task].spec.timeout
        return min(seconds, limit / 2) if limit else seconds

    def _note_call(self) -> None:
        self._called_at = self.now
        self._striker.note_call()

    def note_step(self, task: str, index: int, payload: bytes, key: bytes) -> None:
        """A source gave its item of this index."""
        self._note_call()
        if key:
            self._keys.setdefault((task, key), index)
            return
        steps = self._steps.setdefault(task, [])
        if index < len(steps) and steps[index] != payload:
            raise _not_repeatable(task, f"gave {_shown(steps[index])} as item {index}", f"{_shown(payload)}")
        if task in self._ends and index >= self._ends[task]:
            raise _not_repeatable(task, f"gave {self._ends[task]} items", "more")
        if index == len(steps):
            steps.append(payload)

    def note_end_of_source(self, task: str, count: int) -> None:
        """A source had no more after so many items."""
        known = len(self._steps.get(task, ()))
        if count < known:
            raise _not_repeatable(task, f"gave {known} items", f"{count}")
        self._ends[task] = count

    def note_sent(self, who: AppDistributor, body: object) -> None:
        """Items go to a worker: by their number each of them is known from here on."""
        if isinstance(body, m.Work) and body.keys:
            for at, number in enumerate(numbers_of(body.spans)):
                self._key_of[body.task, number] = body.keys[m.KEY_BYTES * at : m.KEY_BYTES * (at + 1)]

    def ident(self, task: str, number: int) -> Item:
        """What an item is known by, whoever numbers it."""
        key = self._key_of.get((task, number))
        return (task, number) if key is None else (task, self._keys[task, key])

    def note_execution(self, task: str, number: int) -> None:
        """A worker's function is called."""
        self.executions[self.ident(task, number)] += 1
        self._note_call()

    def note_collected(self, task: str, number: int, payload: bytes) -> None:
        """A collector's function returned."""
        one = self.ident(task, number)
        self.collections[one] += 1
        # the last call counts: those of a collector that could not say so are made again
        self._results.pop(one, None)
        self._results[one] = (task, unpack(payload))
        self._note_call()

    def note_said(self, event: e.Collected) -> None:
        """The collector has said that it has these."""
        self.said.update(self.ident(event.task, number) for number in numbers_of(event.spans))

    def note_failed(self, item: m.FailedItem) -> None:
        """An item is given up."""
        one = self.ident(item.task, item.number)
        failure = Failure.from_item(item)
        self._failures[one] = failure
        self._first = self._first or (failure, self.raised.get((item.task, item.number)))
        self._called_at = self.now

    # the run ---------------------------------------------------------------------------------------------------------

    def run(self, timeout: float) -> None:
        """Let it all happen, then judge it."""
        give_up = time.monotonic() + timeout
        patience = IDLE_SECONDS + sum(
            one.spec.backoff * 2**one.spec.retries for one in self.app.registry.tasks.values() if one.spec.retries
        )
        steps = 0
        while not self.is_over():
            if not self.step() or self.now > self._called_at + patience:
                raise PipelineTimeout(f"The simulated run does not end. What each role waits for:\n{self.describe()}")
            steps += 1
            if steps % 256 == 0 and time.monotonic() > give_up:
                raise PipelineTimeout(f"The simulated run was not over within {timeout:g} s:\n{self.describe()}")
        self.distributor.runner.conclude(cast(Any, self.distributor.ended))
        self._judge()

    def is_over(self) -> bool:
        """Both have ended; a collector that was started anew after it had finished waits for the next run."""
        return self.distributor.is_over and (self.collector.is_over or self.collector.machine.phase == "empty")

    def describe(self) -> str:
        """What each role waits for."""
        lines = [f"collector: {collector_line(self.collector.machine.snapshot())}"]
        first, *more = distributor_lines(self.distributor.machine.facts(), self.now)
        lines += [f"distributor: {first}", *(f"  {line}" for line in more)]
        running = [one for one in self.workers if one.running]
        return "\n".join([*lines, *(f"{one.name}: {worker_line(one.machine.snapshot())}" for one in running)])

    def _judge(self) -> None:
        kills = sum(fault.what == "collector" for fault in self.struck)
        for one, times in self.said.items():
            if times > 1 + (0 if self.journal else kills):
                raise SimulationError(f"{one} was collected {times} times.")
        for counts in self._counts():
            if counts.state == "complete":
                self._judge_task(counts.task)

    def _judge_task(self, task: str) -> None:
        expected = [index for (name, _), index in self._keys.items() if name == task]
        fed = self.distributor.machine.tasks[task].fed
        for index in expected or range(self._ends.get(task, 0) if fed is None else fed.count):
            if not self.collections[task, index] and (task, index) not in self._failures:
                raise SimulationError(f"Item {index} of task {task!r} was lost.")

    def _counts(self) -> list[m.TaskCounts]:
        # a distributor that was started again on a finished run knows nothing of it
        return list(self.collector.machine.counts) or self.distributor.machine.counts()

    def raise_first(self) -> None:
        """What the first failed item failed of; then what a function that is for no one item raised."""
        __tracebackhide__ = True
        if self._first is not None:
            raise_failure(*self._first)
        if self.broken is not None:
            raise self.broken

    def answer(self) -> SimulatedRun:
        """All that is known of the run."""
        counts = self._counts()
        ended = self.distributor.ended
        ok = ended is not None and not ended.status and self.broken is None and not self._failures
        return SimulatedRun(
            list(self._results.values()),
            list(self._failures.values()),
            Summary.from_counts(counts, ok=ok, seconds=self.now),
            self.events,
            seed=self.seed,
            faults=self.struck,
            notes=dict(self.notes),
            executions=self.executions,
            collections=self.collections,
        )

    def use_event_loop(self) -> None:
        """Async functions are awaited on an event loop of this world's own."""
        if self._event_loop is None:
            self._event_loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._event_loop)

    def close(self) -> None:
        """Let go of the journal, and of the event loop."""
        if self._event_loop is not None:
            asyncio.set_event_loop(None)
            self._event_loop.close()
        collector = getattr(self, "collector", None)
        if collector is not None:
            collector.close()
        for role in getattr(self, "_made", ()):
            RoleRunner.of(role).close_functions()


def _not_repeatable(task: str, before: str, again: str) -> SimulationError:
    return SimulationError(
        f"The source of task {task!r} {before}, and {again} when a distributor that was started again called it: items "
        "would be lost or mixed up. Let it give the same items in the same order, or give the task a key=."
    )


def _shown(payload: bytes) -> str:
    text = repr(unpack(payload))
    return text if len(text) <= 200 else f"{text[:200]}..."
