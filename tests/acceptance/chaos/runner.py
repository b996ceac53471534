"""One run, from its seed to its result."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.chaos import disk
from tests.acceptance.chaos.checker import Verdict, judge
from tests.acceptance.chaos.faults import FAULTS, Fault
from tests.acceptance.chaos.history import History, read_lines, read_rows
from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.plan import WORK_SECONDS, Plan, draw_work
from tests.acceptance.chaos.stage import Hung, Stage
from tests.acceptance.chaos.stages import PipelineStage, RunStage, ServiceStage
from tests.acceptance.conftest import Workshop

SMALL_FILES = 64 * 1024
"""What a collector's files may have where there is no disk to fill; its lines need less, its journal more."""

FEW_ITEMS = 400


@dataclass
class Result:
    """What one run came to."""

    plan: Plan
    seconds: float
    verdict: Verdict
    hung: str = ""
    """What it waited for, if it hung."""
    wrong_ends: list[str] = field(default_factory=list)
    last_words: str = ""
    """The last log lines of each process, if anything was wrong."""
    folder: Path | None = None
    """Where everything was left, if anything was wrong and it was asked for."""
    hits: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All that was wrong, as sentences."""
        return [*([f"hung: {self.hung}"] if self.hung else []), *self.verdict.problems, *self.wrong_ends]

    @property
    def line(self) -> str:
        """The run in one line."""
        plan, verdict = self.plan, self.verdict
        what = f"{plan.fault} over {plan.transport}, {verdict.items} items of {plan.seconds * 1000:g} ms"
        numbers = f"lost {len(verdict.lost)}, duplicated {len(verdict.duplicated)}, hung {1 if self.hung else 0}"
        more = f", repeated {len(verdict.repeated)}" if verdict.repeated else ""
        return f"seed {plan.seed}: {what}, {self.seconds:.1f} s: {numbers}{more}, again {len(verdict.again)}"


def draw(seed: int, name: str, folder: str = ".", *, work: float = WORK_SECONDS) -> tuple[Plan, random.Random]:
    """The plan of a seed with this fault, and the random numbers that go on from there."""
    fault = FAULTS[name]
    rng = random.Random(f"{name} {seed}")
    items, seconds, threads = draw_work(rng, work)
    transport = "tcp" if fault.network else rng.choice(["ipc", "tcp"])
    limited = fault.disk and not disk.is_possible()
    if limited:
        items = min(items, FEW_ITEMS)
    plan = Plan(
        seed=seed,
        fault=name,
        transport=transport,
        folder=folder,
        items=items,
        seconds=seconds,
        threads=threads,
        staged=fault.staged,
        slower=rng.choice([1, 4]) if fault.staged else 1,
        journal=fault.journal,
        with_credit=tuple(sorted(rng.sample(range(items), fault.with_credit))),
        deadly=tuple(sorted(rng.sample(range(items), min(items, fault.deadly)))),
        max_items=rng.choice([50, 100, 300]) if fault.retiring else None,
        spare_bytes=fault.spare_bytes,
        file_bytes=SMALL_FILES if limited else 0,
    )
    return plan, rng


def run(seed: int, name: str, *, keep: bool = False, work: float = WORK_SECONDS) -> Result:
    """Carry out the run of this seed with this fault; with `keep`, the folder of a bad run is left.

    A task is `work` seconds long, if nothing goes wrong. Several runs may go on at once, on threads.
    """
    folder = Path(tempfile.mkdtemp(prefix="zp-", dir="/tmp"))
    workshop = Workshop(folder)
    plan, rng = draw(seed, name, str(folder), work=work)
    result = None
    try:
        result = _run(plan, rng, FAULTS[name], workshop)
    finally:
        workshop.close()
        if keep and result is not None and result.problems:
            result.folder = folder
        else:
            shutil.rmtree(folder)
    return result


def _run(plan: Plan, rng: random.Random, fault: Fault, workshop: Workshop) -> Result:
    with ExitStack() as stack:
        extra: list[object] = []
        network = stack.enter_context(Network()) if fault.network else None
        if network is not None:
            extra.append(network)
        stage: Stage
        if fault.kind is ServiceStage:
            stage = ServiceStage(plan, workshop, network)
        elif fault.kind is RunStage:
            stage = RunStage(plan, workshop)
        else:
            stage = PipelineStage(plan, workshop, network)
            if fault.disk:
                extra.append(stack.enter_context(_small_disk(stage)))
        # the processes go first, the network and the disk after them
        stack.callback(workshop.close)
        return _carry_out(stage, rng, fault, extra)


def _small_disk(stage: PipelineStage) -> disk.Disk | disk.Quota:
    if stage.plan.file_bytes:
        return disk.Quota(stage)
    place = stage.workshop.folder / "disk"
    place.mkdir()
    stage.journal = place / "journal"
    mounted = disk.Disk(place)
    stage.prefixes["collector"] = mounted.enter
    return mounted


def _carry_out(stage: Stage, rng: random.Random, fault: Fault, extra: list[object]) -> Result:
    hung, ends = "", []
    try:
        stage.begin(rng)
        fault.strike(stage, rng, *extra)
        ends = stage.end()
    except Hung as error:
        hung = str(error)
    seconds = time.monotonic() - stage.began
    words = stage.last_words()
    verdict = judge(_history(stage, extra))
    result = Result(stage.plan, seconds, verdict, hung, ends, hits=[hit.what for hit in stage.hits])
    if result.problems:
        result.last_words = words
    return result


def _history(stage: Stage, extra: list[object]) -> History:
    plan, folder = stage.plan, stage.workshop.folder
    collected = read_lines(folder / "calls")
    if plan.journal:
        assert isinstance(stage, PipelineStage)
        for one in extra:
            if isinstance(one, disk.Disk):
                one.copy(stage.journal, folder)
        collected = read_rows(folder / stage.journal.name)
    return History(
        expected=stage.expected(),
        executions=read_lines(folder / "executions"),
        collected=[line for line in collected if line.item[0] not in stage.left_out()],
        failures=read_lines(folder / "failures"),
        hits=stage.hits,
        may_fail={("A", n) for n in plan.may_fail},
        journal=plan.journal,
        ordered=isinstance(stage, PipelineStage) and not plan.staged,
        parents=(lambda item: {("A", n) for n in plan.parents(*item)}) if plan.staged else None,
    )
