"""The invariants of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plans import SimulationError

if TYPE_CHECKING:
    from tests.world import World
    from zmqpipeline.protocol.dispatch import TaskState


def judge(world: World) -> None:
    """Raise SimulationError if an item was lost, done twice, or executed without need, or the end is a wrong one."""
    world.distributor.machine.check()
    world.collector.machine.check()
    if _is_already_finished(world):
        return
    for name, task in world.distributor.machine.tasks.items():
        _judge_task(world, name, task)
        for number in range(task.ledger.next_number):
            _judge_item(world, (name, number), task)
        if name in world.plan.keyed:
            _judge_keys(world, name)
    _judge_states(world)
    if world.plan.is_calm:
        _judge_endings(world)


def _is_already_finished(world: World) -> bool:
    """Whether this distributor was started again on a finished run, of which it knows nothing more."""
    ended = world.distributor.ended
    return ended is not None and ended.reason == "already finished"


def _judge_item(world: World, one: tuple[str, int], task: TaskState) -> None:
    collected, failed, forgotten = world.collected[one], world.failed[one], world.forgotten[one]
    if collected > 1 + forgotten:
        raise SimulationError(f"{one} was collected {collected} times")
    if failed > 1 + forgotten:
        raise SimulationError(f"{one} was told to the failed function {failed} times")
    if not collected and not failed:
        raise SimulationError(f"{one} was lost")
    if failed and one[1] not in task.ledger.failed:
        raise SimulationError(f"{one} failed, but the distributor counts it as collected")
    if world.executions[one] > 1 + world.faults[one]:
        raise SimulationError(f"{one} ran {world.executions[one]} times for {world.faults[one]} faults")


def _judge_task(world: World, name: str, task: TaskState) -> None:
    yielded, ledger = world.distributor.yielded[name], task.ledger
    if ledger.next_number + ledger.skipped != yielded or ledger.unfinished:
        raise SimulationError(
            f"{name}: {yielded} yielded, the ledger ends at {ledger.next_number}, skipped {ledger.skipped}"
        )
    if ledger.skipped and name not in world.plan.keyed:
        raise SimulationError(f"{name} has no keys, but {ledger.skipped} items were skipped")


def _judge_keys(world: World, name: str) -> None:
    """Every key that was yielded is collected once, or failed."""
    collected = [result[1:] for (task, _), result in world.results.items() if task == name]
    again = {key for key in collected if collected.count(key) > 1}
    fine = {world.results[one][1:] for one in world.failed if one in world.results}
    if again - fine:
        raise SimulationError(f"{name}: the keys {again - fine} were collected more than once")
    keys = {world.payload(name, step) for step in range(world.distributor.yielded[name])}
    failed = sum(1 for task, _ in world.failed if task == name)
    if len(keys - set(collected)) > failed:
        raise SimulationError(f"{name}: of the keys {keys - set(collected)} only {failed} failed")


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
    if ended is None or ended.status != (0 if good else 1):
        raise SimulationError(f"exit status {ended} of a run that is {'good' if good else 'bad'}")


def _judge_endings(world: World) -> None:
    """Where nothing went wrong, every worker that took part ends by itself, with status 0."""
    world.settle(5.0)
    for worker in world.workers:
        if worker.running and worker.machine.run:
            raise SimulationError(f"the run is over, but {worker.name} does not end")
        if worker.ended and worker.ended.status:
            raise SimulationError(f"{worker.name} ended with {worker.ended}")
