"""Broker, clients and workers in all the trouble that hypothesis thinks of."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.service_harness import SERVICES, ClientNode, Node, WorkerNode, World
from zmqpipeline.protocol import events as e

CHOICE = st.integers(0, 1_000)
FATES = st.sampled_from(["arrives"] * 6 + ["lost", "doubled"])


class ServiceChaos(RuleBasedStateMachine):
    """Each request has one outcome, at its client; what must not be executed twice is not."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def client(self, choice: int) -> ClientNode:
        return self.world.clients[choice % len(self.world.clients)]

    def worker(self, choice: int) -> WorkerNode | None:
        up = [one for one in self.world.workers if one.is_up]
        return up[choice % len(up)] if up else None

    def node(self, choice: int) -> Node | None:
        nodes = self.world.nodes()
        return nodes[choice % len(nodes)] if nodes else None

    @rule(
        choice=CHOICE,
        service=st.sampled_from(sorted(SERVICES)),
        count=st.integers(1, 4),
        timeout=st.sampled_from([None, 60.0, 0.5]),
    )
    def submit(self, choice: int, service: str, count: int, timeout: float | None) -> None:
        self.client(choice).submit(service, count, timeout)

    @rule(choice=CHOICE)
    def withdraw(self, choice: int) -> None:
        self.client(choice).withdraw()

    @rule(choice=CHOICE, upwards=st.booleans(), fate=FATES)
    def deliver(self, choice: int, upwards: bool, fate: str) -> None:
        self._deliver(choice, upwards, fate)

    @rule(steps=st.lists(st.tuples(CHOICE, FATES, st.booleans()), min_size=5, max_size=40))
    def go_on(self, steps: list[tuple[int, str, bool]]) -> None:
        for choice, fate, executes in steps:
            self._deliver(choice, bool(choice % 2), fate)
            worker = self.worker(choice // 2)
            if executes and worker is not None:
                worker.execute("answers")

    @rule(executes=st.booleans())
    def go_well(self, executes: bool) -> None:
        self.world.deliver_all()
        if executes:
            self.world.execute_all()

    @rule()
    def reconnect_all(self) -> None:
        for node in self.world.nodes():
            self.world.connect(node)

    def _deliver(self, choice: int, upwards: bool, fate: str) -> None:
        lines = [line for line in self.world.lines.values() if line.queue(upwards)]
        if lines:
            self.world.deliver(lines[choice % len(lines)], upwards=upwards, fate=fate)

    @rule(choice=CHOICE, outcome=st.sampled_from(["answers"] * 5 + ["raises", "dies", "takes long"]))
    def execute(self, choice: int, outcome: str) -> None:
        worker = self.worker(choice)
        if worker is not None:
            worker.execute(outcome)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.1, 5.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def hear_later(self) -> None:
        self.world.hear_later()

    @rule(choice=CHOICE, at_once=st.booleans())
    def cut(self, choice: int, at_once: bool) -> None:
        node = self.node(choice)
        if node is not None:
            self.world.cut(node, at_once=at_once)

    @rule(choice=CHOICE)
    def connect(self, choice: int) -> None:
        node = self.node(choice)
        if node is not None:
            self.world.connect(node)

    @rule(choice=CHOICE, at_once=st.booleans())
    def kill_worker(self, choice: int, at_once: bool) -> None:
        worker = self.worker(choice)
        if worker is not None:
            self.world.kill_worker(worker, at_once=at_once)

    @rule(choice=CHOICE)
    def drain_worker(self, choice: int) -> None:
        worker = self.worker(choice)
        if worker is not None:
            worker.tell(e.Drain(2.0))

    @precondition(lambda self: sum(one.is_up for one in self.world.workers) < 5)
    @rule(service=st.sampled_from(sorted(SERVICES)))
    def add_worker(self, service: str) -> None:
        self.world.add_worker(service)
        self.world.connect(self.world.workers[-1])

    @rule(clients_first=st.booleans())
    def restart_broker(self, clients_first: bool) -> None:
        self.world.restart_broker(first=self.world.clients if clients_first else ())

    @rule(seconds=st.sampled_from([0.0, 3.0]))
    def drain_broker(self, seconds: float) -> None:
        self.world.broker.tell(e.Drain(seconds))

    @precondition(lambda self: not self.world.broker.is_up)
    @rule()
    def start_broker(self) -> None:
        self.world.restart_broker()

    @invariant()
    def nothing_is_executed_twice_that_must_not_be(self) -> None:
        twice = [payload for payload, times in self.world.executed.items() if times > 1 and payload.startswith(b"once")]
        assert not twice

    def teardown(self) -> None:
        self.world.settle()
        self.nothing_is_executed_twice_that_must_not_be()
        for client in self.world.clients:
            for number, outcome in client.outcomes.items():
                payload = next(
                    (one for one in self.world.executed if one.endswith(f"{client.name} {number}".encode())), b""
                )
                assert outcome != "answered" or self.world.executed[payload], "an answer that nobody gave"


ServiceChaos.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestServiceChaos = ServiceChaos.TestCase
