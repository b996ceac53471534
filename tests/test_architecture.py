"""The layers: who may import whom, which third-party package is used where, how long files and classes may be."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "zmqpipeline"

LAYERS = (
    "errors events",
    "addresses",
    "options",
    "serialization",
    "messages utils",
    "protocol.dataclass protocol.spans protocol.error_info protocol.status_records protocol.ack_messages "
    "protocol.service_messages protocol.messages protocol.events protocol.commands protocol.allowed protocol.machine "
    "protocol.snapshots protocol.credit protocol.peers protocol.waiting protocol.early_end protocol.missed_run",
    "protocol.data",
    "protocol.fields protocol.codec protocol.recorder",
    "protocol.delivery",
    "protocol.status protocol.run_end",
    "protocol.collection",
    "protocol.services",
    "protocol",
    "runtime.forks runtime.locks runtime.bind runtime.leader runtime.progress runtime.error_text runtime.failure_log "
    "runtime.child runtime.child_report runtime.launch_words runtime.launched runtime.ended_runs runtime.process_start "
    "runtime.log",
    "runtime.security",
    "runtime.transport",
    "runtime.journal",
    "runtime.threads",
    "runtime",
    "roles",
    "definitions",
    "app",
    "processes testing",
    "cli",
    "zmqpipeline __main__ pytest_plugin worker",
)
"""From the lowest; a module imports from its own layer and from those before it. A folder stands for what is in it, but
for what has a layer of its own: `protocol` and `runtime` are what their other rows leave."""

ALLOWED = {
    ("app", "cli.run"): "app.run() is what the command does; imported when it is called",
    ("app", "cli.main"): "app.main() is the command line; imported when it is called",
    ("app", "testing.run"): "app.test_run(); imported when it is called",
    ("definitions.build", "app"): "for types alone: what is compiled is a Pipeline",
    ("protocol.delivery.gates", "protocol.delivery.task_state"): "for types alone: a task holds its gate",
    ("testing.simulation.roles", "testing.simulation.pipeline"): "for types alone: the world that a role lives in",
    ("testing.simulation.stages", "testing.simulation.roles"): "for types alone: the collector that it belongs to",
    ("testing.simulation.strikes", "testing.simulation.pipeline"): "for types alone: the world that is struck",
}
"""Imports upwards, or in a circle, each with its reason."""

THIRD_PARTY = {
    "click": ("cli",),
    "zmq": ("runtime",),
    "msgpack": ("protocol.codec", "serialization"),
    "sqlite3": ("runtime.journal",),
    "pytest": ("pytest_plugin",),
    # extras, imported when they are needed
    "prometheus_client": ("cli.metrics",),
    "starlette": ("cli.page",),
    "uvicorn": ("cli.page",),
    # what uvicorn itself needs
    "h11": ("cli.page",),
    "distributed": ("processes.engines.dask", "processes.engines.dask_local"),
    "dask": ("processes.engines.dask_local",),
    "opentelemetry": ("runtime.traces",),
    # for types alone: it comes with whatever checks them
    "typing_extensions": ("definitions",),
}
PRIVATE = {
    ("roles.runner", "_runner"): "where a role keeps its runner: a public name may be one that a user's class has",
    ("roles.runner", "_make_runner"): "what makes the runner of such a role, likewise",
    ("runtime.threads.pool", "_is_asked"): "the pool inherits it: a thread of the pool asks its own pool",
    ("runtime.threads.pool", "_is_parked"): "likewise",
    **dict.fromkeys(
        [
            ("cli.run", "_exit"),
            ("definitions.entries", "_getframe"),
            ("definitions.origin", "_getframe"),
            ("runtime.child", "_exit"),
            ("runtime.forks", "_exit"),
            ("runtime.forks", "_getframe"),
            ("runtime.threads.preparation", "_current_frames"),
            ("runtime.threads.watch", "_current_frames"),
            ("serialization.shapes", "_field_defaults"),
            ("serialization.shapes", "_fields"),
            ("serialization.records", "_fields"),
            ("testing.hang_report", "_current_frames"),
            ("utils.shutdown", "_exit"),
        ],
        "the standard library documents it under this name",
    ),
}
"""Private names that a module uses of an object of another module, each with its reason."""

PURE_MAY_IMPORT = ("protocol", "errors", "events", "options", "serialization")
PURE_MUST_NOT = {"asyncio", "os", "pathlib", "select", "socket", "sqlite3", "subprocess", "threading", "time", "zmq"}
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = sorted(path for folder in ("zmqpipeline", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))


MAX_FILE_LINES, MAX_CLASS_LINES = 500, 400


class Imports(NamedTuple):
    """What a module imports, wherever in it, be it for types alone: of the package, and of others."""

    ours: frozenset[str]
    others: frozenset[str]


def name_of(path: Path) -> str:
    """The dotted name of a module below `zmqpipeline`, which itself is "zmqpipeline"."""
    parts = [part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"]
    return ".".join(parts) or "zmqpipeline"


NAMES = frozenset(name_of(path) for path in MODULES)


def imported(path: Path) -> Iterator[str]:
    """Each name that is imported, dotted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """The module of the package that this name is, or is in."""
    inner = name.removeprefix("zmqpipeline").lstrip(".")
    while inner and inner not in NAMES:
        inner = inner.rpartition(".")[0]
    return inner or "zmqpipeline"


