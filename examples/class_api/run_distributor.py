"""Start it with ``python -m examples.class_api.run_distributor``, once."""

from __future__ import annotations

from examples.class_api import settings
from examples.class_api.tasks import NapTask
from zmqpipeline import Distributor

if __name__ == "__main__":
    Distributor.register_task(NapTask)
    distributor = Distributor(collector_endpoint=settings.RESULTS, collector_ack_endpoint=settings.ACKS)
    distributor.run()
    print("distributor: everything is collected", flush=True)
