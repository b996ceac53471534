"""Who is struck by what: after so many calls of user code, since a run of ten items is as short as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqpipeline.testing.simulation.faults import Fault
from zmqpipeline.testing.simulation.network import Node

if TYPE_CHECKING:
    from zmqpipeline.testing.simulation.pipeline import World
    from zmqpipeline.testing.simulation.roles import AppWorker


class Striker:
    """Counts the calls of user code, and strikes now and then."""

    def __init__(self, world: World) -> None:
        """Draw when it strikes first."""
        self._world, self._climate = world, world.climate
        self._left: int = world.climate.strikes
        self._until = self._draw()
        self._has_restarted = False

    def note_call(self) -> None:
        """A function of the user was called."""
        self._until -= 1
        if self._until <= 0 and self._left > 0:
            self._left -= 1
            self._until = self._draw()
            world = self._world
            # not within the call: it has an end, unless the process has
            world.after(world.rng.random() * self._climate.item_seconds, self._strike)

    def _draw(self) -> int:
        return 1 + int(self._world.rng.expovariate(1 / self._climate.gap))

    def _strike(self) -> None:
        world = self._world
        phases = world.distributor.machine.phase, world.collector.machine.phase
        if world.distributor.ended or phases[0] == "farewell" or phases[1] in ("finished", "ended"):
            return
        kind = world.rng.choice(self._climate.kinds)
        text = getattr(self, f"_strike_{kind}")()
        if text:
            world.struck.append(Fault(world.now, kind, text))
            world.note(kind, text)

    def _a_worker(self) -> AppWorker | None:
        running = [one for one in self._world.workers if one.running and not one.frozen]
        return self._world.rng.choice(running) if running else None

    def _strike_workers(self) -> str:
        worker, world = self._a_worker(), self._world
        if worker is None:
            return ""
        held = len(worker.held())
        worker.kill()
        world.after(0.1 + world.rng.random() * 3, world.worker_starter(worker.task, again=True))
        return f"worker {worker.name} was killed, which held {held} items"

    def _strike_connections(self) -> str:
        world = self._world
        worker = self._a_worker()
        hop = world.rng.choice(["workers", "results", "acks"])
        node: Node | None = world.distributor if hop == "acks" else worker
        if node is None or not node.running:
            return ""
        whose = f"{node.name}'s connection {hop!r}"
        if world.rng.random() < 0.4:
            seconds = 0.5 + world.rng.random() * 9
            node.cut_off(hop, seconds)
            return f"{whose} let nothing through for {seconds:.1f} s"
        connection = node.dealers.get(hop)
        if connection is None:
            return ""
        connection.cut()
        return f"{whose} broke"

    def _strike_freezes(self) -> str:
        world = self._world
        nodes: list[Node | None] = [world.distributor, world.collector, self._a_worker(), self._a_worker()]
        node = world.rng.choice(nodes)
        if node is None or not node.running or node.frozen:
            return ""
        seconds = 0.5 + world.rng.random() * 7
        node.freeze(seconds)
        return f"{node.name} stood still for {seconds:.1f} s"

    def _strike_distributor(self) -> str:
        return self._strike_main("distributor")

    def _strike_collector(self) -> str:
        return self._strike_main("collector")

    def _strike_main(self, role: str) -> str:
        world = self._world
        if not self._may_kill():
            return ""
        roles = [role]
        if world.journal is not None and world.rng.random() < 0.3:
            roles = ["distributor", "collector"]
        if "distributor" in roles:
            world.distributor.kill()
            world.after(0.1 + world.rng.random() * 4, world.start_distributor)
        if "collector" in roles:
            world.collector.kill()
            world.after(0.1 + world.rng.random() * 4, world.start_collector)
        return f"{' and '.join(roles)} {'were' if len(roles) > 1 else 'was'} killed"

    def _may_kill(self) -> bool:
        """Without a journal not while the other one knows nothing yet: with both gone, the run is lost."""
        world = self._world
        if not (world.distributor.running and world.collector.running):
            return False
        knows = world.distributor.machine.phase in ("running", "finishing") and world.collector.machine.phase in (
            "active",
            "finishing",
        )
        if self._has_restarted and not knows and world.journal is None:
            return False
        self._has_restarted = True
        return True
