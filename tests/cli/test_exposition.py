"""What `metrics` makes of answers, and how many workers it says a task could use."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from zmqpipeline.cli import exposition as x
from zmqpipeline.cli.exposition import METRICS, desired_workers, samples_of
from zmqpipeline.protocol.messages import ItemTimes, RunningItem, Status, TaskCounts, TaskStatus, WorkerStatus
from zmqpipeline.protocol.status_records import ITEM_SECONDS, WORKER_STATES

HOWTO = Path(__file__).parents[2] / "docs/howto"

BUSY = WorkerStatus("box/7", "A", "box", 7, 4, "busy", 4, 60, [RunningItem(4, 2, 0.5), RunningItem(1, 1, 75.0)], 100)
TASK = TaskStatus(TaskCounts("A", "open", 64, 60, 3, 0, 5, 6, 7), 100, 1, 2, 4, 1, 10.0, 10, "")


def answer(*tasks: TaskStatus, workers: tuple[WorkerStatus, ...] = (BUSY,)) -> Status:
    """An answer of a distributor."""
    return Status("pipe", "abc", "running", 12.5, "", list(tasks), list(workers), 2000)


def busy(number: int, state: str = "busy", threads: int = 1) -> list[WorkerStatus]:
    """So many workers of the task."""
    return [replace(BUSY, state=state, threads=threads)] * number


def test_an_answer_gives_a_value_to_each_metric() -> None:
    """Those of the task, of its workers, and of the run."""
    found = samples_of([answer(TASK, workers=(BUSY, replace(BUSY, state="ready", running=[])))])
    assert {metric for metric, values in found.items() if not values} == set()
    assert found[x.UP] == {(): 1}
    assert found[x.RUN_INFO] == {("pipe", "abc", "running"): 1}
    assert [found[x.ITEMS]["A", state] for state in x.ITEM_STATES] == [64, 60, 3, 0, 5, 6, 7]
    assert {state for (_, state), value in found[x.TASK_STATE].items() if value} == {"open"}
    assert (found[x.WORKERS]["A", "busy"], found[x.WORKERS]["A", "ready"], found[x.THREADS]["A",]) == (1, 1, 8)
    assert (found[x.LONGEST]["A",], found[x.KEPT]["A",], found[x.QUEUED][()]) == (75.0, 200, 2000)


def test_times_are_added_up_class_by_class() -> None:
    """Of each class those of shorter ones, too, as a histogram has them; of a service like the task, in sum."""
    times = ItemTimes([5, 0, 2, *[0] * (len(ITEM_SECONDS) - 3), 1], 1.5)
    task = replace(TASK, times=times)
    found = samples_of([replace(answer(task), commits=4, commit_seconds=0.5), answer(task, workers=())])
    durations = found[x.ITEM_TIMES]["A",]
    assert isinstance(durations, x.Durations)
    classes = durations.classes()
    assert (durations.seconds, durations.number, classes[0], classes[2]) == (3.0, 16, ("1e-05", 10), ("0.001", 14))
    assert (classes[-1], len(classes)) == (("+Inf", 16), len(ITEM_SECONDS) + 1)
    assert found[x.JOURNAL][()] == x.Durations(0.5, 4)


def test_nobody_there_is_one_value() -> None:
    """`zmqpipeline_up` is 0; nothing else is said."""
    found = samples_of([])
    assert {metric: values for metric, values in found.items() if values} == {x.UP: {(): 0}}


def test_a_service_that_is_called_as_a_task_is_added_to_it() -> None:
    """No metric is told twice with the same labels, which Prometheus would refuse."""
    broker = replace(answer(replace(TASK, total=None), workers=()), pipeline="services", held_bytes=9)
    found = samples_of([answer(TASK), broker])
    assert found[x.ITEMS]["A", "collected"] == 120
    assert (found[x.EXPECTED]["A",], found[x.HELD][()], found[x.RUN_SECONDS][()]) == (100, 9, 12.5)
    assert len(found[x.RUN_INFO]) == 2


def test_workers_beyond_those_that_are_named_are_counted() -> None:
    """An answer names four thousand."""
    found = samples_of([answer(replace(TASK, workers=4001))])
    assert found[x.WORKERS]["A", x.UNNAMED] == 4000
    assert sum(found[x.WORKERS].values()) == 4001
    assert [key for _, key in found[x.WORKERS]] == [*WORKER_STATES, x.UNNAMED]


@pytest.mark.parametrize("state", ["waiting", "complete", "failed", "aborted"])
def test_a_task_that_is_not_open_needs_nobody(state: str) -> None:
    """Whatever is there."""
    assert desired_workers(replace(TASK, counts=TaskCounts("A", state)), busy(3)) == 0


def test_an_open_task_needs_one_worker() -> None:
    """How many more, nobody knows before an item is done; one that drains does not count."""
    assert desired_workers(replace(TASK, workers=0), []) == 1
    assert desired_workers(TASK, busy(1, "draining")) == 1


def test_idle_workers_are_not_needed() -> None:
    """As many as are busy, or are only just coming; one stays."""
    task = replace(TASK, total=10_000, workers=8)
    assert desired_workers(task, [*busy(3), *busy(1, "joining"), *busy(4, "ready")]) == 4
    assert desired_workers(task, busy(8, "ready")) == 1


def test_what_is_left_is_to_take_a_minute() -> None:
    """3 workers have done 30 items in 10 s, so an item takes one of them a second: 6,000 more need 100 workers."""
    task = TaskStatus(TaskCounts("A", "open", 40, 40), 6040, 0, 0, 3, 3, 10.0, 10, "")
    assert desired_workers(task, busy(3)) == 100
    assert desired_workers(replace(task, total=100), busy(3)) == 3, "those that are busy stay"
    assert desired_workers(replace(task, seconds=1000.0, total=48), busy(3)) == 8, "one thread an item"
    assert desired_workers(replace(task, seconds=1000.0, total=48), busy(3, threads=2)) == 4


def test_before_the_first_item_is_done_it_has_taken_as_long_as_the_task() -> None:
    """So items of ten minutes are not waited for."""
    task = TaskStatus(TaskCounts("A", "open", 1), 1000, 0, 0, 1, 1, 0.0, 0, "")
    wanted = [desired_workers(replace(task, seconds=seconds), busy(1)) for seconds in (0.01, 6.0, 600.0)]
    assert wanted == [1, 100, 1000]


def test_without_a_total_one_more_is_asked_for() -> None:
    """As long as all are busy; what is at hand counts, and once the source is exhausted it is all that is left."""
    task = TaskStatus(TaskCounts("A", "open", 100, 98), None, 0, 0, 2, 2, 1.0, 0, "")
    assert desired_workers(task, busy(2)) == 3
    assert desired_workers(replace(task, waiting=5000, seconds=100.0), busy(2)) == 171
    assert desired_workers(replace(task, counts=TaskCounts("A", "exhausted", 100, 98)), busy(2)) == 2


def test_names_keep_the_conventions() -> None:
    """A prefix, base units, and `_total` for counters alone."""
    assert len({metric.exposed for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"zmqpipeline(_[a-z]+)+", metric.exposed)
        assert metric.exposed.endswith("_total") == (metric.kind == "counter")
        assert metric.text.endswith(".")


# pages ----------------------------------------------------------------------------------------------------------------


def test_the_table_on_the_page_has_each_metric() -> None:
    """Its name, its type, its labels and what it means, in the order in which they are exposed."""
    rows = re.findall(r"^\| `(zmqpipeline_\w+)` \| (.*) \| (.*) \| (.*) \|$", (HOWTO / "metrics.md").read_text(), re.M)
    assert rows == [
        (one.exposed, one.kind, ", ".join(f"`{label}`" for label in one.labels), one.text) for one in METRICS
    ]


def used(expression: str) -> set[str]:
    """The names of metrics in an expression."""
    return set(re.findall(r"\bzmqpipeline_\w+", expression))


NAMES = {
    f"{metric.exposed}{end}"
    for metric in METRICS
    for end in {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}.get(metric.kind, ("",))
}


def test_the_dashboard_shows_what_there_is() -> None:
    """It is JSON; each panel has a place of its own and asks for metrics that are exposed."""
    dashboard = json.loads((HOWTO / "grafana-dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel["targets"]:
            assert used(target["expr"]), panel["title"]
            assert used(target["expr"]) <= NAMES, panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for variable in dashboard["templating"]["list"]:
        assert used(json.dumps(variable)) <= NAMES


def test_the_alerts_are_about_what_there_is() -> None:
    """They are YAML, each has a name, what it asks for is exposed, and it says what to do."""
    (group,) = yaml.safe_load((HOWTO / "alerts.yml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) > 5
    for rule in group["rules"]:
        assert used(rule["expr"]), rule["alert"]
        assert used(rule["expr"]) <= NAMES, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_labels_in_expressions_are_those_of_the_metric() -> None:
    """A value that no metric has would match nothing, silently."""
    panels = json.loads((HOWTO / "grafana-dashboard.json").read_text())["panels"]
    rules = yaml.safe_load((HOWTO / "alerts.yml").read_text())["groups"][0]["rules"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]] + [one["expr"] for one in rules]
    known = {"zmqpipeline_items_total": x.ITEM_STATES, "zmqpipeline_task_state": x.STATES}
    found = [
        (metric, states)
        for text in expressions
        for metric, states in re.findall(r'(zmqpipeline_\w+)\{[^}]*state=~?"([\w|]+)"', text)
    ]
    assert len(found) > 5
    for metric, states in found:
        assert set(states.split("|")) <= set(known[metric]), (metric, states)
