"""What is done to the network, between the roles of a pipeline or around the broker of a service."""

from __future__ import annotations

import random
import time

from tests.acceptance.chaos.faults.base import fault, pause
from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.stage import Stage
from tests.acceptance.chaos.stages import PipelineStage, ServiceStage


def _some_links(network: Network, rng: random.Random) -> list[str]:
    """One link, or two, or all of them."""
    names = sorted(network.links)
    return rng.sample(names, rng.choice([1, 1, 2, len(names)]))


def _may_miss_the_end(stage: Stage, links: list[str]) -> None:
    """A worker that is cut off when it would be told the end waits for the next run, as promised."""
    for cast in stage.behind(links):
        cast.struck = True


@fault("network-reset", PipelineStage, network=True)
@fault("service-network-reset", ServiceStage, network=True)
def reset_network(stage: Stage, rng: random.Random, network: Network) -> None:
    """Connections are reset, up to five times."""
    for more in reversed(range(rng.randint(1, 5))):
        stage.moment(rng, more=more)
        hit = stage.hit("connections are reset", costs=1)
        links = _some_links(network, rng)
        _may_miss_the_end(stage, links)
        for name in links:
            network.reset(name)
        hit.healed = time.monotonic()


@fault("network-drop", PipelineStage, network=True)
@fault("stages-network-drop", PipelineStage, network=True, staged=True)
@fault("service-network-drop", ServiceStage, network=True)
def drop_on_network(stage: Stage, rng: random.Random, network: Network) -> None:
    """For 20 to 500 ms what is sent is lost, then the connections are reset; up to three times."""
    for more in reversed(range(rng.randint(1, 3))):
        stage.moment(rng, more=more)
        links = _some_links(network, rng)
        _may_miss_the_end(stage, links)
        hit = stage.hit("messages are lost", costs=1)
        for name in links:
            network.swallow(name, True)
        stage.pass_time(rng.uniform(0.02, 0.5))
        lost = sum(network.swallow(name, False) for name in links)
        hit.what = f"{lost} bytes are lost"
        hit.healed = time.monotonic()


@fault("network-delay", PipelineStage, network=True)
@fault("service-network-delay", ServiceStage, network=True)
def delay_network(stage: Stage, rng: random.Random, network: Network) -> None:
    """Everything takes 10 to 300 ms longer each way, for one to two seconds."""
    stage.moment(rng)
    links = _some_links(network, rng)
    hit = stage.hit("the network is slow", costs=0)
    for name in links:
        network.delay(name, rng.uniform(0.01, 0.3))
    stage.pass_time(rng.uniform(1.0, 2.0), until=stage.is_over)
    for name in links:
        network.delay(name, 0.0)
    hit.healed = time.monotonic()


@fault("network-blackhole", PipelineStage, network=True)
@fault("stages-network-blackhole", PipelineStage, network=True, staged=True)
@fault("service-network-blackhole", ServiceStage, network=True)
def blackhole_network(stage: Stage, rng: random.Random, network: Network) -> None:
    """Nothing gets through, and nothing is refused, for 0.1 to 5 s."""
    stage.moment(rng)
    links = _some_links(network, rng)
    _may_miss_the_end(stage, links)
    seconds, costs = pause(rng)
    struck = stage.behind(links) if len(links) == 1 else []
    hit = stage.hit("the network is a black hole", frozenset(cast.program.pid for cast in struck), costs=costs)
    for name in links:
        network.blackhole(name, True)
    stage.pass_time(seconds, until=stage.is_over)
    for name in links:
        network.blackhole(name, False)
    hit.healed = time.monotonic()
