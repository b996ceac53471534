"""`app.test_run()`: whole pipelines as threads over inproc, and what it tells when something goes wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.apps import Odd, squares
from tests.support.patience import await_threads
from zmqpipeline import events
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import (
    ConfigurationError,
    ItemFailed,
    PipelineTimeout,
    RegistrationError,
    RunFailed,
)
from zmqpipeline.roles.results import Failure, TaskSummary
from zmqpipeline.testing import TestRun


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, the threads of its pipelines are gone afterwards."""
    before = set(threading.enumerate())
    yield
    # one that was given up ends when its function does, a moment after that was let go on
    await_threads(before)


def test_every_item_is_collected_once() -> None:
    """The collector's function and the run's results agree; the summary counts."""
    app, seen = squares(1000), []
    app.add_collector(lambda data: seen.append(data))
    run = app.test_run(workers=2)
    assert isinstance(run, TestRun)
    assert Counter(data["n"] for _, data in run.results) == Counter(range(1000))
    assert all(data["square"] == data["n"] ** 2 for _, data in run.results)
    assert seen == [data for _, data in run.results]
    assert run.failures == []
    assert run.summary.ok
    assert run.summary.tasks == {"C": TaskSummary(sent=1000, collected=1000)}


def test_fifty_thousand_trivial_items_take_seconds() -> None:
    """The default is fast: batches and prefetch need no option."""
    began = time.process_time()
    assert len(squares(50_000).test_run(timeout=110).results) == 50_000
    # of the processor: what other programs take of it is not counted
    assert time.process_time() - began < 20


def test_an_app_can_be_run_again_and_beside_another() -> None:
    """Each run has addresses of its own."""
    app = squares(10)
    other = threading.Thread(target=squares(200, "beside").test_run)
    other.start()
    assert [len(app.test_run().results) for _ in range(3)] == [10, 10, 10]
    other.join(60)
    assert not other.is_alive()


def test_a_diamond_of_dependencies_runs_in_order() -> None:
    """B and C after all of A, D after all of B and C."""
    app = Pipeline("diamond")
    for name, needs in (("D", ["B", "C"]), ("B", ["A"]), ("C", ["A"]), ("A", [])):
        app.add_task(name, lambda number: {"n": number}, times=20, depends_on=needs)
        app.add_worker(name, lambda data: data, threads=3)
    order = [task for task, _ in app.test_run().results]
    assert set(order[:20]) == {"A"}
    assert set(order[20:60]) == {"B", "C"}
    assert set(order[60:]) == {"D"}
    assert len(order) == 80


def test_retries_give_an_item_another_try() -> None:
    """It succeeds at the third attempt, which the function can see; nothing is failed."""
    app = Pipeline("retries")
    app.add_task("C", dict, retries=2, backoff=0.01)

    @app.worker("C")
    def flaky(data: Any, attempt: int) -> dict[str, Any]:
        if attempt < 3:
            raise OSError("try again")
        return {"attempt": attempt}

    run = app.test_run()
    assert run.results == [("C", {"attempt": 3})]
    assert run.summary.tasks["C"].failed == 0


