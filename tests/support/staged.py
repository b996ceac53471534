"""Simulated pipelines in which results of a task become items of another one: chains, forks, joins and circles.

The laws, beside those of all runs:

* each parent that was collected gave its children, once: `StagedWorld.check_children`
* a group is given once, when the last that came of its parent is collected or has failed: `StagedDisk.give_group` and
  `StagedWorld.check_groups`
* no child is with a worker whose parent is not collected: `StagedWorld.check_parent`
* the run ends exactly when nothing is unfinished: `check_children` and `judge` find an earlier end, no end is a hang
* a task is asked for nothing while too much waits for one that it feeds: `StagedDistributor.act`
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

from tests.support.disk import Disk
from tests.support.harness import World
from tests.support.nodes import CollectorNode, DistributorNode
from tests.support.scenarios import Plan, draw
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.gathering import Gathering, Parent, Span
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gathers import Gather, came_of, gathers
from zmqpipeline.testing.simulation.clock import SimulationError

if TYPE_CHECKING:
    from collections.abc import Sequence

Origin = tuple[str, int] | None
"""The task and the number of the item whose result gave another one; None: it is one of a task's own first items."""

ROOTS = 3
"""So many first items a circle has."""

SHAPES = (
    *("chain", "fork", "join", "loop", "circle", "loop and store", "chain and wait"),
    *("gather", "gather over two", "gather a fork", "gather again", "gather of a loop", "gather and wait"),
)


def draw_stages(seed: int) -> tuple[Plan, frozenset[str]]:
    """A plan whose tasks feed each other, and those of them that begin a circle, with a key."""
    rng = random.Random(f"{seed} stages")
    plan = draw(seed)
    retries = rng.choice([0, 1, 3])

    def task(name: str, *feeders: str, needs: tuple[str, ...] = ()) -> TaskSpec:
        return TaskSpec(name, needs, retries=retries, backoff=0.01, on_failed="continue", for_each=feeders)

    def gather(name: str, by: str, *feeders: str) -> TaskSpec:
        return replace(task(name, *feeders), gather=by)

    shape = rng.choice(SHAPES)
    tasks = {
        "chain": [task("A"), task("B", "A"), task("C", "B")],
        "fork": [task("A"), task("B", "A"), task("C", "A")],
        "join": [task("A"), task("B"), task("C", "A", "B")],
        "loop": [task("P", "P")],
        "circle": [task("P", "Q"), task("Q", "P")],
        "loop and store": [task("A"), task("P", "P", "A"), task("S", "P")],
        "chain and wait": [task("A"), task("B", "A"), task("D", needs=("B",)), task("C", "B", "D")],
        "gather": [task("A"), task("B", "A"), gather("C", "A", "B")],
        "gather over two": [task("A"), task("B", "A"), task("D", "B", "A"), gather("C", "A", "D")],
        "gather a fork": [task("A"), task("B", "A"), task("D", "A"), gather("C", "A", "D", "B")],
        "gather again": [
            *(task("A"), task("B", "A"), task("D", "B"), gather("C", "B", "D"), task("E", "C")),
            *(gather("F", "B", "E"), gather("G", "A", "F")),
        ],
        "gather of a loop": [task("P", "P"), task("B", "P"), gather("C", "P", "B")],
        "gather and wait": [task("A"), task("B", "A"), gather("C", "A", "B"), task("D", needs=("C",)), task("E", "C")],
    }[shape]
    plan.tasks = tasks
    plan.items = {}
    for one in tasks:
        # of a keyed task so many keys there are; of the others more than there can be
        feeding = sum(plan.items.get(feeder, 0) for feeder in came_of(one))
        plan.items[one.task_type] = rng.choice([1, 7, 40]) if one.task_type == "P" or not one.for_each else 2 * feeding
    plan.workers = {one.task_type: [rng.choice([1, 2])] * rng.choice([1, 2]) for one in tasks}
    plan.gated, plan.ahead, plan.keyed = False, 0, frozenset()
    most = rng.choice([0, 20, 1 << 30])
    plan.options = replace(plan.options, max_waiting_bytes=most)
    return plan, frozenset(name for name in plan.items if name == "P")


