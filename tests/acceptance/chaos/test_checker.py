"""The checker finds what it is there for, and excuses what is promised to happen, but no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance.chaos.checker import OPEN_BATCH, judge
from tests.acceptance.chaos.history import History, Hit, Line, read_lines
from tests.acceptance.chaos.report import BEGIN, END, table, write_into
from tests.acceptance.chaos.runner import Result, draw

FIRST, SECOND, COLLECTOR, SUCCESSOR = 11, 12, 21, 22
"""Process ids: of two workers, of the collector, and of the one that follows it."""


def line(task: str, n: int, at: float, pid: int, attempt: int = 1) -> Line:
    """Something that happened to an item."""
    return Line((task, n), attempt, at, pid)


@pytest.fixture
def history() -> History:
    """Four items of A, two of B, each executed and collected once, in order; a second each."""
    items = [("A", 0), ("A", 1), ("A", 2), ("A", 3), ("B", 0), ("B", 1)]
    return History(
        expected=set(items),
        executions=[line(task, n, at, FIRST) for at, (task, n) in enumerate(items)],
        collected=[line(task, n, at + 0.5, COLLECTOR, 0) for at, (task, n) in enumerate(items)],
    )


def test_a_run_without_a_fault_has_no_problems(history: History) -> None:
    """Everything once, and nothing to report."""
    verdict = judge(history)
    assert verdict.problems == []
    assert verdict.items == 6
    assert (verdict.again, verdict.repeated) == (set(), set())
    assert (verdict.notice, verdict.recover) == ([], [])


def test_what_is_missing_is_lost_unless_it_failed_as_it_should(history: History) -> None:
    """A failed item is not lost. One that had no reason to fail is unexpected, and one that had to and did not."""
    history.collected.pop(0)
    assert judge(history).problems == ["1 items lost: A 0"]
    history.failures.append(line("A", 0, 0.6, COLLECTOR))
    assert judge(history).problems == ["1 items unexpected: A 0"]
    history.may_fail = {("A", 0)}
    assert judge(history).problems == []
    history.may_fail = {("A", 0), ("A", 1)}
    assert judge(history).problems == ["1 items unexpected: A 1"]


def test_what_never_went_in_is_unexpected(history: History) -> None:
    """An item out of nowhere."""
    history.collected.append(line("A", 99, 0.1, COLLECTOR))
    assert judge(history).problems == ["1 items unexpected: A 99"]


def test_a_second_collection_is_excused_by_a_crash_a_moment_later_only(history: History) -> None:
    """Not without a crash, not of another process, not long before it, and with a journal never."""
    history.collected.append(line("A", 3, 6.0, SUCCESSOR, 0))
    assert judge(history).problems == ["1 items duplicated: A 3"]
    crash = Hit("the collector killed", 3.6, died=frozenset({COLLECTOR}))
    history.hits = [crash]
    verdict = judge(history)
    assert (verdict.problems, verdict.repeated) == ([], {("A", 3)})
    history.journal = True
    assert judge(history).duplicated == {("A", 3)}
    history.journal = False
    history.hits = [replace(crash, at=3.5 + 2 * OPEN_BATCH)]
    assert judge(history).duplicated == {("A", 3)}
    history.hits = [replace(crash, died=frozenset({SUCCESSOR}))]
    assert judge(history).duplicated == {("A", 3)}


def test_a_third_collection_is_not_excused_by_one_crash(history: History) -> None:
    """The successor did not crash, so what it collected stays collected."""
    history.collected += [line("A", 3, 6.0, SUCCESSOR, 0), line("A", 3, 7.0, SUCCESSOR, 0)]
    history.hits = [Hit("the collector killed", 3.6, died=frozenset({COLLECTOR}))]
    assert judge(history).duplicated == {("A", 3)}


def test_an_item_may_be_executed_once_more_for_each_hit_that_costs_something(history: History) -> None:
    """More than that, or for something that costs nothing, is too much."""
    history.executions.append(line("A", 1, 2.0, SECOND, 2))
    assert judge(history).problems == ["1 items excess: A 1"]
    history.hits = [Hit("a pause", 1.5, costs=0)]
    assert judge(history).problems == ["1 items excess: A 1"]
    history.hits = [Hit("a worker killed", 1.5, frozenset({FIRST}))]
    verdict = judge(history)
    assert (verdict.problems, verdict.again) == ([], {("A", 1)})


def test_what_depends_on_a_task_may_not_begin_before_its_last_item_is_collected(history: History) -> None:
    """B 0 is executed while A 3 is still on its way."""
    history.executions.append(line("B", 0, 3.2, SECOND))
    history.hits = [Hit("something", 3.0)]
    assert judge(history).problems == ["1 items early: B 0"]
    history.ordered = False
    assert judge(history).problems == []


def test_a_child_is_not_executed_before_a_parent_is_collected(history: History) -> None:
    """B 0 comes of A 3, and A 0 of nobody: an execution before A 3 is collected, or without that, is too early."""
    parents = {("B", 0): {("A", 3)}, ("B", 1): {("A", 3), ("A", 0)}}
    history.parents = lambda item: parents.get(item, set())
    assert judge(history).problems == []
    history.hits = [Hit("something", 3.0)]
    history.executions.append(line("B", 0, 3.2, SECOND))
    history.executions.append(line("B", 1, 3.2, SECOND))
    history.ordered = False
    assert judge(history).problems == ["1 items orphaned: B 0"]
    history.collected = [one for one in history.collected if one.item != ("A", 3)]
    assert judge(history).problems == ["1 items lost: A 3", "1 items orphaned: B 0"]


def test_a_plan_with_stages_reaches_each_item() -> None:
    """By the children of its results, which are the parents of what they give."""
    plan = replace(draw(0, "stages-storm")[0], items=50)
    found, left = {0}, [0]
    while left:
        n = left.pop()
        for child in plan.children(n):
            assert child == 0 or n in plan.parents("A", child)
            if child not in found:
                found.add(child)
                left.append(child)
    assert found == set(range(50))
    assert {parent for n in range(plan.sizes["B"]) for parent in plan.parents("B", n)} == set(range(0, 50, 2))


def test_notice_and_recover_are_of_what_a_struck_worker_held(history: History) -> None:
    """From the kill to the first execution of such an item by another worker, and to its collection."""
    history.executions[2] = line("A", 2, 2.0, FIRST)
    history.executions += [line("A", 2, 2.4, SECOND, 2), line("A", 3, 2.45, SECOND, 2)]
    history.executions.remove(line("A", 3, 3, FIRST))
    history.hits = [Hit("the first worker killed", 2.1, frozenset({FIRST}))]
    verdict = judge(history)
    assert verdict.problems == []
    assert verdict.notice == pytest.approx([0.3])
    assert verdict.recover == pytest.approx([3.5 - 2.1])


def test_what_another_worker_had_begun_is_not_counted_for_the_struck_one(history: History) -> None:
    """A retry of somebody else's item says nothing about when the loss was noticed."""
    history.executions[1] = line("A", 1, 1.0, SECOND)
    history.executions += [line("A", 1, 2.2, SECOND, 2), line("A", 2, 2.7, SECOND, 2)]
    history.hits = [Hit("the first worker killed", 2.1, frozenset({FIRST}))]
    assert judge(history).notice == pytest.approx([0.6])


