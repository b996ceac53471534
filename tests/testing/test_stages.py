"""Tasks whose items are made of results, in test runs and in simulations."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zmqpipeline import Options, Pipeline
from zmqpipeline.errors import ItemFailed, PipelineTimeout
from zmqpipeline.testing import SimulatedPipeline

SITE = {n: [(2 * n + 1) % 120, (3 * n + 2) % 120, n] for n in range(120)}
"""Which page has links to which."""


def chain() -> Pipeline:
    """Each number of A gives two of B, each of these one of C as it is."""
    app = Pipeline("chain")

    @app.task("A")
    def numbers() -> Iterator[dict[str, Any]]:
        for n in range(12):
            yield {"n": n}

    @app.worker("A")
    def square(data: dict[str, Any]) -> dict[str, Any]:
        return {"n": data["n"], "square": data["n"] ** 2}

    @app.task("B", for_each="A")
    def halves(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"n": data["n"], "half": 1}
        yield {"n": data.pop("n"), "half": 2}

    @app.worker("B")
    def cut(data: dict[str, Any]) -> dict[str, Any]:
        return data

    app.add_task("C", for_each="B")

    @app.worker("C")
    def store(data: dict[str, Any]) -> dict[str, Any]:
        return {"stored": data["n"], **data}

    return app


def crawl(site: dict[int, list[int]] = SITE, **keywords: Any) -> Pipeline:
    """Pages that link to each other, from page 0 on."""
    app = Pipeline("crawl")

    @app.task("page", for_each="page", key="url", **{"first": [{"url": 0}], **keywords})
    def links(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for url in page["links"]:
            yield {"url": url}

    @app.worker("page")
    def fetch(data: dict[str, Any]) -> dict[str, Any]:
        return {"url": data["url"], "links": site[data["url"]]}

    return app


def reached(first: int = 0) -> set[int]:
    """All pages that there are from this one on."""
    found, left = {first}, [first]
    while left:
        for url in SITE[left.pop()]:
            if url not in found:
                found.add(url)
                left.append(url)
    return found


def test_results_become_items() -> None:
    """Each once; a function that changes its result changes nobody else's."""
    run = chain().test_run()
    of = {name: [data for task, data in run.results if task == name] for name in "ABC"}
    assert sorted(one["n"] for one in of["A"]) == list(range(12))
    assert sorted((one["n"], one["half"]) for one in of["B"]) == [(n, half) for n in range(12) for half in (1, 2)]
    assert sorted((one["stored"], one["half"]) for one in of["C"]) == [(n, half) for n in range(12) for half in (1, 2)]
    assert {name: task.sent for name, task in run.summary.tasks.items()} == {"A": 12, "B": 24, "C": 24}


def test_the_function_for_all_gets_the_last_results() -> None:
    """Those of a stage that feeds another one are got by the function of that stage alone."""
    app, last, between = chain(), [], []
    app.add_collector(lambda data, task_type: last.append(task_type))
    app.add_collector(lambda data, task_type: between.append(task_type), "B")
    app.test_run()
    assert (last, between) == (["C"] * 24, ["B"] * 24)


def test_a_crawl_ends_by_itself() -> None:
    """When nothing is unfinished: each page that can be reached is fetched once. Its results are last ones."""
    app, seen = crawl(), []
    app.add_collector(lambda data: seen.append(data["url"]))
    run = app.test_run()
    assert sorted(seen) == sorted(reached())
    assert run.summary.tasks["page"].collected == len(reached())


