"""Decorated functions keep their types: read by type checkers, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from typing_extensions import assert_type

from zmqpipeline import Failure, Options, Pipeline, Summary, events

app = Pipeline("typed")


class Row(TypedDict):
    """A result with known fields."""

    n: int
    square: int


@app.task("C", depends_on=["A"], key="n", on_failed="continue")
def numbers(metadata: dict[str, str]) -> Iterator[dict[str, int]]:
    """A generator."""
    yield {"n": len(metadata)}


@app.task("A", times=3)
def one(number: int) -> dict[str, int] | None:
    """One item a call."""
    return {"n": number} if number else None


@app.task("pages", limit=3, rate="5/s")
async def pages() -> AsyncIterator[dict[str, int]]:
    """An async source."""
    yield {"n": 1}


assert_type(pages(), AsyncIterator[dict[str, int]])


@app.task("links", for_each="pages", rate="1/s", rate_by="host")
async def links(page: dict[str, int]) -> list[dict[str, str]]:
    """An async feeder."""
    return [{"host": str(page["n"])}]


async def awaited() -> None:
    """What they return when they are called in a unit test."""
    assert_type(await links({"n": 1}), list[dict[str, str]])
    assert_type(await store([]), None)


@app.collector("links", batch=10)
async def store(results: list[dict[str, str]]) -> None:
    """An async collector."""


@app.worker("C", threads=2)
def square(data: dict[str, int], attempt: int = 1) -> Row:
    """A typed result."""
    return {"n": data["n"], "square": data["n"] ** 2}


@app.worker("A")
def nothing(data: dict[str, int]) -> None:
    """No result is an empty one."""


@app.worker_init("C")
def init() -> list[str]:
    """A resource."""
    return []


@app.collector
def gather(data: Row) -> None:
    """For all tasks."""


@app.collector("C")
def gather_one(data: Row) -> dict[str, int]:
    """For one task."""
    return {"last": data["n"]}


@app.available("C")
def is_open(ack: dict[str, Any]) -> bool:
    """A gate."""
    return bool(ack["_id"])


@app.failed
def note(failure: Failure) -> str:
    """Takes a failure."""
    return failure.message


@app.finished
def finish(metadata: dict[str, str]) -> int:
    """At the end."""
    return len(metadata)


@app.metadata
def places() -> dict[str, str]:
    """The run's metadata."""
    return {"path": "/"}


@app.on(events.ItemFailed)
def count(event: events.ItemFailed) -> int:
    """An observer."""
    return event.count


@app.on(events.ItemCollected)
def see(event: events.Event) -> None:
    """One that takes more than it is given."""


@app.worker_init("E")
async def connect() -> list[str]:
    """An async one."""
    return []


@app.worker("E", concurrency=20)
async def fetch(data: Row, resource: list[str]) -> Row:
    """An async one."""
    return data


@app.worker("F", batch=8)
def embed(rows: list[Row], numbers: list[int]) -> list[Row]:
    """One that takes lists."""
    return rows


@dataclass
class Point:
    """A record."""

    x: int


class Size(NamedTuple):
    """Another one."""

    width: int


@app.task("G")
def points() -> Iterator[Point]:
    """A source of records."""
    yield Point(1)


@app.worker("G")
def size(point: Point) -> Size:
    """A worker of records."""
    return Size(point.x)


@app.worker("H")
async def later(size: Size) -> Point:
    """An async one."""
    return Point(size.width)


@app.collector("G")
def gather_sizes(size: Size) -> None:
    """A collector of records."""


@app.service("ask", concurrency=20)
async def ask(data: Row) -> Row:
    """An async one."""
    return data


@app.service("upper")
def upper(data: dict[str, str]) -> dict[str, str]:
    """A service."""
    return {"text": data["text"].upper()}


assert_type(numbers({}), Iterator[dict[str, int]])
assert_type(one(1), dict[str, int] | None)
assert_type(square({"n": 1}, attempt=2), Row)
assert_type(init(), list[str])
assert_type(gather_one({"n": 1, "square": 1}), dict[str, int])
assert_type(is_open({}), bool)
assert_type(finish({}), int)
fetched: Callable[[Row, list[str]], Coroutine[Any, Any, Row]] = fetch
assert_type(size(Point(1)), Size)
assert_type(points(), Iterator[Point])
assert_type(places(), dict[str, str])
assert_type(upper({"text": "a"}), dict[str, str])

app.add_on(events.RunOver, lambda event: event.ok)
observed = Pipeline("observed", options=Options(observers=[count, lambda event: None]))

typed_gather: Callable[[Row], None] = gather
typed_note: Callable[[Failure], str] = note


@app.task("T", for_each=["C"], gather="A", key="n")
def together(parent: Row, results: list[Row], failures: list[Failure]) -> Iterator[Point]:
    """What came of one result."""
    yield Point(parent["n"] + len(results) + len(failures))


app.add_task("B", lambda: [{"n": 1}], depends_on=["A", "C"])
app.add_task("D", lambda number: {"n": number}, times=3, key=lambda item: item["n"], on_failed="continue")
app.add_worker("B", lambda data: data)
app.add_worker("D", square, threads=2)


def run() -> int:
    """What runs return."""
    summary = app.run(workers={"C": 2}, metadata={"path": "/usr"}, timeout=60)
    assert_type(summary, Summary)
    assert_type(summary.tasks["C"].collected, int)
    return 0 if summary.ok else 1
