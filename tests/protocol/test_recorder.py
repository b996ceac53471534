"""What is summed up between two looks, and how much of it is kept."""

from __future__ import annotations

from zmqpipeline import events
from zmqpipeline.protocol.recorder import MAX_EVENTS, MAX_RANGES, Recorder


def test_what_happens_alike_is_one_event() -> None:
    """Its numbers are ranges, its counts are added up, its time is that of the last; then it begins anew."""
    recorder = Recorder("worker", epoch=1000.0)
    for at, spans in ((1.0, (0, 3)), (2.0, (3, 5)), (3.5, (7, 8))):
        recorder.at(at)
        recorder.items(events.ItemExecuted, "C", spans, failed=1, seconds=0.5)
    (event,) = recorder.take()
    assert event == events.ItemExecuted(
        time=1003.5, role="worker", task="C", count=6, items=((0, 5), (7, 8)), failed=3, seconds=1.5
    )
    assert recorder.take() == []


def test_what_happens_twice_to_an_item_counts_twice() -> None:
    """Its number is told once."""
    recorder = Recorder("distributor")
    for _ in range(2):
        recorder.items(events.ItemSent, "C", (0, 3), by={"worker": "h/1"})
    (event,) = recorder.take()
    assert isinstance(event, events.ItemSent)
    assert (event.count, event.items) == (6, ((0, 3),))


def test_tasks_and_workers_are_told_apart_in_the_order_of_their_first() -> None:
    """And other events stand where they happened."""
    recorder = Recorder("distributor")
    recorder.add(events.TaskStarted, task="C")
    recorder.items(events.ItemSent, "C", (0, 1), by={"worker": "h/1"})
    recorder.items(events.ItemSent, "D", (0, 1), by={"worker": "h/1"})
    recorder.items(events.ItemSent, "C", (1, 2), by={"worker": "h/2"})
    recorder.items(events.ItemSent, "C", (2, 3), by={"worker": "h/1"})
    recorder.items(events.ItemSent, "C", (), by={"worker": "h/3"})
    started, *sent = recorder.take()
    assert isinstance(started, events.TaskStarted)
    assert [(one.task, one.worker, one.items) for one in sent if isinstance(one, events.ItemSent)] == [
        ("C", "h/1", ((0, 1), (2, 3))),
        ("D", "h/1", ((0, 1),)),
        ("C", "h/2", ((1, 2),)),
    ]


def test_too_many_ranges_are_none_and_the_count_is_right() -> None:
    """Those that become one range in time are no trouble."""
    recorder = Recorder("collector")
    for number in range(0, 2 * MAX_RANGES + 2, 2):
        recorder.items(events.ItemCollected, "C", (number, number + 1))
    for number in range(5 * MAX_RANGES):
        recorder.items(events.ItemCollected, "D", (number, number + 1))
    scattered, whole = recorder.take()
    assert isinstance(scattered, events.ItemCollected)
    assert isinstance(whole, events.ItemCollected)
    assert (scattered.count, scattered.items) == (MAX_RANGES + 1, ())
    assert (whole.count, whole.items) == (5 * MAX_RANGES, ((0, 5 * MAX_RANGES),))


def test_sums_of_too_many_workers_are_one_and_nothing_is_lost() -> None:
    """A worker beyond the bound is nobody by name."""
    recorder = Recorder("distributor")
    for number in range(3 * MAX_EVENTS):
        recorder.items(events.ItemSent, "C", (number, number + 1), by={"worker": f"h/{number}"})
    taken = recorder.take()
    sent = [one for one in taken if isinstance(one, events.ItemSent)]
    assert len(taken) == len(sent) == MAX_EVENTS + 1
    assert sum(one.count for one in sent) == 3 * MAX_EVENTS
    assert [one.count for one in sent if not one.worker] == [2 * MAX_EVENTS]


def test_other_events_beyond_the_bound_are_counted() -> None:
    """Nothing is lost in silence; the next ones are kept again."""
    recorder = Recorder("distributor")
    for number in range(MAX_EVENTS + 7):
        recorder.add(events.WorkerJoined, task="C", worker=str(number), slots=1)
    *joined, dropped = recorder.take()
    assert len(joined) == MAX_EVENTS
    assert isinstance(dropped, events.EventsDropped)
    assert dropped.count == 7
    recorder.add(events.TaskStarted, task="C")
    assert len(recorder.take()) == 1


def test_whoever_waits_is_woken_once_for_each_look() -> None:
    """By the first thing that happens after it."""
    woken: list[int] = []
    recorder = Recorder("worker", wake=lambda: woken.append(1))
    for _ in range(3):
        recorder.add(events.TaskStarted, task="C")
        recorder.items(events.ItemSent, "C", (0, 1), by={"worker": ""})
    assert len(woken) == 1
    recorder.take()
    recorder.items(events.ItemSent, "C", (0, 1), by={"worker": ""})
    assert len(woken) == 2
