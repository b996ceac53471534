"""An app of the CURVE benchmark: items of so many bytes, of which the workers send back a checksum."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

from examples.benchmarks import work
from examples.benchmarks.bytes_app import begin, blobs
from zmqpipeline import Pipeline

app = Pipeline("benchmark-weigh")
_tally = work.Tally()


@lru_cache
def _expected(size: int) -> int:
    return zlib.crc32(work.blob(size))


app.task("bytes")(blobs)
app.thread_init("bytes")(begin)


@app.worker("bytes")
def weigh(data: dict[str, Any]) -> dict[str, Any]:
    """The checksum of the bytes, and how many they are."""
    blob = data["data"]
    return {"n": data["n"], "double": 2 * data["n"], "size": len(blob), "checksum": zlib.crc32(blob)}


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, add up, and compare the checksums; a wrong one is a failed item, and ends the run with status 1."""
    _tally.add(data["double"])
    if data["checksum"] != _expected(data["size"]):
        raise ValueError(f"The bytes of item {data['n']} are not those that were sent.")


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, if they are the right ones."""
    _tally.write(int(metadata["items"]), metadata["out"])


if __name__ == "__main__":
    app.main()
