"""What is kept of a run for its report: exact where it is a count, and of bounded size."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from typing import Any, cast

import pytest

from zmqpipeline.processes import run_record
from zmqpipeline.processes.restarts import ChildEnded, Slot, Verdict
from zmqpipeline.processes.run_record import MAX_ENDS, MAX_MARKS, MAX_ROWS, MAX_SLICES, SLOWEST, RunRecord
from zmqpipeline.protocol.messages import ItemTimes, RunningItem, Status, TaskCounts, TaskStatus, WorkerStatus
from zmqpipeline.protocol.status_records import ITEM_SECONDS
from zmqpipeline.runtime.child_report import SlowItem, Told, work_done
from zmqpipeline.runtime.progress import Progress

HERE = socket.gethostname()


class Clock:
    """Says what it is set to."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Ear:
    """A child, as far as a record looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


class Scene:
    """A record with a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.record = RunRecord(self.clock)

    def at(self, seconds: float) -> None:
        """So long after the beginning."""
        self.clock.now = 100.0 + seconds

    def start(self, place: Slot, pid: int) -> None:
        """A process begins there."""
        place.child = cast(Any, Ear(pid))
        self.record.started(place)

    def end(self, place: Slot, pid: int, told: bytes = b"", status: int = -9, verdict: Verdict | None = None) -> None:
        """It ends; without a verdict as what it told says."""
        found = Told.read(told)
        said = verdict or (Verdict.LEFT if found.status == 0 else Verdict.DIED)
        self.record.ended(ChildEnded(place, pid, status, 1.0, found), said)

    def answer(self, *workers: WorkerStatus, others: int = 0) -> None:
        """The distributor says who is there: these, and so many besides."""
        counts = TaskCounts("A", "open", 1)
        task = TaskStatus(counts, *(None, 0, 0, 0, len(workers) + others, 1.0, 0, ""))  # type: ignore[arg-type]
        self.record.answered(Status("p", "r", "running", 1.0, "", [task], list(workers)), dict)

    def progress(self, collected: int, failed: int = 0, inherited: int = 0, task: str = "A") -> None:
        """So many items of a task are done."""
        counts = [TaskCounts(task, "open", collected + failed, collected, failed)]
        self.record.observe(Progress(counts, None, 1.0, inherited))


def times(*counts: int, seconds: float = 0.0) -> ItemTimes:
    """So many in the first classes."""
    return ItemTimes([*counts, *[0] * (len(ITEM_SECONDS) + 1 - len(counts))], seconds)


def worker(pid: int, busy: float = 0.0, *running: RunningItem, host: str = HERE, executed: int = 0) -> WorkerStatus:
    """One that answers."""
    return WorkerStatus(f"{host}/{pid}", "A", host, pid, 2, "busy", 1, executed, list(running), 0, busy)


def good(counts: ItemTimes, *slowest: SlowItem) -> bytes:
    """What a worker has told that ends in good order."""
    return f"ready\n{work_done(counts, slowest, 2)}\nexit 0\n".encode()


def test_a_row_is_a_place_with_all_its_processes() -> None:
    """How long it was filled is exact, through a death; what the process that died had told counts, too."""
    scene, place = Scene(), Slot("worker of 'A'", [], "A")
    scene.start(place, 7)
    scene.at(2.0)
    scene.answer(worker(7, 3.0, executed=12))
    scene.at(4.0)
    scene.end(place, 7)
    scene.at(5.0)
    scene.start(place, 8)
    scene.at(9.0)
    scene.end(place, 8, good(times(0, 0, 30, seconds=6.0)))
    scene.at(10.0)
    scene.record.close()
    (row,) = scene.record.rows
    assert (row.processes, row.executed, row.deaths, row.where) == (2, 42, [4.0], f"{HERE}/8")
    assert sum(row.alive.values) == pytest.approx(8.0)
    assert sum(row.busy.values) == pytest.approx(4.5), "by two threads"
    (death,) = scene.record.deaths
    assert (death.at, death.label, death.how) == (4.0, "worker of 'A'", "killed by SIGKILL")
    assert scene.record.times == {"A": times(0, 0, 30, seconds=6.0)}
    assert scene.record.silent == 1


