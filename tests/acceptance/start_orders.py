"""The documented programs, started in any order and at any time: ``python -m tests.acceptance.start_orders --seed 1``.

Each trial draws an example, an order of its programs, the gaps between their starts (none to 5 s), 1 to 4 workers of
each task, and 5 to 1,000 items. All processes must end by themselves with status 0 and nothing on stderr but that they
wait, and each item must have been collected once: also when the run is over before a worker is there, or has connected.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance import test_spec_programs as spec
from tests.acceptance.conftest import Workshop

GAPS = (0.0, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
ITEMS = (5, 5, 20, 100, 1000)
PATIENCE = 90.0
"""Seconds after the last start within which all must have ended."""

EXAMPLES = {
    "single": (("worker.py",), ("collector.py", "run_distributor.py")),
    "multi": (("multi_worker.py",), ("collector.py", "run_distributor.py")),
    "dependencies": (("first_worker.py", "second_worker.py"), ("collector.py", "run_dependencies.py")),
    "metadata": (("worker.py",), ("meta_worker.py", "collector.py", "run_metadata.py")),
}
"""The programs of each example: those that may be started several times, and the others."""


@dataclass(frozen=True)
class Trial:
    """What is started, with the gap before each."""

    example: str
    transport: str
    items: int
    starts: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """In one line."""
        starts = " ".join(f"+{gap:g} {name.removesuffix('.py')}" for name, gap in self.starts)
        return f"{self.example}, {self.transport}, {self.items} items: {starts}"


def _troubles(said: str) -> list[str]:
    """The lines on stderr but those of who waits for the others, and of workers that come when the run is over."""
    waits = ("Waiting for ", "Still waiting for ", "No worker serves task ", "The run at this address was over ")
    return [line for line in said.splitlines() if not line.startswith(waits)]


def drawn(rng: random.Random, number: int) -> Trial:
    """The trial of this number; the examples take turns."""
    example = list(EXAMPLES)[number % len(EXAMPLES)]
    workers, others = EXAMPLES[example]
    programs = [*others, *(name for name in workers for _ in range(rng.randint(1, 4)))]
    rng.shuffle(programs)
    items = 1 if example == "metadata" else rng.choice(ITEMS)
    return Trial(example, rng.choice(spec.TRANSPORTS), items, tuple((name, rng.choice(GAPS)) for name in programs))


def carry_out(trial: Trial) -> str:
    """What was wrong; nothing if all ended as they should."""
    folder = Path(tempfile.mkdtemp(prefix="zo-", dir="/tmp"))
    workshop = Workshop(folder)
    try:
        return _carried_out(trial, workshop)
    finally:
        workshop.close()
        shutil.rmtree(folder)


def _carried_out(trial: Trial, workshop: Workshop) -> str:
    spec.write(workshop, trial.transport)
    spec.write_dependent_workers(workshop)
    workshop.write("tasks.py", spec.TASKS.replace(">= 100", f">= {trial.items}"))
    if trial.example == "metadata":
        workshop.write("worker.py", spec.WORKER.replace('time.sleep(data["workload"])', "pass"))
    programs = []
    for name, gap in trial.starts:
        # the time of the start is the input here
        time.sleep(gap)
        programs.append((name, workshop.start(name)))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not all(program.ended() for _, program in programs):
        time.sleep(0.05)
    wrong = [f"{name} still runs" for name, program in programs if not program.ended()]
    wrong += [
        f"{name}: status {status}, {program.err[-500:]!r}"
        for name, program in programs
        if program.ended() and ((status := program.wait()) or _troubles(program.err))
    ]
    total = trial.items * len(EXAMPLES[trial.example][0])
    (collector,) = (program for name, program in programs if name == "collector.py")
    if not wrong and f"collected {total}\n" not in collector.out:
        wrong.append(f"collector: {collector.out[-200:]!r}, not {total} items")
    return "; ".join(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the trials; 1 if one went wrong."""
    parser = argparse.ArgumentParser(description="Start the documented programs in any order and at any time.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=4, help="so many trials at the same time")
    given = parser.parse_args(arguments)
    rng = random.Random(given.seed)
    trials = [drawn(rng, number) for number in range(given.trials)]
    bad = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for number, (trial, wrong) in enumerate(zip(trials, pool.map(carry_out, trials), strict=True)):
            bad += bool(wrong)
            print(f"{number}: {trial}: {wrong or 'well'}", flush=True)
    print(f"{given.trials - bad} of {given.trials} ended by themselves (seed {given.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
