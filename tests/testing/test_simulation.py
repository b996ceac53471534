"""`SimulatedPipeline`: users' apps through trouble, by seed; and what it finds in apps that cannot stand it."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.mutations import mutated
from zmqpipeline import EndpointAddress, Pipeline, SingleThreadedWorker, Task, TaskType, events
from zmqpipeline.errors import ConfigurationError, ItemFailed, PipelineTimeout, RunFailed, WorkerInitError
from zmqpipeline.protocol.delivery.recalls import Recalls
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import WorkerState
from zmqpipeline.roles.results import TaskSummary
from zmqpipeline.testing import FAULTS, SimulatedPipeline, SimulationError

COUNT = 30
GIVEN: list[int] = []
"""What the source of `gated` has given in this life of its process."""


def forget(role: str) -> None:
    """What a new process of this role does not know."""
    if role == "distributor":
        GIVEN.clear()


def squares(**options: Any) -> Pipeline:
    """Thirty numbers to square, and a second task that waits for them."""
    app = Pipeline("squares")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)), **options)
    app.add_worker("A", lambda data: {"n": data["n"], "square": data["n"] ** 2}, threads=2)
    app.add_task("B", lambda number: {"n": number}, times=5, depends_on=["A"])
    app.add_worker("B", lambda data: data)
    app.add_collector(lambda data: None)
    return app


def keyed() -> Pipeline:
    """Each second item has the key of an earlier one."""
    app = Pipeline("keyed")
    app.add_task("A", lambda: ({"id": n // 2, "n": n // 2} for n in range(2 * COUNT)), key="id")
    app.add_worker("A", lambda data: data)
    return app


def gated() -> Pipeline:
    """Lock-step: an item only when the one before is acknowledged."""
    app = Pipeline("gated")

    @app.task("A")
    def numbers() -> Iterator[dict[str, int]]:
        for n in range(COUNT):
            GIVEN.append(n)
            yield {"n": n}

    app.add_available("A", lambda ack: ack["_id"] >= len(GIVEN))
    app.add_worker("A", lambda data: data)
    return app


def journalled() -> Pipeline:
    """The collector writes a row for each item."""
    app = Pipeline("journalled")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)))
    app.add_worker("A", lambda data: data)

    @app.collector
    def keep(data: dict[str, int], journal: Any) -> None:
        journal.execute("CREATE TABLE IF NOT EXISTS kept (n INTEGER PRIMARY KEY)")
        journal.execute("INSERT INTO kept VALUES (?)", (data["n"],))

    return app


def retiring() -> Pipeline:
    """Workers that execute seven items each."""
    app = Pipeline("retiring")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)))
    app.add_worker("A", lambda data: data, threads=2, max_items=7)
    return app


def flaky() -> Pipeline:
    """Each item fails once, wherever its first execution is."""
    app = Pipeline("flaky")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)), retries=5, backoff=30.0)

    @app.worker("A")
    def work(data: dict[str, int], attempt: int) -> dict[str, int]:
        if attempt == 1:
            raise OSError("try again")
        return data

    return app


def hopeless() -> Pipeline:
    """Each third item fails."""
    app = Pipeline("hopeless")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)), retries=1, on_failed="continue")

    @app.worker("A")
    def work(data: dict[str, int]) -> dict[str, int]:
        if data["n"] % 3 == 0:
            raise OSError("no")
        return data

    return app


@pytest.mark.parametrize("make", [squares, keyed, flaky, hopeless, retiring])
@pytest.mark.parametrize("seed", range(6))
def test_the_trace_counts_as_the_summary_does(make: Callable[[], Pipeline], seed: int) -> None:
    """As long as distributor and collector live through it, whatever strikes the rest; times are virtual ones."""
    pipeline = SimulatedPipeline(make(), seed=seed, faults=["workers", "connections", "messages", "freezes"])
    run = pipeline.run(raise_failures=False)

    def total(kind: type[events.ItemEvent], task: str) -> int:
        return sum(one.count for one in run.events if isinstance(one, kind) and one.task == task)

    over = {one.task: one for one in run.events if isinstance(one, events.TaskOver)}
    for name, task in run.summary.tasks.items():
        assert total(events.ItemCollected, name) == task.collected
        assert total(events.ItemFailed, name) == task.failed
        assert total(events.ItemAcknowledged, name) == task.collected + task.failed
        # one that comes back from a worker that had not begun it is sent again, and is no redelivery
        assert total(events.ItemSent, name) - task.sent >= task.redelivered
        assert (over[name].sent, over[name].collected, over[name].failed) == (task.sent, task.collected, task.failed)
    assert len(run.results) == sum(task.collected for task in run.summary.tasks.values())
    assert [one.time for one in run.events] == sorted(one.time for one in run.events)
    assert run.events[-1].time <= run.summary.seconds


def test_the_printed_trace_has_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Among the lines of the machines and of what struck, with its virtual time."""
    run = SimulatedPipeline(squares(), seed=1).run(verbose=True)
    lines = capsys.readouterr().out.splitlines()
    for event in run.events:
        begin = f"{event.time:10.4f} {event.role:12} 20 {type(event).__name__} task="
        assert isinstance(event, events.RunOver) or any(line.startswith(begin) for line in lines), event
    assert any(isinstance(one, events.RunOver) for one in run.events)


