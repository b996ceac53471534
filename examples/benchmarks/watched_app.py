"""Trivial items with an observer of all that happens; ``-A examples.benchmarks.watched_app:app`` names the app."""

from __future__ import annotations

from examples.benchmarks.apps import checked, double, numbers
from zmqpipeline import events

app = checked("watched", "trivial")
app.add_task("trivial", numbers)
app.add_worker("trivial", double)

SEEN: dict[str, int] = {}


@app.on(events.Event)
def count(event: events.Event) -> None:
    """As small an observer as there is one."""
    name = type(event).__name__
    SEEN[name] = SEEN.get(name, 0) + 1
