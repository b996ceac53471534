"""Invariants of a run, looked at while it goes on; those of its end are in `tests.support.end_checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqpipeline.protocol.collection.result_credit import first_credit
from zmqpipeline.testing.simulation.clock import SimulationError

if TYPE_CHECKING:
    from tests.support.harness import World
    from tests.support.nodes import WorkerNode
    from zmqpipeline.protocol.collector import CollectorMachine
    from zmqpipeline.protocol.delivery.ledger import Ledger
    from zmqpipeline.protocol.delivery.workers import WorkerState
    from zmqpipeline.protocol.messages import FailedItem

LOOK_SECONDS = 0.25
IDLE_SECONDS = 1.5
"""How long a thread may be idle beside an item that waits behind a running one: what is on its way needs some of it."""


def check_alone(ledger: Ledger, member: WorkerState, numbers: list[int]) -> None:
    """These items are sent to this worker: one on its last try is beside no other, or it would take that one with it.

    Nor is one of a group beside others than those of groups. What the worker has finished cannot be taken with it. What
    it brought with it is not chosen: it may have been given one after the other.
    """
    if not ledger.tried():
        return
    unfinished = [number for number in ledger.held_by(member.who, after=member.finished) if number not in member.done]
    held = {*unfinished, *numbers}
    last = [number for number in held if _is_last_try(ledger, number)]
    if last and len(held) > 1:
        raise SimulationError(f"{last} of {ledger.spec.task_type} are on their last try beside {sorted(held)}")
    grouped = held & ledger._again._group.keys()
    if grouped and held - grouped - ledger._reclaimed:
        raise SimulationError(f"the group {grouped} of {ledger.spec.task_type} is tried beside {sorted(held)}")


def check_blame(world: World, failures: list[FailedItem]) -> None:
    """Whoever is given up as a killer of workers has run, or was on trial.

    A worker that was killed between its word that the item is there and the beginning may have begun it.
    """
    for item in failures:
        one = world.ident(item.task, item.number)
        if item.stage == "crash" and not world.executions[one] and one not in world.tried:
            raise SimulationError(f"item {item.number} of {item.task} is blamed for a death, and never ran")


def _is_last_try(ledger: Ledger, number: int) -> bool:
    losses = ledger._again.lost_with(number)
    is_lone = number not in ledger._again._group and number not in ledger._reclaimed
    return 0 < losses >= ledger.spec.crash_limit - 1 and is_lone


def check_kept(worker: WorkerNode) -> None:
    """A worker keeps no more bytes of results than it may, and those of one item a thread."""
    world, kept = worker.world, worker.machine._kept.size
    most = worker.machine._options.max_held_bytes
    if kept > most + (worker.machine.slots + 1) * world.longest_result:
        raise SimulationError(f"{worker.name} keeps {kept} bytes of results, of {most}")


def check_queued(world: World, machine: CollectorMachine) -> None:
    """No more bytes of results wait for the collector's function than may, and one value, whoever sent them.

    A worker that nobody has told anything may have sent a few beyond, and one of which the connection broke.
    """
    most, queued = world.options.max_held_bytes, machine._credits.queued
    gone = sum(one.queued for one in machine._credits.gone())
    beyond = first_credit(most) * len(world.workers) + gone
    if queued > most + beyond + world.longest_result:
        raise SimulationError(f"{queued} bytes of results wait for the collector, of {most}")


class IdleBeside:
    """Once nothing else is to be sent, no item waits behind a running one for long while a thread is idle.

    Looked at in runs without trouble only: who is cut off or frozen cannot hand anything back.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._since: dict[tuple[str, str, int], float] = {}
        """By task, worker, and the item that this one would begin next."""
        if world.plan.is_calm:
            world.after(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Look at every task now, and again later."""
        waiting = {}
        for task in self.world.plan.items:
            for worker in self._who_keeps_some_waiting(task):
                one = (task, worker.name, worker.queue[0][0])
                waiting[one] = self._since.get(one, self.world.now)
                if self.world.now - waiting[one] > IDLE_SECONDS:
                    raise SimulationError(f"{one} waits behind a running item while a thread of {task} is idle")
        self._since = waiting
        self.world.after(LOOK_SECONDS, self.look)

    def _who_keeps_some_waiting(self, task: str) -> list[WorkerNode]:
        state = self.world.distributor.machine.tasks[task]
        if state.state != "exhausted" or state.ledger.waiting:
            return []
        able = [
            one for one in self.world.workers if one.task == task and one.running and one.machine.phase == "working"
        ]
        if not any(one.idle and not one.queue for one in able):
            return []
        return [one for one in able if one.queue and not one.idle]