def test_first_items_may_come_from_a_function() -> None:
    """Which gets the metadata; of equal keys only one is an item."""

    def seeds(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for _ in range(3):
            yield {"url": metadata["seed"]}
            yield {"url": 0}

    run = crawl(first=seeds).test_run(metadata={"seed": 7})
    assert run.summary.tasks["page"].collected == len(reached() | reached(7))


def test_two_tasks_may_feed_one_and_each_other() -> None:
    """A circle of two with a last stage that gets the results of both; `depth` says how far they are from the first."""
    app, depths = Pipeline("two"), []

    @app.task("P", first=[{"n": 0}], for_each="Q", key="n")
    def from_q(data: dict[str, Any], depth: int) -> dict[str, Any]:
        depths.append((data["n"], depth))
        return {"n": data["n"] // 2}

    @app.task("Q", for_each="P")
    def from_p(data: dict[str, Any], depth: int) -> list[dict[str, Any]]:
        depths.append((data["n"], depth))
        return [{"n": data["n"] * 2 + 2}] if data["n"] < 9 else []

    @app.task("S", for_each=["P", "Q"])
    def to_store(data: dict[str, Any], task_type: str) -> dict[str, Any] | None:
        return {"of": task_type} if data["n"] < 5 else None

    for name in "PQS":
        app.add_worker(name, dict)
    run = app.test_run()
    assert sorted(depths)[:4] == [(0, 0), (1, 2), (2, 1), (2, 4)]
    assert {name: task.collected for name, task in run.summary.tasks.items()} == {"P": 10, "Q": 9, "S": 7}


def test_a_function_that_raises_fails_the_item_of_its_result() -> None:
    """Nothing of what it had given is left, and the collector's function is not called: the item has failed."""
    app, collected = chain(), []

    @app.task("D", for_each="A")
    def odd(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"n": data["n"]}
        if data["n"] == 5:
            raise ValueError("five")
        yield {"n": data["n"]}

    app.add_worker("D", dict)
    app.add_collector(lambda data: collected.append(data["n"]), "A")
    with pytest.raises(ValueError, match="five") as caught:
        app.test_run()
    assert isinstance(caught.value.__cause__, ItemFailed)
    collected.clear()
    run = app.test_run(raise_failures=False)
    (failure,) = run.failures
    assert (failure.task_type, failure.stage, failure.error) == ("A", "feed", "ValueError")
    assert sorted(collected) == [n for n in range(12) if n != 5]
    assert {name: task.collected for name, task in run.summary.tasks.items()} == {"A": 11, "B": 22, "C": 22, "D": 22}


def test_a_collector_that_raises_leaves_no_items() -> None:
    """A result that is not collected gives nothing."""
    app = chain()

    @app.collector("A")
    def picky(data: dict[str, Any]) -> None:
        if data["n"] == 3:
            raise ValueError("three")

    run = app.test_run(raise_failures=False)
    assert [one.stage for one in run.failures] == ["collector"]
    assert {name: task.collected for name, task in run.summary.tasks.items()} == {"A": 11, "B": 22, "C": 22}


@pytest.mark.parametrize("made", ["text", 5, [1], {"when": object()}], ids=["text", "number", "list", "dict"])
def test_what_is_no_item_is_told_with_the_function(made: Any) -> None:
    """As of a source."""
    app = chain()
    app.add_task("D", lambda data: made, for_each="A")
    app.add_worker("D", dict)
    run = app.test_run(raise_failures=False)
    assert {one.stage for one in run.failures} == {"feed"}
    assert "task function 'test_what_is_no_item_is_told_with_the_function.<lambda>'" in run.failures[0].message


def test_a_parent_may_have_very_many_children() -> None:
    """They are written as they come; one that raises after ten thousand has none."""
    app = Pipeline("many")
    app.add_task("A", lambda: [{"n": 0}, {"n": 1}, {"n": 2}])
    app.add_worker("A", dict)

    @app.task("B", for_each="A")
    def many(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for n in range(10_000):
            yield {"of": data["n"], "n": n}
        if data["n"] == 1:
            raise ValueError("late")

    app.add_worker("B", dict)
    run = app.test_run(raise_failures=False, timeout=60)
    got = sorted((data["of"], data["n"]) for task, data in run.results if task == "B")
    assert got == [(of, n) for of in (0, 2) for n in range(10_000)]


def test_a_task_is_held_back_and_goes_on() -> None:
    """With nothing that may wait for a stage, its feeder goes on each time that it has done what there is."""
    app = Pipeline("held", options=Options(max_waiting_bytes=0, max_held_items=3))
    app.add_task("A", lambda: [{"n": n} for n in range(60)])
    app.add_task("B", lambda data: [{"n": data["n"]}, {"n": data["n"]}], for_each="A")
    app.add_task("C", for_each="B")
    for name in "ABC":
        app.add_worker(name, dict)
    run = app.test_run(workers=2, timeout=60)
    assert {name: task.collected for name, task in run.summary.tasks.items()} == {"A": 60, "B": 120, "C": 120}


def test_stages_share_the_journal_of_a_test_run() -> None:
    """A function that takes it has it in memory, and so have the outboxes."""
    app, rows = crawl(), []

    @app.collector("page")
    def keep(data: dict[str, Any], journal: Any) -> None:
        journal.execute("CREATE TABLE IF NOT EXISTS pages (url PRIMARY KEY)")
        journal.execute("INSERT INTO pages VALUES (:url)", data)

    @app.finished
    def count(journal: Any) -> None:
        rows.extend(journal.execute("SELECT url FROM pages"))

    app.test_run()
    assert sorted(url for (url,) in rows) == sorted(reached())


@pytest.mark.slow
def test_nothing_is_left_of_a_test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of one that went well, nor of one that took too long."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chain().test_run()
    blocked, app = threading.Event(), chain()
    app.add_collector(lambda data: blocked.wait(), "A")
    with pytest.raises(PipelineTimeout):
        app.test_run(timeout=0.5)
    blocked.set()
    assert list(tmp_path.iterdir()) == []


def test_who_depends_on_a_stage_waits_for_all_that_feeds_it() -> None:
    """It begins when nothing of the chain is left."""
    app, order = chain(), []
    app.add_task("D", lambda: [{"n": 0}], depends_on=["C"])
    app.add_worker("D", dict)
    for name in "ABCD":
        app.add_collector(lambda data, task_type: order.append(task_type), name)
    app.test_run()
    assert order.index("D") == len(order) - 1 == 12 + 24 + 24


def test_a_source_of_first_items_that_raises_fails_the_task() -> None:
    """What it gave before is done, and what came of that."""

    def seeds() -> Iterator[dict[str, Any]]:
        yield {"url": 0}
        raise ValueError("no more")

    app = crawl(first=seeds)
    with pytest.raises(Exception, match="no more"):
        app.test_run()


@pytest.mark.parametrize("journal", [None, True])
@pytest.mark.parametrize("seed", range(6))
def test_stages_are_simulated(seed: int, journal: bool | None) -> None:
    """Through lost messages, broken connections, and killed processes, one by one or, with a journal, together."""
    run = SimulatedPipeline(chain(), seed=seed, journal=journal).run()
    assert sorted((one["stored"], one["half"]) for task, one in run.results if task == "C") == [
        (n, half) for n in range(12) for half in (1, 2)
    ]
    crawled = SimulatedPipeline(crawl(), seed=seed, journal=journal).run()
    assert sorted(data["url"] for _, data in crawled.results) == sorted(reached())
