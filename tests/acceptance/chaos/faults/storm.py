"""Several strikes in one run, of different sorts, in any order."""

from __future__ import annotations

import random
from functools import partial

from tests.acceptance.chaos.faults import networks, pipeline
from tests.acceptance.chaos.faults.base import fault
from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.stages import PipelineStage

STRIKES = 3


@fault("storm", PipelineStage, network=True, journal=True)
@fault("stages-storm", PipelineStage, network=True, journal=True, staged=True)
def storm(stage: PipelineStage, rng: random.Random, network: Network) -> None:
    """Three strikes in a row: whichever roles are killed, stopped or asked to end, and whatever befalls the network."""
    on_roles = (
        # not all workers at once: with those of `kill_workers` an item might be in three that die, and be given up
        *(pipeline.kill_workers, pipeline.end_worker, pipeline.stop_worker),
        *(pipeline.kill_distributor, pipeline.end_distributor, pipeline.stop_distributor),
        *(pipeline.kill_journalled_collector, pipeline.end_collector, pipeline.stop_collector),
    )
    on_network = (networks.reset_network, networks.drop_on_network, networks.delay_network, networks.blackhole_network)
    strikes = [
        *(partial(strike, stage, rng) for strike in on_roles),
        *(partial(strike, stage, rng, network) for strike in on_network),
    ]
    for left, strike in zip(reversed(range(STRIKES)), rng.sample(strikes, STRIKES), strict=True):
        stage.to_come = left
        if not stage.is_over():
            strike()
