"""What is done to the roles of a pipeline, to `run`, and to their machine."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from tests.acceptance.chaos.disk import Disk, Quota
from tests.acceptance.chaos.faults.base import again, end_one, fault, kill_one, pause, restart, stop_one
from tests.acceptance.chaos.history import read_lines
from tests.acceptance.chaos.stages import PipelineStage, RunStage, command_line

SPARE_BYTES = 96 << 20
"""What a worker that may run out of memory has to spare."""

HUNGRY = 2
"""How many items want more memory than there is."""


# workers --------------------------------------------------------------------------------------------------------------


@fault("worker-kill", PipelineStage)
@fault("stages-worker-kill", PipelineStage, staged=True)
def kill_workers(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of a busy worker, once or twice; another one is started in its place."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victims = stage.busy_workers()
        if victims:
            victim = rng.choice(victims)
            stage.kill(victim, costs=1)
            restart(stage, victim.name)


@fault("worker-kill-all", PipelineStage)
def kill_all_workers(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of all workers at once; new ones are started."""
    stage.moment(rng)
    victims = stage.running("worker")
    stage.kill(*victims, costs=1)
    for victim in victims:
        restart(stage, victim.name)


@fault("worker-term", PipelineStage)
def end_worker(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of a busy worker: it hands back what it has not begun, and ends with status 0."""
    stage.moment(rng)
    victims = stage.busy_workers()
    if victims:
        victim = rng.choice(victims)
        hit = stage.terminate(victim, 0)
        hit.healed = time.monotonic()
        restart(stage, victim.name)


@fault("worker-stop", PipelineStage)
@fault("stages-worker-stop", PipelineStage, staged=True)
def stop_worker(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of a busy worker, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    victims = stage.busy_workers()
    if victims:
        seconds, costs = pause(rng)
        stage.freeze(rng.choice(victims), seconds, costs=costs)


# distributor and collector --------------------------------------------------------------------------------------------


@fault("distributor-kill", PipelineStage)
@fault("stages-distributor-kill", PipelineStage, staged=True)
def kill_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the distributor; it is started again within 0.8 s, and takes over the run."""
    kill_one(stage, rng, "distributor", costs=1)


@fault("distributor-term", PipelineStage)
@fault("stages-distributor-term", PipelineStage, staged=True)
def end_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of the distributor, in the middle of the run; it is started again, and takes over."""
    end_one(stage, rng, "distributor", costs=1)


@fault("distributor-stop", PipelineStage)
@fault("stages-distributor-stop", PipelineStage, staged=True)
def stop_distributor(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of the distributor, and SIGCONT 0.1 to 5 s later."""
    stop_one(stage, rng, "distributor")


@fault("collector-kill", PipelineStage)
@fault("stages-collector-kill", PipelineStage, staged=True)
def kill_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the collector without a journal; a new one is told by the distributor what is done."""
    kill_one(stage, rng, "collector", costs=0)


@fault("collector-kill-journal", PipelineStage, journal=True)
@fault("stages-collector-kill-journal", PipelineStage, journal=True, staged=True)
def kill_journalled_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGKILL of the collector, whose function writes through the journal's transaction; once or twice."""
    for more in reversed(range(rng.choice([1, 1, 2]))):
        stage.moment(rng, more=more)
        victim = stage.one("collector")
        again(stage, victim, rng, stage.kill(victim, costs=0))


@fault("collector-term", PipelineStage)
@fault("stages-collector-term", PipelineStage, staged=True)
def end_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGTERM of the collector, in the middle of the run; a new one is told by the distributor what is done."""
    end_one(stage, rng, "collector", costs=0)


@fault("collector-stop", PipelineStage)
@fault("stages-collector-stop", PipelineStage, staged=True)
def stop_collector(stage: PipelineStage, rng: random.Random) -> None:
    """SIGSTOP of the collector, and SIGCONT 0.1 to 5 s later."""
    stage.moment(rng)
    seconds, _ = pause(rng)
    stage.freeze(stage.one("collector"), seconds, costs=0)


@fault("everything-kill", PipelineStage, journal=True)
@fault("stages-everything-kill", PipelineStage, journal=True, staged=True)
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
            restart(stage, victim.name)
        hit.healed = time.monotonic()


# the command `run` ----------------------------------------------------------------------------------------------------


@fault("run-kill", RunStage, journal=True)
@fault("stages-run-kill", RunStage, journal=True, staged=True)
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
@fault("stages-run-child-kill", RunStage, journal=True, staged=True)
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


@fault("run-workers-kill", RunStage, journal=True)
def kill_workers_of_run(stage: RunStage, rng: random.Random) -> None:
    """SIGKILL of all workers of `run --journal` at once, once or twice: it starts others, and goes on."""
    for more in reversed(range(rng.choice([1, 2]))):
        stage.moment(rng, more=more)
        victims = stage.children("worker")
        if stage.is_over() or not victims:
            return
        stage.hit(f"{len(victims)} workers killed", frozenset(victims), costs=1)
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)


@fault("run-worker-exit", RunStage, journal=True, deadly=2)
def end_workers_by_items(stage: RunStage, rng: random.Random) -> None:
    """Two items of `run` end their worker with status 0, 1, 2, 3, 70 or 139: they fail by its third, no other does."""
    stage.hit("items end their workers", costs=3 * len(stage.plan.deadly))
    stage.wait(stage.is_over, "the command ends")


@fault("run-worker-retire", RunStage, journal=True, retiring=True)
def kill_those_that_retire(stage: RunStage, rng: random.Random) -> None:
    """Workers of `run` retire after 50, 100 or 300 items (`max_items`), and one or two of them are killed meanwhile."""
    kill_child(stage, rng)


# the machine ----------------------------------------------------------------------------------------------------------


@fault("disk-full", PipelineStage, journal=True, disk=True)
@fault("stages-disk-full", PipelineStage, journal=True, disk=True, staged=True)
def fill_disk(stage: PipelineStage, rng: random.Random, disk: Disk | Quota) -> None:
    """The journal's disk is full; the collector says so and ends with status 75; with space it is started again."""
    victim = stage.one("collector")
    victim.struck, victim.wanted = True, {75, 0}
    if disk.is_filled_by_us:
        stage.moment(rng)
    hit = stage.hit("the disk is full", costs=0)
    disk.fill()
    stage.wait(lambda: victim.program.ended() or stage.is_over(), "the collector ends, since its disk is full")
    disk.free()
    if victim.program.ended() and victim.program.wait(1) == 75:
        again(stage, victim, rng, hit)


@fault("worker-oom", PipelineStage, with_credit=HUNGRY, spare_bytes=SPARE_BYTES)
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
            restart(stage, cast.name).wanted = {0, *DEATHS}
    return False


def _all_called(stage: PipelineStage) -> bool:
    return stage.done() >= stage.total() or stage.is_over()


@fault("worker-oom-kill", PipelineStage, with_credit=1)
def kill_the_with_credit(stage: PipelineStage, rng: random.Random) -> None:
    """Whatever worker runs a certain item is killed, as by the kernel: it is failed by its third, and no other is."""
    killed: set[int] = set()
    with_credit = {("A", n) for n in stage.plan.with_credit}

    def kill_once() -> bool:
        for line in read_lines(stage.workshop.folder / "executions"):
            if line.item in with_credit and line.pid not in killed:
                killed.add(line.pid)
                victim = next(cast for cast in stage.casts if cast.program.pid == line.pid)
                stage.kill(victim, costs=1)
                restart(stage, victim.name)
        return len(killed) >= 3 * len(with_credit)

    stage.wait(kill_once, "three workers ran the item")
