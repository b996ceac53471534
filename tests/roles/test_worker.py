"""Workers of the class API: execution, threads, initialization, and bad results."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from tests.support.roles import Rig, run_to_the_end, running
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import DefinitionError, RunFailed, WorkerInitError
from zmqpipeline.options import Options
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import MultiThreadedWorker, SingleThreadedWorker
from zmqpipeline.worker import MetaDataWorker


@pytest.fixture
def rig() -> Rig:
    """Class-API roles on addresses of their own."""
    return Rig()


@pytest.mark.parametrize("value", [0, -1, 2.0, "4", True])
def test_n_threads_is_a_positive_int(value: object) -> None:
    """A wrong number of threads is found when the class is defined."""
    with pytest.raises(DefinitionError, match=r"n_threads must be a positive int"):
        type("Wrong", (MultiThreadedWorker,), {"n_threads": value})


def test_a_worker_without_an_attribute_or_a_handler_cannot_be_made() -> None:
    """What is missing is named."""
    declared = {"task_type": TaskType("C"), "endpoint": EndpointAddress("inproc://w")}
    handler = {"handle_execution": lambda self, data: data}
    with pytest.raises(TypeError, match="no collector_endpoint"):
        type("Open", (SingleThreadedWorker,), {**declared, **handler})()
    with pytest.raises(TypeError, match="handle_execution"):
        type("Empty", (SingleThreadedWorker,), {**declared, "collector_endpoint": declared["endpoint"]})()


def test_the_metadata_worker_is_importable_from_here_too() -> None:
    """The documentation names it `zmqpipeline.worker.MetaDataWorker`."""
    assert MetaDataWorker.__module__ == "zmqpipeline.roles.metadata"


def test_a_single_threaded_worker_executes_each_item_once(rig: Rig) -> None:
    """Its counter, an attribute without a lock, is exact, and it ends by itself with status 0."""
    worker, collector = rig.worker(), rig.collector()
    run_to_the_end(rig.distributor(), worker, collector)
    assert worker.executions == 10
    assert (worker.status, collector.status, collector.ok) == (0, 0, True)
    assert sorted(data["n"] for data, _, _ in rig.collected) == list(range(1, 11))


@pytest.mark.parametrize("base", ["worker", "threads"])
@pytest.mark.parametrize("takes", ["self", "self, data", "self, data, *args, **kwargs", "self, *args"])
def test_handle_execution_is_called_with_as_many_arguments_as_it_takes(rig: Rig, base: str, takes: str) -> None:
    """None, the item, or the documented ones."""
    space: dict[str, Any] = {}
    exec(f"def handle_execution({takes}):\n    return {{'took': 1}}", space)
    cls = type("Takes", (getattr(rig, base),), {"handle_execution": space["handle_execution"]})
    run_to_the_end(rig.distributor(), cls(), rig.collector())
    assert [data["took"] for data, _, _ in rig.collected] == [1] * 10


def test_a_single_threaded_worker_has_one_thread(rig: Rig) -> None:
    """Init and every item on the same thread, and never two items at once."""
    threads: set[int] = set()
    busy = threading.Lock()

    class Looks(rig.worker):  # type: ignore[name-defined,misc]
        def init_worker(self) -> None:
            threads.add(threading.get_ident())

        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            threads.add(threading.get_ident())
            alone = busy.acquire(blocking=False)
            threading.Event().wait(0.001)
            if alone:
                busy.release()
            return {"alone": alone}

    run_to_the_end(rig.distributor(), Looks(), rig.collector())
    assert [data["alone"] for data, _, _ in rig.collected] == [True] * 10
    assert len(threads) == 1


def test_single_threaded_workers_share_the_load(rig: Rig) -> None:
    """Two workers that wait for each other at each of many items both have some, as long as there are any.

    So neither holds items that the other one could execute.
    """
    rig.task.most = 400  # type: ignore[attr-defined]
    both, pause = threading.Barrier(2, timeout=60), threading.Event()

    class Naps(rig.worker):  # type: ignore[name-defined,misc]
        def init_worker(self) -> None:
            both.wait()

        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            self.executions += 1
            pause.wait(0.005)
            # one that stands still for a while holds up the other one
            if self.executions <= 140:
                both.wait()

    workers = [Naps(), Naps()]
    run_to_the_end(rig.distributor(), *workers, rig.collector())
    assert sum(one.executions for one in workers) == 400
    assert min(one.executions for one in workers) >= 140


def test_init_worker_of_a_dependent_task_waits_for_what_it_depends_on(rig: Rig) -> None:
    """Its worker is there from the beginning, and initialized only when the last item of the first is collected."""
    TaskType.register_type("C-after")
    seen: list[int] = []
    needs = {"task_type": TaskType("C-after"), "dependencies": [TaskType("C")]}
    after = type("After", (rig.task,), needs)

    class Second(rig.worker):  # type: ignore[name-defined,misc]
        task_type = TaskType("C-after")

        def init_worker(self) -> None:
            seen.append(len(rig.collected))

    run_to_the_end(Second(), rig.distributor(after, rig.task), rig.worker(), rig.collector())
    assert seen == [10]


def test_handle_execution_of_a_threaded_worker_runs_one_at_a_time(rig: Rig) -> None:
    """Four threads and a handler that yields between reading and writing its counter: the counter is exact."""
    rig.task.most = 400  # type: ignore[attr-defined]
    turn = threading.Event()

    class Slow(rig.threads):  # type: ignore[name-defined,misc]
        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            seen = self.executions
            turn.wait(0.0002)
            self.executions = seen + 1
            return {"n": data["n"], "seen": seen}

    worker = Slow()
    run_to_the_end(rig.distributor(), worker, rig.collector())
    assert worker.executions == 400
    assert sorted(data["seen"] for data, _, _ in rig.collected) == list(range(400))
    assert {data["index"] for data, _, _ in rig.collected} <= {0, 1, 2, 3}


def test_threads_execute_at_the_same_time(rig: Rig) -> None:
    """Four items meet at a barrier, which opens only if four threads are in it at once."""
    rig.task.most = 4  # type: ignore[attr-defined]
    barrier = threading.Barrier(4, timeout=60)

    class Meets(rig.threads):  # type: ignore[name-defined,misc]
        def handle_thread_execution(self, data: dict[str, Any]) -> dict[str, Any]:
            return {"place": barrier.wait()}

    run_to_the_end(rig.distributor(), Meets(), rig.collector())
    assert sorted(data["place"] for data, _, _ in rig.collected) == [0, 1, 2, 3]


def test_init_worker_runs_once_before_everything_and_init_thread_once_a_thread(rig: Rig) -> None:
    """`self.metadata` is there by then; no thread overtakes init_worker."""
    rig.task.most = 40  # type: ignore[attr-defined]
    calls: list[Any] = []

    class Inits(rig.threads):  # type: ignore[name-defined,misc]
        def init_worker(self) -> None:
            calls.append(("worker", dict(self.metadata)))

        def init_thread(self, worker_index: int) -> None:
            calls.append(worker_index)

        def handle_thread_execution(self, data: dict[str, Any], index: int) -> dict[str, Any]:
            return {"inits": len(calls), "mine": index in calls}

    run_to_the_end(rig.distributor(metadata=lambda: {"path": "/usr"}), Inits(), rig.collector())
    assert calls[0] == ("worker", {"path": "/usr"})
    assert sorted(calls[1:]) == sorted(set(calls[1:])) != []
    assert all(data["inits"] >= 2 and data["mine"] for data, _, _ in rig.collected)


def test_a_worker_without_items_is_not_initialized(rig: Rig) -> None:
    """`init_worker` belongs to the first item; a worker that gets none never runs it."""
    rig.task.most = 1  # type: ignore[attr-defined]
    begun, release = threading.Event(), threading.Event()
    inits: list[str] = []

    class Inits(rig.worker):  # type: ignore[name-defined,misc]
        def init_worker(self) -> None:
            inits.append("one")

        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            begun.set()
            assert release.wait(60)
            return {}

    collector, first, second = rig.collector(), Inits(), Inits()
    with running(collector, first, rig.distributor()) as threads:
        assert begun.wait(60)
        with running(second) as late:
            release.set()
            for thread in [*threads, *late]:
                thread.join(60)
    assert inits == ["one"]


@pytest.mark.parametrize("method", ["init_worker", "init_thread"])
def test_a_worker_that_cannot_be_initialized_says_why_and_ends(rig: Rig, method: str) -> None:
    """run() raises WorkerInitError, caused by what the user's function raised; the item goes to another worker."""

    def bad(self: Any, *args: Any) -> None:
        raise OSError("no such device")

    broken = type("Broken", (rig.worker,), {method: bad})()
    collector = rig.collector()
    with running(collector, rig.distributor(), broken) as threads:
        threads[2].join(60)
        assert not threads[2].is_alive()
        run_to_the_end(rig.worker())
    assert isinstance(threads[2].error, WorkerInitError)
    assert isinstance(threads[2].error.__cause__, OSError)
    assert "no such device" in str(threads[2].error)
    assert broken.status == 1
    assert len(rig.collected) == 10


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (["a"], r"handle_execution \(\S+test_worker\.py:\d+\) returned a list"),
        ({"when": object()}, r"\$\.when"),
        ({"blob": b"x" * 200}, r"more than max_message_bytes \(100\)"),
    ],
)
def test_a_result_that_cannot_be_sent_is_a_failed_item(rig: Rig, returned: Any, expected: str) -> None:
    """The failure names the function and what was wrong; everything else goes on."""
    rig.task.most = 3  # type: ignore[attr-defined]

    class Bad(rig.worker):  # type: ignore[name-defined,misc]
        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            return returned if data["n"] == 2 else None

    worker, collector = Bad(), rig.collector()
    worker.options = Options(max_message_bytes=100)
    with pytest.raises(RunFailed, match="1 failed"):
        run_to_the_end(rig.distributor(), worker, collector)
    assert [data for data, _, _ in rig.collected] == [{}, {}]
    (failure,) = rig.failures
    assert failure.stage == "worker"
    assert failure.data == {"n": 2}
    assert re.search(expected, failure.message)
    assert (worker.status, collector.status, collector.ok) == (0, 1, False)


