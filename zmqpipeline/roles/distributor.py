"""Distributor: gives the items of the registered tasks to workers, and sees each of them through."""

from __future__ import annotations

import os
import random
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, DefinitionError, RegistrationError, RunFailed
from zmqpipeline.protocol.commands import Ended, LoadMetadata, LookForEnd, Produce, StartTasks
from zmqpipeline.protocol.delivery.dependencies import order
from zmqpipeline.protocol.delivery.failure_kinds import said
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.events import EndFound, MetadataLoaded, WorkerDied
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.protocol.run_end import AT_THE_END
from zmqpipeline.protocol.status import HOP as STATUS_HOP
from zmqpipeline.roles.attributes import AttributeSpec, require_declared
from zmqpipeline.roles.base import CLOSE_SECONDS, Actions, Role, new_incarnation
from zmqpipeline.roles.results import Failure, Reason, Summary
from zmqpipeline.roles.task import Task
from zmqpipeline.runtime import child
from zmqpipeline.runtime.bind import STAY_FACTOR, early_stay, is_near, longest_wait
from zmqpipeline.runtime.ended_runs import find_early_note, leave_early_note, leave_note
from zmqpipeline.runtime.error_text import named, trouble_of, users_part
from zmqpipeline.runtime.log import about_thread
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.threads.serial import SerialThread
from zmqpipeline.runtime.threads.source import Exhausted, Gated, Keep, Producer, Take, steps
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import METADATA_BYTES, is_dict, pack_aside, pack_identity, unpack

if TYPE_CHECKING:
    from zmqpipeline.protocol.recorder import Recorder

MAX_VALUE_LENGTH = 200
"""So many characters of a metadata value are shown in an error."""

MetadataSource: TypeAlias = Callable[[], "dict[str, Any] | None"]


