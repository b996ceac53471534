"""The half of the example that knows nothing of pipelines: folders, texts, and words."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

SUFFIXES = (".py", ".txt", ".rst", ".md")
"""Files with these endings are texts."""

LEFT_OUT = {"__pycache__", "site-packages", "test", "tests", "idle_test"}
"""Folders that are not entered: with them it would take three times as long."""

BATCH = 20
"""How many texts one item has: counting a single one takes less time than it takes to hand it out."""

_WORD = re.compile(r"[^\W\d_]+")


def folders(root: Path) -> list[str]:
    """The folders that `root` has, and itself as "". Raises NotADirectoryError if it is none."""
    if not root.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is no folder. Give one: --meta path=FOLDER")
    found = (path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    return ["", *sorted(path.name for path in found if path.name not in LEFT_OUT)]


def texts(root: Path, name: str) -> Iterator[Path]:
    """Each text of one of these folders, in an order that stays the same; of "" not those of the other ones."""
    for folder, inner, names in os.walk(root / name):
        inner[:] = sorted(set(inner) - LEFT_OUT) if name else []
        yield from (Path(folder, one) for one in sorted(names) if one.endswith(SUFFIXES))


def batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """The same paths, `BATCH` at a time; the last ones may be fewer."""
    left = iter(paths)
    while batch := list(islice(left, BATCH)):
        yield batch


def count(paths: Iterable[Path]) -> Counter[str]:
    """The words of some texts in small letters, with how often each occurs; bytes that are no UTF-8 divide words."""
    total: Counter[str] = Counter()
    for path in paths:
        total.update(_WORD.findall(path.read_text(encoding="utf-8", errors="replace").lower()))
    return total


def table(counts: Counter[str]) -> str:
    """A line a word, the most frequent first, equally frequent ones by the alphabet."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return "".join(f"{times}\t{word}\n" for word, times in ranked)
