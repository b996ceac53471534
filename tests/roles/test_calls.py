"""How many of our functions stand around one call of user code, by the frames that the function itself sees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from zmqpipeline import Collector, Options, Pipeline, ServiceWorker, SingleThreadedWorker, TaskType
from zmqpipeline.errors import SerializeError
from zmqpipeline.roles.calls import LAST, guarded, with_last
from zmqpipeline.roles.collecting import ResultWatcher
from zmqpipeline.roles.collector import CollectorRunner
from zmqpipeline.roles.runner import RunnerSettings
from zmqpipeline.roles.service import ServiceWorkerRunner
from zmqpipeline.roles.worker import WorkerRunner
from zmqpipeline.runtime.journal import MEMORY, Journal
from zmqpipeline.runtime.log import about_now

TaskType.register_type("C")
ALL = Options(endpoint="inproc://calls", max_depth=5, log_json=True)
NONE = Options(endpoint="inproc://calls")

AROUND: list[str] = []
"""The functions between a call and the user's function, the innermost first."""


def note() -> None:
    """Called by the user's function: what called that, up to the test."""
    AROUND.clear()
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals["__name__"] != __name__:
        AROUND.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]


def plain(data: Any) -> Any:
    """Takes the value alone."""
    note()
    return data


def by_name(data: Any, metadata: Any, task_type: str, number: int, attempt: int) -> Any:
    """Takes what there is by name."""
    note()
    return data


class Work(SingleThreadedWorker):
    """Of the class API."""

    task_type, endpoint, collector_endpoint = TaskType("C"), "inproc://calls-w", "inproc://calls-r"

    def handle_execution(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """An item."""
        note()
        return data


class Gather(Collector):
    """Of the class API, with every argument."""

    endpoint, ack_endpoint = "inproc://calls-r", "inproc://calls-a"

    def handle_collection(self, data: Any, task_type: str, msgtype: str) -> None:
        """A result."""
        assert (task_type, msgtype) == ("C", "DATA")
        note()


class GatherData(Gather):
    """With the data alone."""

    def handle_collection(self, data: Any) -> None:  # type: ignore[override]
        """A result."""
        note()


class Answer(ServiceWorker):
    """Of the class API."""

    task_type, endpoint = TaskType("C"), "inproc://calls-s"

    def handle_message(self, data: Any, task_type: str) -> Any:
        """A request."""
        note()
        return data


def app_of(worker: Callable[..., Any], collector: Callable[..., Any]) -> Pipeline:
    """A pipeline of these two."""
    app = Pipeline("calls")
    app.add_task("C", list)
    app.add_worker("C", worker)
    app.add_collector(collector)
    return app


def executed(runner: WorkerRunner | ServiceWorkerRunner, item: Any) -> Any:
    """As a thread of the pool calls it."""
    made = runner.execution()
    return made.call(item, 0, 7, 1) if made.placed else made.call(item)


def collected(runner: CollectorRunner, data: Any) -> Any:
    """As the collector's thread calls it."""
    call, placed = runner.calls().collecting("C", 1)
    return call(7, data) if placed else call(data)


@pytest.mark.parametrize(
    ("options", "function", "most"), [(NONE, plain, 0), (NONE, by_name, 1), (ALL, plain, 1), (ALL, by_name, 2)]
)
def test_a_function_of_an_item_is_called_through_at_most_two(
    options: Options, function: Callable[..., Any], most: int
) -> None:
    """None, if it takes the item alone and no option asks for anything."""
    assert executed(WorkerRunner.of(app_of(function, plain).compile("worker", options=options)), {"n": 1}) == {"n": 1}
    assert len(AROUND) == most, AROUND


@pytest.mark.parametrize(
    ("options", "function", "most"), [(NONE, plain, 0), (NONE, by_name, 1), (ALL, plain, 1), (ALL, by_name, 2)]
)
def test_a_function_of_a_result_is_called_through_at_most_two(
    options: Options, function: Callable[..., Any], most: int
) -> None:
    """Likewise; a test run puts one more around it."""
    runner = CollectorRunner.of(app_of(plain, function).compile("collector", options=options))
    assert collected(runner, {"n": 1}) == {"n": 1}
    assert len(AROUND) == most, AROUND
    runner.watcher = ResultWatcher()
    assert collected(runner, {"n": 1}) == {"n": 1}
    assert len(AROUND) == most + 1, AROUND


@pytest.mark.parametrize(("options", "more"), [(NONE, 0), (ALL, 1)])
def test_methods_of_classes_are_called_through_at_most_two(options: Options, more: int) -> None:
    """None if the method takes the value alone, one that adds the other arguments."""
    settings = RunnerSettings(options)
    executed(WorkerRunner(Work(), settings), {})
    assert len(AROUND) == more, AROUND
    executed(ServiceWorkerRunner(Answer(), settings), {})
    assert len(AROUND) == more + 1, AROUND
    for cls, own in ((Gather, 1), (GatherData, 0)):
        collected(CollectorRunner(cls(), settings), {})
        assert len(AROUND) == more + own, AROUND


def test_a_function_with_the_journal_is_called_through_three() -> None:
    """Its savepoint is one."""

    def keep(data: Any, journal: Any, number: int) -> None:
        note()

    runner = CollectorRunner.of(app_of(plain, keep).compile("collector", options=ALL))
    runner.handler.journal = Journal(MEMORY, pipeline="calls")
    collected(runner, {})
    runner.handler.journal.close()
    assert len([one for one in AROUND if "contextlib" not in one]) <= 3, AROUND


@pytest.mark.parametrize("placed", [True, False])
def test_what_guards_a_call_sees_the_value_and_the_place(placed: bool) -> None:
    """With JSON lines: what is logged is about the item, also while a value that is too deep is refused."""
    seen: list[Any] = []

    def call(*given: Any) -> None:
        seen.append((given, about_now()))

    made, is_placed = guarded(call, ALL, lambda number, data: {"item": number}, value=LAST, placed=placed)
    assert is_placed
    made(7, {"a": 1})
    assert seen == [((7, {"a": 1}) if placed else ({"a": 1},), {"item": 7})]
    with pytest.raises(SerializeError, match="more than 5 levels"):
        made(8, [[[[[[]]]]]])
    assert about_now() == {}
    assert guarded(call, NONE, dict, value=LAST, placed=placed) == (call, placed)


def test_a_method_gets_as_many_arguments_as_it_takes() -> None:
    """The value, then the others, in order; a method that takes no more than the value is called itself."""

    def every(*given: Any) -> Any:
        return given

    assert with_last(every, 1, "a", "b") is every
    assert [with_last(every, takes, "a", "b")("x") for takes in (0, 2, 3)] == [(), ("x", "a"), ("x", "a", "b")]
