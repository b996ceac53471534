"""The app: a batch of two tasks, `draw` and `shrink`, and a service, `thumbnail`."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from examples.thumbnails import pictures
from zmqpipeline import Failure, Pipeline

EDGE = 128
"""The longest side of a thumbnail in pixels, unless somebody asks for another one."""

app = Pipeline("thumbnails")
sizes: list[tuple[int, int]] = []
failures: list[str] = []


@app.metadata
def defaults() -> dict[str, Any]:
    """What ``--meta`` did not say. Without a `path` the example draws its own pictures."""
    return {"pictures": 24, "edge": EDGE, "path": "", "out": str(Path("thumbnails").resolve())}


def source(metadata: dict[str, Any]) -> Path:
    """The folder with the large pictures."""
    return Path(metadata["path"] or Path(metadata["out"], "large"))


def drawn(metadata: dict[str, Any]) -> list[str]:
    """The names of the pictures that the example draws itself."""
    return [] if metadata["path"] else [f"{number:03}.png" for number in range(int(metadata["pictures"]))]


@app.task("draw")
def drawings(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One item for each picture that is to be drawn."""
    for number, name in enumerate(drawn(metadata)):
        yield {"name": name, "number": number}


@app.worker("draw", threads=2)
def draw(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Draw one picture into the folder; nothing of it goes to the collector."""
    pictures.write(source(metadata) / data["name"], pictures.draw(data["number"]))


@app.task("shrink", depends_on=["draw"])
def shrinkings(metadata: dict[str, Any]) -> Iterator[dict[str, str]]:
    """One item for each picture; when the first one is given out, all drawings are there."""
    for name in drawn(metadata) or files(source(metadata)):
        yield {"name": name}


def files(folder: Path) -> list[str]:
    """The names of what is in a folder, without hidden files."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


@app.worker("shrink", threads=2)
def shrink(data: dict[str, str], metadata: dict[str, Any]) -> dict[str, int]:
    """Write one thumbnail; what is no picture raises, and is a failed item."""
    path = source(metadata) / data["name"]
    small, _ = pictures.shrink(path, int(metadata["edge"]))
    name = path.name if path.suffix.lower() == ".png" else f"{path.name}.png"
    pictures.write(Path(metadata["out"], "small", name), small)
    return {"before": path.stat().st_size, "after": len(small)}


@app.collector("shrink")
def note(data: dict[str, int]) -> None:
    """Keep the sizes until the end."""
    sizes.append((data["before"], data["after"]))


@app.failed
def tell(failure: Failure) -> None:
    """Keep each failure until the end."""
    failures.append(f"{failure.data.get('name')!r}: {failure.error}: {failure.message}")


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """What there is now, and what is not."""
    before, after = (sum(size) for size in zip(*sizes, strict=True)) if sizes else (0, 0)
    print(f"{len(sizes)} thumbnails in {str(Path(metadata['out'], 'small'))!r}: {before:,} bytes became {after:,}")
    for failure in sorted(failures):
        print(f"no thumbnail of {failure}")


@app.service("thumbnail", threads=2, idempotent=True)
def thumbnail(data: dict[str, Any]) -> dict[str, Any]:
    """The thumbnail of one picture; both go as bytes."""
    small, (width, height) = pictures.shrink(BytesIO(data["picture"]), data.get("edge", EDGE))
    return {"thumbnail": small, "width": width, "height": height}
