"""Collector: gathers what the workers returned, each item once, and acknowledges it to the distributor."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import JournalError, JournalUnavailable, RunFailed
from zmqpipeline.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.commands import CallFailed, CallFinished, Collect, Ended, Fetch, LookForEnd, SetRun
from zmqpipeline.protocol.events import EndFound, Event
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.messages import FailedItem, TaskCounts
from zmqpipeline.roles.attributes import ENDPOINT, AttributeSpec, is_overridden, with_accepted_args
from zmqpipeline.roles.base import CLOSE_SECONDS, Actions, Role, new_incarnation
from zmqpipeline.roles.results import Failure, Reason, Summary
from zmqpipeline.runtime.bind import STAY_FACTOR, early_stay, longest_wait
from zmqpipeline.runtime.ended_runs import find_early_note, leave_early_note
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.journal.scratch import open_scratch, remove_scratch
from zmqpipeline.runtime.log import about_results
from zmqpipeline.runtime.progress import read_progress
from zmqpipeline.runtime.threads.collecting import CollectorThread
from zmqpipeline.runtime.threads.feeding import Feeds
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import ACK_DATA_BYTES, is_dict, pack_aside, pack_item, unpack, within_depth

if TYPE_CHECKING:
    from zmqpipeline.protocol.recorder import Recorder

Collection: TypeAlias = Callable[[str, int], tuple[Callable[..., Any], bool]]
"""By task and attempt: the user code for a result, and whether it is called with the item's number and the data."""

Observer: TypeAlias = Callable[[str, int, "dict[str, Any] | None", "BaseException | Failure | None"], None]
"""Told of each result that was collected and of each failure, on the collector's thread; for test runs."""


class Stages(Protocol):
    """How results of tasks become items of others, as an app says it."""

    @property
    def fed(self) -> tuple[str, ...]:
        """The tasks that get such items."""

    def feeds(self, metadata: dict[str, Any], max_bytes: int) -> Feeds:
        """The functions, for a run with this metadata; an item has at most so many bytes."""


AnyCollector = TypeVar("AnyCollector", bound="Collector")


def with_number(call: Callable[..., Any], *, takes_number: bool) -> Callable[[int, Any], Any]:
    """What a `Collection` gave, as a call with the item's number in any case."""
    return call if takes_number else lambda number, data: call(data)


