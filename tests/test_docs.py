"""The pages are true: links lead somewhere, every public name has an entry, and what they say of the code is so."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import zmqpipeline
from tests.support.pages import PAGES, ROOT, headings_of, name_of, without_blocks
from zmqpipeline import errors, options
from zmqpipeline.addresses import ROLE_OFFSETS
from zmqpipeline.cli import main as cli
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec, fields

LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")

DOCUMENTED_MODULES = ("errors", "messages", "testing", "utils", "utils.messages", "utils.serializer", "utils.shutdown")
"""The modules of the package that users import."""


def load_generated() -> ModuleType:
    """What the pages take from the code."""
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/_ext/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generated"] = module
    spec.loader.exec_module(module)
    return module


generated = load_generated()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    """Each relative link names a file or a folder that is there, and a heading that it has."""
    for link in LINK.findall(without_blocks(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in headings_of(target), f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_are_there_and_have_words(page: Path) -> None:
    """Each picture is a file of the repository, and has a text for those who cannot see it."""
    for words, path in re.findall(r"!\[([^]]*)\]\(([^)\s]+)\)", without_blocks(page)):
        assert len(words) > 20, f"{name_of(page)}: {path}"
        assert (page.parent / path).resolve().is_relative_to(ROOT), f"{name_of(page)}: {path}"
        assert (page.parent / path).is_file(), f"{name_of(page)}: {path}"


def test_no_page_is_a_dead_end() -> None:
    """Each page leads to another one in its prose, and another one leads to it: nobody gets stuck, nothing hides."""
    docs = ROOT / "docs"
    leads: dict[Path, set[Path]] = {}
    for page in sorted(docs.rglob("*.md")):
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(without_blocks(page))}
        leads[page] = {target for target in targets if target.suffix == ".md" and target != page}
    leads.pop(docs / "changelog.md")  # what is included there is outside of the pages
    assert [name_of(page) for page, targets in leads.items() if not targets] == []
    reached = set().union(*leads.values())
    assert [name_of(page) for page in leads if page not in {*reached, docs / "index.md"}] == []


# the reference --------------------------------------------------------------------------------------------------------


def reference_text() -> str:
    """All pages of the API, as one text."""
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/reference/api").glob("*.md")))


@pytest.mark.parametrize("name", zmqpipeline.__all__)
def test_every_public_name_has_an_entry(name: str) -> None:
    """Each name of the package is the object of an autodoc directive, but for the version, which is named."""
    text = reference_text()
    if name == "__version__":
        assert "`zmqpipeline.__version__`" in text
        return
    assert re.search(rf"^\.\. auto\w+:: zmqpipeline\.{name}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", DOCUMENTED_MODULES)
def test_every_documented_module_has_an_entry_with_all_its_names(name: str) -> None:
    """Its directive takes all members, and each of them has a docstring, without which autodoc would leave it out."""
    module = importlib.import_module(f"zmqpipeline.{name}")
    found = re.search(
        rf"^\.\. automodule:: zmqpipeline\.{re.escape(name)}$((?:\n   .*)*)", reference_text(), re.MULTILINE
    )
    assert found, name
    if name in ("utils", "utils.messages"):  # other modules, which have entries of their own
        return
    assert ":members:" in found[1]
    public = getattr(module, "__all__", None) or [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    assert public
    for key in public:
        value = getattr(module, key)
        assert inspect.getdoc(value) or not callable(value), f"{name}.{key}"


def test_every_public_method_has_a_docstring() -> None:
    """Autodoc leaves out what has none: no public method or property of a public class has none."""
    missing = [
        f"{name}.{key}"
        for name in zmqpipeline.__all__
        if inspect.isclass(cls := getattr(zmqpipeline, name))
        for key, value in vars(cls).items()
        if not key.startswith("_") and (callable(value) or isinstance(value, (property, classmethod)))
        if not inspect.getdoc(getattr(cls, key))
    ]
    assert missing == []


def test_every_option_has_a_row_with_its_variable_and_its_meaning() -> None:
    """The table has all fields of the dataclass, each with the string below it."""
    rows = generated.options_table().split("\n")[2:]
    fields = dataclasses.fields(options.Options)
    assert len(rows) == len(fields)
    for row, one in zip(rows, fields, strict=True):
        cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
        variable = "" if one.name in options.IN_PROGRAMS else f"`{options.variable(one.name)}`"
        assert cells[:2] == [f"`{one.name}`", variable]
        assert len(cells[-1]) > 10, row
    assert "`--drain-timeout`" in next(row for row in rows if "`drain_timeout`" in row)


COMMANDS = {
    *("call", "check", "collector", "dashboard", "dead", "distributor", "graph"),
    *("keygen", "manifests", "metrics", "run", "service", "service-worker", "status", "top", "worker"),
}


def test_every_command_has_its_help_on_the_page() -> None:
    """Each command and sub-command of an app is there, with every flag that it takes."""
    page = generated.commands_pages()
    names = {words for words, _ in generated.commands()}
    assert {("run",), ("worker",), ("dead", "retry")} <= names
    assert {words[0] for words in names} == COMMANDS
    for words, command in generated.commands():
        section = page.partition(f"## `{' '.join(words)}`\n")[2].partition("\n## ")[0]
        assert f"Usage: python -m app {' '.join(words)}" in section
        shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        assert [one.name for one in shown if one.opts[0] not in section] == []


def test_the_page_of_exit_statuses_has_those_of_the_code() -> None:
    """The first column has each number that the command line's docstring and the errors name, and no other."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/exit-status.md").read_text(), re.MULTILINE)
    said = re.findall(r"\b(\d+)\b", str(cli.__doc__).partition("Exit status:")[2])
    of_errors = {getattr(one, "exit_status", 1) for one in vars(errors).values()}
    assert sorted(map(int, rows)) == sorted({*map(int, said)} | of_errors)