def test_work_after_a_rest_is_not_spread_over_the_rest() -> None:
    """A worker that waited for a minute, and then worked for a second."""
    scene, place = Scene(), Slot("worker of 'A'", [], "A")
    scene.start(place, 7)
    for second in range(1, 61):
        scene.at(float(second))
        scene.answer(replace(worker(7), state="ready"))
    scene.at(61.0)
    scene.answer(worker(7, 2.0))
    scene.end(place, 7)
    scene.record.close()
    (row,) = scene.record.rows
    assert sum(row.busy.values) == pytest.approx(1.0), "by two threads"
    assert sum(row.busy.values[: int(57 / scene.record.width)]) == 0


def test_work_of_one_of_very_many_is_told_late_and_counts_all_the_same() -> None:
    """Each of ten thousand says all that it has done each ten seconds: it may have rested for some of these since."""
    scene, place = Scene(), Slot("worker of 'A'", [], "A")
    scene.start(place, 7)
    for second in range(1, 10):
        scene.at(float(second))
        scene.answer(replace(worker(7), state="busy" if second < 6 else "ready"), others=9_999)
    scene.at(10.0)
    scene.answer(worker(7, 10.0), others=9_999)
    scene.end(place, 7)
    scene.record.close()
    (row,) = scene.record.rows
    assert sum(row.busy.values) == pytest.approx(5.0), "by two threads"


def test_what_a_process_ran_when_it_died_is_among_the_slowest() -> None:
    """As long as it was seen to run; of one that ended in good order there is nothing left to say."""
    scene, place, other = Scene(), Slot("one", [], "A"), Slot("two", [], "A")
    scene.start(place, 7)
    scene.start(other, 8)
    scene.at(5.0)
    scene.answer(worker(7, 0.0, RunningItem(3, 1, 4.5)), worker(8, 0.0, RunningItem(4, 1, 4.5)))
    scene.end(place, 7)
    scene.end(other, 8, good(times(1), SlowItem(0.5, 9, 2, scene.record.began_at + 1.0)))
    found = [(one.seconds, one.number, one.attempt, one.is_done) for one in sorted(scene.record.slowest)]
    assert found == [(0.5, 9, 2, True), (4.5, 3, 1, False)]


def test_throughput_is_what_was_done_in_this_run() -> None:
    """Each item once, in its slice, however long the run is; not what a journal held before."""
    scene = Scene()
    scene.progress(0)
    scene.at(0.2)
    scene.progress(1000, 5, inherited=1005)
    done = 0
    for second in range(1, 1000):
        scene.at(float(second))
        done += second % 7
        scene.progress(1000 + done, 5 + second, inherited=1005)
    scene.at(1000.0)
    scene.record.close()
    assert sum(scene.record.done["A"].values) == pytest.approx(done + 999)
    assert scene.record.width * MAX_SLICES >= 1000
    assert scene.record.width * MAX_SLICES / 2 < 1000


def test_nothing_grows_without_a_bound() -> None:
    """Thousands of places, deaths and slow items, in a run of a year."""
    scene, rng = Scene(), random.Random(5)
    places = [Slot(f"worker {index}", [], "A") for index in range(MAX_ROWS + 5)]
    for index, place in enumerate(places):
        scene.start(place, index)
    for day in range(1, 366):
        scene.at(86400.0 * day)
        scene.start(places[-1], 99_999)
        scene.answer(worker(5, host="far"))
        place = places[day % 3]
        scene.end(place, day % 3, status=-9)
        scene.start(place, day % 3)
        slow = [SlowItem(rng.random(), day, 1, 0.0)] * 3
        scene.end(place, day % 3, good(times(3), *slow))
        scene.start(place, day % 3)
    scene.record.close()
    record = scene.record
    assert (len(record.rows), record.left_out) == (MAX_ROWS, 6), "each of them once"
    assert (len(record.deaths), record.deaths_in_all) == (MAX_ENDS, 365)
    assert (len(record.rows[0].deaths), len(record.slowest)) == (MAX_MARKS, SLOWEST)
    assert sum(sum(row.alive.values) for row in record.rows) == pytest.approx(86400.0 * 365 * MAX_ROWS)


