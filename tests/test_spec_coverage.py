"""`docs/reference/spec-coverage.md` is true: no empty cell, every object and every test named in it is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import zmqpipeline

ROOT = Path(__file__).resolve().parents[1]

NAMES = {
    "Distributor": ("__init__", "register_task", "run", "shutdown"),
    "Task": (
        *("task_type", "endpoint", "dependencies", "is_complete", "handle", "initialize"),
        "is_available_for_handling",
    ),
    "Worker": ("task_type", "endpoint", "collector_endpoint", "init_worker"),
    "SingleThreadedWorker": ("__init__", "handle_execution", "run"),
    "MultiThreadedWorker": ("__init__", "handle_execution", "handle_thread_execution", "n_threads", "run"),
    "MetaDataWorker": ("endpoint", "get_metadata", "run"),
    "Collector": ("endpoint", "ack_endpoint", "get_ack_data", "handle_collection", "handle_finished", "run"),
    "Service": ("__init__", "run", "shutdown"),
    "ServiceWorker": ("__init__", "endpoint", "handle_message", "run", "task_type"),
    "TaskType": ("register_type",),
    "utils.messages": (
        *(
            f"MESSAGE_TYPE_{name}"
            for name in ["ACK", "SUCCESS", "FAILURE", "READY", "END", "DATA", "META_DATA", "EMPTY"]
        ),
        *("create", "create_data", "create_metadata", "create_ack", "create_success", "create_failure"),
        *("create_empty", "create_ready", "create_end"),
    ),
    "utils.shutdown": ("kill_current_process",),
}
"""Every name that the first edition documented, but for the four without members, below."""

ALONE = {"EndpointAddress", "configureLogging", "worker.MetaDataWorker", "messages"}


def rows() -> list[list[str]]:
    """The cells of each row of the tables, without their heads."""
    lines = (ROOT / "docs/reference/spec-coverage.md").read_text().split("\n")
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells for cells in split if cells[0] not in ("Promise", "---")]


def named(column: int) -> list[str]:
    """What stands between back-ticks in one column, each once."""
    return sorted({name for cells in rows() for name in re.findall("`([^`]+)`", cells[column])})


def is_there(name: str) -> bool:
    """True if this is a module, attribute or annotated attribute below the package."""
    value: Any = zmqpipeline
    for part in name.split("."):
        if inspect.ismodule(value) and not hasattr(value, part):
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except ModuleNotFoundError:
                return False
        if not hasattr(value, part):
            return inspect.isclass(value) and any(part in inspect.get_annotations(base) for base in value.__mro__)
        value = getattr(value, part)
    return True


@cache
def functions_of(path: str) -> frozenset[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_no_cell_is_empty() -> None:
    """Four cells a row, each with something in it; the last two hold nothing but names between back-ticks."""
    assert len(rows()) > 140
    for cells in rows():
        assert len(cells) == 4, cells
        assert all(cells)
        for cell in cells[2:]:
            assert re.fullmatch(r"`[^`]+`( `[^`]+`)*", cell), cells


def test_each_row_says_whether_it_is_kept() -> None:
    """Kept; or partly, or not, and then why, in a sentence."""
    said = [cells[1] for cells in rows()]
    assert [one for one in said if not re.fullmatch(r"kept|(partly|not), because .{20,}[^.]", one)] == []
    assert {one.partition(",")[0] for one in said} == {"kept", "partly", "not"}
    assert said.count("kept") > 0.9 * len(said)


def test_no_promise_is_said_twice() -> None:
    """Each row has words of its own."""
    said = [cells[0] for cells in rows()]
    assert len(said) == len(set(said))


@pytest.mark.parametrize("name", named(2))
def test_every_named_object_exists(name: str) -> None:
    """It can be imported, or is an annotated attribute that subclasses give a value."""
    assert is_there(name)


@pytest.mark.parametrize("name", named(3))
def test_every_named_test_exists(name: str) -> None:
    """A file of this repository, and a test function in it."""
    path, _, test = name.partition("::")
    assert test in functions_of(path)


@pytest.mark.parametrize("name", sorted([*ALONE, *(f"{one}.{part}" for one in NAMES for part in NAMES[one])]))
def test_every_documented_name_has_a_row(name: str) -> None:
    """Nothing of the first edition's reference is left out of the table."""
    assert name in named(2)


def test_what_is_not_there_is_found_out() -> None:
    """The check of names can fail: a wrong module, attribute, and member."""
    assert [is_there(name) for name in ("nothing", "worker.Nothing", "Task.nothing", "utils.messages.nothing")] == [
        False
    ] * 4
    assert is_there("Task.endpoint")