TaskType.register_type("A")


class Numbers(Task):
    """The same, written as a class."""

    task_type = TaskType("A")
    endpoint = EndpointAddress("ipc://numbers.ipc")
    dependencies = ()

    def handle(self, data: dict[str, Any]) -> dict[str, int]:
        self.n_count += 1
        self.is_complete = self.n_count == COUNT
        return {"n": self.n_count - 1}


class Squares(SingleThreadedWorker):
    """Its worker."""

    task_type = TaskType("A")
    endpoint = EndpointAddress("ipc://numbers.ipc")
    collector_endpoint = EndpointAddress("ipc://results.ipc")

    def handle_execution(self, data: dict[str, int]) -> dict[str, int]:
        return data


def classes() -> Pipeline:
    """Two classes, and the functions of others beside them."""
    app = Pipeline("classes")
    app.register(Numbers)
    app.register(Squares)
    app.add_collector(lambda data: None)
    return app


@pytest.mark.parametrize("first", [0, 6])
@pytest.mark.parametrize("build", [squares, keyed, gated, journalled, flaky, classes])
def test_every_item_is_collected_whatever_strikes(build: Callable[[], Pipeline], first: int) -> None:
    """Apps of all sorts go through: nothing is lost, the counts add up, and with a journal no row is there twice."""
    for seed in range(first, first + 6):
        forget("distributor")
        run = SimulatedPipeline(build(), seed=seed, on_restart=forget).run()
        assert sorted(data["n"] for task, data in run.results if task == "A") == list(range(COUNT)), run
        assert run.summary.ok
        assert run.failures == []
        assert set(run.executions) == set(run.collections)
        # one that was collected, and forgotten with its collector, may come again under another number
        assert run.summary.tasks["A"].collected == COUNT or "collector" in run.notes, run


def test_without_faults_everything_happens_once() -> None:
    """An empty list of faults is a calm run, which takes some virtual seconds and next to no real ones."""
    run = SimulatedPipeline(squares(), seed=3, faults=[], item_seconds=5.0).run()
    assert (run.faults, run.notes) == ([], {})
    assert set(run.executions.values()) == set(run.collections.values()) == {1}
    assert run.summary.tasks["A"] == TaskSummary(sent=COUNT, collected=COUNT)
    assert run.summary.seconds > 5.0


def test_a_seed_is_a_run() -> None:
    """The same faults at the same times, and the same executions."""
    first, again = (SimulatedPipeline(squares(), seed=12).run() for _ in range(2))
    assert first.faults == again.faults
    assert first.faults
    assert (first.executions, first.results, first.summary) == (again.executions, again.results, again.summary)
    assert repr(first) == repr(again)
    assert "seed=12" in repr(first)


def test_every_kind_of_fault_strikes_and_only_those_that_were_asked_for() -> None:
    """In some seeds each; and an item is executed again only because something struck."""
    seen: Counter[str] = Counter()
    for seed in range(12):
        run = SimulatedPipeline(squares(), seed=seed).run()
        seen.update(one.what for one in run.faults)
        seen["messages"] += run.notes.get("lost", 0)
    assert set(seen) == set(FAULTS)
    for seed in range(6):
        run = SimulatedPipeline(squares(), seed=seed, faults=["workers"]).run()
        assert {one.what for one in run.faults} <= {"workers"}
        assert set(run.collections.values()) == {1}


def test_what_does_not_exist_is_refused() -> None:
    """With the names that do, before anything is called."""
    with pytest.raises(ConfigurationError, match=r"no fault 'worker'.*Did you mean 'workers'"):
        SimulatedPipeline(squares(), seed=1, faults=["worker"])
    with pytest.raises(ConfigurationError, match="names the task 'X'"):
        SimulatedPipeline(squares(), seed=1, workers={"X": 1})


def story_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """What the error says of its seed, in a note or, before Python 3.11, on stderr."""
    return "".join(getattr(error, "__notes__", [])) + capsys.readouterr().err


