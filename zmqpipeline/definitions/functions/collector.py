"""Decorated collector functions as a `Collector`."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.names import name_of
from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END
from zmqpipeline.roles.collecting import Collection, ResultHandler
from zmqpipeline.roles.collector import Collector
from zmqpipeline.roles.results import Failure
from zmqpipeline.runtime.threads.event_loop import EventLoopThread


class FunctionCollector(Collector):
    """A collector made of functions: one for each task or for all of them, and those for the end and for failures."""

    def __init__(
        self,
        endpoint: EndpointAddress,
        ack_endpoint: EndpointAddress,
        collectors: Mapping[str, Handler],
        single: Mapping[str, Handler],
        inner: Container[str] = (),
        loop: EventLoopThread | None = None,
    ) -> None:
        """`collectors` by task type ("" for all others); `single` holds finished, failed and ack_data, if given.

        `inner` are the tasks whose results the function for all does not get, since they become items of others.
        Async functions run on this event `loop`.
        """
        self.endpoint = endpoint
        self.ack_endpoint = ack_endpoint
        self.handler = FunctionResults(collectors, single, lambda: self.metadata, inner, loop)
        """What its runner calls."""

    def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
        """Call the function of this task for one result."""
        call, takes_number = self.handler.collection()(task_type, 1)
        if self.handler.batch(task_type):
            data = [data]  # type: ignore[assignment] # it takes a list
        answer = call([0] if isinstance(data, list) else 0, data) if takes_number else call(data)
        return answer if isinstance(answer, dict) else None


class FunctionResults(ResultHandler):
    """Decorated functions for a result, a failure, an ACK and the end, each with what it takes by name."""

    def __init__(
        self,
        collectors: Mapping[str, Handler],
        single: Mapping[str, Handler],
        metadata: Callable[[], Mapping[str, Any]],
        inner: Container[str] = (),
        loop: EventLoopThread | None = None,
    ) -> None:
        """As `FunctionCollector`; `metadata` are those of the run, once they are known."""
        self._collectors = dict(collectors)
        self._single = dict(single)
        self._metadata = metadata
        self._inner = inner
        self._loop = loop or EventLoopThread("zmqpipeline-async-collect")

    @property
    def name(self) -> str:
        """All of them."""
        return "the collector's functions"

    def collection(self) -> Collection:
        """The function of the task, or the one for all others; what it takes by name is given by each call."""
        constants = {"metadata": self._metadata(), "msgtype": MESSAGE_TYPE_DATA}
        for_all = self._collectors.get("")

        def collection(task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
            plan = self._collectors.get(task, None if task in self._inner else for_all)
            if plan is None:
                return (lambda data: None), False
            bound = plan.bind({**constants, "task_type": task, "attempt": attempt}, self._loop)
            function = bound.function
            if plan.batch:
                return (lambda numbers, data: self._call(bound, data, numbers=numbers)), True
            if not bound.rest:
                return function, False
            if "journal" not in bound.rest:
                return (lambda number, data: function(data, number=number)), True
            return (lambda number, data: self._call(bound, data, number=number)), True

        return collection

    def close(self, timeout: float) -> None:
        """What async functions have left behind is ended."""
        self._loop.close(timeout)

    def batch(self, task: str) -> int:
        """As the function of the task was decorated, or the one for all others."""
        plan = self._collectors.get(task, None if task in self._inner else self._collectors.get(""))
        return 0 if plan is None else plan.batch

    def failed(self, failure: Failure) -> None:
        """Call the `failed` function."""
        self._call_single("failed", failure, task_type=failure.task_type)

    def finished(self, tasks: Sequence[str]) -> Any:
        """Call the `finished` function."""
        return self._call_single("finished", msgtype=MESSAGE_TYPE_END)

    def has_ack_data(self) -> bool:
        """Whether there is an `ack_data` function."""
        return "ack_data" in self._single

    def ack_data(self, task: str) -> Any:
        """Call the `ack_data` function."""
        return self._call_single("ack_data", task_type=task)

    def whose(self, what: str) -> str:
        """The function, with its line."""
        return f"The {name_of(self._single[what])}"

    def journal_user(self) -> str:
        """The first function that needs it."""
        plans = (*self._collectors.values(), *self._single.values())
        return next((plan.what for plan in plans if plan.needs("journal")), "")

    def _call_single(self, name: str, *first: Any, **values: Any) -> Any:
        plan = self._single.get(name)
        bound = None if plan is None else plan.bind({"metadata": self._metadata()}, self._loop)
        return None if bound is None else self._call(bound, *first, **values)

    def _call(self, bound: BoundHandler, *first: Any, **values: Any) -> Any:
        """Call a function; if it takes the journal, within a savepoint of its own."""
        given = {name: values[name] for name in bound.rest if name != "journal"}
        # without one the parameter has a default: a collector whose functions need a journal does not begin
        if "journal" not in bound.rest or self.journal is None:
            return bound.function(*first, **given)
        with self.journal.item(self._loop.ident if bound.is_async else None) as transaction:
            return bound.function(*first, journal=transaction, **given)
