"""The two kinds of stage: a pipeline's roles, and a service with its clients."""

from __future__ import annotations

import random
from pathlib import Path

from tests.acceptance.chaos.history import Item
from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.plan import Plan
from tests.acceptance.chaos.stage import Bases, Cast, Stage
from tests.acceptance.conftest import Workshop
from tests.support.ports import free_ports

APP = "tests.acceptance.chaos.app"
CLIENT = "tests.acceptance.chaos.client"

PAIRS = (1, 2)
"""Each task has two workers; they are in two places, each with its own way through the network."""

LEFT_SECONDS = 1.0
"""How long a role that was started again and finds nobody left is given for its end, before it is asked to end."""


class PipelineStage(Stage):
    """A distributor, a collector, and two workers for each of two tasks."""

    def __init__(self, plan: Plan, workshop: Workshop, network: Network | None = None) -> None:
        """With a `network`, every connection goes through its links (tcp only)."""
        super().__init__(plan, workshop, self._arguments)
        self._base = _bases(plan, workshop, network)
        self.journal = workshop.folder / "journal"
        """Where the journal is."""

    def expected(self) -> set[Item]:
        """All items of both tasks."""
        return {(task, n) for task, size in self.plan.sizes.items() for n in range(size)}

    def total(self) -> int:
        """All items but those that are to fail."""
        return sum(self.plan.sizes.values()) - len(self.plan.may_fail)

    def is_over(self) -> bool:
        """Whether distributor or collector has come to a good end: it does so only when all is done."""
        return any(self._ended_well(role) for role in ("distributor", "collector"))

    def _ended_well(self, role: str) -> bool:
        return any(cast.program.ended() and cast.program.wait(1) in (0, 1) for cast in self.casts if cast.role == role)

    def begin(self, rng: random.Random) -> None:
        """Start all, in a random order."""
        names = ["distributor", "collector", *(f"worker {task} {place}" for task in "AB" for place in PAIRS)]
        for name in rng.sample(names, len(names)):
            self.start(name)
        if self.plan.with_credit:
            for role in ("distributor", "collector"):
                self.one(role).wanted = {1}

    def busy_workers(self) -> list[Cast]:
        """The running workers of the task that is in progress; with stages that is both."""
        if self.plan.staged:
            return self.running("worker")
        task = "A" if self.done() < self.plan.sizes["A"] else "B"
        return [cast for cast in self.running("worker") if cast.task == task]

    def behind(self, links: list[str]) -> list[Cast]:
        """See `Stage.behind`: the workers of a place share a link to their distributor."""
        places = {name.removesuffix("-distributor")[-1] for name in links if name.endswith("-distributor")}
        return [cast for cast in self.running("worker") if cast.name[-1] in places]

    def end(self) -> list[str]:
        """See `Stage.end`. Who was started again, or struck, may not have heard of the end: it is asked to end."""
        self.wait(self.is_over, "the distributor or the collector ends")
        self._end_role("distributor", "collector")
        self._end_role("collector", "distributor")
        roles_hit = any(not hit.pids for hit in self.hits)
        for cast in self.running("worker"):
            if not (cast.struck or cast.again or roles_hit):
                self.end_by_itself(cast)
        self.pass_time(LEFT_SECONDS, until=lambda: not self.running("worker"))
        self.ask_to_end(0, *self.running("worker"))
        return self.wrong_ends()

    def _end_role(self, role: str, other: str) -> None:
        cast = self.one(role)
        if cast.again or cast.struck:
            # the other one may have ended before this one was there, or was there again
            self.wait(lambda: cast.program.ended() or self._ended_well(other), f"the {role} or the {other} ends")
            self.pass_time(LEFT_SECONDS, until=cast.program.ended)
            if self._ended_well(other):
                self.ask_to_end(143, cast)
        self.wait(cast.program.ended, f"the {role} ends")

    def _arguments(self, name: str) -> list[str]:
        role, *rest = name.split()
        arguments = ["-m", APP, role, *rest[:1], "--endpoint", self._base(name), "--log-level", "info"]
        if role == "collector" and self.plan.journal:
            arguments += ["--journal", str(self.journal)]
        return arguments


