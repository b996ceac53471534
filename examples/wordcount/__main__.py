"""Start it with ``python -m examples.wordcount run [--workers N] [--meta path=FOLDER] [--meta out=FILE]``."""

from __future__ import annotations

import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.wordcount import words
from zmqpipeline import Failure, Pipeline

app = Pipeline("wordcount")
total: Counter[str] = Counter()
numbers: Counter[str] = Counter()
began = time.monotonic()


@app.metadata
def places() -> dict[str, str]:
    """Where the texts are, and where the result goes ("": nowhere)."""
    return {"path": sysconfig.get_path("stdlib"), "out": ""}


@app.task("folder")
def folders(metadata: dict[str, str]) -> Iterator[dict[str, str]]:
    """One item for each folder with texts."""
    for name in words.folders(Path(metadata["path"])):
        yield {"name": name}


@app.worker("folder")
def look(data: dict[str, str], metadata: dict[str, str]) -> dict[str, Any]:
    """Which texts it has."""
    return {"name": data["name"], "paths": [str(path) for path in words.texts(Path(metadata["path"]), data["name"])]}


@app.task("count", for_each="folder")
def batches(folder: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
    """The map: one item for some texts of a folder."""
    for paths in words.batches(folder["paths"]):
        yield {"paths": paths}


@app.worker("count")
def count(data: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Count some texts."""
    return {"words": dict(words.count(map(Path, data["paths"])))}


@app.task("merge", for_each="count", gather="folder")
def parts(
    folder: dict[str, Any], counted: list[dict[str, dict[str, int]]], failures: list[Failure]
) -> Iterator[dict[str, Any]]:
    """The reduce: one item for each folder, when all of its texts are counted; none if one could not be."""
    if not failures:
        yield {"texts": len(folder["paths"]), "parts": [one["words"] for one in counted]}


@app.worker("merge")
def merge(data: dict[str, Any]) -> dict[str, Any]:
    """Add up what the texts of one folder have."""
    merged: Counter[str] = Counter()
    for part in data["parts"]:
        merged.update(part)
    return {"texts": data["texts"], "words": dict(merged)}


@app.collector
def add(data: dict[str, Any]) -> None:
    """Add up the folders."""
    numbers["texts"] += data["texts"]
    total.update(data["words"])


@app.failed
def tell(failure: Failure) -> None:
    """A text that could not be read."""
    numbers["failed"] += 1
    print(f"failed: {failure.task_type}: {failure.error}: {failure.message}")


@app.finished
def report(metadata: dict[str, str]) -> None:
    """Show the result, and compare it with a count in one loop."""
    seconds = time.monotonic() - began
    if numbers["failed"] or not numbers["texts"]:
        print("Not everything could be counted, so there is no result.")
        return
    print(f"{numbers['texts']} texts, {total.total()} words, {len(total)} different ones, in {seconds:.1f} s")
    print("most frequent: " + ", ".join(f"{word} {times}" for word, times in total.most_common(5)))
    if metadata["out"]:
        Path(metadata["out"]).write_text(words.table(total), encoding="utf-8")
    compare(Path(metadata["path"]))


def compare(root: Path) -> None:
    """Count again in one loop. Raises ValueError if the result is another one."""
    start = time.monotonic()
    plain = words.count(path for name in words.folders(root) for path in words.texts(root, name))
    seconds = time.monotonic() - start
    if plain != total:
        raise ValueError(f"one loop finds other counts for {len(dict(plain.items() ^ total.items()))} words")
    print(f"one loop finds the same, in {seconds:.1f} s")


if __name__ == "__main__":
    app.main()
