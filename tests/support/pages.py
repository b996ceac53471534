"""The pages for people, as tests read them: their fenced blocks, with what a comment above one says of it.

A comment above a block, ``<!-- docs: WORD ... -->``, is one of:

* ``file NAME``: the block is written to that file, beside the programs of the page;
* ``prints``: it is what the block before it writes to stdout, to the letter;
* ``fragment, WHY``: it cannot run by itself; its syntax is checked. Keep these rare.

A block of Python whose first line is ``# NAME.py`` is a file, too. Any other ``python`` or ``sh`` block is run, in its
order, in one folder a page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "examples").rglob("*.md"))]
"""Every page of the repository."""

_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence) *$", re.MULTILINE | re.DOTALL)
_ABOVE = re.compile(r"<!-- (?P<who>docs|newcomer): (?P<word>\w+),? ?(?P<rest>[^\n]*?) ?-->\n\Z")
_FILE_NAME = re.compile(r"# ([\w/.-]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block. `word` and `rest` are what the comment above it says, or its first line; else empty."""

    language: str
    text: str
    line: int
    word: str = ""
    rest: str = ""


def name_of(page: Path) -> str:
    """The page's path below the root, by which tests call it."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in _FENCE.finditer(text):
        above = _ABOVE.search(text, 0, found.start())
        named = _FILE_NAME.match(found["text"]) if found["language"] == "python" else None
        word, rest = ("file", named[1]) if named else ("", "")
        if above is not None:
            word, rest = ("newcomer" if above["who"] == "newcomer" else above["word"]), above["rest"]
        line = text.count("\n", 0, found.start()) + 1
        blocks.append(Block(found["language"].strip(), found["text"], line, word, rest))
    return blocks


def without_blocks(page: Path) -> str:
    """The prose of a page: without fenced blocks and code in a line."""
    return re.sub(r"`[^`\n]+`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))


def headings_of(page: Path) -> set[str]:
    """What a link may name behind ``#``: the headings, as GitHub and MyST write them, and explicit targets."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found = set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found
