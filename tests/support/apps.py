"""Apps for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zmqpipeline.app import Pipeline

FIVE_ITEMS = """
from zmqpipeline import Pipeline

app = Pipeline("short")

@app.task("C", times=5)
def item():
    return {}

@app.worker("C")
def work(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""
"""A program: one task of five items, for processes of its own."""

ENDS_WHEN_TOLD = """
@app.finished
def over():
    (HERE / "finishing").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)

if __name__ == "__main__":
    app.main()
"""
"""The end of a program: its run is over when the file `go` is there; until then what it counts can be looked at."""

NOTES_NUMBERS = """
@app.collector
def collect(data):
    note("collected", data["n"])

if __name__ == "__main__":
    app.main()
"""
"""The end of a program that has a `note(name, text)`: the file `collected` has a line for each number collected."""

GOES_NO_FURTHER = """
def go_no_further(where):
    # of a file its lines count, else it is a number
    while os.path.exists("most"):
        reached = where if isinstance(where, int) else len(open(where).readlines())
        if reached < int(open("most").read()):
            return
        time.sleep(0.01)
"""
"""Part of a program that imports `os` and `time`: its run goes as far as the file `most` says, however late one looks.

So it is not over when somebody is killed. Without the file it goes on; for the same, a test writes a large number.
"""


def squares(count: int, name: str = "squares", **options: Any) -> Pipeline:
    """A pipeline that squares so many numbers."""
    app = Pipeline(name)

    @app.task("C", **options)
    def numbers() -> Iterator[dict[str, Any]]:
        for n in range(count):
            yield {"n": n}

    @app.worker("C")
    def square(data: dict[str, Any]) -> dict[str, Any]:
        return {"n": data["n"], "square": data["n"] ** 2}

    return app


class Odd(Exception):
    """An exception that the library knows nothing of."""
