"""What a worker process may cost: its initialisation in seconds, its items, its memory; and a run, in failed items."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import HEAD, MAIN, RUN, Eventually, collected, group, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# the initialisation ---------------------------------------------------------------------------------------------------

SLOW_INIT = """
app.task("C")(lambda: items(5))

@app.PART("C")
def load_model():
    note("inits", os.getpid())
    while len(Path("inits").read_text().split()) <= int(os.environ["HANGS"]):
        time.sleep(0.01)

@app.worker("C", init_timeout=TIMEOUT)
def work(data):
    note("executed", data["n"])
    return data
"""


@pytest.mark.parametrize("part", ["worker_init", "thread_init"])
def test_an_initialisation_that_hangs_is_ended(part: str, workshop: Workshop) -> None:
    """The worker says which function it was, and where, and leaves; its items go to the next one, which begins well."""
    body = SLOW_INIT.replace("PART", part).replace("TIMEOUT", "1.5")
    program = start(workshop, body, HANGS="2")
    assert program.wait() == 0, program.err
    assert collected(workshop) == sorted(workshop.numbers("executed")) == list(range(5))
    said = f"The {part} function 'load_model' of task 'C' did not return within 1.5 s (init_timeout=)"
    told = f" go to others: TimeoutError: {said}; it is in load_model, line"
    assert told in program.err
    assert ": 2 workers of 'C' could not be initialized" in program.err
    assert program.err.count(said) == 2, program.err
    assert "ended by status 1" in program.err


def test_an_initialisation_that_always_hangs_ends_the_run(workshop: Workshop) -> None:
    """Five in a row, as when it raises: status 3."""
    program = start(workshop, SLOW_INIT.replace("PART", "worker_init").replace("TIMEOUT", "0.2"), HANGS="99")
    assert program.wait() == 3, program.err
    assert "failed to start 5 times in a row" in program.err
    assert len(workshop.lines("inits")) == 5
    assert workshop.lines("executed") == []


@pytest.mark.parametrize(("timeout", "ends"), [("60", "60 s (init_timeout=)"), ("None", "as long as it likes")])
def test_a_long_initialisation_is_told_of(timeout: str, ends: str, workshop: Workshop, eventually: Eventually) -> None:
    """After five seconds one line says which function is waited for; it may then return, and all is well."""
    program = start(workshop, SLOW_INIT.replace("PART", "worker_init").replace("TIMEOUT", timeout), HANGS="1")
    eventually(lambda: "has not returned for 5 s" in program.err, "the line")
    assert (
        "The worker_init function 'load_model' of task 'C' has not returned for 5 s; it is in load_model" in program.err
    )
    assert ends in program.err
    workshop.write("inits", "1\n2\n")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(5))


def test_no_thread_begins_before_all_are_ready(workshop: Workshop) -> None:
    """A thread_init that kills the process in the last thread: no item was executed, none is to blame."""
    body = """
app.task("C")(lambda: items(20))

@app.thread_init("C")
def begin(thread_index):
    if thread_index == 2:
        time.sleep(0.2)
        if not Path("died").exists():
            note("died", "1")
            os.abort()

@app.worker("C", threads=3)
def work(data):
    note("executed", data["n"])
    return data
"""
    program = start(workshop, body)
    assert program.wait() == 0, program.err
    assert sorted(workshop.numbers("executed")) == collected(workshop) == list(range(20))


# items a process ------------------------------------------------------------------------------------------------------

COUNTED = """
app.task("C")(lambda: items(int(os.environ.get("ITEMS", "1000"))))

@app.worker("C", threads=THREADS, max_items=MOST)
def work(data):
    note("executed", f"{os.getpid()} {data['n']}")
    while str(data["n"]) == os.environ.get("HOLDS") and not Path("go").exists():
        time.sleep(0.01)
    time.sleep(float(os.environ.get("SECONDS", "0")))
    return data