def test_workers_of_others_have_rows_of_their_own() -> None:
    """From when they are seen to when they are not seen any more; one that comes again goes on in a new one."""
    scene = Scene()
    scene.at(1.0)
    scene.answer(worker(5, host="far"))
    scene.at(3.0)
    scene.answer(worker(5, 2.0, host="far", executed=9))
    scene.at(4.0)
    scene.answer()
    scene.record.close()
    (row,) = scene.record.rows
    assert (row.label, row.executed, sum(row.alive.values)) == ("far/5", 9, pytest.approx(3.0))
    assert sum(row.busy.values) == pytest.approx(1.0)


def test_launched_workers_are_in_their_places() -> None:
    """By what they have told of themselves, not by the process id of the command."""
    scene, place = Scene(), Slot("worker of 'A'", [], "A")
    scene.start(place, 7)
    status = Status("p", "r", "running", 1.0, "", [], [worker(70, 1.0, host="far", executed=3)])
    scene.at(2.0)
    scene.record.answered(status, lambda: {("far", 70): place})
    scene.end(place, 70, b"here 70 far\n")
    (row,) = scene.record.rows
    assert (row.executed, row.where) == (3, "far/70")


def test_who_the_run_did_not_wait_for_has_not_died_by_itself() -> None:
    """It is told as what it is, and is no mark in its row."""
    scene, place = Scene(), Slot("worker of 'A'", [], "A")
    scene.start(place, 7)
    scene.record.ended(ChildEnded(place, 7, -9, 1.0, Told()), None)
    assert scene.record.rows[0].deaths == []
    assert scene.record.deaths[0].how == "killed by SIGKILL, by the run, which did not wait any longer"


def test_the_status_of_a_distributor_is_that_of_the_run() -> None:
    """1 is no death; killed, or without a configuration, it is one."""
    scene, place = Scene(), Slot("distributor", [])
    for told, status in ((b"exit 1\n", 1), (b"exit 143\n", 143), (b"", -9), (b"exit 2\n", 2)):
        scene.start(place, 7)
        scene.end(place, 7, told, status, Verdict.DIED)
    assert [one.how for one in scene.record.deaths] == ["killed by SIGKILL", "exit status 2"]
    assert scene.record.silent == 0


@pytest.mark.parametrize(
    "line",
    ["[[1,2],0.5,[],1]", "[[0],NaN,[],1]", "{}", "[1,2]", "[null,0,[],1]", '["x",0,[],1]', "[[1e999],1,[],1]", ""],
)
def test_last_words_that_are_none_count_as_none(line: str) -> None:
    """Other text came in between, as it can on the standard error of a worker."""
    assert Told.read(f"work-done {line}\n".encode()).times is None


def test_slices_do_not_lose_what_is_spread() -> None:
    """Whatever the times, and however often two slices have become one."""
    rng = random.Random(3)
    scene = Scene()
    row = run_record.Row("x")
    scene.record.rows.append(row)
    total = 0.0
    for _ in range(2000):
        start = rng.random() * 10 ** rng.uniform(-2, 5)
        stop = start + rng.random() * 10 ** rng.uniform(-3, 4)
        scene.record._spread(row.alive, start, stop, stop - start)
        total += stop - start
    assert sum(row.alive.values) == pytest.approx(total)
