"""What is done to a run: one function for each fault, drawn from the run's random numbers.

`costs` is how many further executions of one item a hit may be the reason for: a worker that is lost, or a distributor
that begins anew, one; a short pause, a slow network, or anything that is done to a collector, none.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.acceptance.chaos.disk import Disk, Quota
from tests.acceptance.chaos.history import Hit, read_lines
from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.stage import Cast, Stage
from tests.acceptance.chaos.stages import PipelineStage, RunStage, ServiceStage, command_line

SHORT_PAUSES = (0.1, 0.5, 1.0)
"""Seconds for which a process may stand still, or a network, without anybody taking it for dead."""

LONG_PAUSES = (3.5, 5.0)
"""Seconds after which whoever stands still was taken for dead, the heartbeat time-out being 2 s."""

DOWN_SECONDS = 0.8
"""The longest that a role is down before it is started again."""

SPARE_BYTES = 96 << 20
"""What a worker that may run out of memory has to spare."""

HUNGRY = 2
"""How many items want more memory than there is."""


@dataclass(frozen=True)
class Fault:
    """One sort of trouble."""

    name: str
    kind: type[Stage]
    strike: Callable[..., None]
    """Called with the stage, the run's random numbers, and the network or the disk if it has one."""
    says: str
    network: bool = False
    journal: bool = False
    disk: bool = False
    hungry: int = 0
    spare_bytes: int = 0


FAULTS: dict[str, Fault] = {}
"""All of them, by name."""


