"""What tests of a pipeline need; `run_in_threads(app)` is the same as ``app.test_run()``.

The pytest plugin has the fixtures ``run_pipeline`` and ``service_client``, which are made of what is here.
"""

from __future__ import annotations

from zmqpipeline.roles.results import Failure, Summary, TaskSummary
from zmqpipeline.testing.leaks import Leftovers
from zmqpipeline.testing.run import TestRun, run_in_threads
from zmqpipeline.testing.services import serving
from zmqpipeline.testing.simulation.clock import SimulationError
from zmqpipeline.testing.simulation.faults import FAULTS, Fault
from zmqpipeline.testing.simulation.pipeline import SimulatedPipeline, SimulatedRun

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
