"""The thread that calls observers: what it does with those that raise, block, or leave something untold."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmqpipeline import events
from zmqpipeline.runtime.observing import ObserverThread, Subscription

WAIT = 30.0
Make = Callable[..., ObserverThread]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes threads of observers, and closes them."""
    made: list[ObserverThread] = []

    def make_one(*functions: events.Observer, kind: type[events.Event] = events.Event) -> ObserverThread:
        subscriptions = [Subscription(kind, one, f"observer {index}") for index, one in enumerate(functions)]
        made.append(ObserverThread("worker", subscriptions, logging.getLogger("zmqpipeline.test")))
        return made[-1]

    yield make_one
    for one in made:
        one.close(0.0)


def test_observers_are_called_with_what_they_asked_for(make: Make) -> None:
    """In the order in which it happened, on a thread of their own."""
    seen: list[Any] = []
    done = threading.Event()

    def note(event: events.TaskStarted) -> None:
        seen.append((event.task, threading.current_thread() is threading.main_thread()))
        if event.task == "D":
            done.set()

    one = make(note, kind=events.TaskStarted)
    one.tell(events.TaskStarted, task="C")
    one.tell(events.RoleUp, pid=1, task="")
    one.tell(events.TaskStarted, task="D")
    assert done.wait(WAIT)
    assert seen == [("C", False), ("D", False)]


def test_what_is_told_before_the_end_is_told(make: Make) -> None:
    """Also what nobody has looked at when the role ends."""
    seen: list[events.Event] = []
    one = make(seen.append)
    one.tell(events.TaskStarted, task="C")
    one.close(WAIT)
    one.tell(events.TaskStarted, task="too late")
    assert [type(event) for event in seen] == [events.TaskStarted]


def test_one_that_raises_is_logged_once_a_kind(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is called again all the same, and so are the others; SystemExit ends nothing either."""
    seen: list[events.Event] = []
    errors = iter([ValueError("first"), ValueError("second"), SystemExit(3), KeyboardInterrupt(), ValueError("third")])

    def broken(event: events.Event) -> None:
        raise next(errors)

    one = make(broken, seen.append)
    for number in range(5):
        one.tell(events.TaskStarted, task=str(number))
    one.close(WAIT)
    assert len(seen) == 5
    assert next(errors, None) is None
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"observer 0 raised {kind} at TaskStarted; the run goes on. Further ones of this kind are not logged."
        for kind in ("ValueError", "SystemExit", "KeyboardInterrupt")
    ]
    assert "ValueError: first" in caplog.text


def test_while_one_blocks_items_are_summed_up(make: Make) -> None:
    """The role waits for nobody, and nothing is lost."""
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()
    counts: list[int] = []

    def slow(event: events.ItemCollected) -> None:
        counts.append(event.count)
        entered.set()
        go_on.wait(WAIT)
        if sum(counts) == 10_001:
            done.set()

    one = make(slow, kind=events.ItemCollected)
    one.recorder.items(events.ItemCollected, "C", (0, 1))
    assert entered.wait(WAIT)
    for number in range(10_000):
        one.recorder.items(events.ItemCollected, "C", (number, number + 1))
    go_on.set()
    assert done.wait(WAIT)
    assert counts == [1, 10_000]


def test_the_end_does_not_wait_for_one_that_blocks(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It says so, and how much is not told."""
    entered, go_on = threading.Event(), threading.Event()

    def stuck(event: events.Event) -> None:
        entered.set()
        go_on.wait(WAIT)

    one = make(stuck)
    for task in "CDE":
        one.tell(events.TaskStarted, task=task)
    assert entered.wait(WAIT)
    one.tell(events.TaskStarted, task="F")
    one.close(0.05)
    go_on.set()
    assert "The observers are not done 0.05 s after the end of the role; 3 event(s) are not told." in caplog.text


def test_several_roles_of_a_process_call_one_at_a_time(make: Make) -> None:
    """So that a function of the user may count without a lock, in test runs as elsewhere."""
    inside: list[int] = []
    most: list[int] = []

    def note(event: events.Event) -> None:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.005)
        inside.pop()

    roles = [make(note) for _ in range(3)]
    for number in range(5):
        for one in roles:
            one.tell(events.TaskStarted, task=str(number))
    for one in roles:
        one.close(WAIT)
    assert most == [1] * 15
