"""The app of the service benchmark: one service that answers each request with itself."""

from __future__ import annotations

from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("benchmark-echo")


@app.service("echo")
def echo(data: dict[str, Any]) -> dict[str, Any]:
    """Answer a request with itself."""
    return data


if __name__ == "__main__":
    app.main()
