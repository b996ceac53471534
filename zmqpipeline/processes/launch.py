"""From an app to its processes: what is compiled here, what the children are told, and where they meet."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, EndpointError, JournalError, SerializeError, did_you_mean
from zmqpipeline.options import Options
from zmqpipeline.processes import import_app
from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.processes.engines import Engine
from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.engines.prefix import LaunchCommand, filled, words_of
from zmqpipeline.processes.restarts import ChildSlots, Slot
from zmqpipeline.processes.run_folder import run_folder
from zmqpipeline.processes.run_notes import announced, announced_in
from zmqpipeline.processes.supervisor import GRACE, Outcome, Plan, RunSupervisor
from zmqpipeline.processes.worker_group import WorkerSupervisor
from zmqpipeline.roles.collecting import ResultWatcher
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.results import Summary
from zmqpipeline.roles.sources import refuse_other_metadata
from zmqpipeline.runtime import journal as journals
from zmqpipeline.runtime.progress import Progress
from zmqpipeline.runtime.security import curve
from zmqpipeline.serialization import pack

log = logging.getLogger("zmqpipeline.run")

Workers: TypeAlias = 'int | Literal["auto"] | Mapping[str, int | Literal["auto"]]'
"""Worker processes for every task, or for some."""

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
    results: list[tuple[str, dict[str, Any]]] | None = None,
) -> Outcome:
    """Run the app on this machine and see it through; `flags` are handed on to the children, as is `stdout`.

    The addresses are in a private folder unless `endpoint` says where: several runs of one app may go on at once.
    A run whose journal says that it is finished is not started again, unless it is to be `fresh`; its status is what it
    was. Of one in which every item is done, `finished` is called again; it needs no workers. What is collected is added
    to `results`, if they are wanted. `launch` is a command line before that of each worker, `python` the interpreter
    behind it.

    Raises:
        ConfigurationError: the app cannot be imported by child processes, or an argument names an unknown task.
        JournalError: the journal cannot be used, or holds an unfinished run with other metadata.
        KeysError: keys are missing or wrong, or the addresses are open to other machines and there are none.
    """
    if endpoint is not None:
        refuse_inproc(EndpointAddress(endpoint))
    target = import_app.hand_on(app)
    numbers = worker_numbers(app, workers)
    engine_of = engines_for(launch, python)
    if endpoint is None:
        _refuse_none(numbers)
    if options.journal is not None and not fresh:
        held = held_by(app, options.journal)
        if held is not None and not held.goes_on(options.run_id):
            held = None
        if held is not None and held.finished:
            summary = Summary.from_counts(held.counts, ok=held.ok, seconds=0.0)
            return Outcome(summary, 0 if held.ok else 1, was_finished=True)
        if held is not None:
            numbers = {} if held.over else numbers
            _check_metadata(metadata, held.metadata, options.journal)
    with run_folder(_folders()) as folder, _announced(app, base := endpoint or f"ipc://{folder}"):
        # a role of this run that is not there is one that is being started
        options = replace(options, endpoint=base, exit_when_idle=None)
        _check_doors(app, options)
        common = [*flags, "--endpoint", base]
        near, far = (["-m", "zmqpipeline", "-A", one] for one in (target, import_app.from_here(target)))
        # a task that is added too late for the distributor would be missed by nobody
        tasks = [f"--task={name}" for name in app.task_types]
        asked = [*near, "distributor", *tasks, *_metadata_arguments(metadata, folder), *common]
        collector = cast("Collector", app.compile("collector", options=options))
        runner = CollectorRunner.of(collector)
        runner.fresh = fresh
        if results is not None:
            runner.watcher = _Keeper(results)
        plan = Plan(
            name=app.name,
            collector=collector,
            runner=runner,
            distributor=Slot("distributor", asked),
            workers=_worker_places(near if launch is None else far, numbers, common, engine_of=engine_of),
            totals=app.totals,
            drain_timeout=options.drain_timeout,
            timeout=timeout,
            # a far worker's farewell may come too late for a distributor that drains, and lingers then
            grace=GRACE if launch is None else 2 * GRACE + options.linger,
            max_failures=options.max_failures,
            observe=observe,
        )
        return replace(RunSupervisor(plan, ChildSlots(stdout=stdout)).run(), workers=numbers)


class _Keeper(ResultWatcher):
    """Keeps what is collected."""

    def __init__(self, results: list[tuple[str, dict[str, Any]]]) -> None:
        self._results = results

    def collected(self, task: str, number: int, data: dict[str, Any]) -> None:
        """One more, with its task."""
        self._results.append((task, data))


def _check_doors(app: Pipeline, options: Options) -> None:
    """Raise what each role would: once, and before any of them starts."""
    places = app.places(options)
    for place in dict.fromkeys((*places.tasks.values(), places.results, places.acks)):
        curve.check_bindable(place, options)


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
    """
    python = ["-m", "zmqpipeline", "-A", import_app.hand_on(app)]
    places = _worker_places(python, dict.fromkeys(types, processes), arguments, command)
    return WorkerSupervisor(ChildSlots(places), drain_timeout).run()


