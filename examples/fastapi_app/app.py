"""The service: prices, by workers in processes of their own."""

from __future__ import annotations

import time
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("prices")


@app.service("price", threads=8, idempotent=True)
def price(data: dict[str, Any]) -> dict[str, Any]:
    """What some of an item costs; it takes as long as a look-up would."""
    time.sleep(0.005)
    return {"item": data["item"], "cents": 25 * len(data["item"])}


if __name__ == "__main__":
    app.main()
