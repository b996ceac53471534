"""The half of the example that knows nothing of pipelines: texts, words, and the files between the two tasks."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

SUFFIXES = (".py", ".txt", ".rst", ".md")
"""Files with these endings are texts."""

LEFT_OUT = {"__pycache__", "site-packages", "test", "tests", "idle_test"}
"""Folders that are not entered: with them it would take three times as long."""

BATCH = 20
"""How many texts one item has: counting a single one takes less time than it takes to hand it out."""

PARTS = 4
"""Into how many parts the words are divided; each word belongs to one of them."""

_WORD = re.compile(r"[^\W\d_]+")


def texts(root: Path) -> Iterator[Path]:
    """Each text below `root`, in an order that stays the same. Raises NotADirectoryError if it is no folder."""
    if not root.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is no folder. Give one: --meta path=FOLDER")
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(SUFFIXES))


def batches(paths: Iterable[Path]) -> Iterator[list[Path]]:
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


def part_of(word: str) -> int:
    """Which part a word belongs to: the same in every process, unlike `hash`."""
    return zlib.crc32(word.encode()) % PARTS


def save(counts: Counter[str], folder: Path, name: str) -> None:
    """Write the counts of one item to a file a part, ``folder/part-N/name.json``.

    Each file is there whole or not at all, and writing it again changes nothing: an item may be executed twice.
    """
    parts: list[dict[str, int]] = [{} for _ in range(PARTS)]
    for word, times in counts.items():
        parts[part_of(word)][word] = times
    for part, words in enumerate(parts):
        place = _place(folder, part)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = place / f"{name}.{os.getpid()}"
        unfinished.write_text(json.dumps(words))
        unfinished.replace(place / f"{name}.json")


def merge(folder: Path, part: int) -> Counter[str]:
    """Add up what all items have of one part."""
    total: Counter[str] = Counter()
    for path in _place(folder, part).glob("*.json"):
        total.update(json.loads(path.read_text()))
    return total


def remove(folder: Path) -> None:
    """Remove what `save` has written, and the folder, unless there is something else in it."""
    for part in range(PARTS):
        shutil.rmtree(_place(folder, part), ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _place(folder: Path, part: int) -> Path:
    return folder / f"part-{part}"


def table(counts: Counter[str]) -> str:
    """A line a word, the most frequent first, equally frequent ones by the alphabet."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return "".join(f"{times}\t{word}\n" for word, times in ranked)
