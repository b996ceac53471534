"""Start it with ``python -m examples.class_api.worker``, as often as you like, on any machine."""

from __future__ import annotations

import time
from typing import Any

from examples.class_api import settings
from zmqpipeline import SingleThreadedWorker


class NapWorker(SingleThreadedWorker):
    """Executes one item after the other."""

    task_type = settings.NAP
    endpoint = settings.WORKERS
    collector_endpoint = settings.RESULTS

    naps = 0

    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """One item; without a returned dict, the collector gets an empty one."""
        time.sleep(data["seconds"])
        self.naps += 1


if __name__ == "__main__":
    worker = NapWorker()
    worker.run()
    print(f"worker: {worker.naps} naps", flush=True)
