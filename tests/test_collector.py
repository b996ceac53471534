"""The collector of the class API: what its handlers get, ACK data, failures, and the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.roles import Rig, run_to_the_end
from zmqpipeline.tasktype import TaskType
from zmqpipeline.utils.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END


@pytest.fixture
def rig() -> Rig:
    """Class-API roles on addresses of their own."""
    return Rig()


def gated(rig: Rig, seen: list[dict[str, Any]]) -> type[Any]:
    """The rig's task in lock-step: an item only when all earlier ones are acknowledged."""

    class Gated(rig.task):  # type: ignore[name-defined,misc]
        most = 4

        def is_available_for_handling(self, last_ack_data: dict[str, Any]) -> bool:
            open_now = bool(last_ack_data["_id"] == self.sent)
            if open_now:
                seen.append(last_ack_data)
            return open_now

    return Gated


def test_handle_collection_gets_data_task_type_and_msgtype(rig: Rig) -> None:
    """Each result comes once, as data; a worker that returns nothing sends an empty dict."""
    rig.task.most = 2  # type: ignore[attr-defined]

    class Silent(rig.worker):  # type: ignore[name-defined,misc]
        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            return None

    run_to_the_end(rig.distributor(), Silent(), rig.collector())
    assert rig.collected == [({}, "C", MESSAGE_TYPE_DATA)] * 2


@pytest.mark.parametrize("count", [0, 2, 3])
def test_handle_finished_runs_once_with_two_or_three_arguments(rig: Rig, count: int) -> None:
    """Both documented signatures work, and one without arguments; the task of a run of one task is named."""
    calls: list[tuple[Any, ...]] = []
    handlers = {
        0: lambda self: calls.append(()),
        2: lambda self, data, task_type: calls.append((data, task_type)),
        3: lambda self, data, task_type, msgtype: calls.append((data, task_type, msgtype)),
    }
    collector = type("Finishes", (rig.collector,), {"handle_finished": handlers[count]})()
    run_to_the_end(rig.distributor(), rig.worker(), collector)
    assert calls == [({}, "C", MESSAGE_TYPE_END)[:count]]


def test_handle_finished_of_several_tasks_names_none(rig: Rig) -> None:
    """It still runs once: all of them are over."""
    TaskType.register_type("C2")
    other = type("Other", (rig.task,), {"task_type": TaskType("C2")})
    second = type("Second", (rig.worker,), {"task_type": TaskType("C2")})
    calls: list[tuple[Any, ...]] = []
    handler = {"handle_finished": lambda self, data, task_type: calls.append((data, task_type))}
    collector = type("Finishes", (rig.collector,), handler)()
    run_to_the_end(rig.distributor(rig.task, other), rig.worker(), second(), collector)
    assert calls == [({}, "")]


@pytest.mark.parametrize(("returned", "arrives"), [({"mean": 5.5}, {"mean": 5.5}), (None, {}), ("done", {})])
def test_what_handle_finished_returns_reaches_the_distributor(rig: Rig, returned: Any, arrives: Any) -> None:
    """A dict goes along with the collector's last word; nothing does for None, or for what is no dict."""
    collector = type("Finishes", (rig.collector,), {"handle_finished": lambda self: returned})()
    distributor = rig.distributor()
    assert distributor.finished_data == {}
    run_to_the_end(distributor, rig.worker(), collector)
    assert distributor.finished_data == arrives
    assert (collector.status, distributor.status) == (0, 0)


def test_get_ack_data_reaches_the_gate(rig: Rig) -> None:
    """What get_ack_data returns arrives with _task_type and with _id, which counts from 1 without repeats."""
    seen: list[dict[str, Any]] = []

    class Acks(rig.collector):  # type: ignore[name-defined,misc]
        def get_ack_data(self) -> dict[str, Any]:
            return {"so_far": len(rig.collected)}

    run_to_the_end(rig.distributor(gated(rig, seen)), rig.worker(), Acks())
    expected = [{"_task_type": "", "_id": 0}]
    expected += [{"_task_type": "C", "_id": n, "so_far": n} for n in (1, 2, 3)]
    assert seen == expected


def test_a_dict_returned_by_handle_collection_is_ack_data_too(rig: Rig) -> None:
    """It holds for the next ACK only; what is no dict says nothing."""
    seen: list[dict[str, Any]] = []

    class Acks(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any]) -> Any:
            return {"odd": data["n"]} if data["n"] % 2 else "even"

    run_to_the_end(rig.distributor(gated(rig, seen)), rig.worker(), Acks())
    assert [ack.get("odd") for ack in seen] == [None, 1, None, 3]


def test_a_raising_handler_fails_that_item_alone(rig: Rig) -> None:
    """The failure has stage collector and the data; the others are collected; the status is 1."""

    class Picky(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> None:
            if data["n"] == 4:
                raise KeyError("four")
            rig.collected.append((data, task_type, msgtype))

    collector, distributor = Picky(), rig.distributor()
    run_to_the_end(distributor, rig.worker(), collector)
    assert len(rig.collected) == 9
    (failure,) = rig.failures
    assert (failure.stage, failure.error, failure.data) == ("collector", "KeyError", {"n": 4})
    assert (collector.status, distributor.status, collector.ok) == (1, 1, False)
    assert [(one.sent, one.collected, one.failed) for one in collector.counts] == [(10, 9, 1)]


@pytest.mark.parametrize("method", ["get_ack_data", "handle_finished"])
def test_other_handlers_that_raise_cost_the_status_and_no_item(rig: Rig, method: str) -> None:
    """Everything is collected all the same; the trouble is logged and the status is 1."""

    def bad(self: Any, *args: Any) -> None:
        raise RuntimeError("no")

    collector = type("Bad", (rig.collector,), {method: bad})()
    run_to_the_end(rig.distributor(), rig.worker(), collector)
    assert len(rig.collected) == 10
    assert collector.status == 1


def test_the_collector_has_the_metadata(rig: Rig) -> None:
    """`self.metadata` is there at the first handle_collection."""
    seen: list[Any] = []

    class Looks(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self) -> None:
            seen.append(self.metadata)

    run_to_the_end(rig.distributor(_metadata=lambda: {"out": "x"}), rig.worker(), Looks())
    assert seen == [{"out": "x"}] * 10


def test_ok_and_counts_are_unknown_until_the_end(rig: Rig) -> None:
    """Before the run there is nothing to say."""
    collector = rig.collector()
    assert collector.ok is None
    assert list(collector.counts) == []
