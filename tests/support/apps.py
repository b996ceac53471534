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