"""


def executed(workshop: Workshop) -> list[tuple[int, int]]:
    """Who executed which item, in order."""
    return [(int(pid), int(n)) for pid, n in (line.split() for line in workshop.lines("executed"))]


@pytest.mark.parametrize(("most", "threads", "workers"), [(100, 1, 1), (100, 4, 2), (1, 1, 2), (1, 3, 1), (999, 2, 1)])
def test_a_process_executes_so_many_items_and_no_more(
    most: int, threads: int, workers: int, workshop: Workshop
) -> None:
    """Each is replaced when it has; nothing is executed twice, nothing is a failed start, nobody waits: status 0."""
    count = min(1000, 8 * most)
    body = COUNTED.replace("THREADS", str(threads)).replace("MOST", str(most))
    program = start(workshop, body, *RUN, "--workers", str(workers), ITEMS=str(count))
    assert program.wait(60) == 0, program.err
    items = Counter(n for _, n in executed(workshop))
    assert items == Counter(range(count))
    assert collected(workshop) == list(range(count))
    each = Counter(pid for pid, _ in executed(workshop))
    assert max(each.values()) <= most
    # at the end the items are spread over the workers, of which each may leave some of its share undone
    assert len(each) <= -(-count // most) + workers - 1
    assert "a new one starts" not in program.err
    assert program.json["tasks"]["C"]["failed"] == 0


def test_kills_at_the_boundary_lose_nothing(workshop: Workshop, eventually: Eventually) -> None:
    """Workers that are killed as they come to their last item, or have just left it: all collected, none twice."""
    body = COUNTED.replace("THREADS", "2").replace("MOST", "20")
    program = start(workshop, body, *RUN, "--workers", "2", ITEMS="600", SECONDS="0.005")
    killed: set[int] = set()

    def kill_who_is_nearly_done() -> bool:
        counts = Counter(pid for pid, _ in executed(workshop))
        for pid, count in counts.items():
            if count >= 19 and pid not in killed and len(killed) < 12:
                killed.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        return program.ended()

    eventually(kill_who_is_nearly_done, "the run is over", 60)
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(600))
    assert max(Counter(pid for pid, _ in executed(workshop)).values()) <= 20
    assert "ended by SIGKILL" in program.err


def test_what_runs_when_a_process_retires_is_finished_there(workshop: Workshop, eventually: Eventually) -> None:
    """Its drain has no time limit: what another thread of the process runs is not given away."""
    body = """
app.task("C")(lambda: items(8))
hoard = []

@app.worker("C", threads=2, max_memory="200MB")
def work(data):
    note("executed", f"{os.getpid()} {data['n']}")
    if data["n"] == 0:
        while not Path("go").exists():
            time.sleep(0.01)
    elif data["n"] == 1:
        hoard.append(b"x" * 250_000_000)
    return data
"""
    program = start(workshop, body, *RUN, "--drain-timeout", "0.5")
    eventually(lambda: "more than max_memory=190.7 MiB" in program.err, "the line that says why")
    time.sleep(1.5)  # longer than the drain of a worker that was asked to end
    assert len({pid for pid, _ in executed(workshop)}) == 1
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert sorted(n for _, n in executed(workshop)) == collected(workshop) == list(range(8))
    assert len({pid for pid, _ in executed(workshop)}) == 2
    assert "a new one starts" not in program.err


@pytest.mark.parametrize("limit", ["'150MB'", "150_000_000"])
def test_a_process_that_grows_is_replaced(limit: str, workshop: Workshop) -> None:
    """A function that keeps 10 MB of each item: its process is replaced in time, with a line that says why."""
    body = f"""
app.task("C")(lambda: items(40))
hoard = []

@app.worker("C", max_memory={limit})
def work(data):
    hoard.append(os.urandom(10_000_000))
    note("executed", f"{{os.getpid()}} {{data['n']}}")
    return data
"""
    program = start(workshop, body)
    assert program.wait(60) == 0, program.err
    assert sorted(n for _, n in executed(workshop)) == collected(workshop) == list(range(40))
    each = Counter(pid for pid, _ in executed(workshop))
    assert 3 <= len(each) <= 12, each
    assert "The worker ends its work, so that another one takes its place: it has 1" in program.err
    assert "a new one starts" not in program.err


def test_more_memory_from_the_beginning_is_no_standstill(workshop: Workshop) -> None:
    """A limit below what Python itself needs: each process executes an item, and the run ends well."""
    body = COUNTED.replace("THREADS", "1").replace("max_items=MOST", "max_memory=1")
    program = start(workshop, body, ITEMS="4", SECONDS="0.05")
    assert program.wait(60) == 0, program.err
    assert collected(workshop) == list(range(4))


def test_a_worker_alone_ends_and_says_so(workshop: Workshop) -> None:
    """Without a supervisor it leaves with status 0, and a line; the next one goes on, and no item is done twice."""
    *others, first = group(workshop, COUNTED.replace("THREADS", "1").replace("MOST", "60"))
    assert first.wait() == 0, first.err
    assert "The worker has ended: it has executed 60 items (max_items). Start another one" in first.err
    assert len(executed(workshop)) == 60
    others.append(workshop.start("-m", "app", "worker", "C", "--processes", "1"))
    assert [one.wait(60) for one in others] == [0, 0, 0], others[-1].err
    assert Counter(n for _, n in executed(workshop)) == Counter(range(1000))
    assert collected(workshop) == list(range(1000))
    assert len({pid for pid, _ in executed(workshop)}) == 1 + -(-940 // 60)


def test_sigterm_ends_a_worker_that_retires(workshop: Workshop, eventually: Eventually) -> None:
    """Its drain has a time limit from then on: what nobody acknowledges goes to another one."""
    body = COUNTED.replace("THREADS", "1").replace("MOST", "10")
    workshop.write("app.py", HEAD + body + MAIN)
    distributor, collector, worker = (
        workshop.start("-m", "app", *role.split(), ITEMS="20", HOLDS="5")
        for role in ("distributor", "collector", "worker C --drain-timeout 0.5")
    )
    eventually(lambda: len(executed(workshop)) == 6, "it is at work")
    collector.signal(signal.SIGSTOP)
    workshop.write("go", "")
    eventually(lambda: len(executed(workshop)) == 10, "it has executed ten items")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.err
    assert "Start another one" not in worker.err
    collector.signal(signal.SIGCONT)
    last = workshop.start("-m", "app", "worker", "C", "--processes", "1")
    assert [one.wait() for one in (distributor, collector, last)] == [0, 0, 0], distributor.err
    assert collected(workshop) == list(range(20))


CLASSES = """
import zmqpipeline

