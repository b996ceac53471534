"""Results that are gathered by what they came of, in test runs and in simulations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from zmqpipeline import Failure, Pipeline
from zmqpipeline.errors import DependencyError, RegistrationError
from zmqpipeline.testing import SimulatedPipeline

CHAPTERS = [[3, 1, 2], [], [5], [4, 4]]
"""Of each book, how many words its chapters have."""


def books() -> Iterator[dict[str, Any]]:
    """The items of the first task."""
    for n in range(len(CHAPTERS)):
        yield {"n": n}


def whole(data: dict[str, Any]) -> dict[str, Any]:
    """A worker whose result is the item."""
    return data


def library(count: Callable[[dict[str, Any]], dict[str, Any]] = whole) -> Pipeline:
    """A book gives its chapters, and what is counted in them is gathered by book."""
    app = Pipeline("library")
    app.add_task("book", books)
    app.add_worker("book", lambda data: {"n": data["n"], "title": f"book {data['n']}"})

    @app.task("chapter", for_each="book")
    def chapters(book: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for place, words in enumerate(CHAPTERS[book["n"]]):
            yield {"n": book["n"], "place": place, "words": words}

    app.add_worker("chapter", count)

    @app.task("total", for_each="chapter", gather="book")
    def total(book: dict[str, Any], counted: list[dict[str, Any]], failures: list[Failure]) -> dict[str, Any]:
        failed = [one.data["place"] for one in failures]
        return {**book, "words": [one["words"] for one in counted], "failed": failed}

    app.add_worker("total", whole)
    return app


def of(run: Any, task: str) -> list[dict[str, Any]]:
    """The results of this task."""
    return [data for name, data in run.results if name == task]


def totals(run: Any) -> dict[int, tuple[list[int], list[int]]]:
    """By book, the words of its chapters, and which of these failed; each once."""
    found = of(run, "total")
    assert len({data["n"] for data in found}) == len(found)
    return {data["n"]: (data["words"], data["failed"]) for data in found}


EXPECTED = {n: (words, []) for n, words in enumerate(CHAPTERS)}


def test_results_are_gathered_by_what_they_came_of() -> None:
    """The parent and all results that came of it, in the order of the items; of one that gave nothing, none."""
    run = library().test_run(workers=2)
    assert totals(run) == EXPECTED
    assert {data["title"] for data in of(run, "total")} == {f"book {n}" for n in range(4)}
    assert run.summary.tasks["total"].sent == 4


def odd(data: dict[str, Any]) -> dict[str, Any]:
    """Fails for some chapters."""
    if data["words"] in (1, 5):
        raise ValueError("odd")
    return data


def test_children_that_failed_are_listed_beside() -> None:
    """A group whose last one failed is given as any other, also if all have failed."""
    run = library(odd).test_run(raise_failures=False)
    assert totals(run) == {0: ([3, 2], [1]), 1: ([], []), 2: ([], [0]), 3: ([4, 4], [])}


def test_a_parent_that_failed_has_no_group() -> None:
    """It has given nothing."""
    app = library()

    @app.collector("book")
    def picky(data: dict[str, Any]) -> None:
        if data["n"] == 3:
            raise ValueError("three")

    run = app.test_run(raise_failures=False)
    assert sorted(totals(run)) == [0, 1, 2]


def deep(fails: frozenset[int] = frozenset()) -> Pipeline:
    """A > B > C, gathered by A in D; the items of B in `fails` have none of C."""
    app = Pipeline("deep")
    app.add_task("A", lambda: [{"n": n} for n in range(5)])
    app.add_worker("A", whole)
    app.add_task("B", lambda data: [{"n": data["n"], "m": m} for m in range(data["n"])], for_each="A")

    @app.worker("B")
    def middle(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] * 10 + data["m"] in fails:
            raise ValueError("no")
        return data

    app.add_task("C", lambda data: [{**data, "k": k} for k in range(data["m"])], for_each="B")
    app.add_worker("C", whole)

    @app.task("D", for_each="C", gather="A")
    def together(parent: dict[str, Any], results: list[dict[str, Any]], failures: list[Failure]) -> dict[str, Any]:
        found = sorted((one["m"], one["k"]) for one in results)
        assert all(one["n"] == parent["n"] for one in results)
        return {"n": parent["n"], "found": [list(one) for one in found], "failed": [one.data["m"] for one in failures]}

    app.add_worker("D", whole)
    return app


def deep_expected(fails: frozenset[int] = frozenset()) -> dict[int, tuple[list[list[int]], list[int]]]:
    """What comes together of each n."""
    found: dict[int, tuple[list[list[int]], list[int]]] = {}
    for n in range(5):
        good = [[m, k] for m in range(n) if n * 10 + m not in fails for k in range(m)]
        found[n] = good, [m for m in range(n) if n * 10 + m in fails]
    return found


@pytest.mark.parametrize("fails", [frozenset(), frozenset({30, 42, 43, 10})], ids=["all", "some failed"])
def test_results_are_gathered_over_several_stages(fails: frozenset[int]) -> None:
    """What failed on the way is listed, too: it has no children."""
    run = deep(fails).test_run(raise_failures=False, workers=2)
    assert {data["n"]: (data["found"], data["failed"]) for data in of(run, "D")} == deep_expected(fails)


def test_several_tasks_are_gathered_together() -> None:
    """In the order of for_each, whichever is done first: a fork and its join."""
    app = Pipeline("fork")
    app.add_task("A", lambda: [{"n": n} for n in range(9)])
    app.add_task("left", for_each="A")
    app.add_task("right", lambda data: [{"right": data["n"]}] * 2, for_each="A")

    @app.task("join", for_each=["right", "left"], gather="A")
    def join(parent: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
        return {"n": parent["n"], "results": results}

    for name in ("A", "left", "right", "join"):
        app.add_worker(name, whole)
    found = of(app.test_run(), "join")
    assert sorted(one["n"] for one in found) == list(range(9))
    for one in found:
        assert one["results"] == [{"right": one["n"]}, {"right": one["n"]}, {"n": one["n"]}]


def nested() -> Pipeline:
    """What was gathered by A is a stage like others, and is gathered by A again, and by what feeds A."""
    app = Pipeline("nested")
    app.add_task("Z", lambda: [{"z": z} for z in range(3)])
    app.add_task("A", lambda data: [{**data, "a": a} for a in range(3)], for_each="Z")
    app.add_task("B", lambda data: [{**data, "b": b} for b in range(data["a"])], for_each="A")

    @app.task("C", for_each="B", gather="A")
    def first(parent: dict[str, Any], results: list[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
        assert depth == 1
        return [{**parent, "many": len(results)}] * 2

    app.add_task("D", lambda data, depth: {**data, "depth": depth}, for_each="C")

    @app.task("E", for_each="D", gather="A")
    def second(parent: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
        return {**parent, "many": [one["many"] for one in results], "depths": [one["depth"] for one in results]}

    @app.task("F", for_each="E", gather="Z")
    def third(parent: dict[str, Any], results: list[dict[str, Any]], number: int, attempt: int) -> dict[str, Any]:
        assert (number, attempt) == (parent["z"], 1)
        return {**parent, "all": [[one["a"], one["many"], one["depths"]] for one in results]}

    for name in "ZABCDEF":
        app.add_worker(name, whole)
    return app


def nested_expected() -> list[dict[str, Any]]:
    """The results of F."""
    return [{"z": z, "all": [[a, [a, a], [3, 3]] for a in range(3)]} for z in range(3)]


def sorted_f(run: Any) -> list[dict[str, Any]]:
    """The results of F, whose groups are in the order in which they came."""
    return sorted(({**one, "all": sorted(one["all"])} for one in of(run, "F")), key=lambda one: one["z"])


def test_what_was_gathered_may_be_gathered_again() -> None:
    """A group waits for those within it that may still be made."""
    assert sorted_f(nested().test_run(workers=2)) == nested_expected()


def crawl() -> Pipeline:
    """Pages in a circle; the words of each page are counted together."""
    app = Pipeline("crawl")

    @app.task("page", first=[{"url": 0}], for_each="page", key="url")
    def links(page: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"url": (page["url"] * 3 + 1) % 20}, {"url": (page["url"] * 7 + 2) % 20}]

    app.add_task("word", lambda page: [{"url": page["url"], "w": w} for w in range(page["url"] % 4)], for_each="page")

    @app.task("sum", for_each="word", gather="page")
    def together(page: dict[str, Any], words: list[dict[str, Any]]) -> dict[str, Any]:
        assert all(one["url"] == page["url"] for one in words)
        return {"url": page["url"], "words": len(words)}

    for name in ("page", "word", "sum"):
        app.add_worker(name, whole)
    return app


def test_a_group_begins_with_the_nearest_parent() -> None:
    """By which is gathered may be in a circle of its own: what came of a page by way of another one is of that one."""
    run = crawl().test_run()
    pages = {data["url"] for data in of(run, "page")}
    assert len(pages) > 5
    assert sorted((data["url"], data["words"]) for data in of(run, "sum")) == [(url, url % 4) for url in sorted(pages)]


def test_a_child_with_a_known_key_belongs_to_the_first_parent() -> None:
    """It is no item of the second one."""
    app = Pipeline("keys")
    app.add_task("A", lambda: [{"n": n} for n in range(3)])
    app.add_task("B", lambda data: [{"k": k} for k in range(data["n"] + 1)], for_each="A", key="k")
    app.add_task(
        "C", lambda parent, results: {"n": parent["n"], "k": [one["k"] for one in results]}, for_each="B", gather="A"
    )
    for name in "ABC":
        app.add_worker(name, whole)
    found = of(app.test_run(), "C")
    assert sorted(one["n"] for one in found) == [0, 1, 2]
    assert sorted(k for one in found for k in one["k"]) == [0, 1, 2]


def test_what_is_given_may_have_keys() -> None:
    """Each is an item once, whichever group gives it."""
    app = library()
    app.add_task("size", lambda book, counted: {"size": len(counted)}, for_each="chapter", gather="book", key="size")
    app.add_worker("size", whole)
    assert sorted(data["size"] for data in of(app.test_run(), "size")) == [0, 1, 2, 3]


def test_an_async_function_gathers() -> None:
    """As a generator, with names; what it gives may have a rate for each value of a field."""
    app = library()

    @app.task("mean", for_each="chapter", gather="book", rate="1000/s", rate_by="n")
    async def mean(
        book: dict[str, Any], counted: list[dict[str, Any]], failures: list[Failure]
    ) -> AsyncIterator[dict[str, Any]]:
        await asyncio.sleep(0)
        assert not failures
        yield {"n": book["n"], "mean": sum(one["words"] for one in counted) / max(1, len(counted))}

    app.add_worker("mean", whole)
    found = sorted((data["n"], data["mean"]) for data in of(app.test_run(timeout=60), "mean"))
    assert found == [(0, 2.0), (1, 0.0), (2, 5.0), (3, 4.0)]


def test_a_member_has_no_rate_for_each_value() -> None:
    """Its items would have no numbers until their time comes, and belong to no group."""
    app = Pipeline("paced")
    app.add_task("A", books)
    app.add_task("B", whole, for_each="A", rate="1/s", rate_by="n")
    app.add_task("C", lambda parent, results: None, for_each="B", gather="A")
    for name in "ABC":
        app.add_worker(name, whole)
    with pytest.raises(DependencyError, match="gathers what comes of 'B', which has rate_by='n'"):
        app.check()


def test_who_depends_on_what_is_gathered_waits_for_it() -> None:
    """And for all that feeds it."""
    app, order = library(), []
    app.add_task("after", lambda: [{"n": 0}], depends_on=["total"])
    app.add_worker("after", whole)
    for name in ("book", "chapter", "total", "after"):
        app.add_collector(lambda data, task_type: order.append(task_type), name)
    app.test_run()
    assert order.index("after") == len(order) - 1 == 4 + 6 + 4


def test_a_function_that_raises_fails_the_item_with_which_the_group_was_complete() -> None:
    """Nothing of what it had given is left; the collector's function is not called for that item."""
    app, collected = library(), []

    @app.task("broken", for_each="chapter", gather="book")
    def broken(book: dict[str, Any], counted: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for n in range(3000):
            yield {"n": book["n"], "k": n}
        if book["n"] == 0:
            raise LookupError("zero")

    app.add_worker("broken", whole)
    app.add_collector(lambda data: collected.append((data["n"], data["place"])), "chapter")
    run = app.test_run(raise_failures=False)
    (failure,) = run.failures
    assert (failure.task_type, failure.stage, failure.error, failure.data["n"]) == (
        "chapter",
        "gather",
        "LookupError",
        0,
    )
    assert len(collected) == 5
    assert sorted({data["n"] for data in of(run, "broken")}) == [1, 2, 3]
    assert run.summary.tasks["broken"].collected == 9000
    # and the other group of the same item waits for it, too
    assert sorted(totals(run)) == [1, 2, 3]


def test_a_function_that_raises_for_a_parent_without_children_fails_that_parent() -> None:
    """It is its own last item."""
    app = library()

    @app.task("broken", for_each="chapter", gather="book")
    def broken(book: dict[str, Any], counted: list[dict[str, Any]]) -> None:
        if not counted:
            raise LookupError("none")

    app.add_worker("broken", whole)
    run = app.test_run(raise_failures=False)
    (failure,) = run.failures
    assert (failure.task_type, failure.stage, failure.data) == (
        "book",
        "gather",
        {"n": 1, "title": "book 1"},
    )
    assert sorted(totals(run)) == [0, 2, 3]


def test_a_function_that_raises_when_the_last_item_had_failed_makes_the_run_a_failure() -> None:
    """The item has failed already, of something else."""
    app = library(odd)

    @app.task("broken", for_each="chapter", gather="book")
    def broken(book: dict[str, Any], counted: list[dict[str, Any]], failures: list[Failure]) -> None:
        if book["n"] == 2:
            raise LookupError(f"{len(failures)} failed")

    app.add_worker("broken", whole)
    run = app.test_run(raise_failures=False)
    assert [(one.stage, one.error) for one in run.failures if one.data["n"] == 2] == [("worker", "ValueError")]
    assert not run.summary.ok
    assert any("1 failed" in str(one) for one in run.summary.reasons)
    assert sorted(totals(run)) == [0, 1, 3]


def test_a_group_may_be_large() -> None:
    """Of a parent with very many children all are in the list."""
    app = Pipeline("many")
    app.add_task("A", lambda: [{"n": 0}])
    app.add_task("B", lambda data: ({"n": n} for n in range(20_000)), for_each="A")
    app.add_task("C", lambda parent, results: {"sum": sum(one["n"] for one in results)}, for_each="B", gather="A")
    for name in "ABC":
        app.add_worker(name, whole)
    assert of(app.test_run(timeout=60), "C") == [{"sum": sum(range(20_000))}]


@dataclass
class Book:
    """What a result of `book` is."""

    n: int
    title: str


@dataclass
class Chapter:
    """What a result of `chapter` is."""

    n: int
    place: int
    words: int


def test_both_parameters_may_be_records() -> None:
    """As those of a worker or a collector."""
    app = library()

    @app.task("typed", for_each="chapter", gather="book")
    def typed(book: Book, counted: list[Chapter], metadata: dict[str, Any]) -> dict[str, Any]:
        return {"title": book.title, "words": sum(one.words for one in counted)}

    app.add_worker("typed", whole)
    found = {data["title"]: data["words"] for data in of(app.test_run(), "typed")}
    assert found == {f"book {n}": sum(words) for n, words in enumerate(CHAPTERS)}


def test_an_annotation_that_is_no_list_is_refused() -> None:
    """By the place of the parameter."""
    app = library()

    @app.task("typed", for_each="chapter", gather="book")
    def typed(book: Book, counted: Chapter) -> None:
        """It gets a list."""

    app.add_worker("typed", whole)
    with pytest.raises(RegistrationError, match=r"The second parameter of the task function .* a list. Annotate it"):
        app.check()


@pytest.mark.parametrize("journal", [None, True])
@pytest.mark.parametrize("seed", range(6))
def test_gathers_are_simulated(seed: int, journal: bool | None) -> None:
    """Through lost messages, broken connections, and killed processes, one by one or, with a journal, together."""
    assert totals(SimulatedPipeline(library(), seed=seed, journal=journal).run()) == EXPECTED
    run = SimulatedPipeline(deep(), seed=seed, journal=journal).run()
    assert {data["n"]: (data["found"], data["failed"]) for data in of(run, "D")} == deep_expected()
    assert sorted_f(SimulatedPipeline(nested(), seed=seed, journal=journal).run()) == nested_expected()
