"""The service client's machine, law by law, with a broker played by hand."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE, Bench, Stranger
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.credit import MAX_BATCH_BYTES
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.services import client as client_module
from zmqpipeline.protocol.services.client import ASK_ANSWERS, ASK_SECONDS, FIRST_REQUESTS, WINDOW, ClientMachine


class Scene:
    """A client and a broker played by hand; `connected`: the broker has spoken."""

    def __init__(self, *, connected: bool = True) -> None:
        self.machine = ClientMachine(incarnation=b"client")
        self.bench = Bench(self.machine)
        self.broker = Stranger(self.bench, "clients", who=b"broker")
        self.number = 0
        if connected:
            self.connect()

    def connect(self) -> None:
        """The connection is up, and the broker answers the first question."""
        self.bench.tell(e.Connected("clients"))
        self.says(m.Unknown(()))

    def submit(self, count: int = 1, *, service: str = "upper", timeout: float | None = 30.0, size: int = 2) -> range:
        """Submit so many requests in one turn of their own; their numbers."""
        numbers = range(self.number, self.number + count)
        self.number += count
        self.turn(e.Submit(service, list(numbers), [b"%d" % n + b"." * size for n in numbers], timeout))
        return numbers

    def turn(self, event: e.Event) -> None:
        """This event, and the end of its turn."""
        found = self.bench.tell(event)
        deadline = self.machine.next_deadline()
        if deadline is not None and deadline <= self.bench.now:
            found = found + self.bench.tell(e.Tick())
        self.bench.last = found

    def says(self, body: m.Message) -> None:
        """The broker says this."""
        self.turn(e.Received(self.broker.peer, self.broker.hears().wrap(body)))

    def replies(self, *numbers: int) -> None:
        """The broker answers these."""
        self.says(m.Replies(spans_of(numbers), [b"r%d" % number for number in sorted(numbers)]))

    def asked(self) -> dict[int, bool]:
        """The requests in the last messages, and whether they were said to be asked again."""
        return {n: one.again for one in self.bench.said(m.Requests) for n in numbers_of(one.spans)}

    def rejected(self) -> dict[int, str]:
        """What was rejected last, by kind."""
        return {number: one.kind for one in self.bench.of(c.Reject) for number in one.numbers}


@pytest.fixture
def scene() -> Scene:
    """A client that is connected to a broker."""
    return Scene()


def test_a_request_is_sent_and_its_reply_resolves_it(scene: Scene) -> None:
    """The reply is handed on once; a second one finds nobody waiting."""
    scene.submit()
    (message,) = scene.bench.said(m.Requests)
    assert (message.service, message.again, message.spans) == ("upper", False, (0, 1))
    scene.replies(0)
    assert scene.bench.one(c.Resolve) == c.Resolve([0], [b"r0"])
    scene.replies(0)
    assert scene.bench.of(c.Resolve) == []


def test_what_is_submitted_in_one_turn_is_sent_together(scene: Scene) -> None:
    """Three submits and the end of the turn: one message."""
    for number in range(3):
        scene.bench.tell(e.Submit("upper", [number], [b"x"], None))
        assert scene.bench.said(m.Requests) == []
    scene.bench.tell(e.Tick())
    assert scene.bench.said_one(m.Requests).spans == (0, 3)


def test_nothing_is_asked_before_the_broker_has_spoken() -> None:
    """It is asked for a word at the connection and each second; with its first word the requests go out."""
    scene = Scene(connected=False)
    scene.submit()
    assert scene.bench.last == []
    scene.bench.tell(e.Connected("clients"))
    assert [one.envelope.body for one in scene.bench.of(c.Send)] == [m.Asking(())]
    scene.bench.wait(2 * ASK_SECONDS + 0.1)
    assert scene.bench.said(m.Asking) == [m.Asking(()), m.Asking(())]
    scene.says(m.Unknown(()))
    assert scene.asked() == {0: False}


def test_an_idle_client_is_silent(scene: Scene) -> None:
    """Once nothing is awaited it asks once more, so that the broker forgets its answers, and never again."""
    scene.submit()
    scene.replies(0)
    scene.bench.wait(60.0)
    assert scene.bench.said(m.Asking) == [m.Asking(())]
    assert scene.machine.next_deadline() is None


def test_it_asks_each_second_for_what_it_waits_for(scene: Scene) -> None:
    """All that was sent and not answered, as ranges."""
    scene.submit(5, timeout=None)
    scene.replies(2)
    scene.bench.wait(ASK_SECONDS + 0.1)
    assert scene.bench.said(m.Asking) == [m.Asking((0, 2, 3, 5))]


def test_it_asks_after_many_answers(scene: Scene) -> None:
    """A busy client lets the broker forget what it has received without waiting for the second."""
    for _ in range(ASK_ANSWERS // 100):
        numbers = scene.submit(100)
        scene.replies(*numbers)
    assert scene.bench.said(m.Asking) == [m.Asking(())]


def test_after_a_gap_it_asks_before_it_says_anything_else(scene: Scene) -> None:
    """A message of the broker was lost: what is still awaited is told first, even if the message calls for requests."""
    scene.submit(2)
    scene.broker.loses(m.Replies((0, 1), [b"r0"]))
    scene.says(m.Unknown((1, 2)))
    said = [type(one.envelope.body) for one in scene.bench.of(c.Send)]
    assert said == [m.Asking, m.Requests]
    assert scene.bench.said(m.Asking) == [m.Asking((0, 2))]


def test_what_the_broker_does_not_know_is_sent_again(scene: Scene) -> None:
    """The same broker never had it: it is a first time."""
    scene.submit(3)
    scene.says(m.Unknown((1, 2)))
    assert scene.asked() == {1: False}


def test_another_broker_is_told_that_an_earlier_one_was_asked(scene: Scene) -> None:
    """What the earlier one may have had executed is marked; what it was never asked is not."""
    scene.submit(2)
    scene.bench.tell(e.Disconnected("clients"))
    scene.submit(1)
    assert scene.bench.said(m.Requests) == []
    scene.broker = Stranger(scene.bench, "clients", who=b"second")
    scene.bench.tell(e.Connected("clients"))
    assert scene.bench.said(m.Asking) == [m.Asking((0, 2))]
    scene.says(m.Unknown((0, 2)))
    assert scene.asked() == {0: True, 1: True, 2: False}
    scene.says(m.Unknown((0, 3)))
    assert scene.asked() == {0: False, 1: False, 2: False}


def test_a_refusal_rejects_with_its_kind(scene: Scene) -> None:
    """What the broker declined is told once, with its trouble."""
    scene.submit(3)
    scene.says(m.Declined("error", (0, 2), TROUBLE))
    assert scene.bench.one(c.Reject) == c.Reject([0, 1], "error", TROUBLE)
    scene.says(m.Declined("lost", (1, 3), TROUBLE))
    assert scene.rejected() == {2: "lost"}


# time -----------------------------------------------------------------------------------------------------------------


def test_a_request_runs_out_of_time_once(scene: Scene) -> None:
    """It is rejected at its time and withdrawn; a late answer is dropped; others wait on."""
    scene.submit(timeout=0.5)
    scene.submit(timeout=None)
    scene.bench.wait(0.6)
    assert scene.rejected() == {0: "timeout"}
    assert scene.bench.said(m.Withdrawn) == [m.Withdrawn((0, 1))]
    scene.replies(0, 1)
    assert scene.bench.one(c.Resolve).numbers == [1]


def test_a_timeout_of_0_is_over_before_it_is_sent(scene: Scene) -> None:
    """Nobody executes what nobody can wait for."""
    scene.submit(timeout=0.0)
    assert (scene.rejected(), scene.asked()) == ({0: "timeout"}, {})
    assert "over before the request was sent" in scene.bench.one(c.Reject).trouble.message


def test_a_timeout_of_0_behind_others_says_no_more() -> None:
    """A few requests are with the broker, and there was room for one more; others of another service are many."""
    scene = Scene()
    scene.submit(3, timeout=None)
    scene.submit(2 * WINDOW, service="lower", timeout=None)
    scene.submit(timeout=0.0)
    assert "over before the request was sent" in scene.bench.one(c.Reject).trouble.message
    scene.submit(service="lower", timeout=0.0)
    assert "waited for earlier ones" in scene.bench.one(c.Reject).trouble.message


def test_a_timeout_says_that_nobody_is_there() -> None:
    """The reason names what can be seen from here: no broker, a silent one, or earlier requests in front."""
    scene = Scene(connected=False)
    scene.submit(timeout=1.0)
    scene.bench.wait(1.0)
    assert "no broker is connected" in scene.bench.one(c.Reject).trouble.message
    scene.bench.tell(e.Connected("clients"))
    scene.submit(timeout=1.0)
    scene.bench.wait(1.0)
    assert "the broker has said nothing" in scene.bench.one(c.Reject).trouble.message
    scene.connect()
    scene.submit(WINDOW, timeout=None)
    scene.submit(timeout=1.0)
    scene.bench.wait(1.0)
    assert "waited for earlier ones" in scene.bench.one(c.Reject).trouble.message


@pytest.mark.slow
def test_answered_requests_do_not_pile_up_until_their_time(scene: Scene) -> None:
    """A long time-out costs nothing once the answer is there."""
    scene.submit(timeout=None)
    for _ in range(1500):
        scene.replies(*scene.submit(timeout=3600.0))
    assert len(scene.machine._due) <= 1001


# the window -----------------------------------------------------------------------------------------------------------


def test_a_long_list_waits_here(scene: Scene) -> None:
    """At most a window of requests of one service is with the broker; each answer lets another one go, in order."""
    scene.submit(WINDOW + 10)
    assert sorted(scene.asked()) == list(range(WINDOW))
    scene.replies(5, 6)
    assert sorted(scene.asked()) == [WINDOW, WINDOW + 1]


def test_services_do_not_wait_for_each_other(scene: Scene) -> None:
    """A slow service that is full does not hold up another."""
    scene.submit(WINDOW + 1, service="slow")
    scene.submit(service="quick")
    assert list(scene.asked()) == [WINDOW + 1]


def test_the_window_is_of_bytes_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large requests wait for each other; one is always sent."""
    monkeypatch.setattr(client_module, "WINDOW_BYTES", 100)
    scene.submit(3, size=500)
    assert list(scene.asked()) == [0]
    scene.replies(0)
    assert list(scene.asked()) == [1]