def test_the_page_of_the_wire_has_the_numbers_of_the_code() -> None:
    """Its version, sizes and code of every message are those of `protocol.codec`."""
    text = (ROOT / "docs/reference/wire.md").read_text(encoding="utf-8")
    for name, value in (
        ("version", codec.VERSION),
        ("payloads in the header up to", f"{codec.INLINE // 1024} KiB"),
        ("a frame for each payload from", f"{codec.LARGE // 1024} KiB"),
        ("the largest header", f"{Options().max_header_bytes // 1024} KiB (`max_header_bytes`)"),
        ("the largest frame of fields", f"{codec.MAX_FIELDS_BYTES // 1024**2} MiB"),
        ("of `Begin`, `Holding`, `Status`", f"{codec.MAX_STATE_BYTES // 1024**2} MiB"),
        ("the longest name", f"{fields.MAX_NAME} characters"),
    ):
        assert f"| {name} | {value} |" in text
    rows = generated.messages_table().split("\n")[2:]
    assert [row.split(" | ")[1].strip("`") for row in rows] == [cls.__name__ for cls in codec._CODES]
    records = generated.records_table()
    nested = {str(one.type) for cls in codec._CODES for one in dataclasses.fields(cls)}
    for name in ("ErrorInfo", "FailedItem", "TaskCounts", "TaskProgress"):
        assert f"`{name}`" in records
    assert {"list[FailedItem]", "list[TaskCounts]", "list[TaskProgress]"} <= nested


def test_the_page_of_the_wire_has_the_ports_of_the_code() -> None:
    """Each hop has a row, with what is added to the base port."""
    text = (ROOT / "docs/reference/wire.md").read_text(encoding="utf-8")
    rows = {
        name.replace(" ", "-"): int(offset) for name, offset in re.findall(r"^\| ([\w ]+) \| \+(\d) \|", text, re.M)
    }
    assert rows == ROLE_OFFSETS


def test_a_mark_that_nothing_is_generated_for_is_an_error() -> None:
    """A page with a misspelt mark does not build."""
    with pytest.raises(KeyError, match="optoins"):
        generated.fill("<!-- generated: optoins -->\n")


def test_links_out_of_the_pages_become_paths(tmp_path: Path) -> None:
    """What the built pages do not hold is named by its path; links between pages stay."""
    docs = tmp_path / "docs"
    text = "[a](../../examples/) [`b/c.py`](../../b/c.py) [d](../other/d.md#e)"
    kept = generated.keep_inside(text, docs / "room/page.md", docs)
    assert kept == "a (`examples`) `b/c.py` [d](../other/d.md#e)"


# version and changes --------------------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place() -> None:
    """`__version__` is what is installed, and the project's file takes it from there."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert not re.search(r'^version *= *"', project, re.MULTILINE)
    assert not re.search(r"\d+\.\d+\.\d+", (ROOT / "docs/conf.py").read_text(encoding="utf-8"))


def test_the_changelog_speaks_of_this_version() -> None:
    """Unreleased comes first, then releases with dates, the newest on top; once there is one, this is the version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", head) for head in heads[1:]]
    assert None not in released, heads
    versions = [tuple(map(int, one.groups())) for one in released if one is not None]
    assert versions == sorted(set(versions), reverse=True)
    mine = tuple(map(int, re.findall(r"\d+", zmqpipeline.__version__)))
    if versions:
        assert versions[0] == mine
    else:
        assert mine == (0, 1, 0), "the first release has a heading of its own"
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
