"""What `metrics` exposes of an answer to `status`, by the conventions of Prometheus. Pure: it asks and serves nothing.

METRICS is the whole list; docs/howto/metrics.md has the same as a table. Where a distributor and a broker of services
answer, a service is a task like others, as `status` shows it.

How many workers a task should have, for an autoscaler (`desired_workers`):

1. None while it is not open: it waits for others, or is over.
2. One if it has none: how long its items take is not known before one is done.
3. If some of its workers are idle, those that are not, and at least one: more would be idle, too.
4. Else as many as it takes to be done with what is left in HORIZON seconds, at the pace that its workers have had since
   the task opened; at least those that are there, at most one thread for each item that is left. What is left is what
   its `total` says, or else what is at hand: the source is asked for no more than the workers have room for, so that
   says nothing of what it still has. A task without a total that is not exhausted gets at least one more.

`run --workers MIN:MAX` scales its own workers by `processes/autoscale.py`, which remembers what it saw and what starts
take; the arithmetic of rule 4, `enough`, is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from zmqpipeline.processes.autoscale import enough
from zmqpipeline.protocol.delivery.dependencies import STATES
from zmqpipeline.protocol.delivery.item_times import no_times
from zmqpipeline.protocol.messages import Status, TaskStatus, WorkerStatus
from zmqpipeline.protocol.status_records import ITEM_SECONDS, WORKER_STATES

HORIZON = 60.0
"""Seconds in which the desired workers are to be done with what is left."""

ITEM_STATES = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")
"""The counts of the summary, which are the states of `zmqpipeline_items_total`."""

UNNAMED = "unnamed"
"""The state of workers beyond those that an answer names."""


@dataclass(frozen=True)
class Metric:
    """One name, without what a counter's samples end with."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    labels: tuple[str, ...]
    text: str

    @property
    def exposed(self) -> str:
        """The name that its samples have."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _gauge(name: str, labels: str, text: str) -> Metric:
    return Metric(f"zmqpipeline_{name}", "gauge", tuple(labels.split()), text)


UP = _gauge("up", "", "1 if the distributor, or the broker of services, has answered, else 0.")
RUN_INFO = _gauge("run_info", "pipeline run phase", "Always 1; which run it is, and its phase.")
RUN_SECONDS = _gauge("run_seconds", "", "How long the run has been under way in this distributor.")
ITEMS = Metric(
    *("zmqpipeline_items", "counter", ("task", "state")), "Items by what became of them, as the summary has them."
)
EXPECTED = _gauge("expected_items", "task", "How many items the task announces, if it does.")
WAITING = _gauge("waiting_items", "task", "Items that could be sent now if a worker had room.")
RETRYING = _gauge("retrying_items", "task", "Items that wait for the end of their back-off.")
LEASED = _gauge("leased_items", "task", "Items that are with workers, up to their acknowledgement.")
TASK_STATE = _gauge("task_state", "task state", "1 for the state that the task is in, 0 for the others.")
OPEN_SECONDS = _gauge("task_open_seconds", "task", "How long the task has been open in this distributor.")
WORKERS = _gauge("workers", "task state", "Connected worker processes by their state.")
THREADS = _gauge("worker_threads", "task", "Threads of the connected workers.")
LONGEST = _gauge(
    "longest_running_item_seconds", "task", "How long the item has run that has run longest; 0 if none does."
)
DESIRED = _gauge("desired_workers", "task", "How many workers the task could use, for an autoscaler.")
KEPT = _gauge("kept_result_bytes", "task", "Results that workers keep until they are acknowledged.")
QUEUED = _gauge("queued_result_bytes", "", "Results that wait for the collector's function.")
HELD = _gauge("held_request_bytes", "", "Requests and replies that wait at the broker of services.")

ITEM_TIMES = Metric(
    *("zmqpipeline_item_seconds", "histogram", ("task",)),
    "How long the calls took in which items were executed, as their workers told last.",
)
JOURNAL = Metric(
    *("zmqpipeline_journal_seconds", "summary", ()),
    "How long the transactions took that the collector has written to its journal.",
)

METRICS = (
    *(UP, RUN_INFO, RUN_SECONDS, ITEMS, EXPECTED, WAITING, RETRYING, LEASED, TASK_STATE, OPEN_SECONDS),
    *(WORKERS, THREADS, LONGEST, DESIRED, KEPT, QUEUED, HELD, ITEM_TIMES, JOURNAL),
)
"""Every metric, in the order in which they are exposed."""


@dataclass(frozen=True)
class Durations:
    """What a histogram or a summary says: how many there were, in which classes, and how long they took in sum."""

    seconds: float
    number: int
    counts: tuple[int, ...] = ()
    """Of the classes of ITEM_SECONDS, and of longer ones; none for a summary."""

    def __add__(self, other: Durations) -> Durations:
        counts = tuple(one + more for one, more in zip(self.counts, other.counts, strict=True))
        return Durations(self.seconds + other.seconds, self.number + other.number, counts)

    def classes(self) -> list[tuple[str, int]]:
        """How many took no longer than that, for each bound, as Prometheus writes them."""
        found, number = [], 0
        for bound, count in zip((*map(str, ITEM_SECONDS), "+Inf"), self.counts, strict=True):
            number += count
            found.append((bound, number))
        return found


Value: TypeAlias = float | Durations
Samples = dict[Metric, dict[tuple[str, ...], Value]]
"""The values of each metric, by those of its labels; Durations of histograms and summaries."""


def samples_of(answers: Sequence[Status]) -> Samples:
    """The values of all metrics; `answers` are of one run: its distributor's, its broker's, or none."""
    found: Samples = {metric: {} for metric in METRICS}
    for metric, labels, value in _values(answers):
        # a service may be called as a task is
        before = found[metric].get(labels)
        if isinstance(value, Durations):
            found[metric][labels] = before + value if isinstance(before, Durations) else value
        else:
            found[metric][labels] = before + value if isinstance(before, (int, float)) else value
    return found


_Value = tuple[Metric, tuple[str, ...], Value]


def _values(answers: Sequence[Status]) -> Iterator[_Value]:
    yield UP, (), 1 if answers else 0
    if answers:
        yield RUN_SECONDS, (), answers[0].seconds
    for status in answers:
        yield RUN_INFO, (status.pipeline, status.run, status.phase), 1
        yield QUEUED, (), status.queued_bytes
        yield HELD, (), status.held_bytes
        yield JOURNAL, (), Durations(status.commit_seconds, status.commits)
        of_task: dict[str, list[WorkerStatus]] = {one.counts.task: [] for one in status.tasks}
        for worker in status.workers:
            of_task.setdefault(worker.task, []).append(worker)
        for task in status.tasks:
            yield from _of_task(task, of_task[task.counts.task])


def _of_task(task: TaskStatus, workers: Sequence[WorkerStatus]) -> Iterator[_Value]:
    counts = task.counts
    name = (counts.task,)
    for state in ITEM_STATES:
        yield ITEMS, (*name, state), getattr(counts, state)
    if task.total is not None:
        yield EXPECTED, name, task.total
    yield WAITING, name, task.waiting
    yield RETRYING, name, task.retrying
    yield LEASED, name, task.leased
    for state in STATES:
        yield TASK_STATE, (*name, state), state == counts.state
    yield OPEN_SECONDS, name, task.seconds
    for state in WORKER_STATES:
        yield WORKERS, (*name, state), sum(one.state == state for one in workers)
    yield WORKERS, (*name, UNNAMED), max(0, task.workers - len(workers))
    yield THREADS, name, sum(one.threads for one in workers)
    yield LONGEST, name, max((item.seconds for one in workers for item in one.running), default=0)
    yield DESIRED, name, desired_workers(task, workers)
    yield KEPT, name, sum(one.kept_bytes for one in workers)
    times = task.times or no_times()
    yield ITEM_TIMES, name, Durations(times.seconds, sum(times.counts), tuple(times.counts))


def desired_workers(task: TaskStatus, workers: Sequence[WorkerStatus]) -> int:
    """How many worker processes the task could use; see the module. `workers` are its own, those that are named."""
    if task.counts.state not in ("open", "exhausted"):
        return 0
    staying = [one for one in workers if one.state != "draining"]
    there = len(staying) + max(0, task.workers - len(workers))
    idle = sum(one.state == "ready" for one in staying)
    if not staying or idle:
        return max(1, there - idle)
    done = task.counts.collected + task.counts.failed
    left = task.waiting + task.retrying + task.leased
    if task.total is not None:
        left = max(left, task.total - done)
    # of an item that is not done yet it is known how long it has taken so far
    seconds_each = there * task.seconds / max(1, done - task.inherited)
    threads = sum(one.threads for one in staying) / len(staying)
    wanted = enough(left, seconds_each, threads, HORIZON)
    more = 1 if task.total is None and task.counts.state == "open" else 0
    return max(there + more, wanted)