def test_no_more_is_asked_for_than_has_replies_that_the_broker_has_room_for(scene: Scene) -> None:
    """Eight while nothing is known of their size; then as many as fit, by the size of the last ones, at least one."""
    scene.says(m.Unknown((), (), 1_000_000))
    scene.submit(100)
    assert len(scene.asked()) == FIRST_REQUESTS
    scene.says(m.Replies((0, 1), [bytes(50_000)]))
    assert len(scene.asked()) == 20 - FIRST_REQUESTS + 1
    scene.says(m.Replies((1, 2), [bytes(3_000_000)]))
    assert scene.asked() == {}
    waiting = list(scene.machine._sent)
    scene.says(m.Replies(spans_of(waiting), [bytes(2_000_000) for _ in waiting]))
    assert len(scene.asked()) == 1


def test_as_long_as_no_reply_comes_more_is_asked_for_each_second(scene: Scene) -> None:
    """The replies take long: many workers may be there that could be busy meanwhile."""
    scene.says(m.Unknown((), (), 1_000_000))
    scene.submit(100, timeout=None)
    told = []
    for _ in range(4):
        scene.bench.wait(ASK_SECONDS)
        told.append(len(scene.machine._sent))
    assert told == [16, 32, 64, 100]


def test_replies_are_confirmed_before_their_room_is_used_up(scene: Scene) -> None:
    """The broker sends no more than the room: after half of it the client says what it has."""
    scene.says(m.Unknown((), (), 1000))
    scene.submit(4)
    scene.says(m.Replies((0, 1), [bytes(499)]))
    assert scene.bench.said(m.Asking) == []
    scene.says(m.Replies((1, 2), [bytes(1)]))
    assert scene.bench.said(m.Asking)