def test_of_everything_else_recovery_is_until_the_next_item_is_collected(history: History) -> None:
    """Counted from the moment when the role was started again."""
    history.hits = [Hit("the distributor killed", 1.7, healed=2.1)]
    verdict = judge(history)
    assert verdict.notice == []
    assert verdict.recover == pytest.approx([0.4])


def test_lines_are_read_as_far_as_they_are_complete(tmp_path: Path) -> None:
    """The last line of a process that was killed while it wrote is no line; a file that is not there has none."""
    path = tmp_path / "executions"
    assert read_lines(path) == []
    path.write_text("A 1 2 3.5 77\nB 0 1 4.25 78\nA 2 1 5.")
    assert read_lines(path) == [Line(("A", 1), 2, 3.5, 77), Line(("B", 0), 1, 4.25, 78)]


def test_a_seed_draws_the_same_plan_each_time() -> None:
    """And another seed, or another fault, another one."""
    drawn = [draw(seed, name)[0] for seed, name in [(1, "worker-kill"), (1, "worker-kill"), (2, "worker-kill")]]
    assert drawn[0] == drawn[1]
    assert len({replace(draw(seed, "worker-kill")[0], seed=0) for seed in range(20)}) > 10


def test_the_table_sums_up_and_finds_its_place_in_a_document(history: History, tmp_path: Path) -> None:
    """A row a fault and one for all; around the markers the document stays as it is; without them it is refused."""
    good, bad = (Result(draw(seed, "worker-kill")[0], 2.0, judge(history)) for seed in (0, 1))
    bad.verdict = judge(replace(history, collected=history.collected[1:]))
    bad.verdict.notice, bad.verdict.recover = [0.1, 0.3], [2.0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table([good, bad])[2:]]
    assert [row[0] for row in rows] == ["worker-kill", "all"]
    assert rows[0][1:] == ["2", "12", "1", "0", "0", "0", "0", "0", "0.20 s", "0.30 s", "2.00 s", "2.00 s"]
    document = tmp_path / "reliability.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(document, ["new"])
    assert document.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    document.write_text("no markers\n")
    with pytest.raises(ValueError, match="Add them"):
        write_into(document, ["new"])
    assert document.read_text() == "no markers\n"
