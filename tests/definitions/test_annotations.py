"""Functions that are annotated with records: what they are called with, and what is refused when an app is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, TypeVar

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
        (Optional["Point2"], "name 'Point2' is not defined."),  # noqa: F821
        (Optional["pytest.Nope"], "cannot be evaluated: AttributeError"),
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


def _called_with(function: Callable[..., Any], **keywords: Any) -> list[str]:
    """What the function is called with, for the item {"x": 1, "y": 2}: it returns that as text."""
    app = Pipeline("called")
    app.add_task("C", lambda: [{"x": 1, "y": 2}])
    app.add_worker("C", function, **keywords)
    return [data["got"] for _, data in app.test_run().results]


def _shown(value: Any) -> dict[str, str]:
    return {"got": repr(value)}


def two(factor: int, p: dict) -> Any:
    """The second parameter is the item."""
    return _shown(p)


def two_typed(factor: int, p: Point) -> Any:
    """The second parameter is the item."""
    return _shown(p)


def area_of(p: Point) -> Any:
    """Takes a record."""
    return _shown(p)


def converting(function: Any) -> Any:
    """A decorator that makes the record itself."""

    @functools.wraps(function)
    def called(p):  # type: ignore[no-untyped-def]
        return function(Point(**p))

    return called


def passing(function: Any) -> Any:
    """A decorator that hands on what it is called with."""

    @functools.wraps(function)
    def called(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    return called


class Caller:
    """Methods that are annotated, and an object that is called."""

    def __call__(self, p: Point) -> Any:
        """As it is."""
        return _shown(p)

    @passing
    def method(self, p: Point) -> Any:
        """With a decorator."""
        return _shown(p)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (functools.partial(two, 5), "{'x': 1, 'y': 2}"),
        (functools.partial(two_typed, 5), "Point(x=1, y=2)"),
        (functools.partial(passing(two_typed), 5), "Point(x=1, y=2)"),
        (converting(area_of), "Point(x=1, y=2)"),
        (passing(area_of), "Point(x=1, y=2)"),
        (passing(converting(area_of)), "Point(x=1, y=2)"),
        (functools.lru_cache(area_of), None),
        (Caller(), "Point(x=1, y=2)"),
        (Caller().method, "Point(x=1, y=2)"),
    ],
)
def test_the_parameter_that_the_item_arrives_at_is_asked(function: Any, got: str | None) -> None:
    """Behind bound arguments; and of a decorator what it takes itself, or, if it takes all, what it wraps."""
    if got is None:
        with pytest.raises(TypeError, match="unhashable type: 'Point'"):
            _called_with(function)
    else:
        assert _called_with(function) == [got]


BUILT: list[Any] = []


@dataclass
class Counted:
    n: int = 0

    def __post_init__(self) -> None:
        BUILT.append(self.n)
        if not self.n:
            raise RuntimeError("it is built without a value")


def test_nothing_is_built_when_the_app_is_compiled() -> None:
    """Whether a type takes dicts is decided by the type."""
    app = Pipeline("built")
    app.add_task("C", lambda: [{"n": 3}])

    @app.worker("C")
    def work(one: Counted) -> Any:
        return _shown(one)

    app.check()
    assert BUILT == []
    assert len(app.test_run().results) == 1
    assert set(BUILT) == {3}


T = TypeVar("T", bound=Point)
U = TypeVar("U", bound="Point")


def of_bound(p: T) -> Any:
    """A type variable with a bound."""
    return _shown(p)


def of_text_bound(p: U) -> Any:
    """Its bound is text."""
    return _shown(p)


def of_all(*points: Point) -> Any:
    """The item is the first of all."""
    return _shown(points[0])


def of_optional(p: Optional["Point"]) -> Any:  # noqa: UP037, UP045 - that it works is tested
    """The record is text within the annotation."""
    return _shown(p)


def of_list(points: list[Point] | None) -> Any:
    """A list, or None."""
    return [_shown(p) for p in points or ()]


def of_bound_list(points: list[T]) -> Any:
    """A list of a type variable."""
    return [_shown(p) for p in points]


@pytest.mark.parametrize(
    ("function", "keywords"),
    [
        (of_bound, {}),
        (of_text_bound, {}),
        (of_all, {}),
        (of_optional, {}),
        (of_list, {"batch": 4}),
        (of_bound_list, {"batch": 4}),
    ],
)
def test_each_form_of_an_annotation_is_applied(function: Any, keywords: Any) -> None:
    """None is passed over in silence."""
    assert _called_with(function, **keywords) == ["Point(x=1, y=2)"]


@pytest.mark.parametrize("annotation", [Point, tuple[Point, ...], "Point", "set[Point]"])
def test_a_batch_that_is_annotated_with_no_list_is_refused(annotation: Any) -> None:
    """It is called with a list."""

    def work(points: Any) -> Any:
        return points

    work.__annotations__["points"] = annotation
    with pytest.raises(RegistrationError, match=r"and what it is called with is a list\. Annotate it with list"):
        _called_with(work, batch=4)


@dataclass
class UnknownAttribute:
    x: pytest.Nope  # type: ignore[name-defined]


@dataclass
class NoExpression:
    x: "int |"  # type: ignore[valid-type]  # noqa: F722


@dataclass
class UnknownName:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (UnknownAttribute, "cannot be evaluated: the fields of UnknownAttribute: AttributeError: "),
        (NoExpression, "cannot be evaluated: the fields of NoExpression: SyntaxError: "),
        (UnknownName, "is annotated with a type that is not known where it is called: name 'Nowhere' is not defined."),
    ],
)
def test_fields_that_cannot_be_evaluated_are_refused_when_the_app_is_compiled(annotation: Any, said: str) -> None:
    """With a letter, whatever Python raises."""

    def work(data: Any) -> Any:
        return data

    work.__annotations__["data"] = annotation
    with pytest.raises(RegistrationError) as caught:
        _called_with(work)
    assert said in str(caught.value)


def test_a_class_within_a_function_is_told_where_it_belongs() -> None:
    """Under the import of annotations its name is not found there."""

    @dataclass
    class Local:
        n: int

    def work(data: Local) -> Any:
        return data

    with pytest.raises(RegistrationError, match=r"or define it there, and not within a function; or annotate it"):
        _called_with(work)


def test_an_async_worker_that_yields_is_told_to_return() -> None:
    """It may be async, and gives one value."""
    app = Pipeline("yields")

    async def work(data: dict[str, Any]) -> Any:
        yield data

    with pytest.raises(RegistrationError, match="has a `yield`; it must return one value"):
        app.add_worker("C", work)
