"""From an app to its processes: what is compiled here, what the children are told, and where they meet."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, EndpointError, JournalError
from zmqpipeline.options import Options
from zmqpipeline.processes import import_app
from zmqpipeline.processes.engines import Engine, EngineRun
from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.engines.prefix import LaunchCommand, filled, words_of
from zmqpipeline.processes.restarts import ChildSlots, Slot, SupervisorEvent
from zmqpipeline.processes.run_folder import run_folder
from zmqpipeline.processes.run_metadata import metadata_arguments
from zmqpipeline.processes.run_notes import announced, announced_in
from zmqpipeline.processes.supervisor import GRACE, Outcome, Plan, RunSupervisor
from zmqpipeline.processes.worker_group import WorkerSupervisor
from zmqpipeline.processes.worker_numbers import Bounds, Workers, check_processes, refuse_none, worker_bounds
from zmqpipeline.processes.worker_places import TaskPlaces, WorkerPlaces, most_on_this_machine
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.status_records import MAX_WORKERS
from zmqpipeline.roles.collecting import ResultWatcher
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.results import Summary
from zmqpipeline.roles.sources import refuse_other_metadata
from zmqpipeline.runtime import journal as journals
from zmqpipeline.runtime.progress import Progress
from zmqpipeline.runtime.security import curve
from zmqpipeline.runtime.security.issued import KeyIssuer, RunKeys
from zmqpipeline.runtime.security.keyfiles import server_public
from zmqpipeline.runtime.tuning import keep_imported
from zmqpipeline.serialization import pack

if TYPE_CHECKING:
    from zmqpipeline.processes.run_record import RunRecord
    from zmqpipeline.processes.scaling import Scaler
    from zmqpipeline.protocol.messages import Status

log = logging.getLogger("zmqpipeline.run")

MAX_FOLDER_LENGTH = 80
"""So many bytes a folder's name may have for the sockets in it to stay within the system's limit for their paths."""


def start(
    app: Pipeline,
    *,
    options: Options,
    endpoint: str | None = None,
    workers: Workers | None = None,
    metadata: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    timeout: float | None = None,
    observe: Callable[[Progress], None] | None = None,
    stdout: int | None = None,
    fresh: bool = False,
    launch: str | None = None,
    python: str | None = None,
    engine: EngineChoice | None = None,
    results: list[tuple[str, dict[str, Any]]] | None = None,
    record: RunRecord | None = None,
    beside: Beside | None = None,
) -> Outcome:
    """Run the app on this machine and see it through; `flags` are handed on to the children, as is `stdout`.

    The addresses are in a private folder unless `endpoint` says where: several runs of one app may go on at once.
    A run whose journal says that it is finished is not started again, unless it is to be `fresh`; its status is what it
    was. Of one in which every item is done, `finished` is called again; it needs no workers. What is collected is added
    to `results`, if they are wanted. `launch` is a command line before that of each worker, `python` the interpreter
    behind it, `engine` what places the workers else. `record` is told what happens, for a report; `beside` is begun
    and ended with the run.

    Raises:
        ConfigurationError: the app cannot be imported by child processes, or an argument names an unknown task.
        JournalError: the journal cannot be used, or holds an unfinished run with other metadata.
        KeysError: keys are missing or wrong, or the addresses are open to other machines and there are none.
    """
    if endpoint is not None:
        refuse_inproc(EndpointAddress(endpoint))
    target = import_app.hand_on(app)
    bounds = worker_bounds(app, workers)
    choice = engine or EngineChoice()
    engines = engines_for(launch, python, choice)
    is_placed = launch is not None or choice.is_other
    if endpoint is None:
        refuse_none(bounds)
    held = None if fresh else _held_run(app, options)
    if held is not None and held.finished:
        summary = Summary.from_counts(held.counts, ok=held.ok, seconds=0.0)
        return Outcome(summary, 0 if held.ok else 1, was_finished=True)
    if held is not None:
        bounds = {} if held.over else bounds
        _check_metadata(metadata, held.metadata, str(options.journal))
    with ExitStack() as stack:
        folder = stack.enter_context(run_folder(_folders()))
        stack.enter_context(_announced(app, base := endpoint or f"ipc://{folder}"))
        # a role of this run that is not there is one that is being started
        options = replace(options, endpoint=base, exit_when_idle=None)
        _check_doors(app, options)
        common = [*flags, "--endpoint", base]
        near, far = (["-m", "zmqpipeline", "-A", one] for one in (target, import_app.from_here(target)))
        # a task that is added too late for the distributor would be missed by nobody
        tasks = [f"--task={name}" for name in app.task_types]
        issuer = _issuer(options, folder) if is_placed else None
        engine_of = engines(issuer)
        issued = [] if issuer is None else ["--issued-keys", str(issuer.folder)]
        asked = [*near, "distributor", *tasks, *metadata_arguments(metadata, folder), *issued, *common]
        collector = cast("Collector", app.compile("collector", options=options))
        runner = CollectorRunner.of(collector)
        runner.fresh = fresh
        if issuer is not None:
            runner.run_keys = RunKeys(admitted=issuer.folder)
            # each worker has keys of its own, and needs no folder
            common = _without_keys(common)
        if results is not None:
            runner.watcher = _Keeper(results)
        if choice.is_other and bounds:
            most = sum(one.most for one in bounds.values())
            run = EngineRun(app.name, new_word(), base, most, python=python, issuer=issuer)
            engine_of = stack.enter_context(choice.used(run))
        told = [*common, *_told(record)]
        limit = MAX_WORKERS if is_placed else most_on_this_machine()
        places = WorkerPlaces(
            _worker_places(far if is_placed else near, bounds, told, engine_of=engine_of, limit=limit)
        )
        plan = Plan(
            name=app.name,
            collector=collector,
            runner=runner,
            distributor=Slot("distributor", asked),
            workers=places.all,
            places=places,
            totals=app.totals,
            drain_timeout=options.drain_timeout,
            timeout=timeout,
            # a far worker's farewell may come too late for a distributor that drains, and lingers then
            grace=2 * GRACE + options.linger if is_placed else GRACE,
            max_failures=options.max_failures,
            observe=observe if record is None else _both(observe, record.observe),
            scaler=_scaler(places),
        )
        slots = ChildSlots(stdout=stdout, watcher=record)
        stack.enter_context(_asked(base, options, slots, record, is_scaled=plan.scaler is not None))
        with _going_on(beside, base, folder, options, slots, places) as outcomes:
            outcome = RunSupervisor(plan, slots).run()
            numbers, fewest = places.numbers()
            outcomes.append(replace(outcome, workers=numbers, least=fewest))
        return outcomes[0]


class Beside(Protocol):
    """What goes on beside a run, and needs to know where it is."""

    def begin(
        self,
        base: str,
        folder: Path,
        options: Options,
        post: Callable[[SupervisorEvent], None],
        places: WorkerPlaces,
    ) -> None:
        """The run is about to begin, at this base address; `folder` lives as long as it. `post` tells its supervisor.

        `places` are those of its workers, to look at; nobody watches them yet. Called by the thread that starts the
        run's children.
        """
        ...

    def end(self, outcome: Outcome | None) -> None:
        """The run is over; None: something broke down. Called in any case."""
        ...


@contextmanager
def _going_on(
    beside: Beside | None, base: str, folder: Path, options: Options, slots: ChildSlots, places: WorkerPlaces
) -> Iterator[list[Outcome]]:
    """Begin and end what goes on beside the run; its outcome is put into the list."""
    outcomes: list[Outcome] = []
    if beside is None:
        yield outcomes
        return
    try:
        beside.begin(base, folder, options, slots.events.put, places)
        yield outcomes
    finally:
        beside.end(outcomes[0] if outcomes else None)


# what few runs want is imported by those that do


def _scaler(places: WorkerPlaces) -> Scaler | None:
    """What changes the number of workers with the work; None if no task has a range."""
    if not any(one.bounds.is_scaled for one in places.tasks.values()):
        return None
    from zmqpipeline.processes.scaling import Scaler

    return Scaler(places.tasks.values())


@contextmanager
def _asked(
    base: str, options: Options, slots: ChildSlots, record: RunRecord | None, *, is_scaled: bool
) -> Iterator[None]:
    """Ask how the run stands meanwhile, if somebody wants to know; the record is closed after it. Raises KeysError."""
    if record is None and not is_scaled:
        yield
        return
    from zmqpipeline.processes.run_questions import asking

    post = slots.events.put if is_scaled else None
    if record is None:
        with asking(derive(base, "status"), options, post=post):
            yield
        return

    def unasked(why: str) -> None:
        record.unasked = why

    def answered(status: Status) -> None:
        record.answered(status, lambda: _launched(slots))

    try:
        with asking(derive(base, "status"), options, record=answered, unasked=unasked, post=post):
            yield
    finally:
        record.close()


def _told(record: RunRecord | None) -> Sequence[str]:
    """What workers are told that a record is kept of."""
    if record is None:
        return ()
    from zmqpipeline.processes.run_record import SLOWEST

    return ("--tell-slowest", str(SLOWEST))


def _both(one: Callable[[Progress], None] | None, other: Callable[[Progress], None]) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if one is not None:
            one(progress)
        other(progress)

    return observe


def _launched(slots: ChildSlots) -> Mapping[tuple[str, int], Slot]:
    """The places of workers that a launch command has started, by host and process id."""
    told = [(place.child.has_told(), place) for place in slots.running() if place.child is not None and place.task]
    return {(one.host, one.pid): place for one, place in told if one.host}


class _Keeper(ResultWatcher):
    """Keeps what is collected."""

    def __init__(self, results: list[tuple[str, dict[str, Any]]]) -> None:
        self._results = results

    def collected(self, task: str, number: int, data: dict[str, Any]) -> None:
        """One more, with its task."""
        self._results.append((task, data))


def _issuer(options: Options, folder: Path) -> KeyIssuer | None:
    """What gives each placed worker of a run its keys; None if the run has no keys."""
    assert options.endpoint is not None
    keys = curve.keys_for(EndpointAddress(options.endpoint), options)
    return None if keys is None else KeyIssuer(folder / "issued", server_public(keys))


def _without_keys(arguments: Sequence[str]) -> list[str]:
    """These flags, as `flag_arguments` has them, without that of the keys."""
    found = list(arguments)
    if "--keys" in found:
        at = found.index("--keys")
        del found[at : at + 2]
    return found


def _check_doors(app: Pipeline, options: Options) -> None:
    """Raise what each role would: once, and before any of them starts."""
    places = app.places(options)
    for place in dict.fromkeys((*places.tasks.values(), places.results, places.acks)):
        curve.check_bindable(place, options)


def _held_run(app: Pipeline, options: Options) -> journals.Held | None:
    """What the journal holds of the run that is to go on, if there is one. Raises as `held_by`."""
    held = None if options.journal is None else held_by(app, options.journal)
    return held if held is not None and held.goes_on(options.run_id) else None


def held_by(app: Pipeline, path: str) -> journals.Held | None:
    """What this journal holds of a run of this pipeline; None if there is no such file, or nothing in it.

    Raises:
        JournalError: it is no sound journal, or that of another pipeline.
    """
    held = journals.peek(path)
    if held is not None and held.pipeline != app.name:
        raise JournalError(
            f"The journal {path} belongs to the pipeline {held.pipeline!r}, not to {app.name!r}. Name another file."
        )
    return held


def _check_metadata(given: Mapping[str, Any] | None, held: bytes, path: str) -> None:
    if given:
        known = pack.unpack(held) if held else {}
        refuse_other_metadata(given, known, JournalError, f"The unfinished run in the journal {path}")


def result(outcome: Outcome) -> Summary:
    """The summary, or what the caller of `app.run` must hear instead: an error, or the signal that ended the run."""
    if outcome.error is not None:
        raise outcome.error
    if outcome.signum == signal.SIGINT:
        raise KeyboardInterrupt
    if outcome.signum is not None:
        raise SystemExit(outcome.status)
    return outcome.summary


def supervise_workers(
    app: Pipeline,
    types: Sequence[str],
    processes: int,
    arguments: Sequence[str],
    drain_timeout: float,
    command: str = "worker",
) -> int:
    """Keep `processes` worker processes of each of these types running until they end; the exit status.

    `command` is the one that starts such a process: "worker" or "service-worker".

    Raises:
        ConfigurationError: so many are too many.
    """
    for name in types:
        check_processes(f"--processes {processes}", name, processes)
    python = ["-m", "zmqpipeline", "-A", import_app.hand_on(app)]
    tasks = _worker_places(python, dict.fromkeys(types, Bounds(processes, processes)), arguments, command)
    return WorkerSupervisor(ChildSlots(WorkerPlaces(tasks).all), drain_timeout).run()


LOCAL = "local"
"""The name of the engine of this machine."""

EngineOf: TypeAlias = Callable[[str, int], Engine]
"""What starts the worker of this task that has this number among them, from 0."""


@dataclass(frozen=True)
class EngineChoice:
    """What `--engine` says, and the flags that go with it."""

    name: str = LOCAL
    scheduler: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_other(self) -> bool:
        """Whether it is not this machine."""
        return self.name != LOCAL

    @contextmanager
    def used(self, run: EngineRun) -> Iterator[EngineOf]:
        """What starts each worker of a run; the engine is closed after the block. Raises ConfigurationError."""
        # looks through all installed packages: other runs need not
        from zmqpipeline.processes.engines.named import engine_named, in_use

        engine = engine_named(self.name, replace(run, scheduler=self.scheduler, options=self.options))
        # what it has imported
        keep_imported()
        with in_use(self.name, engine) as engine_of:
            yield engine_of

    def check(self, launch: str | None) -> None:
        """Raise ConfigurationError if the flags do not fit together."""
        if self.is_other and launch is not None:
            raise ConfigurationError(
                f"--launch and --engine {self.name} both say what starts the workers. Leave out one of them."
            )
        flag = "--scheduler" if self.scheduler is not None else "--engine-option"
        if not self.is_other and (self.scheduler is not None or self.options):
            raise ConfigurationError(f"{flag} is for an engine. Name it: --engine dask.")


def new_word() -> str:
    """A word of letters and digits, for a run."""
    return uuid.uuid4().hex[:12]


def engines_for(launch: str | None, python: str | None, choice: EngineChoice) -> Callable[[KeyIssuer | None], EngineOf]:
    """What tells, of who issues the keys of a run, what starts each of its workers, unless an engine is chosen.

    Raises:
        ConfigurationError: `launch` is no command line; `python` is given without it; flags do not fit together.
    """
    choice.check(launch)
    if launch is None:
        if python is not None and not choice.is_other:
            raise ConfigurationError(
                f"--python {python} is the interpreter of workers that a command starts, and there is none. Add "
                "--launch COMMAND, or start the app by that interpreter."
            )
        return lambda issuer: lambda task, index: THIS_MACHINE
    words, run = words_of(launch), new_word()

    def of_issuer(issuer: KeyIssuer | None) -> EngineOf:
        return lambda task, index: LaunchCommand(filled(words, index=index, task=task, run=run), python, issuer)

    return of_issuer


def _worker_places(
    python: Sequence[str],
    bounds: Mapping[str, Bounds],
    common: Sequence[str],
    command: str = "worker",
    *,
    engine_of: EngineOf = lambda task, index: THIS_MACHINE,
    limit: int = 0,
) -> dict[str, TaskPlaces]:
    def make(task: str, most: int, index: int) -> Slot:
        label = f"worker of {task!r}" if most == 1 and not index else f"worker {index + 1} of {task!r}"
        return Slot(label, [*python, command, *common, "--", task], task, engine=engine_of(task, index))

    return {task: TaskPlaces(task, one, partial(make, task, one.most), limit) for task, one in bounds.items()}


def status_bases(app: Pipeline, options: Options) -> list[str]:
    """The base addresses at which a distributor or broker of this app may be: of runs of this user, the usual one."""
    usual = app.places(options).base
    roles = ("status", "service-clients") if app.service_names else ("status",)
    if usual.protocol == "ipc" and not any(Path(derive(usual, role).path).exists() for role in roles):
        return announced_in(_notes(app))
    return list(dict.fromkeys([*announced_in(_notes(app)), usual]))


def _notes(app: Pipeline) -> Path:
    return Path(app.default_base.path, "runs")


@contextmanager
def _announced(app: Pipeline, base: str) -> Iterator[None]:
    """Let `status` find this run, as long as it lives; if that cannot be, the run goes on all the same."""
    with ExitStack() as stack:
        try:
            stack.enter_context(announced(_notes(app), base))
        except (OSError, EndpointError) as error:
            log.warning("`status` will not find this run by itself; ask with --endpoint %s. %s", base, error)
        yield


def _folders() -> Path:
    """Where the folder of a run is made: its name must leave room for the sockets in it."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_FOLDER_LENGTH - 24 and Path("/tmp").is_dir():
        base = "/tmp"
    return Path(base)
