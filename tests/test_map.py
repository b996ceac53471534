"""The map is true: each path that the page on the package and CONTRIBUTING.md name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/explanation/house.md"
PATH = re.compile(r"`((?:[\w.-]+/)*(?:[\w-]+\.py|[\w.-]+/))`")


def named(page: Path) -> list[str]:
    """Files and folders of the repository or of the package, between back-ticks."""
    return sorted(set(PATH.findall(page.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_each_named_path_is_there(page: Path) -> None:
    """As it stands, or below the package."""
    assert [
        path for path in named(page) if not (ROOT / path).exists() and not (ROOT / "zmqpipeline" / path).exists()
    ] == []


def test_twenty_usual_changes_are_on_the_map() -> None:
    """At least; each with a file to open, and with its tests."""
    part = PAGE.read_text(encoding="utf-8").partition("## To change it, open\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 20
    for _, files, tests in rows:
        assert PATH.search(files)
        assert all(path.startswith("tests/") for path in PATH.findall(tests))
        assert PATH.search(tests)


def test_every_folder_of_the_package_is_in_the_table_of_layers() -> None:
    """None is left out."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    folders = sorted(path.parent.name for path in (ROOT / "zmqpipeline").glob("*/__init__.py"))
    assert folders
    assert [name for name in folders if f"`{name}/`" not in text] == []