class Groups:
    """The groups of a simulated journal: a `GroupStore`."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], int] = {}
        self.members: dict[tuple[str, str, int], int] = {}
        self.kept: dict[tuple[str, int], set[tuple[str, int, bool]]] = {}
        """What each group has: task and number, and whether that is collected."""

    def begin(self, gather: str, group: int, parent: Parent) -> None:
        """See `GroupStore`."""
        assert (gather, group) not in self.open, f"the group {gather}/{group} begins twice"
        self.open[gather, group] = 1
        self.kept[gather, group] = set()

    def group_of(self, gather: str, task: str, number: int) -> int | None:
        """See `GroupStore`."""
        group = self.members.get((gather, task, number))
        return group if (gather, group) in self.open else None

    def add_members(self, gather: str, group: int, task: str, span: Span) -> None:
        """See `GroupStore`."""
        self.members.update({(gather, task, number): group for number in range(*span)})

    def count(self, gather: str, group: int, change: int) -> int:
        """See `GroupStore`."""
        self.open[gather, group] += change
        return self.open[gather, group]

    def keep(self, gather: str, group: int, task: str, number: int, result: bytes | None) -> None:
        """See `GroupStore`."""
        self.kept[gather, group].add((task, number, result is not None))

    def delete(self, gather: str, group: int) -> None:
        """See `GroupStore`."""
        del self.open[gather, group], self.kept[gather, group]


class StagedDisk(Disk):
    """A journal with outboxes and groups: what an item gives is written with its mark, in one step."""

    def __init__(self, world: StagedWorld) -> None:
        super().__init__()
        self.world = world
        self.groups = Groups()
        self.given: list[tuple[str, int, frozenset[tuple[str, int, bool]]]] = []
        """Of each group that was given: for which task, what began it, what it had."""
        self.gathering = Gathering(world.gathers, self.groups, self.give_group)
        self.outboxes: dict[str, list[tuple[int, Origin]]] = {name: [] for name in world.fed}
        """By fed task: the key of each item, and what gave it; the payload is its number."""
        self.closed = {name: name not in world.rooted for name in world.fed}

    def collected(
        self, name: str, numbers: Sequence[int], keys: bytes, data: bytes, rows: Sequence[tuple[str, int]]
    ) -> None:
        """One transaction."""
        super().collected(name, numbers, keys, data, rows)
        self.feed(name, numbers)

    def feed(self, name: str, numbers: Sequence[int]) -> None:
        """The results of these items give theirs."""
        for number in numbers:
            before = {child: len(outbox) for child, outbox in self.outboxes.items()}
            for child, key in self.world.children(name, number):
                self.give(child, key, (name, number))
            given = {child: (start, len(self.outboxes[child])) for child, start in before.items()}
            if self.gathering.concerns(name):
                self.gathering.collected(name, number, Parent(b"result"), given)

    def failed(self, items: Sequence[m.FailedItem]) -> None:
        """One transaction; which may be what a group waited for."""
        super().failed(items)
        for item in items:
            if self.gathering.concerns(item.task):
                self.gathering.failed(item.task, item.number)

    def give_group(self, gather: Gather, group: int) -> Span:
        """What is made of a group: some items, or none."""
        outbox = self.outboxes[gather.task]
        start = len(outbox)
        self.given.append((gather.task, group, frozenset(self.groups.kept[gather.task, group])))
        for _, key in self.world.made_of(gather.of, group, gather.task):
            self.give(gather.task, key, (gather.of, group))
        return start, len(outbox)

    def give(self, task: str, key: int, parent: Origin) -> None:
        """One item, unless its key is there."""
        outbox = self.outboxes[task]
        if task not in self.world.rooted or all(key != one for one, _ in outbox):
            outbox.append((key, parent))

    def told(self) -> list[m.Outbox]:
        """What a collector tells of it."""
        return [
            m.Outbox(name, len(outbox), sum(len(b"%d" % one) for one in self.waiting(name)), self.closed[name])
            for name, outbox in self.outboxes.items()
        ]

    def waiting(self, name: str) -> list[int]:
        """The items that are not done."""
        done = self.task(name)
        return [one for one in range(len(self.outboxes[name])) if one not in done.collected and one not in done.failed]

    def restored(self) -> e.Restored | None:
        """Without a journal it counts for the run of a distributor that is there, for no other."""
        held = super().restored()
        return held and replace(held, outboxes=self.told(), aside=not self.world.plan.journal)

    def begin(self, command: c.SetRun) -> None:
        """Another run than the one that was left here begins anew."""
        if not command.restored and command.run != self.run:
            self.__init__(self.world)  # type: ignore[misc]
        super().begin(command)


class StagedDistributor(DistributorNode):
    """What it asks of a source is looked at."""

    def act(self, command: c.Command) -> None:
        """Nothing is asked of a task that feeds one for which too much waits."""
        if isinstance(command, c.Produce):
            for name in self.world.feeds_of(command.task):
                task = self.machine.tasks[name]
                most = self.world.options.max_waiting_bytes
                if task.state == "open" and task.fed is not None and task.fed.waiting > most:
                    raise SimulationError(f"{command.task} goes on while {task.fed.waiting} bytes wait for {name}")
        super().act(command)

    world: StagedWorld

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """No item goes to a worker before what gave it is collected."""
        if isinstance(body := envelope.body, m.Work):
            for number in numbers_of(body.spans):
                self.world.check_parent(body.task, number)
        super().send(peer, envelope)


class StagedCollector(CollectorNode):
    """What it says of results is said with what the outboxes hold."""

    world: StagedWorld

    def act(self, command: c.Command) -> None:
        """Look up items of an outbox."""
        match command:
            case c.Fetch(task, start, stop, _):
                self.later(lambda: self.fetch(task, start, stop), 0)
            case c.SetRun():
                super().act(command)
                self.later(lambda: self.say(e.Given([])), 0)
                self.later(self.give_roots, 0)
            case _:
                super().act(command)

    def fetch(self, task: str, start: int, stop: int) -> None:
        """What is done is not kept."""
        numbers = [one for one in self.world.disk.waiting(task) if start <= one < stop]
        for one in numbers:
            self.world.note_handed(task, one)
        self.tell(e.Fetched(task, spans_of(numbers), [b"%d" % one for one in numbers]))

    def give_roots(self) -> None:
        """One of the first items of each circle, and the next one a little later."""
        disk = self.world.disk
        for name in [name for name, closed in disk.closed.items() if not closed]:
            given = sum(parent is None for _, parent in disk.outboxes[name])
            if given < min(ROOTS, self.world.plan.items[name]):
                key = given
                # it may be there already, by way of another one
                before = len(disk.outboxes[name])
                disk.give(name, key, None)
                if len(disk.outboxes[name]) == before:
                    disk.closed[name] = True
            else:
                disk.closed[name] = True
            self.say(e.Given([]))
            self.world.after(self.world.rng.random(), lambda: self.carry_out(self.give_roots))

    def say(self, event: e.Event) -> None:
        """After the commit; with what is there by then."""
        if isinstance(event, (e.Collected, e.FailedCalled, e.Given)):
            event = replace(event, outboxes=self.world.disk.told())
        super().say(event)


class StagedWorld(World):
    """A whole pipeline with stages."""

    disk: StagedDisk

    def _draw_plan(self) -> Plan:
        plan, self.rooted = draw_stages(self.seed)
        self.specs = {one.task_type: one for one in plan.tasks}
        self.fed = [one.task_type for one in plan.tasks if one.for_each]
        self.gathers = gathers(self.specs)
        self.handed: dict[tuple[str, int], tuple[int, Origin]] = {}
        return plan

    def _draw_fates(self) -> None:
        super()._draw_fates()
        self.broken_sources.difference_update(self.fed)
        for name in self.fed:
            self.source_ends[name] = self.plan.items[name]

    def _make_disk(self) -> StagedDisk:
        return StagedDisk(self)

    def _make_collector(self) -> StagedCollector:
        return StagedCollector(self)

    def _make_distributor(self, run: str, *, is_first: bool = True) -> StagedDistributor:
        return StagedDistributor(self, run, is_first=is_first)

    def feeds_of(self, task: str) -> list[str]:
        """The tasks that this one feeds, outside of its circle."""
        return [name for name in self.fed if task in self.specs[name].for_each and {name, task} - {"P", "Q"}]

    def children(self, task: str, number: int) -> list[tuple[str, int]]:
        """What the result of this item gives: the task and the key of each."""
        fed = [name for name in self.fed if task in self.specs[name].for_each and not self.specs[name].gather]
        return [one for name in fed for one in self.made_of(task, number, name)]

    def made_of(self, task: str, number: int, name: str) -> list[tuple[str, int]]:
        """The items of another task that are made of this one: of its result, or of its group."""
        key = self.disk.outboxes[task][number][0] if task in self.fed else number
        many = crc32(b"%d %s %d %s" % (self.seed, task.encode(), key, name.encode())) % 3
        return [(name, (key * 3 + 2 + one * 5) % max(1, self.plan.items[name])) for one in range(many)]

    def check_parent(self, task: str, number: int) -> None:
        """What gave this item is collected, and written down."""
        if task in self.fed:
            parent = self.disk.outboxes[task][number][1]
            if parent is not None and parent[1] not in self.disk.task(parent[0]).collected:
                raise SimulationError(f"{task}/{number} is sent, but {parent}, which gave it, is not collected")

    def note_handed(self, task: str, number: int) -> None:
        """A number stands for one item, whoever dies."""
        entry = self.disk.outboxes[task][number]
        if self.handed.setdefault((task, number), entry) != entry:
            raise SimulationError(f"{task}/{number} was {self.handed[task, number]}, and is {entry}")

    def check_children(self) -> None:
        """Each parent that was collected gave its children, once; of children with a key, some other gave it."""
        for name in self.fed:
            outbox = self.disk.outboxes[name]
            expected: Counter[tuple[int, Origin]] = Counter()
            for feeder in came_of(self.specs[name]):
                for number in numbers_of(self.disk.task(feeder).collected.spans()):
                    expected.update((key, (feeder, number)) for _, key in self.made_of(feeder, number, name))
            if name in self.rooted:
                keys = {key for key, _ in expected} | {key for key, parent in outbox if parent is None}
                if sorted(keys) != sorted(key for key, _ in outbox):
                    raise SimulationError(f"{name} has the keys {outbox}, not {sorted(keys)}")
            elif Counter(outbox) != expected:
                raise SimulationError(f"{name} was given {outbox}, not {expected}")

    def check_groups(self) -> None:
        """Each collected parent had its group given, once, with all that came of it, and with what became of that."""
        given = Counter((task, number) for task, number, _ in self.disk.given)
        begun = Counter(
            (one.task, number)
            for one in self.gathers
            for number in numbers_of(self.disk.task(one.of).collected.spans())
        )
        if given != begun:
            raise SimulationError(f"the groups {given} were given, not {begun}")
        for task, number, had in self.disk.given:
            gather = next(one for one in self.gathers if one.task == task)
            if had != (expected := self.came_of(gather, number)):
                raise SimulationError(f"the group {task}/{number} was given with {had}, not {expected}")

    def came_of(self, gather: Gather, number: int) -> frozenset[tuple[str, int, bool]]:
        """What a group has in the end: results that are gathered, and all that has failed."""
        found: set[tuple[str, int]] = {(gather.of, number)}
        left = list(found)
        while left:
            parent = left.pop()
            for name in gather.members:
                new = {(name, at) for at, (_, by) in enumerate(self.disk.outboxes[name]) if by == parent} - found
                found |= new
                left += new
        had = [(task, at, at in self.disk.task(task).collected) for task, at in found - {(gather.of, number)}]
        return frozenset(one for one in had if one[0] in gather.results or not one[2])

    def _judge(self) -> None:
        self.check_children()
        self.check_groups()
        for name in self.fed:
            count = self.plan.items[name] = self.source_ends[name] = len(self.disk.outboxes[name])
            if name in self.distributor.yielded:
                self.distributor.yielded[name] = count
        super()._judge()