def test_what_handle_execution_hands_to_the_thread_must_be_a_dict(rig: Rig) -> None:
    """None is an empty dict for the thread; a list is a failed item."""
    rig.task.most = 2  # type: ignore[attr-defined]

    class Bad(rig.threads):  # type: ignore[name-defined,misc]
        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            return [1] if data["n"] == 1 else None

    with pytest.raises(RunFailed, match="1 failed"):
        run_to_the_end(rig.distributor(), Bad(), rig.collector())
    assert [set(data) for data, _, _ in rig.collected] == [{"index"}]
    assert re.search(r"handle_execution \(\S+:\d+\) returned a list", rig.failures[0].message)


def test_shutdown_before_run_ends_the_run_at_once(rig: Rig) -> None:
    """A shutdown that comes too early is not lost."""
    worker = rig.worker()
    worker.shutdown()
    run_to_the_end(worker)
    assert worker.status == 0


@pytest.mark.parametrize("base", ["worker", "threads"])
def test_a_worker_takes_any_arguments(rig: Rig, base: str) -> None:
    """As documented; they are for subclasses."""
    worker = getattr(rig, base)("any", thing=1)
    run_to_the_end(rig.distributor(), worker, rig.collector())
    assert worker.executions == 10


def test_a_subclass_need_not_call_the_constructor_of_its_base(rig: Rig) -> None:
    """A worker's own ``__init__`` may take what it likes and call nothing."""

    class Own(rig.worker):  # type: ignore[name-defined,misc]
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"n": data["n"] * self.factor}

    run_to_the_end(rig.distributor(), Own(3), rig.collector())
    assert sorted(data["n"] for data, _, _ in rig.collected) == list(range(3, 33, 3))
