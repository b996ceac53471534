"""Start it with ``python -m examples.class_api.collector``, once."""

from __future__ import annotations

import time
from typing import Any

from examples.class_api import settings
from zmqpipeline import Collector


class StopWatch(Collector):
    """Takes the time from the first result to the last."""

    endpoint = settings.RESULTS
    ack_endpoint = settings.ACKS

    def __init__(self) -> None:
        self.arrivals: list[float] = []

    def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> None:
        """Called once for each item."""
        self.arrivals.append(time.monotonic())

    def handle_finished(self, data: dict[str, Any], task_type: str) -> None:
        """Called once at the end."""
        seconds = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        print(f"collector: {len(self.arrivals)} naps of {settings.NAP_SECONDS * 1000:g} ms took {seconds:.2f} s")


if __name__ == "__main__":
    StopWatch().run()