class Distributor(Role):
    """Gives out items; it is not subclassed. Register the tasks, make it, and call `run()`."""

    _log_name = "zmqpipeline.distributor"
    _end_to_end = True
    _declares: ClassVar[dict[str, AttributeSpec]] = {}
    _registered: ClassVar[dict[str, type[Task]]] = {}

    def __init__(
        self,
        collector_endpoint: EndpointAddress | str,
        collector_ack_endpoint: EndpointAddress | str,
        receive_metadata: bool = False,
        metadata_endpoint: EndpointAddress | str | None = None,
        *,
        _tasks: Sequence[Task] | None = None,
        _metadata: MetadataSource | None = None,
    ) -> None:
        """Make a distributor for the collector at these addresses.

        Args:
            collector_endpoint: where the collector takes results.
            collector_ack_endpoint: where the collector acknowledges; the distributor connects to it.
            receive_metadata: wait for a MetaDataWorker before the first item.
            metadata_endpoint: the address for the MetaDataWorker; the distributor binds it.

        Raises:
            EndpointError: an address is malformed; it is a `TypeError`.
            ConfigurationError: `receive_metadata` without an address.
        """
        self.collector_endpoint = EndpointAddress(collector_endpoint)
        self.collector_ack_endpoint = EndpointAddress(collector_ack_endpoint)
        self.metadata_endpoint = None if metadata_endpoint is None else EndpointAddress(metadata_endpoint)
        self.receive_metadata = bool(receive_metadata)
        if self.receive_metadata and self.metadata_endpoint is None:
            raise ConfigurationError(
                "The distributor was told to receive metadata, but not where. "
                "Give it metadata_endpoint, the endpoint of the MetaDataWorker."
            )
        self._given_tasks = _tasks
        self._metadata_source = _metadata
        self._given_metadata: dict[str, Any] = {}
        self._status_place: EndpointAddress | None = None
        self._tasks: list[Task] = []
        self._metadata: dict[str, Any] = {}
        self._raised: dict[str, BaseException] = {}
        self._producers: list[Producer] = []
        self._serial: SerialThread | None = None

    @classmethod
    def register_task(cls, task: type[Task]) -> None:
        """Register a Task class for every distributor that this process runs from now on; again is no error.

        Raises:
            DefinitionError: it is no Task class, or an attribute or `handle` is missing; it is a `TypeError`.
            RegistrationError: another class is registered for its task type.
        """
        if not (isinstance(task, type) and issubclass(task, Task)):
            raise DefinitionError(f"register_task takes a subclass of Task, not {task!r}.")
        require_declared(task)
        missing = sorted(getattr(task, "__abstractmethods__", ()))
        if missing:
            raise DefinitionError(f"{task.__name__} does not define {', '.join(missing)}. Write it, then register.")
        name = str(task.task_type) if isinstance(task.task_type, str) else task.__qualname__
        other = Distributor._registered.setdefault(name, task)
        if other is not task and _place_of(other) != _place_of(task):
            raise RegistrationError(
                f"Task type {name!r} has two tasks: {other.__name__} and {task.__name__}. "
                "A type stands for one task: give one of them another type."
            )
        Distributor._registered[name] = task

    @property
    def counts(self) -> Sequence[TaskCounts]:
        """What became of the items of each task, once `run()` is over."""
        return () if self.machine is None else self.machine.counts()

    @property
    def finished_data(self) -> dict[str, Any]:
        """What the collector's `handle_finished` returned, once `run()` is over; empty if that was no dict."""
        packed = b"" if self.machine is None else self.machine.finished_data
        data: dict[str, Any] = unpack(packed) if packed else {}
        return data

    @property
    def ok(self) -> bool | None:
        """True if every item was collected and no function raised, False if not; None until `run()` is over."""
        return None if self.machine is None else self.machine.ok

    @property
    def failures(self) -> list[Failure]:
        """The items that were given up, in order: the first thousand of them, and of these so many as fit in 16 MiB.

        Of those that failed in the collector it is told at the end, the first of each kind (same task, type and place),
        of twenty kinds at most. Their numbers are in `summary`, the items themselves in `Collector.failures`.
        """
        return [] if self.machine is None else [Failure.from_item(item) for item in list(self.machine.failed.first)]

    @property
    def summary(self) -> Summary:
        """The run so far, or as it ended: what `app.run` returns."""
        reasons: list[Reason] = []
        if (machine := self.machine) is not None:
            sources = {name: one for name, one in machine.troubles.items() if name not in AT_THE_END}
            ends = {name: one for name, one in machine.troubles.items() if name in AT_THE_END}
            items = Reason.of_items(machine.failed.kinds)
            reasons = [*Reason.of_functions(sources, "source"), *items, *Reason.of_functions(ends, "collector")]
        return Summary.from_counts(self.counts, ok=bool(self.ok), seconds=self._seconds(), reasons=reasons)

    # the role ---------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._given_tasks is None:
            self._tasks = [task() for task in Distributor._registered.values()]
        else:
            self._tasks = list(self._given_tasks)
        if not self._tasks:
            raise ConfigurationError(
                "The distributor has no tasks. Call Distributor.register_task(MyTask) before run()."
            )
        order([task._spec() for task in self._tasks])
        self._metadata, self._raised = {}, {}

    def _task_places(self) -> list[EndpointAddress]:
        places = (task._addresses.get("workers") or EndpointAddress(task.endpoint) for task in self._tasks)
        return list(dict.fromkeys(places))

    def _places(self) -> Iterable[EndpointAddress]:
        ack = self._address("acks", self.collector_ack_endpoint)
        return [*self._task_places(), ack, *self._metadata_place(), *self._asked_at()]

    def _metadata_place(self) -> list[EndpointAddress]:
        return [self.metadata_endpoint] if self.receive_metadata and self.metadata_endpoint is not None else []

    def _asked_at(self) -> list[EndpointAddress]:
        """Where it says how the run stands: nowhere among threads of one process, which nobody else could ask."""
        place = self._status_place
        return [] if place is None or place.protocol == "inproc" else [place]

    def _open(self, transport: Transport) -> None:
        for index, place in enumerate(self._task_places()):
            transport.bind("workers" if index == 0 else f"workers/{index}", place)
        for place in self._metadata_place():
            transport.bind("metadata", place)
        for place in self._asked_at():
            transport.bind(STATUS_HOP, place)
        transport.connect("acks", self._address("acks", self.collector_ack_endpoint))

    def _make_machine(self) -> DistributorMachine:
        local = "none" if self._metadata_source is None else "local"
        return DistributorMachine(
            self._pipeline,
            [task._spec() for task in self._tasks],
            incarnation=new_incarnation(),
            run=uuid.uuid4().hex,
            options=self.options,
            rng=random.Random(),
            metadata="remote" if self.receive_metadata else local,
            supervised=socket.gethostname() if child.is_child() else "",
            here=f"{socket.gethostname()}/{os.getpid()}",
            stay=(stay := self._stay_seconds()),
            early_stay=early_stay(stay),
            age=self._age,
            command=self._command,
            is_dict=is_dict,
            show=lambda packed: _short(unpack(packed)),
        )

    def _front(self, machine: DistributorMachine, recorder: Recorder) -> Machine:
        from zmqpipeline.protocol.observed import ObservedDistributor

        return ObservedDistributor(machine, recorder)

    def _stay_seconds(self) -> float:
        """How long it is there at least: whoever waits for it tries again within that time, and hears of the end."""
        # `run` ends the workers that it has started, and knows them all
        places = [place for place in self._task_places() if not (child.is_child() and is_near(place))]
        return max((STAY_FACTOR * longest_wait(place) for place in places), default=0.0)

    def _attach(self, loop: Loop | None) -> None:
        super()._attach(loop)
        if child.is_child():
            child.listen(None if loop is None else lambda line: _hear(line, loop.post))

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        producers = {str(task.task_type): self._producer(task, post) for task in self._tasks}
        self._producers = list(producers.values())
        serial = self._serial = SerialThread("zmqpipeline metadata")
        return {
            LookForEnd: lambda command: self._look_for_end(post),
            LoadMetadata: lambda command: serial.submit(lambda: post(self._load_metadata())),
            StartTasks: self._start_tasks,
            Produce: lambda command: producers[command.task].produce(command),
        }

    def _producer(self, task: Task, post: Callable[[Any], None]) -> Producer:
        return Producer(str(task.task_type), self._steps_of(task), post, self._leadership)

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        """Of the collector: notes at other addresses are those of distributors."""
        if early := find_early_note(connected=[self._address("acks", self.collector_ack_endpoint)]):
            post(EndFound("", early[1], early[0]))

    def _load_metadata(self) -> MetadataLoaded:
        try:
            source = self._metadata_source
            metadata = None if source is None else source()
            return MetadataLoaded(pack_aside(metadata, named("The metadata function", source), METADATA_BYTES))
        except BaseException as error:
            self._raised.setdefault("", error)
            return MetadataLoaded(b"", trouble_of(error))

    def _start_tasks(self, command: StartTasks) -> None:
        self._metadata = unpack(command.metadata) if command.metadata else {}
        refuse_other_metadata(self._given_metadata, self._metadata, ConfigurationError)

    def _steps_of(self, task: Task) -> Take:
        """The task's own steps, which begin with the first, on its own thread; what they raise is kept for `run()`."""
        inner: Take | None = None

        def take(command: Produce, count: int, keep: Keep) -> None:
            nonlocal inner
            try:
                about_thread(task=str(task.task_type))
                if inner is None:
                    inner = steps(task._start(dict(self._metadata), command.over))
                inner(command, count, keep)
            except (Exhausted, Gated):
                raise
            except BaseException as error:
                self._raised.setdefault(str(task.task_type), error)
                raise
            finally:
                # the thread may run the loop between two calls, whose lines are about no task
                about_thread()

        return take

    def _leave_note(self) -> None:
        """For workers that have not met the run, or have missed the word of its end."""
        machine = self.machine
        if machine is None:
            return
        try:
            # of one that ended before any run there is nothing to say
            if machine.is_over and machine.run:
                leave_note(self._task_places(), machine.run)
            if machine.early and machine.interrupted_at is not None:
                acks = self._address("acks", self.collector_ack_endpoint)
                bound = [*self._task_places(), *self._metadata_place()]
                leave_early_note("distributor", machine.interrupted_at, bound=bound, connected=[acks])
        except OSError as error:
            self._log.info("Roles that come late will not learn that the run is over: %s.", error)

    def _close(self) -> None:
        self._leave_note()
        for producer in self._producers:
            producer.close(CLOSE_SECONDS)
        if self._serial is not None:
            self._serial.close(CLOSE_SECONDS)
        self._producers, self._serial = [], None

    def _conclude(self, ended: Ended) -> None:
        for name, error in self._raised.items():
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                # a function of the user does not end the process that calls it
                raise RunFailed(f"Not everything was sent: {_ended(name, error)}", self.machine.troubles) from error
            # its own frames, and not ours on the way to them
            raise error.with_traceback(users_part(error.__traceback__))
        names = {str(task.task_type) for task in self._tasks} | {"metadata"}
        troubles = {name: trouble for name, trouble in self.machine.troubles.items() if name in names}
        if troubles:
            lines = "; ".join(f"task {name!r}: {said(one)}" for name, one in troubles.items())
            raise RunFailed(f"Not everything was sent: {lines}", troubles)
        super()._conclude(ended)

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        if ended.status != RunFailed.exit_status:
            return None
        return RunFailed(ended.reason, {**self.machine.failed.troubles(), **self.machine.troubles})


def refuse_other_metadata(
    given: Mapping[str, Any],
    held: Mapping[str, Any],
    error: type[ConfigurationError],
    which: str = "The unfinished run",
) -> None:
    """Raise `error` if metadata that was given is not that of the unfinished run that goes on.

    `held` may say more than `given`: what the metadata function returned when the run began. Values are the same when
    they pack to the same bytes. The text begins with `which`.
    """
    for key, value in given.items():
        if key not in held or pack_identity(held[key]) != pack_identity(value):
            seen = f"{key}={_short(held[key])}" if key in held else f"no {key!r}"
            raise error(
                f"{which} has the metadata {seen}, but {key}={_short(value)} was given. "
                "Leave --meta out to go on with the run, or --fresh to start again."
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."


def _hear(line: str, post: Callable[[WorkerDied], object]) -> None:
    """What the supervisor of a run says of its other children."""
    notice = child.read_death_notice(line)
    if notice is not None:
        post(WorkerDied(*notice))


def _ended(name: str, error: BaseException) -> str:
    who = f"the function of task {name!r}" if name else "the metadata function"
    return f"{who} raised {error!r}. Return, or raise another exception."


def _place_of(task: type[Task]) -> tuple[str, str]:
    return task.__module__, task.__qualname__
