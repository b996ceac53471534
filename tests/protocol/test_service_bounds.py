"""The broker of services at its bounds: nobody serves, too many ask, peers and the broker go."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE
from tests.support.services import RUN, Broker, Server
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.codec import MAX_FIELDS_BYTES, encode
from zmqpipeline.protocol.data.ranges import MAX_RANGES, RangeSet, spans_of
from zmqpipeline.protocol.peers import Link
from zmqpipeline.protocol.services.broker import FAREWELL_SECONDS
from zmqpipeline.protocol.services.broker_bytes import LEAST_ROOM, BrokerBytes
from zmqpipeline.protocol.services.requests import MAX_ANSWERS, MAX_REMEMBERED, Client
from zmqpipeline.protocol.services.to_clients import FORGET_SECONDS, GRACE_SECONDS

# nobody serves it -----------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_serves_is_refused_at_once(broker: Broker) -> None:
    """By a broker that has been up for 5 s, with the names that are served; and it leaves no trace."""
    broker.server("upper")
    asker = broker.asker()
    asker.asks(0, service="uper")
    assert asker.refused() == {0: "unavailable"}
    message = asker.was_told(m.Declined)[0].trouble.message
    assert message == "Nobody serves 'uper'. Served now: 'upper'. Start a worker for it, or check the name."
    assert broker.machine.snapshot().waiting == {"upper": 0}


def test_a_young_broker_lets_requests_wait() -> None:
    """Until it is 5 s old; a worker that comes in time serves them, otherwise they are refused."""
    broker = Broker(young=True)
    asker = broker.asker()
    broker.bench.wait(1.0)
    broker.turn((asker, asker.request(0)), (asker, asker.request(1, service="lower")))
    assert asker.refused() == {}
    broker.bench.wait(GRACE_SECONDS - 1.1)
    server = broker.server()
    assert server.given() == [0]
    broker.bench.wait(0.2)
    assert asker.refused() == {1: "unavailable"}
    assert list(broker.machine.snapshot().waiting) == ["upper"]


def test_the_loss_of_the_last_worker_gives_5_s_to_another(broker: Broker) -> None:
    """What waited and what is asked since then waits that long."""
    server, asker = broker.server(idempotent=True), broker.asker()
    asker.asks(0)
    server.is_lost()
    asker.asks(1)
    broker.bench.wait(GRACE_SECONDS - 0.1)
    assert asker.refused() == {}
    broker.bench.wait(0.2)
    assert asker.refused() == {0: "unavailable", 1: "unavailable"}
    asker.asks(2)
    assert asker.refused() == {2: "unavailable"}


def test_after_the_last_goodbye_nobody_serves(broker: Broker) -> None:
    """A worker that left by request is not waited for; numbers do not begin anew when the next one comes."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    server.answers(0)
    server.tells(m.Goodbye(RUN, "upper"))
    asker.asks(1)
    assert asker.refused() == {1: "unavailable"}
    second = broker.server()
    asker.asks(2)
    assert second.given() == [1]


def test_misspelled_names_do_not_use_up_the_room_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many names as are known at most may be asked in the first seconds; afterwards all of them are forgotten."""
    most = 500
    monkeypatch.setattr("zmqpipeline.protocol.services.to_clients.MAX_SERVICES", most)
    broker = Broker(young=True)
    asker = broker.asker()
    for number in range(most):
        broker.machine.handle(e.Received(asker.peer, asker.link.wrap(asker.request(number, service=f"s{number}"))), 100)
    asker.asks(most, service="one more")
    assert "names of services" in asker.was_told(m.Declined)[-1].trouble.message
    broker.bench.wait(GRACE_SECONDS + 1)
    assert broker.machine.snapshot().waiting == {}
    asker.asks(most + 1, service="late")
    assert "Nobody serves 'late'" in asker.was_told(m.Declined)[0].trouble.message


# bounds, strangers ----------------------------------------------------------------------------------------------------


def test_past_the_bound_requests_are_refused() -> None:
    """The first that have room are taken, the others told why; others of the same service go on."""
    broker = Broker(options=Options(max_queued_requests=3))
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    asker.asks(1, 2, 3, 4, 5)
    assert asker.refused() == {4: "unavailable", 5: "unavailable"}
    assert "max_queued_requests" in asker.was_told(m.Declined)[0].trouble.message
    for number in range(4):
        server.answers(number)
        assert asker.got() == {number: b"a%d" % number}


def test_a_worker_of_a_distributor_is_refused(broker: Broker) -> None:
    """Its results would go to a collector: it is told where it is, and gets nothing."""
    server = Server(broker, idempotent=None)
    server.reports(1, held=(), done=())
    (refused,) = server.was_told(m.Refused)
    assert "broker of services" in refused.reason
    assert broker.machine.snapshot().workers == {}


def test_nonsense_is_survived(broker: Broker) -> None:
    """Messages that belong elsewhere, to unknown services or from unknown workers change nothing."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    stranger = Server(broker)
    for body in (
        m.Ack(RUN, "upper", (0, 1), (), 0, 1, b""),
        m.Results(RUN, "nothing", 1, (0, 1), [b""]),
        m.Results(RUN, "upper", 1, (50, 51), [b""]),
        m.ItemsFailed(RUN, [m.FailedItem("upper", 0, 1, "worker", TROUBLE, b"")]),
        m.ItemsReturned(RUN, "upper", (0, 1)),
        m.Goodbye(RUN, "upper"),
        m.Withdrawn((0, 10)),
        m.Probe(),
    ):
        stranger.tells(body)
    server.answers(0)
    assert asker.got() == {0: b"a0"}


