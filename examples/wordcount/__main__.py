"""Start it with ``python -m examples.wordcount run [--workers N] [--meta path=FOLDER] [--meta out=FILE]``."""

from __future__ import annotations

import sysconfig
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.wordcount import words
from zmqpipeline import Failure, Pipeline

app = Pipeline("wordcount")
total: Counter[str] = Counter()
numbers: Counter[str] = Counter()
began = time.monotonic()


@app.metadata
def places() -> dict[str, str]:
    """Where the texts are, where the result goes ("": nowhere), and a folder of its own for this run."""
    folder = Path(tempfile.gettempdir(), f"wordcount-{uuid.uuid4().hex}")
    return {"path": sysconfig.get_path("stdlib"), "out": "", "folder": str(folder)}


@app.task("count")
def texts(metadata: dict[str, str]) -> Iterator[dict[str, list[str]]]:
    """One item for some texts."""
    for batch in words.batches(words.texts(Path(metadata["path"]))):
        yield {"paths": [str(path) for path in batch]}


@app.worker("count")
def count(data: dict[str, list[str]], metadata: dict[str, str], number: int) -> dict[str, int]:
    """Count some texts. The words stay in the folder; only how many there are goes to the collector."""
    counts = words.count(map(Path, data["paths"]))
    words.save(counts, Path(metadata["folder"]), str(number))
    return {"texts": len(data["paths"]), "words": counts.total()}


@app.task("merge", depends_on=["count"])
def parts() -> Iterator[dict[str, int]]:
    """One item a part: given out when every text is counted, and so every file of the folder is there."""
    for part in range(words.PARTS):
        yield {"part": part}


@app.worker("merge")
def merge(data: dict[str, int], metadata: dict[str, str]) -> dict[str, int]:
    """Add up one part; no word of it is in another one."""
    return dict(words.merge(Path(metadata["folder"]), data["part"]))


@app.collector("count")
def note(data: dict[str, int]) -> None:
    """Add up what the first task has seen."""
    numbers.update(data)


@app.collector("merge")
def gather(data: dict[str, int]) -> None:
    """Put the parts side by side."""
    numbers["parts"] += 1
    total.update(data)


@app.failed
def tell(failure: Failure) -> None:
    """A text that could not be read."""
    print(f"failed: {failure.task_type}: {failure.error}: {failure.message}")


@app.finished
def report(metadata: dict[str, str]) -> None:
    """Remove the folder, show the result, and compare it with a count in one loop."""
    seconds = time.monotonic() - began
    words.remove(Path(metadata["folder"]))
    if numbers["parts"] < words.PARTS:
        print("Not everything could be counted, so there is no result.")
        return
    print(f"{numbers['texts']} texts, {numbers['words']} words, {len(total)} different ones, in {seconds:.1f} s")
    print("most frequent: " + ", ".join(f"{word} {times}" for word, times in total.most_common(5)))
    if metadata["out"]:
        Path(metadata["out"]).write_text(words.table(total), encoding="utf-8")
    compare(Path(metadata["path"]))


def compare(root: Path) -> None:
    """Count again in one loop. Raises ValueError if the result is another one."""
    start = time.monotonic()
    plain = words.count(words.texts(root))
    seconds = time.monotonic() - start
    if plain != total:
        raise ValueError(f"one loop finds other counts for {len(dict(plain.items() ^ total.items()))} words")
    print(f"one loop finds the same, in {seconds:.1f} s")


if __name__ == "__main__":
    app.main()
