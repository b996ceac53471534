"""Collector: gathers what the workers returned, each item once, and acknowledges it to the distributor."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, JournalError, JournalUnavailable, RunFailed
from zmqpipeline.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.commands import (
    CallFailed,
    CallFinished,
    Collect,
    Ended,
    Fetch,
    KeepPauses,
    LookForEnd,
    SetRun,
)
from zmqpipeline.protocol.delivery.failure_kinds import by_count
from zmqpipeline.protocol.events import DistributorEnds, EndFound, Event
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.roles.attributes import (
    ENDPOINT,
    AttributeSpec,
    accepted_args,
    is_async,
    is_overridden,
    with_accepted_args,
)
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.calls import with_last
from zmqpipeline.roles.collecting import (
    Collection,
    ResultCalls,
    ResultHandler,
    ResultWatcher,
    Stages,
    WatchedCalls,
    refuse_unrun,
)
from zmqpipeline.roles.results import Failure, Reason, Summary
from zmqpipeline.roles.runner import CLOSE_SECONDS, Actions, RoleRunner, RunnerSettings, new_incarnation
from zmqpipeline.runtime.bind import STAY_FACTOR, early_stay, longest_wait
from zmqpipeline.runtime.ended_runs import find_early_note, leave_early_note
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.journal.scratch import open_scratch, remove_scratch
from zmqpipeline.runtime.progress import read_progress
from zmqpipeline.runtime.threads.collecting import CollectorThread
from zmqpipeline.runtime.threads.feeding import Feeds
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import is_dict, unpack


class Collector(Role):
    """Subclass it, declare `endpoint` and `ack_endpoint`, and write `handle_collection`."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {"endpoint": ENDPOINT, "ack_endpoint": ENDPOINT}

    endpoint: EndpointAddress | str
    """Where the workers send their results; the collector binds it."""

    ack_endpoint: EndpointAddress | str
    """Where the distributor hears what is acknowledged; the collector binds it."""

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata; known from the first `handle_collection` on."""
        return {}

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
        runner = CollectorRunner.of(self)
        return Summary.from_counts(counts, ok=bool(self.ok), seconds=runner.seconds(), reasons=runner.reasons())

    @property
    def is_finishing(self) -> bool:
        """Whether every item is done and `handle_finished` has not returned."""
        return self.machine is not None and self.machine.phase == "finishing"

    def _make_runner(self) -> CollectorRunner:
        return CollectorRunner(self)


class _Methods(ResultHandler):
    """The methods of a user's class, each with as many arguments as it takes."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    @property
    def name(self) -> str:
        """The class."""
        return type(self._collector).__name__

    def check(self) -> None:
        """They are plain methods: of one with a `yield`, and of an async one, nothing would be executed."""
        for method in ("handle_collection", "handle_finished", "handle_failed", "get_ack_data"):
            function = getattr(self._collector, method)
            if is_async(function):
                raise ConfigurationError(
                    f"{self.name}.{method} is an async method; those of a Collector are plain ones. Write it with "
                    "`def`, or a function with @app.collector, which may be an `async def`."
                )
            if inspect.isgeneratorfunction(function):
                raise ConfigurationError(
                    f"{self.name}.{method} has a yield; it must return one value or none. Write return in its place."
                )

    def collection(self) -> Collection:
        """`handle_collection`, with the data, the task and the message type."""
        handle = self._collector.handle_collection
        takes = accepted_args(handle, 3)
        return lambda task, attempt: (with_last(handle, takes, task, MESSAGE_TYPE_DATA), False)

    def failed(self, failure: Failure) -> None:
        """`handle_failed`."""
        refuse_unrun(self._collector.handle_failed(failure), f"{self.name}.handle_failed")  # type: ignore[func-returns-value]

    def finished(self, tasks: Sequence[str]) -> Any:
        """`handle_finished`; with the task, if there is but one."""
        handle = with_accepted_args(self._collector.handle_finished, 3)
        return handle({}, tasks[0] if len(tasks) == 1 else "", MESSAGE_TYPE_END)

    def has_ack_data(self) -> bool:
        """Whether `get_ack_data` is written."""
        return is_overridden(self._collector, "get_ack_data", Collector)

    def ack_data(self, task: str) -> Any:
        """`get_ack_data`."""
        return self._collector.get_ack_data()

    def whose(self, what: str) -> str:
        """The method, with its line."""
        method = {"finished": "handle_finished", "ack_data": "get_ack_data"}[what]
        return named(f"{self.name}.{method}", getattr(self._collector, method))

    def journal_user(self) -> str:
        """No method takes it."""
        return ""