# clients that go ------------------------------------------------------------------------------------------------------


def test_a_client_that_comes_back_gets_its_reply(broker: Broker) -> None:
    """The reply that came while its connection was broken is kept, and sent when it asks."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    asker.is_lost()
    server.answers(0)
    assert asker.was_told(m.Replies) == []
    asker.reconnects(b"again").waits_for(0)
    asker.waits_for(0)
    assert asker.got() == {0: b"a0"}


def test_a_client_that_stays_away_is_forgotten(broker: Broker) -> None:
    """After 30 s its waiting requests are dropped; others of its worker go on."""
    server, asker, other = broker.server(), broker.asker(), broker.asker()
    asker.asks(0, 1, 2)
    other.asks(0)
    asker.is_lost()
    broker.bench.wait(FORGET_SECONDS - 1)
    assert broker.machine.snapshot().waiting == {"upper": 3}
    broker.bench.wait(2)
    assert broker.machine.snapshot().waiting == {"upper": 1}
    server.answers(0)
    assert server.given() == [3]
    server.answers(3)
    assert other.got() == {0: b"a3"}


# the end --------------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_what_runs_and_then_ends_the_workers(broker: Broker) -> None:
    """What waits and what comes is refused at once, what runs is answered; workers are told, and say goodbye."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0, 1)
    broker.drain()
    assert asker.refused() == {1: "unavailable"}
    asker.asks(2)
    assert asker.refused() == {2: "unavailable"}
    server.answers(0)
    assert asker.got() == {0: b"a0"}
    assert server.was_told(m.RunEnded) == [m.RunEnded(RUN)]
    assert broker.bench.ended is None
    server.tells(m.Goodbye(RUN, "upper"))
    assert broker.bench.ended == c.Ended(0, "the service has ended")


def test_a_drain_gives_nothing_out_that_comes_back(broker: Broker) -> None:
    """Requests that a worker hands back while the broker ends are refused, not kept until its time is over."""
    server, asker = broker.server(window=2), broker.asker()
    asker.asks(0, 1)
    broker.drain()
    server.tells(m.ItemsReturned(RUN, "upper", (0, 2)))
    assert asker.refused() == {0: "unavailable", 1: "unavailable"}
    assert server.was_told(m.RunEnded)


def test_a_drain_has_an_end(broker: Broker) -> None:
    """A request that runs on is refused when the time is over; a worker that says nothing is waited for 2 s."""
    broker.server()
    asker = broker.asker()
    asker.asks(0)
    broker.drain(10.0)
    broker.bench.wait(9.9)
    assert broker.machine.phase == "draining"
    broker.bench.wait(0.2)
    assert asker.refused() == {0: "unavailable"}
    broker.bench.wait(FAREWELL_SECONDS - 0.2)
    assert broker.bench.ended is None
    broker.bench.wait(0.3)
    assert broker.bench.ended is not None


def test_an_idle_broker_ends_at_once(broker: Broker) -> None:
    """Nobody is there to wait for."""
    broker.drain()
    assert broker.bench.ended == c.Ended(0, "the service has ended")
    assert broker.machine.next_deadline() is None
    assert broker.machine.handle(e.Tick(), 1e9) == []


