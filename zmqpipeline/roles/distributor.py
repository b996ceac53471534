"""Distributor: gives the items of the registered tasks to workers, and sees each of them through."""

from __future__ import annotations

import os
import random
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, DefinitionError, RegistrationError, RunFailed, SerializeError
from zmqpipeline.protocol.commands import Ended, LoadMetadata, LookForEnd, Produce, StartTasks
from zmqpipeline.protocol.delivery.dependencies import TaskSpec, order
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.events import EndFound, WorkerDied, WorkersDesired
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.protocol.run_end import AT_THE_END
from zmqpipeline.protocol.status import HOP as STATUS_HOP
from zmqpipeline.roles.attributes import AttributeSpec, require_declared
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.results import Failure, Reason, Summary
from zmqpipeline.roles.runner import CLOSE_SECONDS, Actions, RoleRunner, RunnerSettings, new_incarnation
from zmqpipeline.roles.sources import ItemSource, MetadataSource, SourceCalls, shown_value
from zmqpipeline.roles.task import ClassSource, Task
from zmqpipeline.runtime import child
from zmqpipeline.runtime.bind import STAY_FACTOR, early_stay, is_near, longest_wait
from zmqpipeline.runtime.ended_runs import find_early_note, leave_early_note, leave_note
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.recent_lines import RecentLines
from zmqpipeline.runtime.threads.serial import SerialThread
from zmqpipeline.runtime.threads.source import Producer, Take
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import is_dict, unpack


