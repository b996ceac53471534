"""What tests of a pipeline need; `run_in_threads(app)` is the same as ``app.test_run()``.

The pytest plugin has the fixtures ``run_pipeline`` and ``service_client``, which are made of what is here.
"""

from __future__ import annotations

from zmqpipeline.failure import Failure
from zmqpipeline.summary import Summary, TaskSummary
from zmqpipeline.testing.faults import FAULTS, Fault
from zmqpipeline.testing.leftovers import Leftovers
from zmqpipeline.testing.serving import serving
from zmqpipeline.testing.simulated import SimulatedPipeline, SimulatedRun
from zmqpipeline.testing.stage import SimulationError
from zmqpipeline.testrun import TestRun, run_in_threads

__all__ = [
    "FAULTS",
    "Failure",
    "Fault",
    "Leftovers",
    "SimulatedPipeline",
    "SimulatedRun",
    "SimulationError",
    "Summary",
    "TaskSummary",
    "TestRun",
    "run_in_threads",
    "serving",
]
