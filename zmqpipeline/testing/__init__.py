"""What tests of a pipeline need; `run_in_threads(app)` is the same as ``app.test_run()``."""

from __future__ import annotations

from zmqpipeline.failure import Failure
from zmqpipeline.summary import Summary, TaskSummary
from zmqpipeline.testrun import TestRun, run_in_threads

__all__ = ["Failure", "Summary", "TaskSummary", "TestRun", "run_in_threads"]