def failing(**options: Any) -> Pipeline:
    """Ten items, of which the fourth fails."""
    app = squares(10, "failing", **options)
    del app.registry.workers["C"]

    @app.worker("C")
    def picky(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 3:
            raise Odd("three")
        return data

    return app


def test_observers_of_a_test_run_count_as_its_summary_does() -> None:
    """All roles are observed, whether the app has observers of its own or not; these are called, too."""
    app, own = failing(retries=1, backoff=0.01, on_failed="continue"), []
    app.add_on(events.TaskOver, own.append)
    run = app.test_run(raise_failures=False)

    def total(kind: type[events.ItemEvent]) -> int:
        return sum(one.count for one in run.events if isinstance(one, kind))

    task = run.summary.tasks["C"]
    assert total(events.ItemCollected) == task.collected == len(run.results)
    assert total(events.ItemFailed) == task.failed == len(run.failures) > 0
    assert total(events.ItemRetried) == total(events.ItemSent) - task.sent == task.redelivered > 0
    assert own == [one for one in run.events if isinstance(one, events.TaskOver)]
    assert [(one.sent, one.collected, one.failed, one.redelivered) for one in own] == [
        (task.sent, task.collected, task.failed, task.redelivered)
    ]
    assert [one.time for one in run.events] == sorted(one.time for one in run.events)
    assert {one.role for one in run.events if isinstance(one, events.RoleDown)} == {
        "distributor",
        "worker",
        "collector",
    }


@pytest.mark.slow
def test_an_observer_that_never_returns_takes_no_events_from_other_test_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Observers of a process are called one at a time: what a test run listens to does not wait for its turn."""
    stuck, never = squares(3, "stuck"), threading.Event()
    stuck.add_on(events.RoleUp, lambda event: never.wait())
    assert stuck.test_run().summary.ok
    caplog.clear()
    try:
        run = squares(3, "beside").test_run()
    finally:
        never.set()
        for thread in threading.enumerate():
            if thread.name == "zmqpipeline observers":
                thread.join(60)
    assert "The observers are not done" not in caplog.text
    assert sum(one.count for one in run.events if isinstance(one, events.ItemCollected)) == 3


def test_the_first_failure_is_raised_again() -> None:
    """It is the very exception, so its traceback leads to the line; its cause says which item."""
    with pytest.raises(Odd, match="three") as caught:
        failing().test_run()
    assert caught.traceback[-1].name == "picky"
    cause = caught.value.__cause__
    assert isinstance(cause, ItemFailed)
    assert isinstance(cause.failure, Failure)
    assert cause.failure.data == {"n": 3}
    assert str(cause).endswith("\nThe item: {'n': 3}")


@pytest.mark.parametrize("where", ["finished", "failed", "ack_data"])
def test_what_a_function_beside_the_items_raises_is_raised_again(where: str) -> None:
    """A test that looks at nothing else fails when `finished`, `failed` or `ack_data` raises; or finds `ok` False."""
    app = Pipeline("beside")
    app.add_task("C", lambda: [{"n": 1}])
    app.add_collector(lambda data: None)

    def work(data: dict[str, Any]) -> dict[str, Any]:
        if where == "failed":
            raise LookupError("the item")
        return data

    def broken(*failure: object) -> None:
        raise ZeroDivisionError(where)

    app.add_worker("C", work)
    getattr(app, f"add_{where}")(broken)
    with pytest.raises((ZeroDivisionError, LookupError)) as caught:
        app.test_run()
    assert str(caught.value) == ("the item" if where == "failed" else where)
    assert not app.test_run(raise_failures=False).summary.ok


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["task", "worker"])
def test_an_exit_in_user_code_does_not_end_the_session(where: str, error: BaseException) -> None:
    """SystemExit and KeyboardInterrupt of a function come as an error of ours, caused by them."""
    app = Pipeline("exit")

    def leave(*data: object) -> dict[str, Any]:
        raise error

    app.add_task("C", leave if where == "task" else lambda: [{"n": 1}])
    app.add_worker("C", leave if where == "worker" else lambda data: data)
    with pytest.raises(RunFailed if where == "task" else ItemFailed, match=type(error).__name__) as caught:
        app.test_run()
    assert caught.value.__cause__ is error


def test_failures_can_be_looked_at_instead() -> None:
    """With raise_failures=False: the other items are there, the failure function was called, and ok is False."""
    app, told = failing(retries=1, backoff=0.01), []
    app.add_failed(lambda failure, task_type: told.append((failure, task_type)))
    run = app.test_run(raise_failures=False)
    assert sorted(data["n"] for _, data in run.results) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    (failure,) = run.failures
    assert (failure.task_type, failure.data, failure.stage, failure.attempts) == ("C", {"n": 3}, "worker", 2)
    assert failure.error.endswith("Odd")
    assert (failure.message, "picky" in failure.traceback) == ("three", True)
    assert told == [(failure, "C")]
    assert not run.summary.ok
    assert (run.summary.tasks["C"].collected, run.summary.tasks["C"].failed) == (9, 1)


@pytest.mark.parametrize(("on_failed", "collected"), [("abort", 0), ("continue", 1)])
def test_what_depends_on_failed_items_is_aborted_or_goes_on(on_failed: str, collected: int) -> None:
    """The dependent's own choice."""
    app = failing()
    app.add_task("E", dict, depends_on="C", on_failed=on_failed)
    app.add_worker("E", lambda data: data)
    run = app.test_run(raise_failures=False)
    assert run.summary.tasks["E"].collected == collected
    assert not run.summary.ok


def test_a_collector_that_raises_fails_the_item_and_is_raised_again() -> None:
    """Stage collector; the results hold only what it accepted."""
    app = squares(3)

    @app.collector
    def strict(data: dict[str, Any]) -> None:
        if data["n"] == 1:
            raise Odd("one")

    with pytest.raises(Odd):
        app.test_run()
    run = app.test_run(raise_failures=False)
    assert sorted(data["n"] for _, data in run.results) == [0, 2]
    assert run.failures[0].stage == "collector"


def test_an_item_that_takes_too_long_is_raised_as_item_failed() -> None:
    """There is no exception of user code to raise; its thread is given up, and ends when the function does."""
    app, release = Pipeline("slow"), threading.Event()
    app.add_task("C", lambda: [{"n": 0}, {"n": 1}], timeout=0.2)

    @app.worker("C", threads=2)
    def sleepy(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 0:
            release.wait(60)
        return data

    app.add_failed(lambda failure: release.set())
    with pytest.raises(ItemFailed, match="TimeoutError"):
        app.test_run()


def test_a_worker_whose_only_thread_is_stuck_is_replaced() -> None:
    """The item that ran too long is failed, and all others are executed by the next worker."""
    app, release = Pipeline("stuck"), threading.Event()
    # long enough for the others, though their thread be not given the processor for a while
    app.add_task("C", lambda: [{"n": n} for n in range(5)], timeout=1.5)

    @app.worker("C")
    def sleepy(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 1:
            release.wait(60)
        return data

    app.add_failed(lambda failure: release.set())
    run = app.test_run(raise_failures=False)
    assert sorted(data["n"] for _, data in run.results) == [0, 2, 3, 4]
    assert [(one.data, one.error) for one in run.failures] == [({"n": 1}, "TimeoutError")]


def test_the_gate_makes_items_go_in_lock_step() -> None:
    """Each item waits for the ACK of the one before; it carries the data of the collector's functions."""
    app, seen = Pipeline("steps"), []
    app.add_task("C", lambda number: {"n": number}, times=5)
    app.add_worker("C", lambda data: data, threads=4)
    app.add_collector(lambda data: {"n": data["n"]})
    app.add_ack_data(lambda: {"always": True})

    @app.available("C")
    def step(ack: dict[str, Any]) -> bool:
        if ack["_id"] != len(seen):
            return False
        seen.append(ack)
        return True

    assert [data["n"] for _, data in app.test_run().results] == [0, 1, 2, 3, 4]
    assert seen[0] == {"_task_type": "", "_id": 0}
    assert seen[1:] == [{"_task_type": "C", "_id": n + 1, "n": n, "always": True} for n in range(4)]


def test_metadata_goes_to_everybody_and_an_argument_over_it() -> None:
    """The function's dict, with the argument's over it."""
    app, seen = Pipeline("meta"), {}
    app.add_metadata(lambda: {"path": "/", "out": "a"})
    app.add_task("C", lambda metadata: {"task": metadata})
    app.add_worker_init("C", lambda metadata: dict(metadata))
    app.add_worker("C", lambda data, metadata, resource: {**data, "worker": metadata, "init": resource})
    app.add_collector(lambda data, metadata: seen.update(collector=metadata))
    app.add_finished(lambda metadata: seen.update(finished=metadata))
    (result,) = app.test_run(metadata={"out": "b"}).results
    expected = {"path": "/", "out": "b"}
    assert result == ("C", {"task": expected, "worker": expected, "init": expected})
    assert seen == {"collector": expected, "finished": expected}


def test_keys_that_were_seen_are_skipped() -> None:
    """They are counted, and sent once."""
    app = Pipeline("keys")
    app.add_task("C", lambda: ({"id": n % 3, "n": n} for n in range(9)), key="id")
    app.add_worker("C", lambda data: data)
    run = app.test_run()
    assert sorted(data["id"] for _, data in run.results) == [0, 1, 2]
    assert run.summary.tasks["C"].skipped == 6


@pytest.mark.parametrize("where", ["task", "metadata", "available", "key"])
def test_what_a_function_of_the_distributor_raises_is_raised(where: str) -> None:
    """The very exception."""
    app, boom = Pipeline("raises"), Odd("in the distributor")

    def bad(*args: Any) -> Any:
        raise boom

    app.add_task("C", bad if where == "task" else lambda: {"a": 1}, key=bad if where == "key" else None)
    app.add_worker("C", lambda data: data)
    if where in ("metadata", "available"):
        getattr(app, f"add_{where}")(*(["C"] if where == "available" else []), bad)
    with pytest.raises(Odd) as caught:
        app.test_run()
    assert caught.value is boom


def test_a_closed_gate_fails_the_run_at_once() -> None:
    """It does not wait for the time-out."""
    app = squares(3)
    app.add_available("C", lambda ack: False)
    with pytest.raises(RunFailed, match="gate"):
        app.test_run(timeout=60)


def test_a_worker_that_cannot_be_initialized_ends_the_run() -> None:
    """With the error that says why, long before the time-out."""
    app = squares(3)
    app.add_worker_init("C", lambda: 1 / 0)
    began = time.monotonic()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        app.test_run(timeout=110)
    assert time.monotonic() - began < 80


@pytest.mark.slow
def test_a_run_that_hangs_ends_with_a_report() -> None:
    """In time, with what each role and the hanging function were doing."""
    app, release = squares(4, "hangs"), threading.Event()
    del app.registry.workers["C"]

    @app.worker("C")
    def stuck_here(data: dict[str, Any]) -> None:
        begun.set()
        release.wait(60)

    begun = threading.Event()
    began = time.monotonic()
    with pytest.raises(PipelineTimeout) as caught:
        # as long as a busy machine may take to begin the first item
        app.test_run(timeout=2.5)
    assert begun.is_set()
    assert time.monotonic() - began < 60
    assert isinstance(caught.value, TimeoutError)
    assert "stuck_here" in str(caught.value)
    assert "worker of 'C' of a test run: executes: " in str(caught.value)
    assert "task 'C': 0 items done, " in str(caught.value)
    release.set()


def test_a_run_without_workers_times_out() -> None:
    """`workers` counts for every task or for some; none is allowed, and a wrong name is not."""
    with pytest.raises(PipelineTimeout):
        squares(3).test_run(workers=0, timeout=0.3)
    with pytest.raises(ConfigurationError, match="names the task 'D'"):
        squares(3).test_run(workers={"D": 1})
    for number in (-1, 99999999):
        with pytest.raises(ConfigurationError, match="4000 at most"):
            squares(3).test_run(workers=number)
    assert len(squares(3).test_run(workers={"C": 3}).results) == 3


def test_an_app_that_does_not_fit_together_is_not_begun() -> None:
    """The same errors as everywhere."""
    with pytest.raises(RegistrationError, match="has no tasks"):
        Pipeline("empty").test_run()


def test_an_empty_task_is_a_run_that_ends_well() -> None:
    """No items, no worker needed for long."""
    assert squares(0).test_run().summary.ok
