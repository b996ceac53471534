"""The app: what the service `count` answers."""

from __future__ import annotations

import os
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("service")


@app.service("count", threads=2, idempotent=True)
def count(data: dict[str, Any]) -> dict[str, Any]:
    """Words and letters of a text. It changes nothing, so a request may be answered twice: `idempotent`."""
    text = data["text"]
    if not isinstance(text, str):
        raise TypeError(f"The text must be a string; it is of type {type(text).__name__}.")
    return {"words": len(text.split()), "letters": sum(map(str.isalpha, text)), "process": os.getpid()}