class Distributor(Role):
    """Gives out items; it is not subclassed. Register the tasks, make it, and call `run()`."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {}
    _registered: ClassVar[dict[str, type[Task]]] = {}

    def __init__(
        self,
        collector_endpoint: EndpointAddress | str,
        collector_ack_endpoint: EndpointAddress | str,
        receive_metadata: bool = False,
        metadata_endpoint: EndpointAddress | str | None = None,
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
        seconds = RoleRunner.of(self).seconds()
        return Summary.from_counts(self.counts, ok=bool(self.ok), seconds=seconds, reasons=reasons)

    def _make_runner(self) -> DistributorRunner:
        return DistributorRunner(self)


class DistributorRunner(RoleRunner):
    """Runs a distributor: a thread for each source, and one for the metadata."""

    role: Distributor
    log_name = "zmqpipeline.distributor"
    end_to_end = True

    def __init__(
        self,
        role: Distributor,
        settings: RunnerSettings | None = None,
        *,
        sources: Sequence[ItemSource] | None = None,
        metadata: MetadataSource | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """`sources`: in place of the tasks that are registered when it runs; `metadata` is called for the run's.

        `given` are metadata that a run which it takes over must have.
        """
        super().__init__(role, settings)
        self._sources, self._metadata, self._given = sources, metadata, given
        self.calls = SourceCalls((), metadata, given)
        self._producers: list[Producer] = []
        self._serial: SerialThread | None = None
        self._recent = RecentLines("zmqpipeline.distributor", "zmqpipeline.task")

    def prepare(self) -> None:
        """Take the tasks; raise if there are none, or if one depends on what there is not."""
        sources = self._sources
        if sources is None:
            sources = [ClassSource(task()) for task in Distributor._registered.values()]
        self.calls = SourceCalls(sources, self._metadata, self._given)
        if not sources:
            raise ConfigurationError(
                "The distributor has no tasks. Call Distributor.register_task(MyTask) before run()."
            )
        order(self.specs())

    def specs(self) -> list[TaskSpec]:
        """What the machine must know of each task."""
        return [source.spec() for source in self.calls.sources]

    def _task_places(self) -> list[EndpointAddress]:
        return list(dict.fromkeys(source.endpoint for source in self.calls.sources))

    def places(self) -> Iterable[EndpointAddress]:
        """Those of the tasks, the ACKs, a metadata worker, and where it says how the run stands."""
        return [*self._task_places(), self._acks(), *self._metadata_place(), *self._asked_at()]

    def _acks(self) -> EndpointAddress:
        return self.role.collector_ack_endpoint

    def _metadata_place(self) -> list[EndpointAddress]:
        place = self.role.metadata_endpoint
        return [place] if self.role.receive_metadata and place is not None else []

    def _asked_at(self) -> list[EndpointAddress]:
        """Where it says how the run stands: nowhere among threads of one process, which nobody else could ask."""
        place = None if self.settings.addresses is None else self.settings.addresses.status
        return [] if place is None or place.protocol == "inproc" else [place]

    def _open(self, transport: Transport) -> None:
        for index, place in enumerate(self._task_places()):
            transport.bind("workers" if index == 0 else f"workers/{index}", place)
        for place in self._metadata_place():
            transport.bind("metadata", place)
        for place in self._asked_at():
            transport.bind(STATUS_HOP, place)
        transport.connect("acks", self._acks())

    def _make_machine(self) -> DistributorMachine:
        local = "local" if self.calls.has_metadata else "none"
        return DistributorMachine(
            self.settings.pipeline,
            self.specs(),
            incarnation=new_incarnation(),
            run=uuid.uuid4().hex,
            options=self.options,
            rng=random.Random(),
            metadata="remote" if self.role.receive_metadata else local,
            supervised=socket.gethostname() if child.is_child() else "",
            here=f"{socket.gethostname()}/{os.getpid()}",
            stay=(stay := self._stay_seconds()),
            early_stay=early_stay(stay),
            age=self.process.age,
            command=self.settings.command,
            is_dict=is_dict,
            show=_shown,
            log_lines=self._recent.lines,
        )

    def _stay_seconds(self) -> float:
        """How long it is there at least: whoever waits for it tries again within that time, and hears of the end."""
        # `run` ends the workers that it has started, and knows them all
        places = [place for place in self._task_places() if not (child.is_child() and is_near(place))]
        return max((STAY_FACTOR * longest_wait(place) for place in places), default=0.0)

    def _attach(self, loop: Loop | None) -> None:
        super()._attach(loop)
        self._recent.listen(is_up=loop is not None)
        if child.is_child():
            child.listen(None if loop is None else lambda line: _hear(line, loop.post))

    def _take_of(self, name: str, source: ItemSource) -> Take:
        take = self.calls.steps_of(source)
        most = self.options.max_message_bytes
        return take if self._tracing is None else self._tracing.producing(name, take, most)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        calls = self.calls
        producers = {
            name: Producer(name, self._take_of(name, source), post, self._leadership)
            for name, source in zip(calls.names, calls.sources, strict=True)
        }
        self._producers = list(producers.values())
        serial = self._serial = SerialThread("zmqpipeline metadata")
        return {
            LookForEnd: lambda command: self._look_for_end(post),
            LoadMetadata: lambda command: serial.submit(lambda: post(calls.load_metadata())),
            StartTasks: calls.start_tasks,
            Produce: lambda command: producers[command.task].produce(command),
        }

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        """Of the collector: notes at other addresses are those of distributors."""
        if early := find_early_note(connected=[self._acks()]):
            post(EndFound("", early[1], early[0]))

    def _leave_note(self) -> None:
        """For workers that have not met the run, or have missed the word of its end."""
        machine = self.role.machine
        if machine is None:
            return
        try:
            # of one that ended before any run there is nothing to say
            if machine.is_over and machine.run:
                leave_note(self._task_places(), machine.run)
            if machine.early and machine.interrupted_at is not None:
                bound = [*self._task_places(), *self._metadata_place()]
                leave_early_note("distributor", machine.interrupted_at, bound=bound, connected=[self._acks()])
        except OSError as error:
            self._log.info("Roles that come late will not learn that the run is over: %s.", error)

    def _close(self) -> None:
        self._leave_note()
        # who waits for an async source is woken by that
        self.close_functions()
        for producer in self._producers:
            producer.close(CLOSE_SECONDS)
        if self._serial is not None:
            self._serial.close(CLOSE_SECONDS)
        self._producers, self._serial = [], None

    def close_functions(self) -> None:
        """End what async functions have left behind."""
        self.calls.close(CLOSE_SECONDS)

    def conclude(self, ended: Ended) -> None:
        """Raise what a source or the metadata function raised."""
        self.calls.raise_first(self.role.machine.troubles)
        super().conclude(ended)

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        if ended.status != RunFailed.exit_status:
            return None
        return RunFailed(ended.reason, {**self.role.machine.failed.troubles(), **self.role.machine.troubles})


def _shown(packed: bytes) -> str:
    try:
        return shown_value(unpack(packed))
    except SerializeError:
        return "(it cannot be read here)"


def _hear(line: str, post: Callable[[WorkerDied | WorkersDesired], object]) -> None:
    """What the supervisor of a run says of its other children."""
    if (notice := child.read_death_notice(line)) is not None:
        post(WorkerDied(*notice))
    elif (desired := child.read_desired_notice(line)) is not None:
        post(WorkersDesired(*desired))


def _place_of(task: type[Task]) -> tuple[str, str]:
    return task.__module__, task.__qualname__