zmqpipeline.TaskType.register_type("C")

@app.register
class Numbers(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("C")
    endpoint = zmqpipeline.EndpointAddress("ipc://c.ipc")
    dependencies = []

    def handle(self, data, address, msgtype):
        self.is_complete = self.n_count == 29
        self.n_count += 1
        return {"n": self.n_count - 1}

@app.register
class Work(zmqpipeline.SingleThreadedWorker):
    task_type = zmqpipeline.TaskType("C")
    endpoint = zmqpipeline.EndpointAddress("ipc://c.ipc")
    collector_endpoint = zmqpipeline.EndpointAddress("ipc://r.ipc")
    max_items = 10
    init_timeout = 0.5

    def init_worker(self):
        note("inits", os.getpid())
        if len(Path("inits").read_text().split()) == 1:
            time.sleep(60)

    def handle_execution(self, data):
        note("executed", f"{os.getpid()} {data['n']}")
        return data
"""


def test_classes_have_the_same_limits(workshop: Workshop) -> None:
    """As attributes: an initialisation that hangs, and processes of ten items."""
    program = start(workshop, CLASSES)
    assert program.wait() == 0, program.err
    assert "Work.init_worker did not return within 0.5 s" in program.err
    assert collected(workshop) == sorted(n for _, n in executed(workshop)) == list(range(30))
    assert set(Counter(pid for pid, _ in executed(workshop)).values()) == {10}


# failed items of a run ------------------------------------------------------------------------------------------------

FAILING = """
app.task("C")(lambda: items(100_000))

@app.worker("C")
def work(data):
    time.sleep(0.001)
    if data["n"] % 2 and not Path("mended").exists():
        raise ValueError("odd")
    return data
"""


@pytest.mark.parametrize("most", [0, 20])
def test_a_run_ends_when_too_many_items_have_failed(most: int, workshop: Workshop) -> None:
    """In good order: what was executed is collected or failed; status 1; log line and summary say why."""
    program = start(workshop, FAILING, *RUN, "--max-failures", str(most))
    assert program.wait() == 1, program.err
    counts = program.json["tasks"]["C"]
    assert most < counts["failed"] < 25_000, "half of all items would fail"
    assert counts["collected"] == len(collected(workshop))
    assert program.json["ok"] is False
    assert program.json["stopped"].endswith(f"items failed, and max_failures is {most}")
    assert f"The run drains: {program.json['stopped']}." in program.err


def test_as_many_failures_as_are_allowed_do_not_end_it(workshop: Workshop) -> None:
    """Exactly so many: the run goes on to its end."""
    body = FAILING.replace("100_000", "300").replace('data["n"] % 2', 'data["n"] < 10')
    program = start(workshop, body, *RUN, "--max-failures", "10")
    assert program.wait() == 1, program.err
    assert collected(workshop) == list(range(10, 300))
    assert program.json["stopped"] == ""


def test_a_stopped_run_goes_on_with_its_journal(workshop: Workshop) -> None:
    """Only what fails after its new start is counted: when the fault is mended, the same command does the rest."""
    flags = ("--journal", "run.db", "--max-failures", "5")
    body = FAILING.replace("100_000", "2_000")
    first = start(workshop, body, *RUN, *flags)
    assert first.wait() == 1, first.err
    assert first.json["stopped"]
    workshop.write("mended", "")
    second = start(workshop, body, *RUN, *flags)
    assert second.wait() == 1, second.err
    assert second.json["stopped"] == ""
    counts = second.json["tasks"]["C"]
    assert counts["failed"] == first.json["tasks"]["C"]["failed"]
    assert collected(workshop) == sorted(set(collected(workshop)))
    assert len(collected(workshop)) == counts["collected"] == 2_000 - counts["failed"]


def test_a_program_hears_why_its_run_was_stopped(workshop: Workshop) -> None:
    """`app.run(max_failures=...)` returns a summary that says so; without --json the last line of `run` does."""
    main = """
if __name__ == "__main__":
    if sys.argv[1:]:
        app.main()
    summary = app.run(max_failures=3)
    assert not summary.ok
    print(summary.stopped)
"""
    workshop.write("app.py", HEAD + FAILING + main)
    status, program = workshop.run("app.py")
    assert status == 0, program.err
    assert "items failed, and max_failures is 3" in program.out
    status, program = workshop.run("app.py", "run", ZMQPIPELINE_MAX_FAILURES="3")
    assert status == 1, program.err
    assert "not all collected; stopped: " in program.err
