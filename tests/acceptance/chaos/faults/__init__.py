"""What is done to a run: one function for each fault, drawn from the run's random numbers.

`costs` is how many further executions of one item a hit may be the reason for: a worker that is lost, or a distributor
that begins anew, one; a short pause, a slow network, or anything that is done to a collector, none.
"""

from tests.acceptance.chaos.faults import pipeline, networks, storm, services  # noqa: I001 the order of the report
from tests.acceptance.chaos.faults.base import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "networks", "pipeline", "services", "storm"]