# what it costs --------------------------------------------------------------------------------------------------------


def test_long_life_leaves_no_trace(broker: Broker) -> None:
    """After answers, failures, withdrawals and refusals the ledger is one range, and no answer is kept."""
    server, asker = broker.server(window=4), broker.asker()
    for number in range(0, 40, 4):
        asker.asks(*range(number, number + 4))
        asker.tells(m.Withdrawn((number, number + 1)))
        server.tells(m.ItemsFailed(RUN, [m.FailedItem("upper", number + 1, 1, "worker", TROUBLE, b"")]))
        server.answers(number, number + 2, number + 3)
    asker.waits_for()
    ledger = broker.machine._services["upper"].ledger
    assert (ledger.collected.spans(), ledger.failed.spans(), ledger.unfinished) == ((0, 40), (), 0)
    assert not broker.machine._clients[asker.link.incarnation].answers


# bytes ----------------------------------------------------------------------------------------------------------------


def results(*numbers: int, size: int) -> m.Results:
    """Replies of this size, by the broker's numbers."""
    return m.Results(RUN, "upper", 1, spans_of(numbers), [bytes(size) for _ in numbers])


def test_requests_of_all_services_have_one_bound() -> None:
    """What one service holds is lacking to the other; answered and confirmed it makes room again."""
    broker = Broker(options=Options(max_held_bytes=100))
    server, asker = broker.server(), broker.asker()
    broker.server("lower")
    asker.tells(m.Requests("upper", False, (0, 1), [bytes(80)]))
    asker.tells(m.Requests("lower", False, (1, 2), [bytes(30)]))
    assert asker.refused() == {1: "unavailable"}
    assert "100 bytes (max_held_bytes) wait at the broker" in asker.was_told(m.Declined)[0].trouble.message
    asker.waits_for(0)
    server.tells(results(0, size=40))
    assert (broker.machine.snapshot().held_bytes, len(asker.got())) == (40, 1)
    asker.tells(m.Requests("lower", False, (2, 3), [bytes(70)]))
    assert asker.refused() == {2: "unavailable"}
    asker.tells(m.Asking(()))
    asker.tells(m.Requests("lower", False, (3, 4), [bytes(130)]))
    assert asker.refused() == {}, "nothing else waits: one of any size is taken"


def test_a_client_that_does_not_read_costs_nobody_else_a_reply() -> None:
    """Replies have half of the bound: the one with the most loses its newest, and is told; others get all of theirs."""
    broker = Broker(options=Options(max_held_bytes=10_000))
    server, deaf, asker = broker.server(window=20), broker.asker(), broker.asker()
    deaf.asks(*range(12))
    asker.asks(0, 1)
    server.tells(results(*range(10), size=1000))
    assert sorted(deaf.refused()) == [4, 5, 6, 7, 8, 9], "the letters about them take some room, too"
    assert "It was executed." in deaf.was_told(m.Declined)[0].trouble.message
    server.tells(results(12, 13, size=1000))
    assert list(asker.got()) == [0, 1]
    assert asker.refused() == {}
    assert deaf.refused(), "these took the room of some more"
    for peer in (deaf, asker):
        peer.is_lost()
    broker.bench.wait(FORGET_SECONDS + 1)
    assert broker.machine.totals.replies == 0


def test_one_reply_of_any_size_waits_for_a_client() -> None:
    """It is larger than all that may wait, and comes all the same."""
    broker = Broker(options=Options(max_held_bytes=100))
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    server.tells(results(0, size=5000))
    assert list(asker.got()) == [0]
    assert asker.refused() == {}


def test_what_is_sent_and_not_confirmed_has_a_bound() -> None:
    """The rest is sent when the client has confirmed what it got; a broker that ends sends all."""
    broker = Broker(options=Options(max_held_bytes=4 * 1024 * 1024))
    server, asker = broker.server(window=20), broker.asker()
    asker.asks(*range(12))
    size = 400 * 1024
    server.tells(results(0, 1, 2, 3, 4, size=size))
    assert list(asker.got()) == [0, 1, 2]
    asker.waits_for(*range(3, 12))
    assert list(asker.got()) == [3, 4]
    server.tells(results(5, 6, size=size))
    assert list(asker.got()) == [5]
    broker.drain()
    server.tells(results(*range(7, 11), size=1))
    assert list(asker.got()) == list(range(6, 11))