def test_a_failed_item_is_raised_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """The very exception, from the line of the user's function; or it can be looked at."""
    app = squares()
    del app.registry.workers["A"]

    @app.worker("A")
    def picky(data: dict[str, int]) -> dict[str, int]:
        if data["n"] == 3:
            raise LookupError("three")
        return data

    with pytest.raises(LookupError, match="three") as caught:
        SimulatedPipeline(app, seed=5).run()
    assert caught.traceback[-1].name == "picky"
    assert isinstance(caught.value.__cause__, ItemFailed)
    assert "SimulatedPipeline(app, seed=5, ...).run(verbose=True)" in story_of(caught.value, capsys)
    run = SimulatedPipeline(app, seed=5).run(raise_failures=False)
    assert [failure.data for failure in run.failures] == [{"n": 3}]
    assert not run.summary.ok


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "again", "text"),
    [
        (range(COUNT), range(100, 200), r"gave \{'n': 0\} as item 0, and \{'n': 100\} when"),
        (range(COUNT), range(3), r"gave \d+ items, and 3 when"),
        (range(3), range(COUNT), "gave 3 items, and more when"),
    ],
)
def test_a_source_that_is_not_repeatable_is_found(first: range, again: range, text: str) -> None:
    """One that gives other items, fewer, or more when it is called again: the message says what it gave."""

    def run_some_seeds() -> None:
        for seed in range(30):
            lives = iter([first, *[again] * 100])
            app = Pipeline("changing")
            app.add_task("A", lambda lives=lives: ({"n": n} for n in next(lives)))
            app.add_worker("A", lambda data: data)
            SimulatedPipeline(app, seed=seed, faults=["distributor"], item_seconds=0.2).run()

    with pytest.raises(SimulationError, match=f"The source of task 'A' {text}"):
        run_some_seeds()


@pytest.mark.slow
def test_a_collector_that_keeps_its_results_in_memory_loses_them() -> None:
    """What a process forgets, the test can make it forget; with a journal the same seeds lose nothing."""
    rows: list[int] = []

    def forget(role: str) -> None:
        if role == "collector":
            rows.clear()

    def lost(build: Callable[[], Pipeline]) -> int:
        missing = 0
        for seed in range(10):
            rows.clear()
            SimulatedPipeline(build(), seed=seed, on_restart=forget).run()
            missing += sorted(rows) != list(range(COUNT))
        return missing

    def in_memory() -> Pipeline:
        app = squares()
        del app.registry.collectors[""]
        app.add_collector(lambda data: rows.append(data["n"]), "A")
        return app

    def in_the_journal() -> Pipeline:
        app = journalled()

        @app.finished
        def read() -> None:
            rows.extend(range(COUNT))

        return app

    assert lost(in_memory) > 0
    assert lost(in_the_journal) == 0


def test_on_restart_is_told_of_each_role() -> None:
    """As often as one was killed and the run went on."""
    told: Counter[str] = Counter()
    for seed in range(10):
        SimulatedPipeline(squares(), seed=seed, on_restart=lambda role: told.update([role])).run()
    assert set(told) == {"distributor", "collector", "worker"}


