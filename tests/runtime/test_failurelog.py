"""What user code raised is said where it was raised: once with its traceback and item, then as a sum."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zmqpipeline.runtime.error_text import SHOWN, place_of, shown, trouble_of
from zmqpipeline.runtime.failure_log import FailureLog

HERE = os.path.relpath(__file__)


def raised(function: Any, *given: Any) -> BaseException:
    """What this function raises."""
    try:
        function(*given)
    except BaseException as error:
        return error
    raise AssertionError("it was to raise")


def parse(text: str) -> Any:
    """Raise within the standard library."""
    return json.loads(text)


def test_the_place_is_the_last_line_of_the_users_own_code() -> None:
    """Not the line of the library that it called."""
    line = parse.__code__.co_firstlineno + 2
    assert place_of(raised(parse, "{").__traceback__) == f"{HERE}:{line} parse"


def test_what_is_below_the_current_folder_is_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, a file is named in full."""
    monkeypatch.chdir(tmp_path)
    assert place_of(raised(parse, "{").__traceback__).startswith(f"{Path(__file__)}:")


def test_what_nobody_raised_has_no_place() -> None:
    """An error without frames of a user."""
    assert trouble_of(ValueError("x")).place == ""


def test_the_first_failure_has_item_and_traceback_and_the_next_are_summed_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thousand items: two lines."""
    clock = SimpleNamespace(now=0.0)
    log = FailureLog(logging.getLogger("zmqpipeline.worker"), clock=lambda: clock.now)
    for n in range(1000):
        trouble = log.item(raised(lambda item: item["m"], {"n": n}), "C", n, 1, {"n": n}, "worker")
    assert trouble.error == "KeyError"
    (first,) = caplog.records
    assert first.levelno == logging.WARNING
    assert f"Item 0 of 'C' failed (worker): KeyError: 'm' in {HERE}:" in first.getMessage()
    assert "The item: {'n': 0}." in first.getMessage()
    assert first.getMessage().endswith("KeyError: 'm'")
    assert first.about == {"task": "C", "item": 0, "attempt": 1}  # type: ignore[attr-defined]
    assert log.look(4.0) == 6.0
    assert len(caplog.records) == 1
    assert log.look(10.0) is None
    assert caplog.records[1].getMessage().endswith("<lambda>: 1,000 items; first: {'n': 0}")
    log.close()
    assert len(caplog.records) == 2


def test_a_function_for_no_one_item_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Two thousand calls of `ack_data`: one traceback, and their number at the end."""
    log = FailureLog(logging.getLogger("zmqpipeline.collector"))
    for _ in range(2000):
        log.call(raised(parse, "{"), "ack_data")
    log.close()
    first, last = (record.getMessage() for record in caplog.records)
    assert caplog.records[0].levelno == logging.ERROR
    assert first.startswith("The ack_data function raised json.decoder.JSONDecodeError: ")
    assert first.count("Traceback") == 1
    assert last.endswith("parse: 2,000 calls")


class Bad:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x" * 10**7},
        {"a": b"x" * 10**7},
        list(range(10**6)),
        {n: n for n in range(1000)},
        10**5000,
        Bad(),
        "a\nb\x1b[",
    ],
    ids=["text", "bytes", "list", "dict", "int", "bad", "control"],
)
def test_an_item_is_shown_in_bounds(value: object) -> None:
    """Whatever it is: in one line, and never longer."""
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= SHOWN + 3
