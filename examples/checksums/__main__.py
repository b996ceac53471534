"""Start it with ``python -m examples.checksums run [--meta path=FOLDER] [--meta out=FILE]``."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from examples.checksums import manifest
from zmqpipeline import Pipeline

app = Pipeline("checksums")
rows: list[tuple[str, str]] = []
failures: list[str] = []


@app.metadata
def defaults() -> dict[str, str]:
    """What ``--meta`` did not say: the standard library of this Python, and a manifest in the current folder."""
    return {"path": sysconfig.get_path("stdlib"), "out": str(Path("manifest.sha256").resolve())}


@app.task("file")
def files(metadata: dict[str, str]) -> Any:
    """One item a file below the folder."""
    return manifest.walk(Path(metadata["path"]), leave_out=Path(metadata["out"]))


@app.worker("file")
def checksum(data: dict[str, str], metadata: dict[str, str]) -> dict[str, str]:
    """Read one file; what cannot be read raises, and is a failed item."""
    if "error" in data:
        raise OSError(data["error"])
    return {"path": data["path"], "sha256": manifest.digest(metadata["path"], data["path"])}


@app.collector
def gather(data: dict[str, str]) -> None:
    """Keep each digest until the end."""
    rows.append((data["path"], data["sha256"]))


@app.failed
def note(failure: Any) -> None:
    """Keep each failure until the end."""
    failures.append(f"{manifest.printable(failure.data['path'])}: {failure.error}: {failure.message}")


@app.finished
def finish(metadata: dict[str, str]) -> None:
    """Write the manifest, and say what is not in it."""
    out = Path(metadata["out"])
    count = manifest.write(out, rows)
    print(f"{count} files in {manifest.printable(str(out))}")
    for failure in sorted(failures):
        print(f"not in it: {manifest.printable(failure)}")


if __name__ == "__main__":
    app.main()
