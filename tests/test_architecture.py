"""The house stands: who may import whom, which third-party package is used where, how long a file may be."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom to the top; what stands on a storey may import it and the ones before it.
STOREYS = {
    "stairwell": "errors address tasktype options sizes unpacking serialize serialize_ext logconfig messages itemlog "
    "utils",
    "cellar": "protocol",
    "ground floor": "runtime",
    "living floor": "declared handlers failure summary places role execution task worker collector distributor "
    "metadata service client",
    "roof": "origin injection keywords registry entries classes decorators adapters compiling app standstill testrun "
    "importing launch loglines group supervisor tables standing drawing scaffold cli cli_service cli_dead cli_keygen "
    "cli_new cli_progress cli_status __main__ zmqpipeline",
    "annexes": "testing pytest_plugin contrib",
}
THIRD_PARTY = {
    "click": ("cli", "cli_dead", "cli_keygen", "cli_new", "cli_progress", "cli_service", "cli_status"),
    "zmq": ("runtime", "contrib"),
    "msgpack": ("protocol.wire", "protocol.packed", "unpacking", "serialize", "serialize_ext", "utils"),
    "sqlite3": ("runtime.journal",),
    "pytest": ("pytest_plugin",),
}
CELLAR_MAY_IMPORT = ("protocol", "errors", "options", "unpacking")
CELLAR_MUST_NOT = {"asyncio", "os", "pathlib", "select", "socket", "sqlite3", "subprocess", "threading", "time", "zmq"}
MODULES = sorted((ROOT / "zmqpipeline").rglob("*.py"))
FILES = sorted(path for folder in ("zmqpipeline", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module below `zmqpipeline`, which itself is "zmqpipeline"."""
    parts = [part for part in path.relative_to(ROOT / "zmqpipeline").with_suffix("").parts if part != "__init__"]
    return ".".join(parts) or "zmqpipeline"


def imports_of(path: Path) -> Iterator[str]:
    """What a module imports, wherever in it, dotted; our own names without the package's."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("zmqpipeline.") if name.startswith("zmqpipeline.") else name for name in names)


def storey_of(name: str) -> int:
    """The number of the storey that a module stands on."""
    found = [index for index, rooms in enumerate(STOREYS.values()) if name.split(".")[0] in rooms.split()]
    assert found, f"{name} stands on no storey: add it to STOREYS"
    return found[0]


def is_ours(name: str) -> bool:
    """Whether an import is of a module of the package, by the name that `imports_of` gives it."""
    top = name.split(".")[0]
    return any(top in rooms.split() for rooms in STOREYS.values()) and top not in THIRD_PARTY


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    """No arrow points upwards, the cellar is pure, and each third-party package stays in its rooms."""
    module = name_of(path)
    for name in imports_of(path):
        top = name.split(".")[0]
        if is_ours(name):
            assert storey_of(name) <= storey_of(module), f"{module} imports {name}, which stands above it"
        elif top in THIRD_PARTY:
            allowed = THIRD_PARTY[top]
            assert any(f"{module}.".startswith(f"{room}.") for room in allowed), f"{module} imports {top}"
        else:
            assert top in sys.stdlib_module_names, f"{module} imports {name}, which is no dependency or no module"
        if module.startswith("protocol"):
            assert top in CELLAR_MAY_IMPORT or not is_ours(name), f"{module} imports {name}: the cellar is pure"
            assert top not in CELLAR_MUST_NOT, f"{module} imports {name}: the cellar is pure"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    """No file is longer than 600 lines, and each begins with a docstring."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 600
    assert not text.strip() or ast.get_docstring(ast.parse(text))
