"""Apps that are killed and go on by their journal, and what is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from tests.support.apps import GOES_NO_FURTHER

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop


Eventually = Callable[..., None]


APP = (
    """
import os, random, time
from zmqpipeline import Pipeline

app = Pipeline("lasting")
ITEMS = int(os.environ.get("ITEMS", "1500"))

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")
"""
    + GOES_NO_FURTHER
    + """
@app.metadata
def metadata():
    return {"made": "here"}

@app.task("C")
def numbers():
    note("distributors", os.getpid())
    for n in range(ITEMS):
        yield {"n": n}

@app.worker("C", threads=2)
def work(data):
    note("executed", data["n"])
    go_no_further("executed")
    time.sleep(float(os.environ.get("SECONDS", "0.001")))
    return data

@app.collector
def collect(data, journal, task_type, metadata):
    assert metadata["made"] == "here"
    journal.execute("CREATE TABLE IF NOT EXISTS seen (task TEXT, n INTEGER)")
    journal.execute("INSERT INTO seen VALUES (?, ?)", (task_type, data["n"]))

if __name__ == "__main__":
    if "LIMIT" in os.environ:
        # of this process alone, in which the collector writes: as a full disk, this makes sqlite fail
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)
    app.main()
"""
)
"""`most` is how many items may be executed: see `GOES_NO_FURTHER`."""


RUN = ("-m", "app", "run", "--workers", "2", "--json", "--journal", "run.db")


def rows(workshop: Workshop) -> list[int]:
    """What the collector's function has written, committed; read beside whoever writes it."""
    path = workshop.folder / "run.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return [n for (n,) in db.execute("SELECT n FROM seen ORDER BY n")]
        except sqlite3.OperationalError:
            return []  # no table yet, or no file in WAL mode yet