class Collector(Role):
    """Subclass it, declare `endpoint` and `ack_endpoint`, and write `handle_collection`."""

    _log_name = "zmqpipeline.collector"
    _end_to_end = True
    _declares: ClassVar[dict[str, AttributeSpec]] = {"endpoint": ENDPOINT, "ack_endpoint": ENDPOINT}

    endpoint: EndpointAddress | str
    """Where the workers send their results; the collector binds it."""

    ack_endpoint: EndpointAddress | str
    """Where the distributor hears what is acknowledged; the collector binds it."""

    metadata: dict[str, Any]
    """The run's metadata; known from the first `handle_collection` on."""

    _journal_path: str | None
    """Instead of the options' one."""

    _fresh: bool
    """Forget what the journal holds."""

    _journal: Journal | None
    _scratch: Journal | None
    """What serves where nobody has asked for a journal, if results become items of other tasks."""

    _stages: Stages | None
    """How they do, if they do."""

    _gatherer: CollectorThread | None
    _lost: BaseException | None
    _observer: Observer | None
    _collection: Collection
    _ack: dict[str, Any]
    _last_task: str

    def __new__(cls: type[AnyCollector], *args: Any, **kwargs: Any) -> AnyCollector:
        """Set up the private state here, so that a subclass need not call ``super().__init__()``."""
        collector = super().__new__(cls)
        if not hasattr(cls, "metadata"):
            collector.metadata = {}
        collector._gatherer = collector._observer = collector._journal = collector._journal_path = None
        collector._scratch = collector._stages = None
        collector._fresh, collector._lost = False, None
        collector._ack, collector._last_task = {}, ""
        return collector

    @abstractmethod
    def handle_collection(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Take one result: ``handle_collection(self, data, task_type, msgtype)``; called on one thread, in order.

        Args:
            data: what the worker returned; an empty dict if it returned nothing.
            task_type: the task of the item.
            msgtype: `messages.MESSAGE_TYPE_DATA`.

        Returns:
            A dict is attached to the item's ACK, like `get_ack_data`; anything else says nothing.
        """

    def handle_finished(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Called at the end: ``handle_finished(self, data, task_type)``, or with ``msgtype`` as a third.

        With a journal the run counts as finished when it has returned. If it raises, or the process dies first, it is
        called again when the run is started again.

        Args:
            data: an empty dict.
            task_type: the task, if the run has one only; of several, an empty string, since all of them are over.
            msgtype: `messages.MESSAGE_TYPE_END`.

        Returns:
            A dict goes to the distributor with the last word of the collector, where it is `finished_data`.
        """
        return None

    def handle_failed(self, failure: Failure) -> None:
        """Called for each item that was given up."""

    def get_ack_data(self) -> dict[str, Any] | None:
        """Data for the next ACK, which the task's `is_available_for_handling` gets; called before each ACK."""
        return None

    @property
    def counts(self) -> Sequence[TaskCounts]:
        """What became of the items of each task; empty until the distributor has said it, at the end."""
        return () if self.machine is None else self.machine.counts

    @property
    def ok(self) -> bool | None:
        """True if the run ended, every item was collected and no function raised, False if not; None before its end.

        It is known in `handle_finished`.
        """
        machine = self.machine
        if self.counts:
            return machine.ok and not machine.troubles
        return False if machine is not None and machine.phase == "ended" else None

    @property
    def failures(self) -> list[Failure]:
        """The items that were given up, wherever, in order: the first thousand, and of these so many as fit in 16 MiB.

        `handle_failed` is called for each of all of them; their numbers are in `summary`.
        """
        return [] if self.machine is None else [Failure.from_item(item) for item in list(self.machine.failed.first)]

    @property
    def summary(self) -> Summary:
        """The run so far, or as it ended: what `app.run` returns."""
        counts = self.counts
        if not counts and self.machine is not None:
            counts = read_progress(self.machine, {}, 0.0, 0).counts
        return Summary.from_counts(counts, ok=bool(self.ok), seconds=self._seconds(), reasons=self._reasons())

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        if ended.status != RunFailed.exit_status:
            return None
        machine = self.machine
        return RunFailed(ended.reason, {**machine.failed.troubles(), **machine.unsent, **machine.troubles})

    def _reasons(self) -> list[Reason]:
        """Why not everything was collected: sources first, since what they did not send cannot be."""
        machine = self.machine
        if machine is None:
            return []
        sources = Reason.of_functions(machine.unsent, "source")
        return [*sources, *Reason.of_items(machine.failed.kinds), *Reason.of_functions(machine.troubles, "collector")]

    @property
    def is_finishing(self) -> bool:
        """Whether every item is done and `handle_finished` has not returned."""
        return self.machine is not None and self.machine.phase == "finishing"

    # what user code is called with ------------------------------------------------------------------------------------

    def _make_collection(self) -> Collection:
        handle = with_accepted_args(self.handle_collection, 3)
        return lambda task, attempt: (lambda data: handle(data, task, MESSAGE_TYPE_DATA), False)

    def _finish(self) -> Any:
        tasks = [one.task for one in self.counts]
        return with_accepted_args(self.handle_finished, 3)({}, tasks[0] if len(tasks) == 1 else "", MESSAGE_TYPE_END)

    def _call_finished(self) -> bytes:
        answer = self._finish()
        if not isinstance(answer, dict):
            return b""
        return pack_aside(answer, self._whose("handle_finished"), ACK_DATA_BYTES)

    def _whose(self, handler: str) -> str:
        """A handler for messages about what it returned."""
        return named(f"{type(self).__name__}.{handler}", getattr(self, handler))

    def _journal_user(self) -> str:
        """Which function takes `journal`, for messages; empty if none does."""
        return ""

    def _has_ack_data(self) -> bool:
        return is_overridden(self, "get_ack_data", Collector)

    def _collecting(self, task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
        """What is called for each item of a part."""
        self._last_task = task
        call, takes_number = self._collection(task, attempt)
        call = within_depth(call, self.options.max_depth, at=1 if takes_number else 0)
        if self.options.log_json:
            return about_results(task, attempt, with_number(call, takes_number=takes_number)), True
        return call, takes_number

    def _note(self, answer: Any) -> None:
        """What the call for an item returned: a dict goes along with the next ACK."""
        if isinstance(answer, dict):
            self._ack.update(answer)

    def _collecting_observed(self, task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
        assert self._observer is not None
        call, takes_number = self._collecting(task, attempt)
        collect, observer = with_number(call, takes_number=takes_number), self._observer

        def observed(number: int, data: Any) -> Any:
            # the function may change its own
            seen = copy.deepcopy(data)
            try:
                answer = collect(number, data)
            except BaseException as error:
                observer(task, number, None, error)
                raise
            observer(task, number, seen, None)
            return answer

        return observed, True

    def _take_ack_data(self) -> bytes:
        """What is attached to the next ACK, packed: what the items of this part returned, and `get_ack_data`."""
        ack, self._ack = self._ack, {}
        if self._has_ack_data():
            more = self.get_ack_data()
            if more is not None and not isinstance(more, dict):
                pack_item(more, self._whose("get_ack_data"))
            ack.update(more or {})
        return pack_aside(ack, f"the ACK data of {type(self).__name__}", ACK_DATA_BYTES) if ack else b""

    def _call_failed(self, item: FailedItem) -> None:
        failure = Failure.from_item(item)
        if self._observer is not None:
            self._observer(item.task, item.number, None, failure)
        self.handle_failed(failure)

    # the role ---------------------------------------------------------------------------------------------------------

    def _places(self) -> Iterable[EndpointAddress]:
        return self._address("results", self.endpoint), self._address("acks", self.ack_endpoint)

    def _prepare(self) -> None:
        self._lost = None
        path = self.options.journal if self._journal_path is None else self._journal_path
        if path is not None:
            name = self._pipeline or type(self).__name__
            fed = () if self._stages is None else self._stages.fed
            self._journal = Journal(path, pipeline=name, fresh=self._fresh, run_id=self.options.run_id, fed=fed)
            self._tell_forgotten(self._journal)
        elif user := self._journal_user():
            raise JournalError(
                f"The {user} takes `journal`, but this collector keeps none. Give it a file: --journal FILE, "
                "app.run(journal=...), or ZMQPIPELINE_JOURNAL."
            )
        elif self._stages is not None:
            self._scratch = open_scratch(self._address("acks", self.ack_endpoint), self._pipeline, self._stages.fed)

    def _tell_forgotten(self, journal: Journal) -> None:
        held = journal.forgotten
        if held is not None:
            which = f"the run {held.run_id!r}" if held.run_id else "a run without an id"
            state = "finished" if held.finished else "unfinished"
            self._log.log(
                logging.INFO if held.finished else logging.WARNING,
                "The journal %s holds %s, which is %s; it is forgotten as soon as the run %r begins (run_id).",
                *(journal.path, which, state, self.options.run_id),
            )

    def _open(self, transport: Transport) -> None:
        transport.bind("results", self._address("results", self.endpoint))
        transport.bind("acks", self._address("acks", self.ack_endpoint))

    def _make_machine(self) -> CollectorMachine:
        return CollectorMachine(
            self._pipeline,
            incarnation=new_incarnation(),
            options=self.options,
            is_dict=is_dict,
            stay=early_stay(STAY_FACTOR * max(map(longest_wait, self._places()))),
            age=self._age,
        )

    def _first_events(self) -> Iterable[Event]:
        restored = None if (journal := self._journal or self._scratch) is None else journal.restored
        return [] if restored is None else [restored]

    def _front(self, machine: CollectorMachine, recorder: Recorder) -> Machine:
        from zmqpipeline.protocol.observed import ObservedCollector

        return ObservedCollector(machine, recorder)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        self._ack, self._collection = {}, self._make_collection()
        gatherer = CollectorThread(
            self._collecting if self._observer is None else self._collecting_observed,
            self._call_failed,
            lambda command: self._call_finished(),
            post,
            note=self._note,
            ack_data=self._take_ack_data,
            journal=self._journal or self._scratch,
            leadership=self._leadership,
            failures=FailureLog(self._log),
            feeds=None if self._stages is None else partial(self._make_feeds, self._stages),
            options=self.options,
            note_error=None if self._observer is None else self._note_unfed,
        )
        self._gatherer = gatherer
        return {
            LookForEnd: lambda command: self._look_for_end(post),
            SetRun: self._set_run,
            Collect: gatherer.collect,
            Fetch: gatherer.fetch,
            CallFailed: gatherer.call_failed,
            CallFinished: gatherer.call_finished,
        }

    def _make_feeds(self, stages: Stages) -> Feeds:
        return stages.feeds(dict(self.metadata), self.options.max_message_bytes)

    def _note_unfed(self, task: str, number: int, error: BaseException) -> None:
        assert self._observer is not None
        self._observer(task, number, None, error)

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        if early := find_early_note(bound=[self._address("acks", self.ack_endpoint)]):
            post(EndFound("", early[1], early[0]))

    def _leave_note(self) -> None:
        """For roles that are still starting, and that nobody could tell."""
        if self.machine is not None and self.machine.interrupted_at is not None:
            try:
                leave_early_note("collector", self.machine.interrupted_at, bound=self._places())
            except OSError as error:
                self._log.info("Roles that are still starting will not learn that the run ended: %s.", error)

    def _set_run(self, command: SetRun) -> None:
        self.metadata = unpack(command.metadata) if command.metadata else {}
        self._collection = self._make_collection()
        if self._gatherer is not None:
            self._gatherer.begin(command)

    def _close(self) -> None:
        self._leave_note()
        if self._gatherer is not None:
            # which closes the journal, too, after the last call that uses it
            self._gatherer.close(CLOSE_SECONDS)
            self._lost = self._gatherer.lost
        elif (journal := self._journal or self._scratch) is not None:
            journal.close()
        if self._scratch is not None:
            remove_scratch(self._scratch, goes_on=self.machine is not None and self.machine.goes_on)
        self._gatherer = self._journal = self._scratch = None

    def _conclude(self, ended: Ended) -> None:
        for kind in (JournalError, JournalUnavailable):
            if self._lost is not None and ended.status == kind.exit_status:
                raise kind(ended.reason) from self._lost
        super()._conclude(ended)