EngineOf: TypeAlias = Callable[[str, int], Engine]
"""What starts the worker of this task that has this number among them, from 0."""


def engines_for(launch: str | None, python: str | None) -> EngineOf:
    """What starts each worker of a run.

    Raises:
        ConfigurationError: `launch` is no command line; `python` is given without it.
    """
    if launch is None:
        if python is not None:
            raise ConfigurationError(
                f"--python {python} is the interpreter of workers that a command starts, and there is none. Add "
                "--launch COMMAND, or start the app by that interpreter."
            )
        return lambda task, index: THIS_MACHINE
    words, run = words_of(launch), uuid.uuid4().hex[:12]
    return lambda task, index: LaunchCommand(filled(words, index=index, task=task, run=run), python)


def _worker_places(
    python: Sequence[str],
    numbers: Mapping[str, int],
    common: Sequence[str],
    command: str = "worker",
    *,
    engine_of: EngineOf = lambda task, index: THIS_MACHINE,
) -> list[Slot]:
    places = []
    for task, number in numbers.items():
        for index in range(number):
            label = f"worker of {task!r}" if number == 1 else f"worker {index + 1} of {task!r}"
            arguments = [*python, command, *common, "--", task]
            places.append(Slot(label, arguments, task, engine=engine_of(task, index)))
    return places


def worker_numbers(app: Pipeline, given: Workers | None, cores: Callable[[], int] = usable_cores) -> dict[str, int]:
    """How many worker processes each task gets: what `given` says for all or some (key "": the others), or "auto".

    "auto" is as many as there are `cores` for this process.

    Raises:
        ConfigurationError: a task is unknown, or a number is none or below 0.
    """
    if not isinstance(given, Mapping):
        given = {"": "auto" if given is None else given}
    unknown = [task for task in given if task and task not in app.worker_types]
    if unknown:
        known = ", ".join(repr(one) for one in app.worker_types) or "none"
        raise ConfigurationError(
            f"workers= names the task {unknown[0]!r}, for which there is no worker. Known: {known}."
            f"{did_you_mean(unknown[0], app.worker_types)}"
        )
    asked = {task: given.get(task, given.get("", "auto")) for task in app.worker_types}
    for task, number in asked.items():
        if number != "auto" and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise ConfigurationError(
                f"workers= asks for {number!r} processes of task {task!r}. Give a whole number, 0 or more, or 'auto'."
            )
    auto = cores() if "auto" in asked.values() else 0
    return {task: auto if number == "auto" else int(number) for task, number in asked.items()}


def read_workers(app: Pipeline, given: Sequence[str]) -> Workers | None:
    """``--workers 2 --workers C=4,D=auto``: for all, for some, or both (the key "" is for all).

    Raises:
        ConfigurationError: a text is none of these.
    """
    numbers: dict[str, int | Literal["auto"]] = {}
    for value in given:
        # the name of a task may have a comma in it
        whole = value.rpartition("=")[0] in app.worker_types
        for one in [value] if whole else value.split(","):
            task, _, number = one.rpartition("=")
            if number != "auto" and not (number.isascii() and number.isdecimal()):
                raise ConfigurationError(
                    f"--workers takes a number of processes, auto, or TASK=NUMBER; {one!r} is none of these."
                )
            numbers[task] = "auto" if number == "auto" else int(number)
    return numbers or None


def _refuse_none(numbers: Mapping[str, int]) -> None:
    """Without a worker a run would wait for ever, unless others can find its address."""
    none = [task for task, number in numbers.items() if number == 0]
    if none:
        raise ConfigurationError(
            f"There would be no worker for task {none[0]!r}, and none can join this run: its addresses are private. "
            "Ask for 1 worker or more; or give --endpoint ADDRESS, and start workers there."
        )


def _metadata_arguments(metadata: Mapping[str, Any] | None, folder: Path) -> list[str]:
    """Metadata goes by a file: it may be of any type that items may have, and longer than a command line."""
    if not metadata:
        return []
    file = folder / "metadata"
    file.write_bytes(pack.pack_aside(dict(metadata), "the metadata argument", pack.METADATA_BYTES))
    return ["--meta-file", str(file)]


def read_metadata(file: Path) -> dict[str, Any]:
    """What `start` wrote for the distributor. Raises ConfigurationError if it is not there, or is something else."""
    try:
        found = pack.unpack(file.read_bytes())
    except (OSError, SerializeError) as error:
        raise ConfigurationError(f"--meta-file {str(file)!r} cannot be read: {error}") from error
    return cast("dict[str, Any]", found)


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
