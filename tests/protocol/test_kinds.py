"""Failures that are alike are counted: what is told at once, what as a sum, and when."""

from __future__ import annotations

import dataclasses

from zmqpipeline.protocol.delivery import failure_kinds
from zmqpipeline.protocol.delivery.failure_kinds import FailedItems, Kinds
from zmqpipeline.protocol.delivery.failure_summary import GivenUp
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem

KEY = ErrorInfo("KeyError", "'m'", "Traceback ...", "boom.py:14 collect")
ELSEWHERE = ErrorInfo("KeyError", "'m'", "Traceback ...", "boom.py:20 collect")


def item(number: int, trouble: ErrorInfo = KEY, stage: str = "worker", payload: bytes = b"p") -> FailedItem:
    """A failed item of task C."""
    return FailedItem("C", number, 1, stage, trouble, payload)


def test_the_first_of_a_kind_is_told_and_the_next_are_summed_up_after_ten_seconds() -> None:
    """Not sooner, and not again while nothing more came."""
    counted: Kinds[int] = Kinds()
    assert counted.add("C", KEY, lambda: 0, 100.0)
    assert counted.next_time() is None
    assert not any(counted.add("C", KEY, lambda: 1, 100.0 + n / 1000) for n in range(999))
    assert counted.next_time() == 110.0
    assert counted.overdue(109.9) == []
    (kind,) = counted.overdue(110.0)
    assert kind.said() == "KeyError: 'm' in boom.py:14 collect: 1,000 items"
    assert kind.first == 0
    assert (counted.next_time(), counted.overdue(200.0), counted.rest(200.0)) == (None, [], [])


def test_sums_are_ten_seconds_apart_and_the_end_says_the_rest() -> None:
    """A kind that goes on is told once in ten seconds; what was never told is told at the end, once."""
    counted: Kinds[int] = Kinds()
    told = [
        kind.count
        for n in range(1000)
        if counted.add("C", KEY, lambda: 0, n / 10) or True
        for kind in counted.overdue(n / 10)
    ]
    assert told == [101, 201, 301, 401, 501, 601, 701, 801, 901]
    assert [kind.count for kind in counted.rest(100.0)] == [1000]
    assert counted.rest(100.0) == []


def test_kinds_differ_by_task_type_and_place() -> None:
    """The message does not make a kind: it often names the item."""
    counted: Kinds[int] = Kinds()
    another = ErrorInfo("KeyError", "'other'", "", KEY.place)
    assert [counted.add("C", one, lambda: 0, 0.0) for one in (KEY, another, ELSEWHERE)] == [True, False, True]
    assert counted.add("D", KEY, lambda: 0, 0.0)
    assert [kind.count for kind in counted] == [2, 1, 1]


def test_kinds_without_number_are_bounded() -> None:
    """All that are too many count as one, and nothing grows."""
    counted: Kinds[int] = Kinds()
    for n in range(10 * failure_kinds.MAX_KINDS):
        counted.add("C", ErrorInfo("E", "", "", f"generated.py:{n} f"), lambda: 0, 0.0)
    assert len(counted) == failure_kinds.MAX_KINDS + 1
    (rest,) = counted.rest(1.0)
    assert rest.said() == "other errors: of more than 100 kinds: 900 items"


def test_what_is_kept_of_failed_items_is_bounded() -> None:
    """In number, and in bytes; a large item is not kept twice."""
    failed = FailedItems()
    for n in range(2 * failure_kinds.MAX_KEPT):
        failed.add(item(n))
    assert [one.number for one in failed.first] == list(range(failure_kinds.MAX_KEPT))
    failed = FailedItems()
    for n in range(20):
        failed.add(item(n, payload=bytes(1024 * 1024)))
    assert len(failed.first) == 15
    assert [len(kind.first.payload) for kind in failed.kinds] == [0]
    assert failed.troubles() == {"C": KEY}


def test_a_distributor_has_a_line_for_the_first_and_one_for_all() -> None:
    """Of a thousand items two lines are for people; each of those that took their workers along has its own."""
    given_up = GivenUp()
    lines = given_up.lines([item(n) for n in range(1000)], "host/1", 0.0)
    assert [line.level for line in lines] == [30] + 999 * [10]
    assert lines[0].text == (
        "Item 0 of 'C' failed for good after 1 attempt(s) (worker): KeyError: 'm' in boom.py:14 collect"
    )
    assert lines[0].about == {"task": "C", "item": 0, "attempt": 1, "worker": "host/1"}
    (sum_up,) = given_up.rest(1.0)
    assert sum_up.text == "KeyError: 'm' in boom.py:14 collect: 1,000 items of 'C' failed for good; first: item 0"
    lost = ErrorInfo("WorkerLost", "3 workers were lost")
    given_up = GivenUp()
    assert [line.level for line in given_up.lines([item(n, lost, "crash") for n in range(3)], "", 2.0)] == 3 * [30]


def test_what_a_worker_beside_it_has_said_is_not_said_twice() -> None:
    """Of a worker that speaks to the same people; not what that one did not say, or not as failed for good."""
    assert [line.level for line in GivenUp(here="box/7").lines([item(0)], "box/7", 0.0)] == [20]
    given_up = GivenUp(near="box", here="this/7")
    assert [line.level for line in given_up.lines([item(n) for n in range(3)], "box/1", 0.0)] == [20, 10, 10]
    assert [line.level for line in given_up.rest(1.0)] == [20]
    assert given_up.lines([item(0, ELSEWHERE)], "other/1", 0.0)[0].level == 30
    for unsaid in (
        dataclasses.replace(item(0), task="retried", attempts=3),
        item(0, ErrorInfo("TimeoutError", "longer than its timeout")),
        item(0, ErrorInfo("MemoryError", "", "Traceback ...", "boom.py:1 f")),
        item(0, ErrorInfo("KeyError", "'m'", "Traceback ...", "boom.py:2 f"), "crash"),
    ):
        assert given_up.lines([unsaid], "box/1", 2.0)[0].level == 30
