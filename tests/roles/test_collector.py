"""The collector of the class API: what its handlers get, ACK data, failures, and the end."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.roles import Rig, run_to_the_end, running
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, EndpointInUse, JournalError, RunFailed
from zmqpipeline.options import Options
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime.journal import Journal, dead_items, peek
from zmqpipeline.runtime.locks import PathLock
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
    with pytest.raises(RunFailed, match="1 failed"):
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
    with pytest.raises(RunFailed, match="function raised RuntimeError: no"):
        run_to_the_end(rig.distributor(), rig.worker(), collector)
    assert len(rig.collected) == 10
    assert collector.status == 1


METHODS = ("handle_collection", "handle_finished", "handle_failed", "get_ack_data")


def _yields(self: Any, *args: Any) -> Any:
    yield {}


async def _is_async(self: Any, *args: Any) -> None:
    return None


async def _yields_async(self: Any, *args: Any) -> Any:
    yield {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrong", [_yields, _is_async, _yields_async])
def test_a_method_that_would_only_return_what_is_to_be_run_is_refused(rig: Rig, method: str, wrong: Any) -> None:
    """Its body would never be executed, and each item would count as collected all the same."""
    kind = type("Kind", (rig.collector,), {method: wrong})
    with pytest.raises(ConfigurationError, match=rf"Kind\.{method} (has a yield|is an async method)"):
        kind().run()


@pytest.mark.parametrize("wrong", [_yields, _is_async, _yields_async])
def test_an_item_of_which_nothing_was_executed_has_failed(rig: Rig, wrong: Any) -> None:
    """A plain method hands on what is to be run: that is seen when it returns it."""
    rig.task.most = 2  # type: ignore[attr-defined]

    class HandsOn(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any]) -> Any:
            return wrong(self)

    collector = HandsOn()
    with pytest.raises(RunFailed, match="of which nothing was executed"):
        run_to_the_end(rig.distributor(), rig.worker(), collector)
    assert (collector.ok, [one.stage for one in collector.failures]) == (False, ["collector"] * 2)


@pytest.mark.parametrize("method", ["handle_finished", "handle_failed"])
def test_other_methods_that_hand_on_what_is_to_be_run_cost_the_status(rig: Rig, method: str) -> None:
    """As if they had raised."""
    rig.task.most = 2  # type: ignore[attr-defined]

    def collects(self: Any, data: dict[str, Any]) -> None:
        raise ValueError("as planned")

    kind = type("Kind", (rig.collector,), {method: lambda self, *args: _yields(self), "handle_collection": collects})
    collector = kind()
    with pytest.raises(RunFailed):
        run_to_the_end(rig.distributor(), rig.worker(), collector)
    assert f"Kind.{method}" in str(collector.machine.troubles)
    assert "returned a generator" in str(collector.machine.troubles)


def test_the_collector_has_the_metadata(rig: Rig) -> None:
    """`self.metadata` is there at the first handle_collection."""
    seen: list[Any] = []

    class Looks(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self) -> None:
            seen.append(self.metadata)

    run_to_the_end(rig.distributor(metadata=lambda: {"out": "x"}), rig.worker(), Looks())
    assert seen == [{"out": "x"}] * 10


def test_ok_and_counts_are_unknown_until_the_end(rig: Rig) -> None:
    """Before the run there is nothing to say."""
    collector = rig.collector()
    assert collector.ok is None
    assert list(collector.counts) == []


# with a journal -------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "run.db"


def journalled(collector: Collector, path: Path) -> Collector:
    """The same collector, with a journal."""
    collector.options = Options(journal=str(path))
    return collector


def test_a_run_with_a_journal_leaves_it_finished(rig: Rig, path: Path) -> None:
    """Under the name of the class; with the failed item, the metadata and the counts."""

    class Picky(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> None:
            if data["n"] == 4:
                raise KeyError("four")
            rig.collected.append((data, task_type, msgtype))

    collector = journalled(Picky(), path)
    with pytest.raises(RunFailed, match="1 failed"):
        run_to_the_end(rig.distributor(metadata=lambda: {"a": 1}), rig.worker(), collector)
    held = peek(path)
    assert held is not None
    assert (held.pipeline, held.finished, held.ok, held.counts) == ("Picky", True, False, list(collector.counts))
    assert [(one.stage, one.error) for one in dead_items(path)] == [("collector", "KeyError")]
    assert [one.name for one in path.parent.iterdir()] == ["run.db"]


@pytest.mark.slow
def test_a_finished_journal_is_told_to_the_next_distributor(rig: Rig, path: Path) -> None:
    """For a while; nothing is collected again; the counts are those of the run that was."""
    run_to_the_end(rig.distributor(), rig.worker(), journalled(rig.collector(), path))
    rig.collected.clear()
    collector = journalled(rig.collector(), path)
    with running(rig.worker()):
        # which waits for the next run, as it came after the end of this one
        run_to_the_end(rig.distributor(), collector)
    assert rig.collected == []
    assert (collector.status, collector.ok) == (0, True)
    assert [(one.sent, one.collected) for one in collector.counts] == [(10, 10)]


def one_life(rig: Rig, path: Path, life: int, enough: int) -> set[int]:
    """Run all roles until so many items are collected in all, or the run is over; the lives in the metadata."""
    told, seen = threading.Event(), set()

    class Counts(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> None:
            rig.collected.append((data, task_type, msgtype))
            seen.add(self.metadata["life"])
            if len(rig.collected) == enough < rig.task.most:  # type: ignore[attr-defined]
                told.set()

    distributor, worker = rig.distributor(metadata=lambda: {"life": life}), rig.worker()
    # all are asked to end at once: nobody acknowledges what the worker keeps, and it need not wait for that
    distributor.options = worker.options = Options(drain_timeout=0.1)
    with running(distributor, worker, journalled(Counts(), path)) as (thread, *_):
        while thread.is_alive() and not told.wait(0.01):
            pass
    return seen


def test_a_run_goes_on_after_all_roles_ended(rig: Rig, path: Path) -> None:
    """Again and again, at any point: each item is collected once in all, and the metadata is that of the beginning."""
    rig.task.most = 20_000  # type: ignore[attr-defined]
    seen: set[int] = set()
    lives = 5
    for life in range(lives):
        seen |= one_life(rig, path, life, len(rig.collected) + 500 if life < lives - 1 else rig.task.most)  # type: ignore[attr-defined]
    held = peek(path)
    assert held is not None
    assert held.finished
    assert sorted(data["n"] for data, _, _ in rig.collected) == list(range(1, 20_001))
    assert seen == {0}


def test_a_function_that_needs_a_journal_does_not_begin_without(tmp_path: Path) -> None:
    """Said before any address is bound, with what to do."""
    app = Pipeline("needs", endpoint=f"ipc://{tmp_path}/pipeline")
    app.add_task("C", lambda: [{"n": 1}])
    app.add_worker("C", lambda data: data)

    @app.collector
    def keep(data: dict[str, Any], journal: Any) -> None:
        return None

    collector = app.compile("collector")
    with pytest.raises(JournalError, match=r"collector function '.*keep' takes `journal`.*--journal FILE.*app\.run"):
        collector.run()
    assert not list((tmp_path / "pipeline").iterdir())


def test_a_journal_in_use_is_an_error_and_a_wrong_address_leaves_it_free(rig: Rig, path: Path, tmp_path: Path) -> None:
    """The journal comes before the addresses; where those fail, it is closed again."""
    journal = Journal(path, pipeline="TheCollector")
    with pytest.raises(JournalError, match="is in use by the process"):
        journalled(rig.collector(), path).run()
    journal.close()
    collector = journalled(rig.collector(), path)
    collector.endpoint = EndpointAddress(f"ipc://{tmp_path}/results")
    lock = PathLock(str(tmp_path / "results"))
    with pytest.raises(EndpointInUse):
        collector.run()
    lock.release()
    Journal(path, pipeline="TheCollector").close()


def test_a_journal_that_cannot_be_written_ends_the_collector(rig: Rig, path: Path) -> None:
    """With status 2 and the letter; what is in the file is what was acknowledged, and more there is not."""
    rig.task.most = 100_000  # type: ignore[attr-defined]

    class Fills(rig.collector):  # type: ignore[name-defined,misc]
        def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> None:
            if not rig.collected:
                db = CollectorRunner.of(self)._journal._db  # type: ignore[union-attr]
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                db.execute(f"PRAGMA max_page_count = {pages}")
            if data["n"] % 2:
                raise KeyError("x" * 1000)
            rig.collected.append((data, task_type, msgtype))

    collector, distributor, worker = journalled(Fills(), path), rig.distributor(), rig.worker()
    # nobody acknowledges what they hold: they would wait for the next collector
    distributor.options = worker.options = Options(drain_timeout=0.1)
    with running(collector, distributor, worker) as (thread, *_):
        thread.join(60)
        assert not thread.is_alive()
    assert isinstance(thread.error, JournalError)
    assert "sqlite says: database or disk is full" in str(thread.error)
    assert collector.status == 75
    with contextlib.closing(sqlite3.connect(path)) as db:
        (marked,) = db.execute("SELECT sum(stop - start) FROM zmqpipeline_done").fetchone()
    assert collector.machine.snapshot().tasks["C"][0] == (marked or 0) <= len(rig.collected)
