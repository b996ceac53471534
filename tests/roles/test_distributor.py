"""The distributor of the class API: registration, what it refuses, what it raises, shutdown, and dependencies."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.roles import Rig, run_to_the_end, running
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import (
    ConfigurationError,
    DependencyError,
    EndpointError,
    EndpointInUse,
    RegistrationError,
    RunFailed,
)
from zmqpipeline.roles.distributor import Distributor, DistributorRunner
from zmqpipeline.roles.task import ClassSource
from zmqpipeline.roles.task_type import TaskType


@pytest.fixture
def rig() -> Rig:
    """Class-API roles on addresses of their own."""
    return Rig()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An empty register of tasks, for this test alone."""
    registered: dict[str, Any] = {}
    monkeypatch.setattr(Distributor, "_registered", registered)
    return registered


def test_bad_addresses_are_refused_at_once() -> None:
    """A malformed address is a TypeError from the constructor; metadata without an address is refused, too."""
    with pytest.raises(EndpointError):
        Distributor("tpc://x:1", "tcp://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="metadata_endpoint"):
        Distributor("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", receive_metadata=True)


def test_registering_what_is_no_whole_task_is_a_type_error(rig: Rig, registry: dict[str, Any]) -> None:
    """No class, a class that leaves something open, and one without handle: each is named."""
    open_task = type("OpenTask", (rig.task,), {"endpoint": None})
    from zmqpipeline.roles.task import Task

    attributes = {"task_type": TaskType("C"), "endpoint": EndpointAddress("inproc://x"), "dependencies": ()}
    for bad, expected in (
        (object, "subclass of Task"),
        (rig.task(), "subclass of Task"),
        (open_task, "OpenTask has no endpoint"),
        (type("NoHandle", (Task,), attributes), "NoHandle does not define handle"),
    ):
        with pytest.raises(TypeError, match=expected):
            Distributor.register_task(bad)
    assert registry == {}


def test_one_task_type_stands_for_one_task(rig: Rig, registry: dict[str, Any]) -> None:
    """The same class again is no error; another one for its type is."""
    Distributor.register_task(rig.task)
    Distributor.register_task(rig.task)
    with pytest.raises(RegistrationError, match="'C' has two tasks: TheTask and Other"):
        Distributor.register_task(type("Other", (rig.task,), {}))
    assert list(registry) == ["C"]


def test_registered_tasks_are_made_anew_for_each_distributor(rig: Rig, registry: dict[str, Any]) -> None:
    """Two runs in one process share no state: the second sends everything again."""
    Distributor.register_task(rig.task)
    for _ in range(2):
        run_to_the_end(Distributor(rig.results_endpoint, rig.acks_endpoint), rig.worker(), rig.collector())
    assert len(rig.collected) == 20


def test_a_distributor_without_tasks_says_so(rig: Rig, registry: dict[str, Any]) -> None:
    """It does not wait for ever."""
    with pytest.raises(ConfigurationError, match="has no tasks"):
        Distributor(rig.results_endpoint, rig.acks_endpoint).run()


def test_dependencies_that_are_unknown_or_circular_are_shown(rig: Rig) -> None:
    """The error comes before anything is opened (the address is taken, and nobody minds), with the path."""
    for name in ("DepA", "DepB"):
        TaskType.register_type(name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = {"endpoint": EndpointAddress(f"tcp://127.0.0.1:{taken.getsockname()[1]}")}
        a = type("A", (rig.task,), {"task_type": TaskType("DepA"), "dependencies": [TaskType("DepB")], **place})
        b = type("B", (rig.task,), {"task_type": TaskType("DepB"), "dependencies": [TaskType("DepA")], **place})
        with pytest.raises(DependencyError, match="'DepA' -> 'DepB' -> 'DepA'"):
            rig.distributor(a, b).run()
        with pytest.raises(DependencyError, match="'DepB', which is no task"):
            rig.distributor(a).run()


@pytest.mark.parametrize("value", [["a", "list"], "text"])
def test_a_handle_that_returns_no_dict_is_raised_after_the_others_were_told(rig: Rig, value: Any) -> None:
    """TypeError out of run(); workers and collector have ended by themselves by then, or do at once."""

    class Bad(rig.task):  # type: ignore[name-defined,misc]
        def handle(self, data: dict[str, Any]) -> Any:
            self.sent += 1
            return value if self.sent == 3 else {"n": self.sent}

    worker, collector, distributor = rig.worker(), rig.collector(), rig.distributor(Bad)
    with running(worker, collector, distributor) as threads:
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    error = threads[2].error
    assert isinstance(error, TypeError)
    assert "Bad.handle (" in str(error)
    assert (worker.status, distributor.status) == (0, 1)
    assert len(rig.collected) == 2


def test_the_very_exception_that_a_task_raised_comes_out_of_run(rig: Rig) -> None:
    """With its own traceback, so that the user's line is in it."""
    boom = ZeroDivisionError("in handle")

    class Bad(rig.task):  # type: ignore[name-defined,misc]
        def handle(self) -> None:
            raise boom

    with pytest.raises(ZeroDivisionError) as caught:
        run_to_the_end(rig.worker(), rig.collector(), rig.distributor(Bad))
    assert caught.value is boom


class Stop(BaseException):
    """What ends some programs."""


@pytest.mark.parametrize("stop", [Stop("enough"), asyncio.CancelledError(), SystemExit(3)])
def test_what_is_no_exception_is_told_as_one(rig: Rig, stop: BaseException) -> None:
    """It does not end the program, nor cancel the task of asyncio, that the distributor runs in."""

    class Bad(rig.task):  # type: ignore[name-defined,misc]
        def handle(self) -> dict[str, Any]:
            raise stop

    with pytest.raises(RunFailed, match=r"the function of task 'C' raised .*\. Return") as caught:
        run_to_the_end(rig.distributor(Bad), rig.worker(), rig.collector())
    assert caught.value.__cause__ is stop


def test_a_gate_that_no_ack_can_open_fails_the_run(rig: Rig) -> None:
    """RunFailed carries the troubles by task."""

    class Shut(rig.task):  # type: ignore[name-defined,misc]
        def is_available_for_handling(self, last_ack_data: dict[str, Any]) -> bool:
            return False

    with pytest.raises(RunFailed, match="gate of task 'C'") as caught:
        run_to_the_end(rig.worker(), rig.collector(), rig.distributor(Shut))
    assert list(caught.value.troubles) == ["C"]


def test_metadata_that_cannot_be_had_fails_the_run(rig: Rig) -> None:
    """What the metadata function raised comes out of run(); the others end."""

    def bad() -> dict[str, Any]:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        run_to_the_end(rig.worker(), rig.collector(), rig.distributor(metadata=bad))


def test_metadata_that_raise_what_is_no_exception_fail_the_run(rig: Rig) -> None:
    """As a source does."""

    def bad() -> dict[str, Any]:
        raise Stop("enough")

    with pytest.raises(RunFailed, match="the metadata function raised Stop"):
        run_to_the_end(rig.distributor(metadata=bad), rig.worker(), rig.collector())


def test_shutdown_from_another_thread_ends_a_run_in_good_order(rig: Rig) -> None:
    """What was under way is collected; run() returns; a second shutdown, after it, does nothing."""
    rig.task.most = 10**9  # type: ignore[attr-defined]
    some = threading.Event()

    class Counts(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any]) -> None:
            rig.collected.append((data, "", ""))
            some.set()

    distributor = rig.distributor()
    with running(Counts(), rig.worker(), distributor) as threads:
        assert some.wait(60)
        distributor.shutdown()
        threads[2].join(60)
        assert not threads[2].is_alive()
        assert threads[2].error is None
    distributor.shutdown()
    numbers = [data["n"] for data, _, _ in rig.collected]
    assert len(set(numbers)) == len(numbers)


def test_tasks_with_an_endpoint_each_and_a_dependency_run_in_order(rig: Rig) -> None:
    """Two bound sockets; nothing of the second task is executed before all of the first is collected."""
    for name in ("First", "Second"):
        TaskType.register_type(name)
    other = EndpointAddress(f"{rig.task.endpoint}-2")
    first = type("First", (rig.task,), {"task_type": TaskType("First")})
    needs = {"task_type": TaskType("Second"), "endpoint": other, "dependencies": [TaskType("First")]}
    second = type("Second", (rig.task,), needs)
    workers = [
        type("W1", (rig.worker,), {"task_type": TaskType("First")})(),
        type("W2", (rig.worker,), {"task_type": TaskType("Second"), "endpoint": other})(),
    ]
    run_to_the_end(rig.distributor(second, first), *workers, rig.collector())
    assert [task for _, task, _ in rig.collected] == ["First"] * 10 + ["Second"] * 10


def test_an_address_in_use_is_named(rig: Rig) -> None:
    """Another program on the port: the error says which address, and nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = EndpointAddress(f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        task = type("Taken", (rig.task,), {"endpoint": endpoint})
        with pytest.raises(EndpointInUse, match=endpoint):
            rig.distributor(task).run()


def test_two_distributors_on_one_ipc_path_are_told_apart(rig: Rig, tmp_path: Path) -> None:
    """The second one is refused by name, and the first goes on."""
    task = type("Ipc", (rig.task,), {"endpoint": EndpointAddress(f"ipc://{tmp_path}/w.ipc")})
    opened = threading.Event()

    class Watched(DistributorRunner):
        def _make_machine(self) -> Any:
            opened.set()
            return super()._make_machine()

    first = Distributor(rig.results_endpoint, rig.acks_endpoint)
    Watched(first, sources=[ClassSource(task())])
    with running(first) as threads:
        assert opened.wait(60)
        with pytest.raises(EndpointInUse, match=r"w\.ipc"):
            rig.distributor(task).run()
        assert threads[0].is_alive()
