"""Sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from zmqpipeline import Pipeline, TaskType
from zmqpipeline.errors import DefinitionError, RegistrationError
from zmqpipeline.options import shown_size, size_in_bytes


@pytest.mark.parametrize(
    ("size", "found"),
    [
        (1, 1),
        ("7", 7),
        ("2GiB", 2 << 30),
        (" 1.5 gb ", 1_500_000_000),
        ("64 KiB", 65536),
        ("3mb", 3_000_000),
        ("9B", 9),
    ],
)
def test_a_size_is_bytes_or_a_text(size: int | str, found: int) -> None:
    """With a unit or without, whatever its case, with a point or none."""
    assert size_in_bytes(size) == found


@pytest.mark.parametrize(
    "size", [0, -1, True, 2.5, None, "", "GiB", "2G", "2 GiBs", "-2GB", "1e9", "0.5", "٣GB", "9" * 400]
)
def test_anything_else_is_refused(size: Any) -> None:
    """With what was given, and what is expected; `2G` says neither which G."""
    with pytest.raises(ValueError, match=r"it must be a number of bytes.*'2GiB'"):
        size_in_bytes(size)


def test_a_size_is_shown_in_its_unit() -> None:
    """Of the largest unit that it has one of."""
    assert [shown_size(one) for one in (5, 2048, 3 << 20, 3 << 29)] == ["5 B", "2.0 KiB", "3.0 MiB", "1.5 GiB"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_items": 0}, "max_items must be a whole number, 1 or more, or None, not 0"),
        ({"max_items": True}, "max_items must be"),
        ({"max_memory": "2G"}, "max_memory must be a number of bytes, 1 or more, or a text such as '2GiB'"),
        ({"init_timeout": 0}, "init_timeout must be a number of seconds, more than 0, or None, not 0"),
        ({"init_timeout": "60"}, "init_timeout must be"),
    ],
)
def test_a_wrong_limit_is_refused(limits: dict[str, Any], said: str) -> None:
    """When the decorator runs, or the class is defined; None is no limit."""
    from zmqpipeline import SingleThreadedWorker

    app = Pipeline("limits")
    with pytest.raises(RegistrationError, match=f"The worker of task 'C': {said}"):
        app.add_worker("C", lambda data: data, **limits)
    unlimited: dict[str, Any] = dict.fromkeys(limits)
    app.add_worker("C", lambda data: data, **unlimited)
    TaskType.register_type("C")
    with pytest.raises(DefinitionError, match=f"Work.{said}"):
        type("Work", (SingleThreadedWorker,), limits)
    type("Work", (SingleThreadedWorker,), dict.fromkeys(limits))


def test_a_test_run_replaces_workers_that_retire() -> None:
    """`max_items` holds in a test run, too, with `worker_init` called in each; `max_memory` is left out."""
    app = Pipeline("limits")
    app.add_task("C", lambda: ({"n": n} for n in range(50)))
    inits: list[int] = []
    app.add_worker_init("C", lambda: inits.append(1))
    app.add_worker("C", lambda data: data, threads=2, max_items=10, max_memory=1)
    run = app.test_run(timeout=60)
    assert sorted(data["n"] for _, data in run.results) == list(range(50))
    assert len(inits) == 5
    assert run.summary.tasks["C"].redelivered == 0
