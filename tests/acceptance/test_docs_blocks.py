"""Every program and every shell line of the pages runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT, Program
from tests.support.pages import DOCS, Block, blocks_of, name_of
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

RUN_BY_OTHERS = {
    name_of(page): path.name
    for page in DOCS
    for path in sorted((ROOT / "tests").rglob("test_howto_*.py"))
    if name_of(page) in path.read_text(encoding="utf-8")
}
"""Pages that have a test of their own, which runs what is on them."""

README = ROOT / "README.md"

PAGES = [
    page
    for page in (README, *DOCS)
    if name_of(page) not in RUN_BY_OTHERS and any(one.language in ("python", "sh") for one in blocks_of(page))
]

INLINE = re.compile(r"`python -m (\w+) run`")
"""A command in the prose, which is run if the module is one of the page's files."""

PORT = "5550"
"""The base port of every page; a test takes another."""

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
"""The addresses that pages bind to."""


class Story:
    """One page, block by block, in one folder."""

    def __init__(self, page: Path, workshop: Workshop) -> None:
        self.page, self.workshop = page, workshop
        self.base = str(free_ports(7, HOSTS)[0])
        self.printed = ""
        self.environ = {
            **workshop.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
        }

    def tell(self, block: Block) -> None:
        """Do what the page does at this block."""
        where = f"{self.page.relative_to(ROOT)}:{block.line}"
        text = block.text.replace(f":{PORT}", f":{self.base}")
        if block.word == "file":
            path = self.workshop.folder / block.rest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.word == "prints":
            assert self.printed == text, f"{where} is not what the block before it printed: {self.printed}"
        elif block.word in ("fragment", "newcomer"):
            check_syntax(block, where)
        elif block.language == "python":
            self.run([sys.executable, "-c", text], where)
        elif block.language == "sh":
            self.run(["bash", "-euo", "pipefail", "-c", text], where)

    def run(self, command: list[str], where: str) -> None:
        """Run it to its end, which is a good one."""
        program = Program(self.workshop.folder, "block", command, self.environ)
        self.workshop.programs.append(program)
        status = program.wait(100)
        assert status == 0, f"{where} ended with status {status}\n{program.out}\n{program.err}"
        # but for those of functions that are to raise, which are told as failures of their items
        told = program.err.count("The next of this kind are counted.")
        assert program.err.count("Traceback") == told, f"{where}\n{program.err}"
        self.printed = program.out


def check_syntax(block: Block, where: str) -> None:
    """A block that cannot run by itself is well-formed."""
    if block.language == "python":
        compile(block.text, where, "exec")
    elif block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"{where}: {done.stderr}"


@pytest.mark.parametrize(
    "page", [pytest.param(one, marks=[] if one == README else [pytest.mark.slow]) for one in PAGES], ids=name_of
)
def test_what_is_on_the_page_runs(workshop: Workshop, page: Path) -> None:
    """From the first block to the last, each ends with status 0 and prints what the page says it prints."""
    story = Story(page, workshop)
    for block in blocks_of(page):
        story.tell(block)
    for module in INLINE.findall(page.read_text(encoding="utf-8")):
        if (workshop.folder / f"{module}.py").exists():
            story.run([sys.executable, "-m", module, "run"], f"{name_of(page)}: python -m {module} run")


def test_blocks_that_do_not_run_are_few_and_say_why() -> None:
    """A fragment has a reason; no page is made of fragments."""
    for page in PAGES:
        fragments = [one for one in blocks_of(page) if one.word == "fragment"]
        assert all(one.rest for one in fragments), name_of(page)
        assert len(fragments) <= 2, name_of(page)


def test_ci_runs_the_blocks_of_the_readme_that_need_a_clone() -> None:
    """What README.md marks for newcomers is run by `.ci/run`, each block of it."""
    marked = {one.rest or one.text for one in blocks_of(ROOT / "README.md") if one.word == "newcomer"}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"<!-- newcomer: (\w+) -->", text)
    assert len(names) == len(marked) > 0
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert [name for name in names if f"run_block {name}\n" not in script] == []