class CollectorRunner(RoleRunner):
    """Runs a collector: its thread for user code, and its journal."""

    role: Collector
    log_name = "zmqpipeline.collector"
    end_to_end = True

    def __init__(
        self,
        role: Collector,
        settings: RunnerSettings | None = None,
        *,
        handler: ResultHandler | None = None,
        stages: Stages | None = None,
    ) -> None:
        """`handler` is what it calls in place of the class's methods; `stages` say what results become items of."""
        super().__init__(role, settings)
        self.handler = handler or _Methods(role)
        self.fresh = False
        """Forget what the journal holds."""
        self.journal_path: str | None = None
        """Instead of the options' one."""
        self.watcher: ResultWatcher | None = None
        """Told what came of each call of user code."""
        self.stages = stages
        self._journal: Journal | None = None
        self._scratch: Journal | None = None
        """What serves where nobody has asked for a journal, if results become items of other tasks."""
        self._calls: ResultCalls | None = None
        self._gatherer: CollectorThread | None = None
        self._lost: BaseException | None = None

    def reasons(self) -> list[Reason]:
        """Why not everything was collected: sources first, since what they did not send cannot be."""
        machine = self.role.machine
        if machine is None:
            return []
        sources = Reason.of_functions(machine.unsent, "source")
        return [*sources, *Reason.of_items(machine.failed.kinds), *Reason.of_functions(machine.troubles, "collector")]

    def tracebacks(self) -> list[str]:
        """Of each of the `reasons`, that of its first failure."""
        machine = self.role.machine
        if machine is None:
            return []
        kinds = [kind.trouble for kind in by_count(machine.failed.kinds)]
        return [one.traceback for one in (*machine.unsent.values(), *kinds, *machine.troubles.values())]

    def distributor_ends(self) -> None:
        """Whoever runs it ends its distributor, and starts no other: the end of that one is no news."""
        self._tell(DistributorEnds())

    def calls(self) -> ResultCalls:
        """The calls of user code, as one run begins."""
        if self.watcher is None:
            self._calls = ResultCalls(self.handler, self.options, self._tracing)
        else:
            self._calls = WatchedCalls(self.handler, self.options, self.watcher, self._tracing)
        return self._calls

    def set_run(self, command: SetRun) -> None:
        """The run's metadata are known."""
        self.role.metadata = unpack(command.metadata) if command.metadata else {}
        if self._calls is not None:
            self._calls.begin()

    def _results(self) -> EndpointAddress:
        given = self.settings.addresses
        # a property may give it as a str
        return EndpointAddress(self.role.endpoint) if given is None else given.results

    def _acks(self) -> EndpointAddress:
        given = self.settings.addresses
        return EndpointAddress(self.role.ack_endpoint) if given is None else given.acks

    def places(self) -> Iterable[EndpointAddress]:
        """Where it takes results, and where it acknowledges."""
        return self._results(), self._acks()

    def prepare(self) -> None:
        """Open the journal, if there is one; raise if a function takes one and there is none."""
        self._lost = None
        self.handler.check()
        path = self.options.journal if self.journal_path is None else self.journal_path
        if path is not None:
            name = self.settings.pipeline or type(self.role).__name__
            fed = () if self.stages is None else self.stages.fed
            self._journal = Journal(path, pipeline=name, fresh=self.fresh, run_id=self.options.run_id, fed=fed)
            self.handler.journal = self._journal
            self._tell_forgotten(self._journal)
        elif user := self.handler.journal_user():
            raise JournalError(
                f"The {user} takes `journal`, but this collector keeps none. Give it a file: --journal FILE, "
                "app.run(journal=...), or ZMQPIPELINE_JOURNAL."
            )
        elif self.stages is not None:
            self._scratch = open_scratch(self._acks(), self.settings.pipeline, self.stages.fed)

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
        transport.bind("results", self._results())
        transport.bind("acks", self._acks())

    def _make_machine(self) -> CollectorMachine:
        return CollectorMachine(
            self.settings.pipeline,
            incarnation=new_incarnation(),
            options=self.options,
            is_dict=is_dict,
            stay=early_stay(STAY_FACTOR * max(map(longest_wait, self.places()))),
            age=self.process.age,
            commits=self._commits,
        )

    def _commits(self) -> tuple[int, float]:
        """Of the journal that was asked for."""
        return (0, 0.0) if (journal := self._journal) is None else journal.commits

    def _first_events(self) -> Iterable[Event]:
        restored = None if (journal := self._journal or self._scratch) is None else journal.restored
        return [] if restored is None else [restored]

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        calls = self.calls()
        gatherer = CollectorThread(
            calls.collecting,
            calls.call_failed,
            lambda command: calls.call_finished([one.task for one in self.role.counts]),
            post,
            note=calls.note,
            ack_data=calls.take_ack_data,
            journal=self._journal or self._scratch,
            leadership=self._leadership,
            failures=FailureLog(self._log),
            feeds=None if self.stages is None else partial(self._make_feeds, self.stages),
            options=self.options,
            note_error=None if self.watcher is None else self.watcher.raised,
            batch=calls.batch,
        )
        self._gatherer = gatherer
        return {
            LookForEnd: lambda command: self._look_for_end(post),
            SetRun: self._begin,
            KeepPauses: lambda command: self._keep_pauses(command, gatherer),
            Collect: gatherer.collect,
            Fetch: gatherer.fetch,
            CallFailed: gatherer.call_failed,
            CallFinished: gatherer.call_finished,
        }

    def _make_feeds(self, stages: Stages) -> Feeds:
        most = self.options.max_message_bytes
        feeds = stages.feeds(dict(self.role.metadata), most)
        return feeds if self._tracing is None else self._tracing.feeds(feeds, most)

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        if early := find_early_note(bound=[self._acks()]):
            post(EndFound("", early[1], early[0]))

    def _leave_note(self) -> None:
        """For roles that are still starting, and that nobody could tell."""
        machine = self.role.machine
        if machine is not None and machine.interrupted_at is not None:
            try:
                leave_early_note("collector", machine.interrupted_at, bound=self.places())
            except OSError as error:
                self._log.info("Roles that are still starting will not learn that the run ended: %s.", error)

    def _keep_pauses(self, command: KeepPauses, gatherer: CollectorThread) -> None:
        if (journal := self._journal or self._scratch) is not None:
            gatherer.submit(lambda: journal.pause(command.pauses))

    def _begin(self, command: SetRun) -> None:
        self.set_run(command)
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
        self.close_functions()
        if self._scratch is not None:
            machine = self.role.machine
            remove_scratch(self._scratch, goes_on=machine is not None and machine.goes_on)
        self._gatherer = self._journal = self._scratch = self.handler.journal = None

    def close_functions(self) -> None:
        """End what async functions have left behind."""
        self.handler.close(CLOSE_SECONDS)
        if self.stages is not None:
            self.stages.close(CLOSE_SECONDS)

    def conclude(self, ended: Ended) -> None:
        """Raise what the journal could not be written for."""
        for kind in (JournalError, JournalUnavailable):
            if self._lost is not None and ended.status == kind.exit_status:
                raise kind(ended.reason) from self._lost
        super().conclude(ended)

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        if ended.status != RunFailed.exit_status:
            return None
        machine = self.role.machine
        return RunFailed(ended.reason, {**machine.failed.troubles(), **machine.unsent, **machine.troubles})
