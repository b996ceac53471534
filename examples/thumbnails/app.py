"""The app: a batch of three tasks, each made of the results of the one before, and a service, `thumbnail`."""

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


@app.task("fetch")
def names(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One item for each picture: a number, if the example is to draw it, or the path of one that there is."""
    if not metadata["path"]:
        for number in range(int(metadata["pictures"])):
            yield {"name": f"{number:03}.png", "number": number}
        return
    for path in sorted(Path(metadata["path"]).resolve().iterdir()):
        if path.is_file() and not path.name.startswith("."):
            yield {"name": path.name, "path": str(path)}


@app.worker("fetch", threads=2)
def fetch(data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Have the large picture in a file: it stays there, and only its path goes on."""
    if "path" in data:
        return data
    path = Path(metadata["out"], "large", data["name"])
    pictures.write(path, pictures.draw(data["number"]))
    return {"name": data["name"], "path": str(path)}


app.add_task("resize", for_each="fetch")


@app.worker("resize", threads=2)
def resize(data: dict[str, str], metadata: dict[str, Any]) -> dict[str, Any]:
    """Shrink one picture; what is none raises, and is a failed item, which nothing is stored of."""
    path = Path(data["path"])
    small, _ = pictures.shrink(path, int(metadata["edge"]))
    return {"name": data["name"], "before": path.stat().st_size, "small": small}


app.add_task("store", for_each="resize")


@app.worker("store")
def store(data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, int]:
    """Write one thumbnail."""
    name = data["name"] if data["name"].lower().endswith(".png") else f"{data['name']}.png"
    pictures.write(Path(metadata["out"], "small", name), data["small"])
    return {"before": data["before"], "after": len(data["small"])}


@app.collector
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
