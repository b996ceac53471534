"""What happens in one simulated run: a plan drawn from its seed, from a calm run of a few items to many in a storm."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from zmqpipeline.options import Options
from zmqpipeline.protocol.delivery.dependencies import TaskSpec

TROUBLE_SECONDS = 60.0
"""How long processes and connections are troubled; messages are lost and doubled to the end."""

NO_CRASH_LIMIT = 1 << 30


@dataclass
class Plan:
    """One run. Rates are chances: of a message, of an item, or of a process in each turn of `turn` seconds."""

    tasks: list[TaskSpec]
    items: dict[str, int]
    workers: dict[str, list[int]]
    options: Options
    service: float
    spread: float
    lose: float
    double: float
    delay: float
    uneven: float
    """How much slower some connections are than others, so that messages of different peers overtake each other."""
    turn: float
    breaks: float
    kills: float
    freezes: float
    role_freezes: float
    late_freeze: bool
    raising: float
    poison: float
    collector_raises: float
    source_raises: float
    source_seconds: float
    """How long the source takes over each item; from 2 ms on, they come one at a time."""
    gated: bool
    keyed: frozenset[str]
    collect_seconds: float
    drains: int
    idle_timeout: float | None
    """The idle time-out of every second worker."""
    heavy: float = 0.0
    """The chance of an item to take longer."""
    heavy_factor: float = 100.0
    """How many times longer."""
    partitions: float = 0.0
    """The chance, in each turn, that a part of the workers is cut off from one of the others for some seconds."""
    ack_partitions: float = 0.0
    """The chance, in each turn, that distributor and collector cannot reach each other for some seconds."""
    last_cut: float = 0.0
    """If not 0, for how many seconds they cannot from when the collector begins to finish the run."""
    last_break: float | None = None
    """If not None, when their connection breaks after the distributor has begun its farewell, in times of `delay`."""
    result_bytes: int = 0
    """How much longer a result is than that of the item before; every sixth is short again."""
    journal: bool = False
    """Whether the collector has a journal; if so, everything may be killed at once."""
    ahead: int = 0
    """If not 0, the gate of the first task reads the data of the last ACK, and lets so many items run ahead of it."""
    commit_seconds: float = 0.0
    """How long after the collector's calls the journal has them: who dies in between makes them again."""
    restarts: tuple[str, ...] = ()
    """Which roles are killed, one after the other, and started again without any memory: one of RESTARTS each."""
    finish_seconds: float = 0.0
    """How long the collector's `finished` function may take."""
    restarts_late: bool = False
    """Whether the last restart comes while that function runs."""
    role_drains: tuple[str, ...] = ()
    """Which roles are asked to end in good order, one after the other, and started again: one of DRAINS each."""
    max_items: int | None = None
    """After so many items a worker retires, and another one takes its place."""

    @property
    def may_fail(self) -> bool:
        """Whether an item may fail for good: what is acknowledged as failed brings no data."""
        return bool(self.raising or self.poison or self.collector_raises) or any(
            one.crash_limit < NO_CRASH_LIMIT for one in self.tasks
        )

    @property
    def may_lose_the_end(self) -> bool:
        """Whether the collector may have finished the run, and gone, before the distributor can hear of it."""
        return bool(self.last_cut or self.ack_partitions)

    @property
    def is_soon_back(self) -> bool:
        """Whether the distributor can reach the collector again within the minute that this one stays for it."""
        return self.last_cut < 45.0 and not (self.ack_partitions or self.role_freezes)

    @property
    def is_orderly(self) -> bool:
        """Whether no process ends but in good order, and nothing happens to connections and messages."""
        rates = (
            self.lose, self.breaks, self.kills, self.freezes, self.role_freezes, self.poison, self.partitions,
            self.ack_partitions, self.last_cut, self.last_break,
        )  # fmt: skip
        return not (any(rates) or self.late_freeze or self.restarts)

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens to processes, connections and messages."""
        return self.is_orderly and not self.role_drains

    @property
    def limit(self) -> float:
        """A time in seconds that the run cannot need, unless it hangs."""
        count = sum(self.items.values())
        slots = 1 if self.gated else min(sum(slots) for slots in self.workers.values())
        raising = self.raising * 10 * max(one.backoff for one in self.tasks)
        work = count * (self.service * (1 + self.spread) * (1 + 3 * self.raising) + raising) / slots
        lives = 1 + len(self.restarts) + len(self.role_drains)
        work = lives * (work + self.heavy_factor * self.service * count * self.heavy)
        turns = count if self.gated else count / min(self.options.max_held_items, 20)
        mending = turns * (6 * self.delay * (1 + self.uneven) + 12 * self.lose)
        killers = 15 * sum(1 + count * self.poison * 3 for count in self.items.values()) if self.poison else 0
        late = 15 * len(self.tasks) + self.last_cut + lives * self.finish_seconds + 100 + 35 * len(self.role_drains)
        if self.max_items is not None:
            late += 15 * lives * (1 + 3 * self.raising) * count / self.max_items
        return 2 * TROUBLE_SECONDS + 3 * (work + mending + killers + late + count * self.source_seconds)


RESTARTS = ("distributor", "collector", "everything")
"""What may be killed and started again; everything only with a journal."""

DRAINS = ("distributor", "collector", "both", "everything")
"""What may be drained; both, or everything with the workers, only with a journal."""


def draw(seed: int) -> Plan:
    """The plan of this seed."""
    rng = random.Random(seed)
    storm = rng.choice([0.0, 0.0, 0.3, 1.0])
    tasks = _draw_tasks(rng)
    names = [one.task_type for one in tasks]
    gated = rng.random() < 0.15
    plan = Plan(
        tasks=tasks,
        items={name: rng.choice([0, 1, 7, 60, 60, 400]) for name in names},
        workers={name: [rng.choice([1, 1, 2, 5]) for _ in range(rng.choice([1, 2, 3]))] for name in names},
        options=_draw_options(rng),
        service=rng.choice([2e-5, 1e-3, 0.03, 0.5]),
        spread=rng.choice([0.0, 0.5, 3.0]),
        lose=storm * rng.choice([0.0, 0.01, 0.1]),
        double=storm * rng.choice([0.0, 0.01, 0.1]),
        delay=rng.choice([0.0001, 0.002, 0.05]),
        uneven=rng.choice([0.0, 1.0, 8.0]),
        turn=rng.choice([0.2, 1.0]),
        breaks=storm * rng.choice([0.0, 0.05, 0.3]),
        kills=storm * rng.choice([0.0, 0.05, 0.3]),
        freezes=storm * rng.choice([0.0, 0.05]),
        role_freezes=storm * rng.choice([0.0, 0.0, 0.05]),
        late_freeze=storm > 0 and rng.random() < 0.3,
        raising=rng.choice([0.0, 0.0, 0.1]),
        poison=storm * rng.choice([0.0, 0.0, 0.01, 0.03]),
        collector_raises=rng.choice([0.0, 0.0, 0.05]),
        source_raises=rng.choice([0.0, 0.0, 0.0, 0.2]),
        source_seconds=rng.choice([0.0, 0.0, 0.0, 0.01, 0.05]),
        gated=gated,
        keyed=frozenset(name for name in names[1 if gated else 0 :] if rng.random() < 0.2),
        collect_seconds=rng.choice([1e-6, 1e-6, 1e-3]),
        drains=rng.choice([0, 0, 0, 1, 3]),
        idle_timeout=rng.choice([None, None, None, 0.3, 2.0]),
    )
    plan.tasks = _with_keys(tasks, plan.keyed)
    plan.heavy = rng.choice([0.0, 0.0, 0.01, 0.05])
    plan.partitions = storm * rng.choice([0.0, 0.02, 0.1])
    plan.journal = rng.random() < 0.3
    often = rng.choice([0, 0, 1, 1, 2, 4])
    plan.restarts = tuple(rng.choice(RESTARTS if plan.journal else RESTARTS[:2]) for _ in range(often))
    _draw_gate(rng, plan)
    plan.tasks[0] = replace(plan.tasks[0], has_gate=plan.gated)
    plan.ack_partitions = storm * rng.choice([0.0, 0.0, 0.02, 0.1])
    plan.commit_seconds = plan.journal * rng.choice([0.0, 0.005, 0.05])
    if rng.random() < 0.25:
        drains = DRAINS if plan.journal else DRAINS[:2]
        plan.role_drains = tuple(rng.choice(drains) for _ in range(rng.choice([1, 1, 2])))
    if rng.random() < 0.12:
        # some items of about five seconds among short ones, which are prefetched behind them
        plan.service = min(plan.service, 1e-3)
        plan.heavy, plan.heavy_factor = rng.choice([0.01, 0.05]), 5.0 / plan.service
    # of a generator of its own, so that what else is drawn stays as it was
    late = random.Random(f"{seed} finish")
    plan.finish_seconds = late.choice([0.0, 0.0, 2.0, 20.0])
    plan.restarts_late = bool(plan.restarts) and plan.finish_seconds > 0 and late.random() < 0.5
    plan.last_break = 8 * late.random() if storm and late.random() < 0.4 else None
    # little may be held of results, some of which are larger than that
    plan.result_bytes = rng.choice([0, 0, 3, 50])
    if plan.result_bytes and rng.random() < 0.7:
        plan.options = replace(plan.options, max_held_bytes=rng.choice([8, 100, 1000]))
    if plan.result_bytes and rng.random() < 0.5:
        plan.collect_seconds = rng.choice([0.003, 0.02])
    plan.last_cut = (storm > 0) * rng.choice([0.0, 0.0, 0.0, 12.0, 45.0, 100.0]) * rng.random()
    if seed % 11 == 7:
        # not drawn, so that every other seed is what it was
        plan.max_items = (1, 10, 100)[seed // 11 % 3]
    return plan


def _draw_gate(rng: random.Random, plan: Plan) -> None:
    """Some gates read the data of ACKs; half of these plans have no failed items, so that every ACK has data."""
    reads_data, never_fails = rng.random() < (0.5 if plan.gated else 0.06), rng.random() < 0.5
    ahead = rng.choice([1, 3, 20])
    if not reads_data:
        return
    plan.gated, plan.ahead = True, ahead
    if never_fails:
        plan.raising = plan.poison = plan.collector_raises = 0.0
        plan.tasks = [replace(one, crash_limit=NO_CRASH_LIMIT) for one in plan.tasks]


def _draw_tasks(rng: random.Random) -> list[TaskSpec]:
    names = ["A", "B", "C", "D"][: rng.choice([1, 1, 2, 3, 4])]
    tasks = []
    for i, name in enumerate(names):
        needs = tuple(one for one in names[:i] if rng.random() < 0.6)
        retries, backoff = rng.choice([0, 1, 3]), rng.choice([0.01, 0.5])
        on_failed = rng.choice(["abort", "continue", "continue"])
        tasks.append(TaskSpec(name, depends_on=needs, retries=retries, backoff=backoff, on_failed=on_failed))
    return tasks


def _with_keys(tasks: list[TaskSpec], keyed: frozenset[str]) -> list[TaskSpec]:
    return [replace(one, keyed=one.task_type in keyed) for one in tasks]


def _draw_options(rng: random.Random) -> Options:
    return Options(
        max_held_items=rng.choice([2, 20, 200, 200]),
        max_held_bytes=rng.choice([8, 1 << 26, 1 << 26, 1 << 26]),
        max_prefetch=rng.choice([0, 5, 2048, 2048]),
    )
