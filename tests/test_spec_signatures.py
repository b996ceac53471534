"""What is documented can be called as it is documented: by position and by name, with the documented defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest

import zmqpipeline
import zmqpipeline.utils.shutdown
from zmqpipeline.utils import messages

EXACT = {
    "Distributor": "collector_endpoint, collector_ack_endpoint, receive_metadata=False, metadata_endpoint=None",
    "Distributor.register_task": "task",
    "Distributor.run": "self",
    "Distributor.shutdown": "self",
    "Task.initialize": "self, metadata={}",
    "Task.is_available_for_handling": "self, last_ack_data",
    "SingleThreadedWorker": "*args, **kwargs",
    "SingleThreadedWorker.handle_execution": "self, data, *args, **kwargs",
    "SingleThreadedWorker.init_worker": "self",
    "SingleThreadedWorker.run": "self",
    "MultiThreadedWorker": "*args, **kwargs",
    "MultiThreadedWorker.handle_execution": "self, data, *args, **kwargs",
    "MultiThreadedWorker.init_worker": "self",
    "MultiThreadedWorker.run": "self",
    "MetaDataWorker.get_metadata": "self",
    "MetaDataWorker.run": "self",
    "Collector.get_ack_data": "self",
    "Collector.run": "self",
    "Service": "frontend_endpoint, backend_endpoint",
    "Service.run": "self",
    "Service.shutdown": "self",
    "ServiceWorker": "id_prefix='worker'",
    "ServiceWorker.run": "self",
    "configureLogging": "config",
    "utils.shutdown.kill_current_process": "",
    "messages.create": "data, tasktype, msgtype",
    "messages.create_data": "task, data",
    "messages.create_metadata": "metadata",
    "messages.create_ack": "task='', data=''",
    "messages.create_success": "task='', data=''",
    "messages.create_failure": "task='', data=''",
    "messages.create_empty": "task='', data=''",
    "messages.create_ready": "task='', data=''",
    "messages.create_end": "task='', data=''",
}
"""Callables whose parameters have these names, this order and these defaults."""

HANDLERS = {
    "Task.handle": "self, data, address, msgtype, ack_data={}",
    "Collector.handle_collection": "self, data, task_type, msgtype",
    "Collector.handle_finished": "self, data, task_type",
    "MultiThreadedWorker.handle_thread_execution": "self, data, index",
    "ServiceWorker.handle_message": "self, data, task_type, msgtype",
}
"""Handlers that a subclass may write with fewer parameters, or with more."""

ABSTRACT = {
    "Task": {"handle"},
    "SingleThreadedWorker": {"handle_execution"},
    "MultiThreadedWorker": {"handle_execution", "handle_thread_execution"},
    "MetaDataWorker": {"get_metadata"},
    "Collector": {"handle_collection"},
    "ServiceWorker": {"handle_message"},
}

DECLARED = {
    "Task": {"task_type", "endpoint", "dependencies"},
    "SingleThreadedWorker": {"task_type", "endpoint", "collector_endpoint"},
    "MultiThreadedWorker": {"task_type", "endpoint", "collector_endpoint", "n_threads"},
    "MetaDataWorker": {"endpoint"},
    "Collector": {"endpoint", "ack_endpoint"},
    "ServiceWorker": {"task_type", "endpoint"},
}

FALLBACKS = {"ServiceWorker.task_type"}
"""Declared attributes that may be left out."""


def found(name: str) -> Any:
    """The object of the package with this dotted name."""
    return reduce(getattr, name.split("."), zmqpipeline)


def documented(text: str) -> list[inspect.Parameter]:
    """The parameters that are written so."""
    made: Callable[..., None] = eval(f"lambda {text}: None")
    return list(inspect.signature(made).parameters.values())


def shape(parameters: list[inspect.Parameter]) -> list[tuple[str, Any, Any]]:
    """What a caller sees of parameters: name, default, kind."""
    return [(one.name, one.default, one.kind) for one in parameters]


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_as_documented(name: str) -> None:
    """Names, order and defaults are the documented ones; what there is beyond them is by keyword, and optional."""
    wanted = documented(EXACT[name])
    seen = list(inspect.signature(found(name)).parameters.values())
    assert shape(seen[: len(wanted)]) == shape(wanted)
    assert all(one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in seen[len(wanted) :])


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_of_the_base_takes_what_is_documented(name: str) -> None:
    """`super().handler(...)` may be called with every documented argument, by position and by name."""
    names = [one.name for one in documented(HANDLERS[name])]
    signature = inspect.signature(found(name))
    signature.bind(*names)
    signature.bind(names[0], **dict.fromkeys(names[1:]))


@pytest.mark.parametrize("name", ABSTRACT)
def test_what_must_be_written_is_abstract_and_nothing_else(name: str) -> None:
    """A subclass must write these methods, and may leave out every other."""
    assert found(name).__abstractmethods__ == ABSTRACT[name]


@pytest.mark.parametrize("name", DECLARED)
def test_what_must_be_declared_has_no_value_in_the_base(name: str) -> None:
    """A subclass must declare these attributes and no other; each is a TypeError when it is missing."""
    cls = found(name)
    methods = {method: lambda self: None for method in ABSTRACT[name]}
    with pytest.raises(TypeError, match="has no"):
        type("Open", (cls,), methods)()
    assert {name for name, kind in cls._declares.items() if not kind.optional} == DECLARED[name]
    assert {f"{name}.{one}" for one in DECLARED[name] if hasattr(cls, one)} == FALLBACKS & {
        f"{name}.{one}" for one in DECLARED[name]
    }


def test_the_documented_message_types_are_there() -> None:
    """Eight of them, by their names; each is a string."""
    names = ("ACK", "SUCCESS", "FAILURE", "READY", "END", "DATA", "META_DATA", "EMPTY")
    values = [getattr(messages, f"MESSAGE_TYPE_{name}") for name in names]
    assert all(isinstance(value, str) and value for value in values)
    assert sorted(values) == sorted(messages.MESSAGE_TYPES)


def test_a_task_counts_without_having_declared_its_counter() -> None:
    """The documented smallest task adds to `n_count` and declares none; each instance has its own."""
    zmqpipeline.TaskType.register_type("counts")

    class Counts(zmqpipeline.Task):
        task_type = zmqpipeline.TaskType("counts")
        endpoint = zmqpipeline.EndpointAddress("inproc://counts")
        dependencies = ()

        def handle(self, data: dict[str, Any], address: str, msgtype: str) -> dict[str, Any]:
            self.n_count += 1
            return {"n": self.n_count}

    one, other = Counts(), Counts()
    assert [one.handle({}, "", "")["n"] for _ in range(2)] == [1, 2]
    assert other.handle({}, "", "") == {"n": 1}


def test_a_task_keeps_its_metadata_by_default() -> None:
    """`initialize` without an argument leaves it empty; with one, the object has it from then on."""
    task = type("Keeps", (zmqpipeline.Task,), {"handle": lambda self: None})
    zmqpipeline.TaskType.register_type("keeps")
    task.task_type, task.endpoint = zmqpipeline.TaskType("keeps"), zmqpipeline.EndpointAddress("inproc://keeps")
    task.dependencies = []
    made = task()
    assert made.initialize() is None
    assert made.metadata == {}
    made.initialize({"a": 1})
    assert made.metadata == {"a": 1}
