"""The invariants of a finished run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zmqpipeline.protocol.collector import STAY_SECONDS
from zmqpipeline.testing.simulation.clock import SimulationError

if TYPE_CHECKING:
    from tests.support.harness import World
    from zmqpipeline.protocol.delivery.task_state import TaskState


def judge(world: World) -> None:
    """Raise SimulationError if an item was lost, done twice, or executed without need, or the end is a wrong one."""
    world.distributor.machine.check()
    world.collector.machine.check()
    for name in _finished_tasks(world):
        for one, yields in Counter(world.idents(name)).items():
            _judge_item(world, one, yields)
    if world.disk is not None and world.disk.reports != 1:
        raise SimulationError(f"`finished` has {world.disk.reports} rows in the journal")
    _judge_last_word(world)
    if _is_already_finished(world):
        _judge_told_status(world)
        return
    for name, task in world.distributor.machine.tasks.items():
        _judge_task(world, name, task)
    _judge_states(world)
    if world.plan.is_calm:
        _judge_endings(world)


def _judge_last_word(world: World) -> None:
    """A distributor that ends has told the collector, which waits no longer for it than for one that says nothing."""
    waited = world.now - (world.left_at or world.now)
    if world.plan.is_soon_back and waited > STAY_SECONDS + 1:
        raise SimulationError(f"the collector waited {waited:.1f} s for a distributor that had ended")


def _is_already_finished(world: World) -> bool:
    """Whether this distributor was started again when every item was done, and knows only what it was told of them."""
    return world.distributor.machine._told_end is not None


def _finished_tasks(world: World) -> list[str]:
    """Those whose items must all be done; what an aborted one did not do, nobody asked for."""
    if _is_already_finished(world):
        return [one.task for one in world.distributor.machine.counts() if one.state in ("complete", "failed")]
    return [name for name, task in world.distributor.machine.tasks.items() if task.state in ("complete", "failed")]


def _judge_item(world: World, one: tuple[str, int], yields: int) -> None:
    collected, failed, forgotten = world.collected[one], world.failed[one], world.forgotten[one]
    # one for which the collector's function raised has failed: each life of a source may yield its key again
    lives = yields + len(world.plan.restarts) + len(world.plan.role_drains)
    raises = one in world.collector_raises
    if collected > (lives if raises else 1) + forgotten:
        raise SimulationError(f"{one} was collected {collected} times")
    if failed > (lives if raises else yields) + forgotten:
        raise SimulationError(f"{one} was told to the failed function {failed} times")
    if world.disk is not None:
        _judge_rows(world, world.disk.rows[one], one)
    if not collected and not failed:
        raise SimulationError(f"{one} was lost")
    if world.executions[one] > yields + world.faults[one]:
        raise SimulationError(f"{one} ran {world.executions[one]} times for {world.faults[one]} faults")


def _judge_rows(world: World, rows: int, one: tuple[str, int]) -> None:
    """However often the function was called, the journal has what one call wrote; of an item that failed, nothing."""
    most = one not in world.collector_raises
    # one that was collected, forgotten with its collector, and executed again may have failed then
    least = most and not world.failed[one]
    if not least <= rows <= most:
        raise SimulationError(f"{one} has {rows} rows in the journal, collected {world.collected[one]} times")


def _judge_task(world: World, name: str, task: TaskState) -> None:
    yielded, ledger = world.distributor.yielded[name], task.ledger
    numbered = ledger.next_number - ledger.first_number
    passed = yielded - numbered - ledger.skipped
    if ledger.unfinished or passed < 0 or (passed and not (world.plan.restarts or world.plan.role_drains)):
        raise SimulationError(f"{name}: {yielded} yielded, {numbered} have numbers, {ledger.skipped} were skipped")
    if ledger.skipped and name not in world.plan.keyed:
        raise SimulationError(f"{name} has no keys, but {ledger.skipped} items were skipped")
    counts = ledger.counts(task.state)
    if counts.sent != counts.collected + counts.failed + counts.aborted:
        raise SimulationError(f"{name}: the counts do not add up: {counts}")
    done = {one for one in world.collected if one[0] == name and one not in world.collector_raises}
    if counts.collected != len(done) and not world.forgotten:
        raise SimulationError(f"{name}: {len(done)} items were collected, but {counts.collected} are counted")


def _judge_states(world: World) -> None:
    machine = world.distributor.machine
    for name, task in machine.tasks.items():
        if not task.is_over:
            raise SimulationError(f"the run ended with {name} {task.state}")
        broken = name in world.broken_sources
        yielded = world.distributor.yielded[name]
        if task.state == "complete" and (broken or yielded != world.plan.items[name]):
            raise SimulationError(f"{name} is complete after {yielded} of {world.plan.items[name]}")
        if task.state == "failed" and not broken:
            raise SimulationError(f"{name} failed: {machine.troubles[name]}")
    good = all(task.is_good for task in machine.tasks.values())
    ended = world.distributor.ended
    if ended is not None and ended.status == 1 and "did not say" in ended.reason and world.plan.may_lose_the_end:
        return
    if ended is None or ended.status != (0 if good else 1):
        raise SimulationError(f"exit status {ended} of a run that is {'good' if good else 'bad'}")


def _judge_told_status(world: World) -> None:
    """A distributor that came when all was done ends as the run did."""
    counts, ended = world.distributor.machine.counts(), world.distributor.ended
    good = all(one.state == "complete" and not one.failed for one in counts)
    if ended is None or ended.status != (0 if good else 1):
        raise SimulationError(f"exit status {ended} of a run that is {'good' if good else 'bad'}, as it was told")


def _judge_endings(world: World) -> None:
    """Where nothing went wrong, every worker that took part ends by itself, with status 0."""
    world.settle(5.0)
    for worker in world.workers:
        if worker.running and worker.machine.run:
            raise SimulationError(f"the run is over, but {worker.name} does not end")
        if worker.ended and worker.ended.status:
            raise SimulationError(f"{worker.name} ended with {worker.ended}")