@cache
def imports_of(path: Path) -> Imports:
    """What this module imports, by module for our own."""
    names = set(imported(path))
    ours = {name for name in names if name.split(".")[0] == "zmqpipeline"}
    return Imports(frozenset(map(module_of, ours)) - {name_of(path)}, frozenset(names - ours))


def layer_of(module: str) -> int:
    """The number of a module's layer: that of the longest name in the table that it is, or is in."""
    found = [
        (len(room), index)
        for index, layer in enumerate(LAYERS)
        for room in layer.split()
        if f"{module}.".startswith(f"{room}.")
    ]
    assert found, f"{module} has no layer: add it to LAYERS"
    return max(found)[1]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    """None from above, the protocol is pure, and each third-party package stays in its folders."""
    module = name_of(path)
    for name in imports_of(path).ours:
        if (module, name) not in ALLOWED:
            assert layer_of(name) <= layer_of(module), f"{module} imports {name}, which is above it"
        if module.startswith("protocol"):
            assert name.split(".")[0] in PURE_MAY_IMPORT, f"{module} imports {name}: the protocol is pure"
    for name in imports_of(path).others:
        top = name.split(".")[0]
        if top in THIRD_PARTY:
            assert any(f"{module}.".startswith(f"{room}.") for room in THIRD_PARTY[top]), f"{module} imports {top}"
        else:
            assert top in sys.stdlib_module_names, f"{module} imports {name}, which is no dependency or no module"
        if module.startswith("protocol"):
            assert top not in PURE_MUST_NOT, f"{module} imports {name}: the protocol is pure"


def test_there_is_no_circle() -> None:
    """Of modules that import each other, however late, and be it for types alone, but for those that are allowed."""
    graph = {
        name_of(path): {name for name in imports_of(path).ours if (name_of(path), name) not in ALLOWED}
        for path in MODULES
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' is imported by '.join(error.args[1])}")


def test_every_exception_is_needed() -> None:
    """Each allowed import is there, and is one that the table or the circles would refuse."""
    paths = {name_of(path): path for path in MODULES}
    for module, name in ALLOWED:
        assert name in imports_of(paths[module]).ours, f"{module} does not import {name} any more"


def test_every_row_of_the_table_is_there() -> None:
    """No name in it is of something that is gone."""
    rooms = {room for layer in LAYERS for room in layer.split()}
    assert rooms - NAMES == set()
    assert {room for rooms in THIRD_PARTY.values() for room in rooms} - NAMES == set()


def test_the_package_shows_at_most_twenty_names() -> None:
    """Files and folders at its top."""
    names = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(names) <= 20, sorted(names)


def is_private(name: str) -> bool:
    """Whether only the code that has defined this name should use it."""
    return name.startswith("_") and not name.endswith("__")


def is_own(owner: ast.expr) -> bool:
    """Whether this expression is the object whose class the code stands in."""
    return (isinstance(owner, ast.Name) and owner.id in ("self", "cls")) or ast.unparse(owner) == "super()"


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The private names that a module defines: functions, attributes of classes, and those that it sets on `self`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
            ):
                found.add(name)
            case ast.Attribute(value=owner, attr=name, ctx=ast.Store()) if is_own(owner):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=names):
                found.update(one.value for one in ast.walk(names) if isinstance(one, ast.Constant))
    return frozenset(filter(is_private, found))


def used_privately(path: Path) -> Iterator[tuple[str, bool]]:
    """Each private attribute that a module reads or sets, and whether it is one of the code's own object."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=owner, attr=name) if is_private(name):
                yield name, is_own(owner)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[owner, what, *_]):
                if isinstance(what, ast.Constant) and is_private(str(what.value)):
                    yield str(what.value), is_own(owner)
            case ast.ImportFrom(names=names):
                yield from ((one.name, False) for one in names if is_private(one.name))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_private_names_are_used_where_they_are_defined(path: Path) -> None:
    """Those of another object only in the module that defines them; those of `self` in the folder of its classes."""
    top = name_of(path).partition(".")[0]
    room = frozenset().union(*(defined_in(other) for other in MODULES if name_of(other).partition(".")[0] == top))
    for name, is_own in used_privately(path):
        if (name_of(path), name) not in PRIVATE:
            assert name in (room if is_own else defined_in(path)), f"{name_of(path)} uses {name} of an object elsewhere"


def test_every_private_name_that_is_allowed_is_used() -> None:
    """Nothing stays in the table that the rule does not refuse."""
    paths = {name_of(path): path for path in MODULES}
    for module, name in PRIVATE:
        assert (name, False) in used_privately(paths[module]), f"{module} does not use {name} any more"
        assert name not in defined_in(paths[module])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    """No file is longer than 500 lines, no class than 400, and each file begins with a docstring."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert not text.strip() or ast.get_docstring(tree)
    for one in ast.walk(tree):
        if isinstance(one, ast.ClassDef):
            assert (one.end_lineno or 0) - one.lineno < MAX_CLASS_LINES, f"{one.name} is too long: split it by duty"
