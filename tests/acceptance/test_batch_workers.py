"""Workers that take lists, and collectors that do, as real processes with bad items and deaths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

LISTS = """
import asyncio

app.task("C")(lambda: items(2000))

@app.worker("C", batch=32)
def work(many, numbers, attempt, thread_index, resource):
    note("sizes", len(many))
    assert [one["n"] for one in many] == list(numbers)
    for one in many:
        if one["n"] == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
    WAIT
    if any(one["n"] % 100 == 50 for one in many):
        raise ValueError("a poisoned item")
    return [LookupError("none") if one["n"] == 7 else {"n": one["n"]} for one in many]

@app.failed
def failed(failure):
    note("failed", f"{failure.data['n']} {failure.error}")
"""
SORTS = {
    "threads": LISTS.replace("WAIT", "time.sleep(0.001 * len(many))"),
    "async": LISTS.replace("WAIT", "await asyncio.sleep(0.001 * len(many))")
    .replace("def work", "async def work")
    .replace("batch=32", "batch=32, concurrency=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("sort", SORTS)
def test_one_bad_item_costs_one_item(sort: str, workshop: Workshop) -> None:
    """Twenty poisoned ones among 2,000 in lists of 32, and one with an exception for a result: 21 failed, status 1."""
    program = start(workshop, SORTS[sort].replace("KILLER", "-1"), *RUN, "--workers", "2")
    assert program.wait() == 1, program.err
    bad = {*range(50, 2000, 100), 7}
    assert collected(workshop) == [n for n in range(2000) if n not in bad]
    said = {n: "LookupError" if n == 7 else "ValueError" for n in bad}
    assert sorted(workshop.lines("failed")) == sorted(f"{n} {error}" for n, error in said.items())
    sizes = workshop.numbers("sizes")
    # 20 lists are tried in parts, which are up to eleven calls each; all others are as long as there are items at hand
    assert max(sizes) == 32
    assert len(sizes) < 1000, len(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("sort", SORTS)
def test_an_item_that_kills_its_worker_is_found_among_its_list(sort: str, workshop: Workshop) -> None:
    """It takes its list with it; the others of that list are collected all the same."""
    program = start(workshop, SORTS[sort].replace("KILLER", "500"), *RUN, "--workers", "2")
    assert program.wait(60) == 1, program.err
    bad = {*range(50, 2000, 100), 7, 500}
    assert collected(workshop) == [n for n in range(2000) if n not in bad]
    assert len(workshop.lines("failed")) == len(bad)


@pytest.mark.slow
def test_a_test_run_and_an_item_alone(workshop: Workshop) -> None:
    """`app.test_run` raises what the function raised; one item is a list of one."""
    workshop.write(
        "test_lists.py",
        """
import pytest
from zmqpipeline import Pipeline
from zmqpipeline.testing import SimulatedPipeline

def lists(bad):
    app = Pipeline("lists")
    app.add_task("C", lambda: ({"n": n} for n in range(20)))

    @app.worker("C", batch=4)
    def work(many):
        if any(one["n"] in bad for one in many):
            raise KeyError("bad")
        return many

    return app

def test_all():
    assert sorted(data["n"] for _, data in lists([]).test_run(workers=2).results) == list(range(20))

def test_bad():
    with pytest.raises(KeyError):
        lists([3]).test_run()
    run = lists([3]).test_run(raise_failures=False)
    assert len(run.results) == 19 and [one.data for one in run.failures] == [{"n": 3}]

@pytest.mark.parametrize("seed", range(3))
def test_simulated(seed):
    assert len(SimulatedPipeline(lists([]), seed=seed).run().results) == 20
""",
    )
    status, program = workshop.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lists.py")
    assert status == 0, program.out
