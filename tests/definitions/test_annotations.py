"""Functions that are annotated with records: what they are called with, and what is refused when an app is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.errors import FieldError, RegistrationError

if TYPE_CHECKING:
    pass


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Area:
    of: Point
    size: int


def shapes() -> Pipeline:
    """Points, their areas, and a collector of areas, all typed."""
    app = Pipeline("shapes")

    @app.task("C", key="x")
    def points() -> Any:
        for n in range(20):
            yield Point(n, 2)

    @app.worker("C")
    def area(point: Point, number: int) -> Area:
        assert point.x == number
        return Area(point, point.x * point.y)

    return app


def test_records_go_all_the_way() -> None:
    """A source yields them, a worker takes and returns them, a collector takes them."""
    app, seen = shapes(), []

    @app.collector("C")
    def collect(area: Area) -> None:
        seen.append(area)

    run = app.test_run()
    assert sorted(seen, key=lambda area: area.size) == [Area(Point(n, 2), 2 * n) for n in range(20)]
    assert sorted(run.results, key=str)[0] == ("C", {"of": {"x": 0, "y": 2}, "size": 0})


def test_lists_of_records() -> None:
    """With `batch`, and one that does not fit fails alone."""
    app = Pipeline("lists")
    app.add_task("C", lambda: ({"x": n, "y": 2 if n != 7 else "two"} for n in range(20)))

    @app.worker("C", batch=8)
    def area(points: list[Point]) -> list[Area]:
        return [Area(point, point.x * point.y) for point in points]

    run = app.test_run(raise_failures=False)
    assert len(run.results) == 19
    assert [one.data for one in run.failures] == [{"x": 7, "y": "two"}]


def test_async_workers_and_services_take_them_too() -> None:
    """The same words."""
    app = Pipeline("waits")
    app.add_task("C", lambda: ({"x": n, "y": 2} for n in range(20)))

    @app.worker("C")
    async def area(point: Point) -> Area:
        return Area(point, point.x * point.y)

    assert len(app.test_run().results) == 20


def test_what_does_not_fit_is_a_failed_item_that_is_not_tried_again() -> None:
    """It says field, wanted and found; an error of the function itself is tried again as ever."""
    app = Pipeline("misfits")
    app.add_task("C", lambda: iter([{"x": 1.5, "y": 2}, {"x": 1, "y": 3}, {"x": 2, "y": 2}]), retries=2, backoff=0.01)

    @app.worker("C")
    def area(point: Point, attempt: int) -> Area:
        if point.y == 3 and attempt < 3:
            raise ValueError("again")
        return Area(point, point.x * point.y)

    run = app.test_run(raise_failures=False)
    assert len(run.results) == 2
    (failure,) = run.failures
    assert (failure.data, failure.attempts) == ({"x": 1.5, "y": 2}, 1)
    assert failure.error == "zmqpipeline.errors.FieldError"
    assert failure.message == "`$.x` must be an int, and is 1.5 (a float)."
    with pytest.raises(FieldError):
        app.test_run()


def test_a_collector_that_wants_something_else_fails_the_item() -> None:
    """At its own stage."""
    app = shapes()

    @app.collector
    def collect(point: Point) -> None:
        pass

    run = app.test_run(raise_failures=False)
    assert {(one.stage, one.message) for one in run.failures} == {
        ("collector", "`$.x` is missing, and has no default.")
    }


class Plain:
    """No record."""


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Plain, "is annotated with what is never sent: `$` is tests.definitions.test_annotations.Plain"),
        (int, "is annotated with int, and what it is called with is a dict."),
        (list[int], "is annotated with list, and what it is called with is a dict."),
        ("Point2", "name 'Point2' is not defined. Import it at the top of its module"),
        ("Context", "name 'Context' is not defined. Import it at the top of its module"),
        ("1 /", "cannot be evaluated: SyntaxError"),
    ],
)
def test_what_cannot_be_carried_is_refused_when_the_app_is_compiled(annotation: Any, said: str) -> None:
    """With the function, and what to write; not when it is registered, since the type may come further down."""
    app = Pipeline("refused")
    app.add_task("C", lambda: [{}])

    def work(data: Any) -> None:
        return None

    work.__annotations__["data"] = annotation
    app.add_worker("C", work)
    with pytest.raises(RegistrationError) as caught:
        app.check()
    assert said in str(caught.value)
    assert "'test_what_cannot_be_carried_is_refused_when_the_app_is_compiled.work' of task 'C'" in str(caught.value)


def test_plain_annotations_change_nothing() -> None:
    """The dict as it arrives, however it is annotated, and whether that can be evaluated or not."""
    app = Pipeline("plain")
    for name, annotation in {
        "A": dict,
        "B": "dict[str, int]",
        "C": "MutableMapping[str, Any]",
        "D": Mapping[str, int],
        "E": Any,
        "F": "Any",
    }.items():
        app.add_task(name, lambda: [{"n": "text"}])

        def work(data: Any) -> Any:
            return data

        work.__annotations__["data"] = annotation
        app.add_worker(name, work)
        assert app.registry.workers[name].plan.convert is None  # type: ignore[union-attr]
    assert len(app.test_run().results) == 6
