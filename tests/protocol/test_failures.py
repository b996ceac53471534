"""Failed items on their way to the collector: how many at a time, what is said of them, and when the source waits."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE
from tests.support.scenes import Scene, Task
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.codec import decode, encode
from zmqpipeline.protocol.credit import MAX_BATCH, MAX_BATCH_BYTES
from zmqpipeline.protocol.delivery.failures import in_a_line, in_messages
from zmqpipeline.protocol.fields import MAX_NAME, MAX_TEXT


def failures(*sizes: int) -> list[m.FailedItem]:
    """Failed items with data of these sizes."""
    return [m.FailedItem("A", number, 1, "worker", TROUBLE, b"x" * size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([], []),
        ([0], [1]),
        ([MAX_BATCH_BYTES * 3], [1]),
        ([10, MAX_BATCH_BYTES, 10], [1, 1, 1]),
        ([MAX_BATCH_BYTES // 3] * 7, [2, 2, 2, 1]),
        ([0] * (2 * MAX_BATCH + 1), [MAX_BATCH, MAX_BATCH, 1]),
    ],
    ids=["none", "one", "a large one", "one between", "three of a third", "many"],
)
def test_a_message_is_bounded_in_items_and_in_bytes(sizes: list[int], counts: list[int]) -> None:
    """All of them, in order; at least one a message, however large it is."""
    items = failures(*sizes)
    found = list(in_messages(items))
    assert [item for some in found for item in some] == items
    if sum(sizes):
        assert [len(some) for some in found] == counts
    assert all(len(some) <= MAX_BATCH for some in found)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["error", "message", "traceback", "stage"])
def test_whatever_texts_they_have_a_message_of_them_can_be_sent(where: str) -> None:
    """A worker says them, and the distributor says them again: one that it could not encode would end it."""
    long = "\U0001f600" * (MAX_NAME if where == "stage" else MAX_TEXT)
    trouble = (
        m.ErrorInfo("E", "no") if where == "stage" else m.ErrorInfo(**{"error": "E", "message": "no", where: long})
    )
    stage = long if where == "stage" else "worker"
    items = [m.FailedItem("A", number, 1, stage, trouble, b"") for number in range(700)]
    for some in in_messages(items):
        assert decode(encode(m.Envelope(b"d", b"c", 1, 0, m.GiveUp("run", some)))).body == m.GiveUp("run", some)


def test_a_worker_cannot_make_a_distributor_say_what_is_too_long() -> None:
    """The longest message of one failure that is read is passed on with the task's own, longer name."""
    name = "a task with a long name"
    scene = Scene(Task(name))
    worker = scene.worker(name)
    scene.produce(0, task=name)
    trouble = m.ErrorInfo("x" * MAX_TEXT, "x" * MAX_TEXT, "x" * MAX_TEXT)
    worker.says(m.ItemsFailed("run", [m.FailedItem("", 0, 1, "", trouble, b"")]))
    (told,) = scene.collector.was_told(m.GiveUp)
    assert decode(encode(m.Envelope(b"d", b"c", 1, 0, told))).body == told


def test_a_line_of_the_log_is_one_line_and_short() -> None:
    """What a terminal would take for an order is shown as what it is: not printable."""
    assert in_a_line(m.ErrorInfo("ValueError", "no")) == "ValueError: no"
    assert in_a_line(m.ErrorInfo("ValueError", "first\nsecond")) == "ValueError: first..."
    assert in_a_line(m.ErrorInfo("ValueError", "a\x1b[31mb")) == "ValueError: a?[31mb..."
    assert in_a_line(m.ErrorInfo("a\nb" * 100, "no")) == f"{('a?b' * 100)[:200]}: no"
    assert in_a_line(m.ErrorInfo("ValueError", "x" * 70_000)) == f"ValueError: {'x' * 200}..."


@pytest.mark.parametrize("options", [Options(max_held_items=2), Options(max_held_bytes=2)], ids=["items", "bytes"])
def test_the_source_waits_for_the_collector_to_write_failures_down(options: Options) -> None:
    """They are bounded as results are: a source whose items all fail is not emptied into the distributor's memory."""
    scene = Scene(Task("A"), options=options)
    worker = scene.worker(window=1)
    for number in range(2):
        scene.produce(number)
        worker.fails(number)
        worker.report(1)
    assert scene.bench.of(c.Produce) == []
    scene.ack(failed=(0, 1))
    assert scene.bench.one(c.Produce).task == "A"
