"""Streams of a service client: in which order requests are taken from an iterable, and replies are given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.roles.test_client import Place
from tests.support.roles import running
from zmqpipeline.roles import streams
from zmqpipeline.roles.streams import OpenRequests


class Service:
    """Answers when it is told, or at once; keeps what happened, in order."""

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.steps: list[str] = []
        self.asked: list[Future[Any]] = []

    def submit(self, one: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append(future)
        if self.at_once:
            future.set_result(one)
        return future

    def source(self, count: int, meanwhile: Callable[[int], object] = lambda n: None) -> Iterator[int]:
        """So many requests; `meanwhile` happens while each is made, and at the end."""
        for n in range(count):
            self.steps.append(f"ask {n}")
            meanwhile(n)
            yield n
        meanwhile(count)

    def read(self, requests: OpenRequests) -> list[str]:
        """Read all replies; the steps."""
        while (future := requests.next()) is not None:
            self.steps.append(f"reply {future.result()}")
        return self.steps


def test_a_reply_that_is_there_is_given_before_more_is_asked_for() -> None:
    """However many may be open."""
    service = Service(at_once=True)
    steps = service.read(OpenRequests(service.source(3), service.submit, 1000))
    assert steps == ["ask 0", "reply 0", "ask 1", "reply 1", "ask 2", "reply 2"]


def test_a_quick_iterable_is_taken_from_between_two_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the program is at replies that are there, the workers have requests."""
    # also if the process stands still while one is made
    monkeypatch.setattr(streams, "SLOW_SECONDS", 60.0)
    service = Service()

    def answer(n: int) -> None:
        for number, future in enumerate(service.asked if n >= 4 else []):
            if not future.done():
                future.set_result(number)

    steps = service.read(OpenRequests(service.source(7, answer), service.submit, 1000))
    asked = [f"ask {n}" for n in range(5)]
    assert steps[:9] == [*asked, "reply 0", "ask 5", "reply 1", "ask 6"]


def test_no_more_are_open_than_there_may_be() -> None:
    """And as many, while no reply comes."""
    service = Service()

    def answer_at(n: int) -> None:
        if n == 2:
            threading.Timer(0.05, lambda: service.asked[0].set_result(0)).start()

    requests = OpenRequests(service.source(9, answer_at), service.submit, 3)
    future = requests.next()
    assert future is not None
    assert (future.result(), service.steps) == (0, ["ask 0", "ask 1", "ask 2"])


def test_replies_that_are_there_go_before_the_next_request_of_a_slow_iterable(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them."""
    monkeypatch.setattr(streams, "SLOW_SECONDS", 0.0)
    service = Service()

    def answer(n: int) -> None:
        for number, future in enumerate(service.asked if n == 3 else []):
            future.set_result(number)

    steps: list[str] = []
    requests = OpenRequests(service.source(5, answer), service.submit, 1000)
    for _ in range(3):
        future = requests.next()
        assert future is not None
        steps.append(f"reply {future.result()}")
    assert service.steps == [f"ask {n}" for n in range(4)]
    assert steps == ["reply 0", "reply 1", "reply 2"]


@pytest.fixture
def place() -> Place:
    """A broker and a worker, for this test alone."""
    return Place()


def test_a_stream_gives_replies_while_its_iterable_is_slow(place: Place) -> None:
    """The first one comes before the iterable is at its end, which waits for it, though so many might be open."""
    steps: list[str] = []

    def slow() -> Iterator[dict[str, int]]:
        for n in range(500):
            time.sleep(0.1)
            steps.append(f"ask {n}")
            yield {"n": n}
            if n >= 4 and "reply 0" in steps:
                return

    with running(place.broker(), place.worker()), place.client() as client:
        client.request({"n": -1})
        for reply in client.stream(slow()):
            steps.append(f"reply {reply['n']}")
    asked = [step for step in steps if step.startswith("ask ")]
    assert steps.index("reply 0") < steps.index(asked[-1]), steps
    assert len(asked) < 500
    assert steps[-1] == asked[-1].replace("ask", "reply")


def test_a_request_may_depend_on_the_reply_before(place: Place) -> None:
    """With one at a time."""
    replies = [0]

    def source() -> Iterator[dict[str, int]]:
        while replies[-1] < 5:
            yield {"n": replies[-1] + 1}

    with running(place.broker(), place.worker()), place.client() as client:
        for reply in client.stream(source(), at_once=1):
            replies.append(reply["n"])
    assert replies == [0, 1, 2, 3, 4, 5]