def test_a_broker_that_ends_sends_what_had_no_room() -> None:
    """The client has not confirmed anything, and nothing more is to come."""
    broker = Broker(options=Options(max_held_bytes=4 * 1024 * 1024))
    server, asker = broker.server(window=20), broker.asker()
    asker.asks(*range(5))
    server.tells(results(*range(5), size=400 * 1024))
    assert list(asker.got()) == [0, 1, 2]
    broker.drain()
    assert list(asker.got()) == [3, 4]


def test_a_client_is_told_how_much_it_may_ask_for() -> None:
    """A quarter of what may be held, divided among the clients; no less than 64 KiB."""
    broker = Broker(options=Options(max_held_bytes=64 * 1024 * 1024))
    rooms = []
    for _ in range(300):
        asker = broker.asker()
        asker.waits_for()
        rooms.append(asker.was_told(m.Unknown)[-1].room)
    assert (rooms[0], rooms[1], rooms[-1]) == (16 * 1024 * 1024, 8 * 1024 * 1024, LEAST_ROOM)


def test_a_broker_says_how_it_stands(broker: Broker) -> None:
    """To whoever asks by the hop of the clients: services as tasks, and the bytes that wait."""
    broker.server()
    asker = broker.asker()
    asker.asks(0, 1)
    asker.tells(m.AskStatus())
    (status,) = asker.was_told(m.Status)
    assert (status.phase, status.held_bytes, [one.counts.task for one in status.tasks]) == ("serving", 4, ["upper"])
    assert [one.task for one in status.workers] == ["upper"]


# strangers ------------------------------------------------------------------------------------------------------------


def test_answers_that_a_client_never_confirms_are_kept_within_bounds() -> None:
    """The oldest go first, by number and by size; one of any size is kept, and what is confirmed makes room."""
    totals = BrokerBytes(64 * 1024 * 1024)
    client = Client(Link(b"broker"), ("clients", b"1"), totals)
    declined = m.Declined("unavailable", (0, 1), TROUBLE)
    for number in range(MAX_ANSWERS + 10):
        client.keep(number, declined)
    assert len(client.answers) == MAX_ANSWERS
    assert client.answers[0][0] == 10
    large = m.Replies((0, 1), [bytes(totals.most_replies)])
    for number in range(3):
        client.keep(number, large)
        assert [one for _, one in client.answers][-1] is large
    assert len(client.answers) == 1
    client.link.confirmed = 100
    client.take_answers(RangeSet())
    client.keep(101, declined)
    assert len(client.answers) == 1
    assert client.reply_bytes == totals.replies == len(TROUBLE.message)


def test_names_of_services_that_a_client_makes_up_are_not_all_remembered(broker: Broker) -> None:
    """So many, and no more: each is refused, and costs nothing."""
    asker = broker.asker()
    for count in range(MAX_REMEMBERED + 10):
        asker.asks(count, service=f"s{count}")
    (client,) = broker.machine._clients.values()
    assert len(client.highest) == MAX_REMEMBERED


def test_a_huge_withdrawal_and_question_are_answered_in_a_word(broker: Broker) -> None:
    """Whatever numbers a client names, only what it really asked is looked at."""
    server, asker = broker.server(), broker.asker()
    asker.asks(3)
    assert server.given() == [0]
    asker.says(m.Asking((0, 2**62)))
    assert asker.was_told(m.Unknown)[-1].spans == (0, 3, 4, 2**62)
    asker.says(m.Withdrawn((0, 2**62)))
    assert not broker.machine._clients[asker.link.incarnation].open


@pytest.mark.slow
def test_an_answer_to_endless_ranges_is_a_message(broker: Broker) -> None:
    """As many ranges as a question can hold, which the client's own requests split further, are not all said back."""
    broker.server()
    asker = broker.asker()
    asker.asks(3, 5, 7)
    ranges = tuple(range(20, 20 + MAX_FIELDS_BYTES - 100))
    asker.says(m.Asking((0, 20, *(one + 1 for one in ranges))))
    (told,) = asker.was_told(m.Unknown)
    assert told.spans[:8] == (0, 3, 4, 5, 6, 7, 8, 20)
    assert encode(m.Envelope(b"b", b"c", 1, 0, told))
    assert len(told.spans) == 2 * MAX_RANGES