class RunStage(PipelineStage):
    """The same pipeline as one command: `run` on a journal, with its children."""

    def is_over(self) -> bool:
        """Whether the command has come to a good end."""
        return self._ended_well("run")

    def begin(self, rng: random.Random) -> None:
        """Start the command."""
        self.start("run").wanted = {1 if self.plan.may_fail else 0}

    def children(self, role: str) -> set[int]:
        """The process ids of the command's children of this role; none of a command that has ended."""
        run = self.one("run").program.pid
        try:
            found = Path(f"/proc/{run}/task/{run}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return set()
        return {int(pid) for pid in found if role in command_line(int(pid))}

    def end(self) -> list[str]:
        """Wait for the command's end, which is that of its children, too."""
        self.wait(self.is_over, "the command ends")
        return self.wrong_ends()

    def _arguments(self, name: str) -> list[str]:
        place = ["--endpoint", self._base(name)] if self.plan.transport == "tcp" else []
        arguments = ["run", "--workers", str(len(PAIRS)), "--journal", str(self.journal), "--log-level", "info"]
        return ["-m", APP, *arguments, *place]


def command_line(pid: int) -> list[str]:
    """The words that a process was started with; none if it is gone, or dead and not yet fetched by its parent."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _bases(plan: Plan, workshop: Workshop, network: Network | None = None) -> Bases:
    """The base address of each role, with the links between them set up."""
    if plan.transport == "ipc":
        folder = workshop.folder / "s"
        return lambda name: f"ipc://{folder}"
    # the distributor binds base + 0 and + 4 and connects to + 2; the collector binds + 1 and + 2 of a base of its own
    ports = free_ports(12)
    if network is None:
        return lambda name: f"tcp://127.0.0.1:{ports[0]}"
    distributor, collector, places = ports[0], ports[5], {"1": ports[8], "2": ports[10]}
    network.add("distributor-collector", distributor + 2, collector + 2)
    for place, base in places.items():
        network.add(f"workers {place}-distributor", base, distributor)
        network.add(f"workers {place}-collector", base + 1, collector + 1)
    found = {"distributor": distributor, "collector": collector}
    return lambda name: f"tcp://127.0.0.1:{found.get(name) or places[name[-1]]}"


def _service_bases(plan: Plan, workshop: Workshop, network: Network | None = None) -> Bases:
    """The base address of broker, workers and clients, with the links between them set up."""
    if network is None:
        return _bases(plan, workshop)
    # the broker binds base + 5 for clients and base + 6 for workers
    names = [f"{role} {place}" for role in ("client", "service-worker") for place in PAIRS]
    broker, *others = free_ports(7 * (1 + len(names)))[::7]
    found = dict(zip(names, others, strict=True))
    for name, base in found.items():
        step = 5 if name.startswith("client") else 6
        network.add(f"{name}-broker", base + step, broker + step)
    return lambda name: f"tcp://127.0.0.1:{found.get(name, broker)}"


class ServiceStage(Stage):
    """A broker, two workers, and two clients who ask all the while."""

    def __init__(self, plan: Plan, workshop: Workshop, network: Network | None = None) -> None:
        """With a `network`, every connection goes through its links (tcp only)."""
        super().__init__(plan, workshop, self._arguments)
        self._base = _service_bases(plan, workshop, network)
        self.gone: set[str] = set()
        """The names of clients that were killed: what they have asked is nobody's any more."""

    def expected(self) -> set[Item]:
        """All requests of the clients that live."""
        names = {"client-1", "client-2"} - self.gone
        return {(name, n) for name in names for n in range(self.plan.items)}

    def left_out(self) -> set[str]:
        """See `Stage.left_out`."""
        return self.gone

    def total(self) -> int:
        """All requests of both clients."""
        return 2 * self.plan.items

    def is_over(self) -> bool:
        """Whether every client has ended."""
        return not self.running("client")

    def begin(self, rng: random.Random) -> None:
        """Start all, in a random order."""
        names = ["service", "service-worker 1", "service-worker 2", "client 1", "client 2"]
        for name in rng.sample(names, len(names)):
            self.start(name)

    def behind(self, links: list[str]) -> list[Cast]:
        """See `Stage.behind`: each worker has a link of its own to the broker."""
        return [cast for cast in self.running("service-worker") if f"{cast.name}-broker" in links]

    def end(self) -> list[str]:
        """Wait for the clients; then ask the broker to end, which tells its workers."""
        self.wait(self.is_over, "the clients have all their answers")
        self.ask_to_end(143, self.one("service"))
        for cast in self.running("service-worker"):
            if not (cast.struck or cast.again or self.hits):
                self.end_by_itself(cast)
        self.pass_time(LEFT_SECONDS, until=lambda: not self.running("service-worker"))
        self.ask_to_end(0, *self.running("service-worker"))
        return self.wrong_ends()

    def _arguments(self, name: str) -> list[str]:
        role = name.split(maxsplit=1)[0]
        if role == "client":
            return ["-m", CLIENT, name.replace(" ", "-"), self._base(name)]
        task = ["double"] if role == "service-worker" else []
        return ["-m", APP, role, *task, "--endpoint", self._base(name), "--log-level", "info"]