def test_a_run_that_cannot_end_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A closed gate by the pipeline itself; a task without workers by what every role waits for, at once."""
    app = squares()
    app.add_available("A", lambda ack: False)
    with pytest.raises(RunFailed, match="gate"):
        SimulatedPipeline(app, seed=1).run()
    with pytest.raises(PipelineTimeout, match=r"does not end.*\n(.*\n)*.*no worker for 'A'") as caught:
        SimulatedPipeline(squares(), seed=1, workers={"A": 0}).run()
    assert "seed 1" in story_of(caught.value, capsys)


def test_an_endless_source_is_ended_by_the_timeout() -> None:
    """By real seconds, since virtual ones go on for ever."""
    app = Pipeline("endless")
    app.add_task("A", lambda: iter(dict, 1))
    app.add_worker("A", lambda data: data)
    with pytest.raises(PipelineTimeout, match=r"not over within 0\.2 s"):
        SimulatedPipeline(app, seed=1).run(timeout=0.2)


def test_what_other_functions_raise_is_raised() -> None:
    """Of the source, of `worker_init`, of `finished`."""
    app = squares()
    app.add_task("X", lambda: 1 / 0)
    app.add_worker("X", lambda data: data)
    with pytest.raises(ZeroDivisionError):
        SimulatedPipeline(app, seed=1).run()
    app = squares()
    app.add_worker_init("A", lambda: 1 / 0)
    with pytest.raises(WorkerInitError, match="ZeroDivisionError"):
        SimulatedPipeline(app, seed=1).run()
    app = squares()
    app.add_finished(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        SimulatedPipeline(app, seed=1).run()
    assert not SimulatedPipeline(app, seed=1).run(raise_failures=False).summary.ok


def test_an_interrupt_is_the_tests_own() -> None:
    """Ctrl-C during a simulation ends it, wherever it strikes."""

    def interrupt(*data: Any) -> None:
        raise KeyboardInterrupt

    for role in ("task", "worker", "collector"):
        app = Pipeline("interrupted")
        app.add_task("A", interrupt if role == "task" else lambda: [{"n": 1}])
        app.add_worker("A", interrupt if role == "worker" else lambda data: data)
        app.add_collector(interrupt if role == "collector" else lambda data: None)
        with pytest.raises(KeyboardInterrupt):
            SimulatedPipeline(app, seed=1).run()


def test_functions_get_what_they_ask_for() -> None:
    """Metadata, resources of each process and thread, numbers and attempts, ACK data."""
    app, workers, acks = Pipeline("asks"), [], []
    app.add_metadata(lambda: {"a": 1, "b": 1})
    app.add_task("A", lambda metadata: [{"n": n, **metadata} for n in range(9)])
    app.add_worker_init("A", lambda: workers.append(1) or len(workers))
    app.add_thread_init("A", lambda resource, thread_index: (resource, thread_index))
    app.add_worker("A", lambda data, number, resource: {**data, "number": number, "at": list(resource)}, threads=3)
    app.add_collector(lambda data: {"last": data["n"]})
    app.add_available("A", lambda ack: acks.append(ack) or True)
    run = SimulatedPipeline(app, seed=1, workers=1, metadata={"b": 2}, faults=[]).run()
    assert sorted((data["n"], data["number"], data["b"]) for _, data in run.results) == [(n, n, 2) for n in range(9)]
    assert {tuple(data["at"]) for _, data in run.results} <= {(1, thread) for thread in range(3)}
    assert acks[0] == {"_task_type": "", "_id": 0}
    assert workers == [1]


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No thread, no file, no open journal, whether it ends well or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # what other tests have left to be collected is closed now, and not meanwhile
    gc.collect()
    before, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    SimulatedPipeline(journalled(), seed=2).run()
    with pytest.raises(PipelineTimeout):
        SimulatedPipeline(journalled(), seed=2, workers=0).run()
    assert set(threading.enumerate()) <= before
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []


def test_verbose_shows_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    """What struck, and what the roles log."""
    SimulatedPipeline(squares(), seed=12).run(verbose=True)
    text = capsys.readouterr().out
    assert "was killed" in text
    assert len(text.splitlines()) > 10


@pytest.mark.parametrize("name", ["no-dedupe", "no-resend", "leases-never-returned", "end-before-last-ack"])
def test_a_defect_of_the_library_is_found_by_a_users_app(name: str) -> None:
    """It is the real machines that run: break one of them, and some seed does not end well."""
    errors = (SimulationError, PipelineTimeout, AssertionError, LookupError)

    def fails(seed: int) -> bool:
        try:
            run = SimulatedPipeline(squares(), seed=seed).run()
        except errors:
            return True
        return len(run.results) != COUNT + 5

    with mutated(name):
        assert any(fails(seed) for seed in range(10))


@pytest.mark.slow
def test_a_worker_with_max_items_is_replaced() -> None:
    """Without trouble each executes seven and retires; with it no item is lost or collected twice."""
    restarts: Counter[str] = Counter()
    app = retiring()
    calm = SimulatedPipeline(app, seed=1, workers=1, faults=[], on_restart=lambda role: restarts.update([role])).run()
    assert (len(calm.results), calm.notes["retired"]) == (COUNT, COUNT // 7)
    assert restarts == {"worker": COUNT // 7}
    assert set(calm.executions.values()) == {1}
    for seed in range(20):
        run = SimulatedPipeline(app, seed=seed).run()
        assert sorted(data["n"] for _, data in run.results) == list(range(COUNT))
        assert run.notes["retired"]


def _keep(collected: set[int], data: dict[str, int]) -> None:
    collected.add(data["n"])


def test_the_last_items_are_shared_through_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short items, of which workers have many when the source has no more: some go to others, and each is collected."""
    levelled: list[int] = []
    level, recall = Recalls._level, Recalls._recall

    def recalled(self: Recalls, member: WorkerState, most: int) -> None:
        levelled.append(most)
        recall(self, member, most)

    def looked(self: Recalls, task: TaskState | None, name: str) -> None:
        with monkeypatch.context() as inside:
            inside.setattr(Recalls, "_recall", recalled)
            level(self, task, name)

    monkeypatch.setattr(Recalls, "_level", looked)
    for seed in range(4):
        app = Pipeline("short")
        collected: set[int] = set()
        app.add_task("A", lambda: ({"n": n} for n in range(300)))
        app.add_worker("A", lambda data: data)
        app.add_collector(partial(_keep, collected))
        SimulatedPipeline(app, seed=seed, workers=3, item_seconds=0.004).run()
        assert collected == set(range(300))
    assert len(levelled) >= 4
    assert min(levelled) > 0
