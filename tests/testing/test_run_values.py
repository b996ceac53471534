"""`app.test_run()`: the journal in memory, and values on their way: large, deep, and some that cannot be sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apps import Odd, squares
from tests.support.patience import await_threads
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import (
    JournalError,
    SerializeError,
)
from zmqpipeline.options import Options
from zmqpipeline.roles.results import Failure


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, the threads of its pipelines are gone afterwards."""
    before = set(threading.enumerate())
    yield
    await_threads(before)


def test_functions_that_take_the_journal_get_one_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows of earlier items are there, those of a raising call are not; no file is made, whatever the environment."""
    monkeypatch.setenv("ZMQPIPELINE_JOURNAL", str(tmp_path / "run.db"))
    app, counts, failures = squares(20), [], []

    @app.collector
    def keep(data: dict[str, Any], journal: Any) -> None:
        journal.execute("CREATE TABLE IF NOT EXISTS kept (n INTEGER PRIMARY KEY)")
        journal.execute("INSERT INTO kept VALUES (?)", (data["n"],))
        if data["n"] == 5:
            raise Odd("five")
        counts.append(journal.execute("SELECT count(*) FROM kept").fetchone()[0])

    @app.failed
    def note(failure: Failure, journal: Any) -> None:
        failures.append(journal.execute("SELECT count(*) FROM kept WHERE n = 5").fetchone())

    run = app.test_run(raise_failures=False)
    assert counts == list(range(1, 20))
    assert failures == [(0,)]
    assert (run.summary.tasks["C"].collected, run.summary.tasks["C"].failed) == (19, 1)
    assert list(tmp_path.iterdir()) == []
    plain = squares(3)
    plain.test_run()
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_done_with_the_journal_fails_a_test_run() -> None:
    """The refusal is raised as what failed the item."""
    app = squares(1)
    app.add_collector(lambda data, journal: journal.commit())
    with pytest.raises(JournalError, match=r"journal\.commit is not for the functions"):
        app.test_run()


def test_values_arrive_as_they_were_sent() -> None:
    """Tuples, sets, bytes and big ints, on both ways."""
    app, value = Pipeline("values"), {"t": (1, (2,)), "s": {1, 2}, "b": b"\xff", "i": 2**200, 5: "five", "u": "\udcff"}
    app.add_task("C", lambda: {"value": value})
    app.add_worker("C", lambda data: data)
    assert app.test_run().results == [("C", {"value": value})]


def test_large_values_arrive_as_bytes_also_where_they_fail() -> None:
    """They are read where they lie; functions get bytes, which may be kept, and so does the record of a failure."""
    app = Pipeline("large", endpoint=None)
    kept: list[bytes] = []
    failed: list[Any] = []

    @app.task("C")
    def blobs() -> Iterator[dict[str, Any]]:
        for n in range(6):
            yield {"n": n, "data": bytes([n]) * 200_000}

    @app.worker("C")
    def hand_on(data: dict[str, Any]) -> dict[str, Any]:
        assert type(data["data"]) is bytes
        if data["n"] == 4:
            raise ValueError("four")
        return data

    @app.collector
    def collect(data: dict[str, Any], journal: Any) -> None:
        if data["n"] == 5:
            raise ValueError("five")
        kept.append(data["data"])

    @app.failed
    def note(failure: Failure) -> None:
        failed.append((failure.stage, failure.data["data"]))

    app.test_run(raise_failures=False)
    assert kept == [bytes([n]) * 200_000 for n in range(4)]
    assert sorted(failed) == [("collector", b"\5" * 200_000), ("worker", b"\4" * 200_000)]
    assert all(type(data) is bytes for data in (*kept, *(one for _, one in failed)))


@pytest.mark.parametrize("where", ["metadata", "ack_data", "finished"])
def test_what_travels_beside_the_items_has_a_limit(where: str) -> None:
    """The other side would drop such a message, and it would be sent for ever: it is refused where it is made."""
    app = squares(3)
    getattr(app, where)(lambda: {"data": b"x" * 3_000_000})
    with pytest.raises(SerializeError, match=r"returned 3,000,0\d\d bytes; at most [\d,]+ can be sent"):
        app.test_run()


def test_a_failed_item_may_be_as_large_as_any() -> None:
    """Its data go to the collector by themselves, and not in the header of a message, of which less is read."""
    app = Pipeline("heavy")
    failed: list[int] = []
    app.task("C")(lambda: ({"n": n, "data": bytes(6_000_000)} for n in range(3)))

    @app.worker("C")
    def fail(data: dict[str, Any]) -> None:
        raise ValueError("x" * 1000)

    app.collector(lambda data: None)
    app.failed(lambda failure: failed.append(len(failure.data["data"])))
    assert app.test_run(raise_failures=False).summary.tasks["C"].failed == 3
    assert failed == [6_000_000] * 3


def test_a_value_that_is_nested_too_deeply_is_a_failed_item() -> None:
    """`max_depth` holds for items and for results, where they are opened; the others are collected."""
    app = Pipeline("deep", options=Options(max_depth=2))

    @app.task("C")
    def lists() -> Iterator[dict[str, Any]]:
        yield {"n": [1]}
        yield {"n": [[1]]}
        yield {"n": 2}

    @app.worker("C")
    def deepen(data: dict[str, Any]) -> dict[str, Any]:
        return {"n": [[1]] if data["n"] == 2 else data["n"]}

    run = app.test_run(raise_failures=False)
    assert run.results == [("C", {"n": [1]})]
    assert sorted((one.stage, one.error.rpartition(".")[2]) for one in run.failures) == [
        ("collector", "SerializeError"),
        ("worker", "SerializeError"),
    ]
