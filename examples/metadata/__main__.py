"""Start it with ``python -m examples.metadata run [--meta vat=PERCENT] [--meta orders=N]``."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("metadata")
totals: list[int] = []


def price_list() -> dict[str, int]:
    """The prices in cents, from a database (made up here, to have one)."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE prices (name TEXT, cents INTEGER)")
        database.executemany("INSERT INTO prices VALUES (?, ?)", [("apple", 40), ("bread", 320), ("candle", 150)])
        return dict(database.execute("SELECT name, cents FROM prices"))


@app.metadata
def facts() -> dict[str, Any]:
    """Called once, in the distributor, before the first item; what ``--meta`` says comes on top."""
    return {"prices": price_list(), "vat": 20, "orders": 50}


@app.task("order")
def orders(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Orders by the names in the list; the same ones in every run."""
    chance = random.Random(0)
    names = sorted(metadata["prices"])
    for _ in range(int(metadata["orders"])):
        yield {"name": chance.choice(names), "pieces": chance.randint(1, 9)}


@app.worker("order")
def invoice(data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, int]:
    """The worker has the prices without asking the database."""
    net = metadata["prices"][data["name"]] * data["pieces"]
    return {"cents": round(net * (1 + float(metadata["vat"]) / 100))}


@app.collector
def add(data: dict[str, int]) -> None:
    """Keep each sum until the end."""
    totals.append(data["cents"])


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """The collector has the metadata, too."""
    print(f"{len(totals)} orders of {len(metadata['prices'])} goods, {metadata['vat']} % VAT: {sum(totals) / 100:.2f}")


if __name__ == "__main__":
    app.main()