def fault(name: str, kind: type[Stage], **options: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the function strikes a stage; the first line of its docstring goes into the report."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        says = (function.__doc__ or "").splitlines()[0]
        FAULTS[name] = Fault(name, kind, function, says, **options)  # type: ignore[arg-type]
        return function

    return register


def again(stage: Stage, cast: Cast, rng: random.Random, hit: Hit | None = None) -> None:
    """Start a part again after a moment; the hit is healed by that."""
    stage.pass_time(rng.random() * DOWN_SECONDS)
    _restart(stage, cast.name)
    if hit is not None:
        hit.healed = time.monotonic()


def _restart(stage: Stage, name: str) -> Cast:
    return stage.start(name, again=True)


def _pause(rng: random.Random) -> tuple[float, int]:
    """How long something stands still, and what that may cost."""
    if rng.random() < 0.4:
        return rng.choice(SHORT_PAUSES), 0
    return rng.choice(LONG_PAUSES), 1


def _kill_one(stage: Stage, rng: random.Random, role: str, *, costs: int) -> None:
    """SIGKILL at some moment; it is started again."""
    stage.moment(rng)
    victim = stage.one(role)
    again(stage, victim, rng, stage.kill(victim, costs=costs))


def _end_one(stage: Stage, rng: random.Random, role: str, *, costs: int) -> None:
    """SIGTERM at some moment, which ends it with status 143; it is started again."""
    stage.moment(rng)
    victim = stage.one(role)
    again(stage, victim, rng, stage.terminate(victim, 143, costs=costs))


def _stop_one(stage: Stage, rng: random.Random, role: str) -> None:
    """SIGSTOP at some moment, and SIGCONT later; a long pause may cost each item one more execution."""
    stage.moment(rng)
    seconds, costs = _pause(rng)
    stage.freeze(stage.one(role), seconds, costs=costs)


# workers --------------------------------------------------------------------------------------------------------------


@fault("worker-kill", PipelineStage)
def kill_workers(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of a busy worker, once or twice; another one is started in its place."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victims = stage.busy_workers()
        if victims:
            victim = rng.choice(victims)
            stage.kill(victim, costs=1)
            _restart(stage, victim.name)


@fault("worker-kill-all", PipelineStage)
def kill_all_workers(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of all workers at once; new ones are started."""
    stage.moment(rng)
    victims = stage.running("worker")
    stage.kill(*victims, costs=1)
    for victim in victims:
        _restart(stage, victim.name)


@fault("worker-term", PipelineStage)
def end_worker(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of a busy worker: it hands back what it has not begun, and ends with status 0."""
    stage.moment(rng)
    victims = stage.busy_workers()
    if victims:
        victim = rng.choice(victims)
        hit = stage.terminate(victim, 0)
        hit.healed = time.monotonic()
        _restart(stage, victim.name)


@fault("worker-stop", PipelineStage)
def stop_worker(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of a busy worker, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    victims = stage.busy_workers()
    if victims:
        seconds, costs = _pause(rng)
        stage.freeze(rng.choice(victims), seconds, costs=costs)


# distributor and collector --------------------------------------------------------------------------------------------


@fault("distributor-kill", PipelineStage)
def kill_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the distributor; it is started again within 0.8 s, and takes over the run."""
    _kill_one(stage, rng, "distributor", costs=1)


@fault("distributor-term", PipelineStage)
def end_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of the distributor, in the middle of the run; it is started again, and takes over."""
    _end_one(stage, rng, "distributor", costs=1)


@fault("distributor-stop", PipelineStage)
def stop_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of the distributor, and SIGCONT 0.1 to 5 s later."""
    _stop_one(stage, rng, "distributor")


@fault("collector-kill", PipelineStage)
def kill_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the collector without a journal; a new one is told by the distributor what is done."""
    _kill_one(stage, rng, "collector", costs=0)


@fault("collector-kill-journal", PipelineStage, journal=True)
def kill_journalled_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the collector, whose function writes through the journal's transaction; once or twice."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victim = stage.one("collector")
        again(stage, victim, rng, stage.kill(victim, costs=0))


@fault("collector-term", PipelineStage)
def end_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of the collector, in the middle of the run; a new one is told by the distributor what is done."""
    _end_one(stage, rng, "collector", costs=0)


@fault("collector-stop", PipelineStage)
def stop_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of the collector, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    seconds, _ = _pause(rng)
    stage.freeze(stage.one("collector"), seconds, costs=0)


@fault("everything-kill", PipelineStage, journal=True)
def kill_everything(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of every process at once, once or twice; all are started again on the journal."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        if stage.is_over():
            return
        victims = [cast for cast in stage.casts if not cast.program.ended()]
        hit = stage.kill(*victims, costs=1)
        hit.pids = frozenset()
        for victim in rng.sample(victims, len(victims)):
            _restart(stage, victim.name)
        hit.healed = time.monotonic()


# the command `run` ----------------------------------------------------------------------------------------------------


@fault("run-kill", RunStage, journal=True)
def kill_run(stage: RunStage, rng: random.Random) -> None:
    """SIGKILL of `run --journal`, once or twice: its children end by themselves, and it is started again."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victim = stage.one("run")
        left = stage.children("worker") | stage.children("distributor")
        hit = stage.kill(victim, costs=1)
        stage.wait(lambda left=left: not any(map(command_line, left)), "no child outlives its parent")
        again(stage, victim, rng, hit)


@fault("run-child-kill", RunStage, journal=True)
def kill_child(stage: RunStage, rng: random.Random) -> None:
    """SIGKILL of a child of `run --journal`, a worker or the distributor, once or twice: it starts another one."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        role = rng.choice(["worker", "distributor"])
        stage.wait(lambda role=role: stage.children(role) or stage.is_over(), f"there is a {role}")
        children = sorted(stage.children(role))
        if stage.is_over() or not children:
            return
        victim = rng.choice(children)
        hit = stage.hit(f"a {role} killed", frozenset({victim} if role == "worker" else ()), costs=1)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if role == "distributor":
            stage.wait(
                lambda victim=victim: stage.children("distributor") - {victim} or stage.is_over(), "another distributor"
            )
            hit.healed = time.monotonic()


# the network ----------------------------------------------------------------------------------------------------------


def _some_links(network: Network, rng: random.Random) -> list[str]:
    """One link, or two, or all of them."""
    names = sorted(network.links)
    return rng.sample(names, rng.choice([1, 1, 2, len(names)]))


@fault("network-reset", PipelineStage, network=True)
def reset_network(stage: PipelineStage, rng: random.Random, network: Network) -> None:
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
def drop_on_network(stage: PipelineStage, rng: random.Random, network: Network) -> None:
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
def delay_network(stage: PipelineStage, rng: random.Random, network: Network) -> None:
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
def blackhole_network(stage: PipelineStage, rng: random.Random, network: Network) -> None:
    """Nothing gets through, and nothing is refused, for 0.1 to 5 s."""
    stage.moment(rng)
    links = _some_links(network, rng)
    _may_miss_the_end(stage, links)
    seconds, costs = _pause(rng)
    hit = stage.hit("the network is a black hole", _behind(stage, links), costs=costs)
    for name in links:
        network.blackhole(name, True)
    stage.pass_time(seconds, until=stage.is_over)
    for name in links:
        network.blackhole(name, False)
    hit.healed = time.monotonic()


def _may_miss_the_end(stage: PipelineStage, links: list[str]) -> None:
    """A worker that is cut off from its distributor when that one says END waits for the next run, as promised."""
    places = {name.removesuffix("-distributor")[-1] for name in links if name.endswith("-distributor")}
    for cast in stage.running("worker"):
        cast.struck = cast.struck or cast.name[-1] in places


def _behind(stage: PipelineStage, links: list[str]) -> frozenset[int]:
    """The workers that only one link of these leads to, if it is the one to their distributor."""
    if len(links) != 1 or not links[0].endswith("-distributor"):
        return frozenset()
    place = links[0].removesuffix("-distributor")[-1]
    return frozenset(cast.program.pid for cast in stage.running("worker") if cast.name.endswith(place))


# the machine ----------------------------------------------------------------------------------------------------------


@fault("disk-full", PipelineStage, journal=True, disk=True)
def fill_disk(stage: PipelineStage, rng: random.Random, disk: Disk | Quota) -> None:
    """The journal's disk is full; the collector says so and ends with status 2; with space it is started again."""
    victim = stage.one("collector")
    victim.struck, victim.wanted = True, {2, 0}
    if disk.is_filled_by_us:
        stage.moment(rng)
    hit = stage.hit("the disk is full", costs=0)
    disk.fill()
    stage.wait(lambda: victim.program.ended() or stage.is_over(), "the collector ends, since its disk is full")
    disk.free()
    if victim.program.ended() and victim.program.wait(1) == 2:
        again(stage, victim, rng, hit)


@fault("worker-oom", PipelineStage, hungry=HUNGRY, spare_bytes=SPARE_BYTES)
def run_out_of_memory(stage: PipelineStage, rng: random.Random) -> None:
    """Two items take all memory that their worker may have (RLIMIT_AS): they fail in the end, and no other does."""
    for cast in stage.running("worker"):
        cast.wanted = {0, *DEATHS}
    stage.wait(lambda: _replace_dead(stage) or _all_called(stage), "all items are collected or failed")
    for cast in stage.casts:
        cast.struck = cast.struck or cast.role == "worker"


DEATHS = (1, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL, -signal.SIGBUS)
"""How a process may die that gets no memory, wherever in it that is."""


def _replace_dead(stage: PipelineStage) -> bool:
    """Start another worker for each that has died, as a supervisor would; never true."""
    replaced = {cast.name for cast in stage.running("worker")}
    for cast in list(stage.casts):
        if cast.role == "worker" and cast.name not in replaced and cast.program.wait(1) != 0:
            replaced.add(cast.name)
            hit = stage.hit(f"{cast.name} died", frozenset({cast.program.pid}), costs=1)
            hit.healed = None
            _restart(stage, cast.name).wanted = {0, *DEATHS}
    return False


def _all_called(stage: PipelineStage) -> bool:
    return stage.done() >= stage.total() or stage.is_over()


@fault("worker-oom-kill", PipelineStage, hungry=1)
def kill_the_hungry(stage: PipelineStage, rng: random.Random) -> None:
    """Whatever worker runs a certain item is killed, as by the kernel: it is failed by its third, and no other is."""
    killed: set[int] = set()
    hungry = {("A", n) for n in stage.plan.hungry}

    def kill_once() -> bool:
        for line in read_lines(stage.workshop.folder / "executions"):
            if line.item in hungry and line.pid not in killed:
                killed.add(line.pid)
                victim = next(cast for cast in stage.casts if cast.program.pid == line.pid)
                stage.kill(victim, costs=1)
                _restart(stage, victim.name)
        return len(killed) >= 3 * len(hungry)

    stage.wait(kill_once, "three workers ran the item")


# services -------------------------------------------------------------------------------------------------------------


@fault("service-broker-kill", ServiceStage)
def kill_broker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGKILL of the broker; it is started again within 0.8 s."""
    _kill_one(stage, rng, "service", costs=1)


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
            _restart(stage, cast.name)


@fault("service-broker-stop", ServiceStage)
def stop_broker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGSTOP of the broker, and SIGCONT 0.1 to 5 s later."""
    _stop_one(stage, rng, "service")


@fault("service-worker-kill", ServiceStage)
def kill_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGKILL of a worker, once or twice; another one is started in its place."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victim = rng.choice(stage.running("service-worker"))
        stage.kill(victim, costs=1)
        _restart(stage, victim.name)


@fault("service-worker-term", ServiceStage)
def end_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGTERM of a worker: it answers what it has begun, hands back the rest, and ends with status 0."""
    stage.moment(rng)
    victim = rng.choice(stage.running("service-worker"))
    hit = stage.terminate(victim, 0)
    hit.healed = time.monotonic()
    _restart(stage, victim.name)


@fault("service-worker-stop", ServiceStage)
def stop_service_worker(stage: ServiceStage, rng: random.Random) -> None:
    """SIGSTOP of a worker, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    seconds, costs = _pause(rng)
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
        seconds, _ = _pause(rng)
        stage.freeze(rng.choice(victims), seconds, costs=0)