def test_withdrawn_requests_leave_the_window(scene: Scene) -> None:
    """What was sent is told to the broker, what was not is never sent; the next ones go out."""
    scene.submit(WINDOW + 3)
    scene.turn(e.Withdraw([0, WINDOW]))
    assert scene.bench.said(m.Withdrawn) == [m.Withdrawn((0, 1))]
    assert list(scene.asked()) == [WINDOW + 1]


def test_a_message_is_bounded(scene: Scene) -> None:
    """Many bytes are sent in several messages of a bounded size."""
    scene.submit(40, size=100_000)
    sizes = [sum(map(len, one.payloads)) for one in scene.bench.said(m.Requests)]
    assert len(sizes) == 40 // (MAX_BATCH_BYTES // 100_000)
    assert max(sizes) <= MAX_BATCH_BYTES


# the end --------------------------------------------------------------------------------------------------------------


def test_closing_withdraws_and_rejects_all(scene: Scene) -> None:
    """Those that are with the broker are withdrawn; all are rejected; then nothing happens any more."""
    scene.submit(WINDOW + 1)
    scene.bench.tell(e.Drain(0.0))
    assert scene.bench.said(m.Withdrawn) == [m.Withdrawn((0, WINDOW))]
    assert scene.rejected() == dict.fromkeys(range(WINDOW + 1), "unavailable")
    assert scene.bench.ended == c.Ended(0, "closed")
    for event in (e.Tick(), e.Connected("clients"), e.Drain(0.0), e.Submit("upper", [9999], [b""], None)):
        assert scene.machine.handle(event, 1e9) == []
    assert scene.machine.next_deadline() is None


def test_repeats_are_dropped(scene: Scene) -> None:
    """A message that comes twice is one."""
    scene.submit(2)
    envelope = scene.broker.hears().wrap(m.Replies((0, 1), [b"r0"]))
    scene.turn(e.Received(scene.broker.peer, envelope))
    assert scene.bench.one(c.Resolve).numbers == [0]
    scene.turn(e.Received(scene.broker.peer, envelope))
    assert scene.bench.last == []


def test_a_request_that_nobody_serves_is_unavailable_when_its_time_is_over(scene: Scene) -> None:
    """By the broker's last word; what a worker has by then is late, and a broken connection makes the word void."""
    scene.submit(3, timeout=0.5)
    scene.says(m.Unknown((), (0, 3)))
    scene.says(m.Unknown((), (1, 2)))
    scene.bench.wait(0.6)
    assert scene.rejected() == {0: "timeout", 1: "unavailable", 2: "timeout"}
    scene.submit(timeout=0.5)
    scene.says(m.Unknown((), (3, 4)))
    scene.turn(e.Disconnected("clients"))
    scene.bench.wait(0.6)
    assert scene.rejected() == {3: "timeout"}
