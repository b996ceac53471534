"""Inference in batches: a model that a package ships classifies the files of the standard library.

    python -m tests.acceptance.inference

One item in a hundred is poison, which fails whatever batch it is in; a worker is killed on the way. All other files
must be classified, each once, and the poison must be in `dead list`. Beside that stands what batches gain: of the model
by itself, and of the whole run. It wants the package `magika` (ONNX); where that is not, this says so and ends with
status 3 (with ``--if-installed``: 0).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import sys
import sysconfig
import tempfile
import time
from contextlib import closing
from pathlib import Path

import click

from tests.acceptance.conftest import Workshop, wait_until

NOT_INSTALLED = 3
POISON = 100
"""One item in so many is poison."""

APP = """
import os
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("classify")
BATCH, POISON = int(os.environ["BATCH"]), int(os.environ["POISON"])
FILES = sorted(str(one) for one in Path(os.environ["FOLDER"]).rglob("*.py"))[: int(os.environ["FILES"])]

@app.task("file")
def files():
    for n, path in enumerate(FILES):
        yield {"path": path, "poison": bool(POISON) and n % POISON == 7}

@app.worker_init("file")
def model():
    from magika import Magika
    return Magika()

def classify(data, resource):
    if any(one["poison"] for one in data):
        raise ValueError("poison")
    found = resource.identify_paths([Path(one["path"]) for one in data])
    return [{"path": one["path"], "label": str(result.output.label)} for one, result in zip(data, found)]

if BATCH == 1:
    app.add_worker("file", lambda data, resource: classify([data], resource)[0])
else:
    app.add_worker("file", classify, batch=BATCH)

@app.collector
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS labels (path TEXT, label TEXT)")
    journal.execute("INSERT INTO labels VALUES (:path, :label)", data)
    with open("kept", "a") as file:
        print(data["path"], file=file)

if __name__ == "__main__":
    app.main()
"""

ALONE = """
import sys, time
from pathlib import Path
from magika import Magika
files = sorted(Path(sys.argv[1]).rglob("*.py"))[: int(sys.argv[2])]
batch, model = int(sys.argv[3]), Magika()
model.identify_paths(files)
began = time.perf_counter()
for at in range(0, len(files), batch):
    model.identify_paths(files[at : at + batch])
print(time.perf_counter() - began)
"""


def run(workshop: Workshop, journal: str, files: int, batch: int, *, poison: int, kill: bool) -> float:
    """One run, with the journal of this name; seconds from the first result to the end."""
    workshop.write("app.py", APP)
    environ = {"BATCH": str(batch), "FILES": str(files), "FOLDER": sysconfig.get_path("stdlib"), "POISON": str(poison)}
    kept = workshop.folder / "kept"
    kept.unlink(missing_ok=True)
    roles = (("distributor",), ("collector", "--journal", journal), ("worker",), ("worker",))
    started = [workshop.start("-m", "app", *role, **environ) for role in roles]
    wait_until(lambda: workshop.lines("kept"), "the first result", 120)
    began = time.monotonic()
    if kill:
        wait_until(lambda: len(workshop.lines("kept")) >= files // 3, "a third of the results", 600)
        os.kill(started[2].pid, signal.SIGKILL)
        started[2].wait()
        started[2] = workshop.start("-m", "app", "worker", **environ)
    ended = [one.wait(600) for one in started]
    # failed items are told by the status of distributor and collector
    assert ended[2:] == [0, 0], (ended, started[2].err, started[3].err)
    assert ended[:2] == ([1, 1] if poison else [0, 0]), (ended, started[0].err, started[1].err)
    return time.monotonic() - began


def check(workshop: Workshop, journal: str, files: int, poison: int) -> tuple[int, int]:
    """How many files are classified, and how many are dead, if each is one of these, once."""
    with closing(sqlite3.connect(workshop.folder / journal)) as db:
        paths = [path for (path,) in db.execute("SELECT path FROM labels")]
    environ = {"BATCH": "64", "FILES": str(files), "FOLDER": sysconfig.get_path("stdlib"), "POISON": str(poison)}
    status, said = workshop.run("-m", "app", "dead", "list", "--journal", journal, "--json", **environ)
    assert status == 0, said.err
    dead = [one["number"] for one in json.loads(said.out)]
    assert sorted(dead) == [n for n in range(files) if n % poison == 7], dead
    assert len(set(paths)) == len(paths) == files - len(dead), (len(paths), len(set(paths)), len(dead))
    return len(paths), len(dead)


@click.command()
@click.option("--files", default=10_000, show_default=True, help="So many of the standard library, if it has them.")
@click.option("--if-installed", is_flag=True, help="End with status 0 where the model is not installed.")
def main(files: int, *, if_installed: bool) -> None:
    """Run it, and print what came of it."""
    if importlib.util.find_spec("magika") is None:
        click.echo("The package magika is not installed.", err=True)
        sys.exit(0 if if_installed else NOT_INSTALLED)
    files = min(files, sum(1 for _ in Path(sysconfig.get_path("stdlib")).rglob("*.py")))
    with tempfile.TemporaryDirectory(prefix="inference-") as folder:
        workshop = Workshop(Path(folder))
        try:
            seconds = run(workshop, "killed.journal", files, 64, poison=POISON, kill=True)
            classified, dead = check(workshop, "killed.journal", files, POISON)
            click.echo(
                f"{files} files, a worker killed, {seconds:.0f} s: {classified} classified, {dead} in `dead list`"
            )
            some = min(files, 1000)
            workshop.write("alone.py", ALONE)
            took = {}
            for batch in (1, 64):
                ended, said = workshop.run("alone.py", sysconfig.get_path("stdlib"), str(some), str(batch), timeout=600)
                assert ended == 0, said.err
                took[batch] = float(said.out), run(workshop, f"{batch}.journal", some, batch, poison=0, kill=False)
        finally:
            workshop.close()
    model, whole = (one / many for one, many in zip(took[1], took[64], strict=True))
    click.echo(f"{some} files, batches of 64 beside one by one: the model alone {model:.1f} x, the run {whole:.1f} x")


if __name__ == "__main__":
    main()
