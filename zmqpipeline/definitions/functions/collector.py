"""Decorated collector functions as a `Collector`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END
from zmqpipeline.roles import collector as roles
from zmqpipeline.roles.collector import Collector, with_number
from zmqpipeline.roles.results import Failure
from zmqpipeline.runtime.error_text import named


class FunctionCollector(Collector):
    """A collector made of functions: one for each task or for all of them, and those for the end and for failures."""

    def __init__(
        self,
        endpoint: EndpointAddress,
        ack_endpoint: EndpointAddress,
        collectors: Mapping[str, Handler],
        single: Mapping[str, Handler],
        inner: Collection[str] = (),
    ) -> None:
        """`collectors` by task type ("" for all others); `single` holds finished, failed and ack_data, if given.

        `inner` are the tasks whose results the function for all does not get, since they become items of others.
        """
        self.endpoint = endpoint
        self.ack_endpoint = ack_endpoint
        self._collectors = dict(collectors)
        self._single = dict(single)
        self._inner = frozenset(inner)

    def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
        """Call the function of this task for one result."""
        call, takes_number = self._make_collection()(task_type, 1)
        answer = with_number(call, takes_number=takes_number)(0, data)
        return answer if isinstance(answer, dict) else None

    def handle_finished(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
        """Call the `finished` function; a dict that it returns goes to the distributor."""
        answer: dict[str, Any] | None = self._call_single("finished", msgtype=msgtype)
        return answer

    def handle_failed(self, failure: Failure) -> None:
        """Call the `failed` function."""
        plan = self._single.get("failed")
        if plan is not None:
            self._call(plan.bind({"metadata": self.metadata}), failure, task_type=failure.task_type)

    def get_ack_data(self) -> dict[str, Any] | None:
        """Call the `ack_data` function."""
        answer: dict[str, Any] | None = self._call_single("ack_data", task_type=self._last_task)
        return answer

    def _has_ack_data(self) -> bool:
        return "ack_data" in self._single

    def _finish(self) -> Any:
        return self.handle_finished({}, "", MESSAGE_TYPE_END)

    def _call_single(self, name: str, **values: Any) -> Any:
        plan = self._single.get(name)
        return None if plan is None else self._call(plan.bind({"metadata": self.metadata}), **values)

    def _make_collection(self) -> roles.Collection:
        constants = {"metadata": self.metadata, "msgtype": MESSAGE_TYPE_DATA}
        bound = {name: plan.bind(constants) for name, plan in self._collectors.items()}
        for_all = bound.get("")

        def collection(task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
            one = bound.get(task, None if task in self._inner else for_all)
            if one is None:
                return (lambda data: None), False
            if not one.rest:
                return one.function, False
            call = partial(self._call, one, task_type=task, attempt=attempt)
            return (lambda number, data: call(data, number=number)), True

        return collection

    def _call(self, bound: BoundHandler, *first: Any, **values: Any) -> Any:
        """Call a function; if it takes the journal, within a savepoint of its own."""
        if "journal" not in bound.rest:
            return bound(*first, **values)
        if self._journal is None:
            # the parameter has a default: a collector whose functions need a journal does not begin without one
            return bound.function(*first, **{name: values[name] for name in bound.rest if name in values})
        with self._journal.item() as transaction:
            return bound(*first, journal=transaction, **values)

    def _whose(self, handler: str) -> str:
        plan = self._single["ack_data" if handler == "get_ack_data" else "finished"]
        return f"The {named(plan.what, plan.function)}"

    def _journal_user(self) -> str:
        plans = (*self._collectors.values(), *self._single.values())
        return next((plan.what for plan in plans if plan.needs("journal")), "")
