"""What is done to a service: its broker, its workers, its clients, and the network between them."""

from __future__ import annotations

import random
import time

from tests.acceptance.chaos.faults.base import again, fault, kill_one, pause, restart, stop_one
from tests.acceptance.chaos.history import read_lines
from tests.acceptance.chaos.stages import ServiceStage


@fault("service-broker-kill", ServiceStage)
def kill_broker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGKILL of the broker; it is started again within 0.8 s."""
    kill_one(stage, rng, "service", costs=1)


@fault("service-broker-term", ServiceStage)
def end_broker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGTERM of the broker, which ends its workers; all are started again, and the clients ask again."""
    stage.moment(rng)
    victim = stage.one("service")
    workers = stage.running("service-worker")
    hit = stage.terminate(victim, 143, costs=1)
    known = {line.pid for line in read_lines(stage.workshop.folder / "executions")}
    for cast in workers:
        # whoever has not yet met the broker cannot be told by it
        if cast.program.pid in known:
            stage.wait(cast.program.ended, f"{cast.name} ends with its broker")
    again(stage, victim, rng, hit)
    for cast in workers:
        if cast.program.ended():
            restart(stage, cast.name)


@fault("service-broker-stop", ServiceStage)
def stop_broker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGSTOP of the broker, and SIGCONT 0.1 to 5 s later."""
    stop_one(stage, rng, "service")


@fault("service-worker-kill", ServiceStage)
def kill_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGKILL of a worker, once or twice; another one is started in its place."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victim = rng.choice(stage.running("service-worker"))
        stage.kill(victim, costs=1)
        restart(stage, victim.name)


@fault("service-worker-term", ServiceStage)
def end_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGTERM of a worker: it answers what it has begun, hands back the rest, and ends with status 0."""
    stage.moment(rng)
    victim = rng.choice(stage.running("service-worker"))
    hit = stage.terminate(victim, 0)
    hit.healed = time.monotonic()
    restart(stage, victim.name)


@fault("service-worker-stop", ServiceStage)
def stop_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGSTOP of a worker, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    seconds, costs = pause(rng)
    stage.freeze(rng.choice(stage.running("service-worker")), seconds, costs=costs)


@fault("service-client-kill", ServiceStage)
def kill_client(stage: ServiceStage, rng: random.Random) -> None:
    """SIGKILL of a client: the other one has all its answers, as if nothing had happened."""
    stage.moment(rng)
    victims = stage.running("client")
    if len(victims) == 2:
        victim = rng.choice(victims)
        stage.gone.add(victim.name.replace(" ", "-"))
        stage.kill(victim, costs=0)


@fault("service-client-stop", ServiceStage)
def stop_client(stage: ServiceStage, rng: random.Random) -> None:
    """SIGSTOP of a client, and SIGCONT 0.1 to 5 s later: it has all its answers, too."""
    stage.moment(rng)
    victims = stage.running("client")
    if victims:
        seconds, _ = pause(rng)
        stage.freeze(rng.choice(victims), seconds, costs=0)
