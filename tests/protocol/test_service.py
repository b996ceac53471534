"""The broker of services, law by law, with clients and workers played by hand."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE
from tests.support.services import RUN, Broker, Server
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import spans_of

ROOM = 16 * 1024 * 1024
"""What a single client is told."""

# the way of a request -------------------------------------------------------------------------------------------------


def test_a_request_goes_to_a_worker_and_its_reply_to_the_client(broker: Broker) -> None:
    """What the client asked is handed on as it is, and the answer comes back under the client's number."""
    server, asker = broker.server(), broker.asker()
    asker.asks(7)
    (work,) = server.was_told(m.Work)
    assert (work.run, work.task, work.payloads) == (RUN, "upper", [b"q7"])
    server.answers(*server.given())
    assert asker.got() == {7: b"a0"}


def test_a_turn_is_handed_out_and_answered_together(broker: Broker) -> None:
    """Requests of several clients that arrive together make one Work, and results together one Replies a client."""
    server, one, other = broker.server(window=10), broker.asker(), broker.asker()
    broker.turn((one, one.request(0)), (other, other.request(0)), (one, one.request(1)))
    assert server.given() == [0, 1, 2]
    assert len(server.was_told(m.Work)) == 1
    broker.turn((server, server.results(2)), (server, server.results(0, 1)))
    assert one.got() == {0: b"a0", 1: b"a2"}
    assert (len(one.was_told(m.Replies)), other.got()) == (1, {0: b"a1"})


def test_the_least_loaded_worker_is_chosen(broker: Broker) -> None:
    """A request goes to whoever has least for each of its threads; what is answered no longer counts."""
    big, small = broker.server(slots=4, window=8), broker.server(slots=1, window=8)
    asker = broker.asker()
    asker.asks(0, 1)
    assert (big.given(), small.given()) == ([0], [1])
    asker.asks(2)
    assert big.given() == [2]
    small.answers(1)
    asker.asks(3)
    assert small.given() == [3]


def test_beyond_the_workers_room_requests_wait(broker: Broker) -> None:
    """A worker with one thread and no prefetch gets the next request when it has answered, without a report."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0, 1)
    assert server.given() == [0]
    server.answers(0)
    assert (server.given(), asker.got()) == ([1], {0: b"a0"})


def test_services_do_not_mix(broker: Broker) -> None:
    """Each name has its own workers; the blank one is a name like others."""
    upper, blank, asker = broker.server("upper"), broker.server(""), broker.asker()
    broker.turn((asker, asker.request(0, service="")), (asker, asker.request(1, service="upper")))
    assert (blank.given(), upper.given()) == ([0], [0])
    blank.answers(0)
    assert asker.got() == {0: b"a0"}


def test_workers_of_the_blank_service_are_told_the_name() -> None:
    """With each request, also with one that has waited for a worker of its own before."""
    broker = Broker(young=True)
    asker = broker.asker()
    broker.turn((asker, asker.request(0, service="early")))
    blank = broker.server("", window=9)
    broker.turn((asker, asker.request(1, service="other")), (asker, asker.request(2, service="")))
    sent = [one.envelope.body for one in broker.bench.all if isinstance(one, c.Send) and one.peer == blank.peer]
    payloads = [payload for body in sent if isinstance(body, m.Work) for payload in body.payloads]
    assert payloads == [b"\x92\xa5earlyq0", b"\x92\xa5otherq1", b"\x92\xa0q2"]


def test_a_request_said_twice_is_executed_once(broker: Broker) -> None:
    """One that is open, answered and not confirmed, or beside new ones is not taken again."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0)
    asker.asks(0, 1)
    assert server.given() == [1]
    server.answers(0)
    asker.asks(0, 1, 2)
    assert server.given() == [2]


def test_a_handler_that_raises_is_told_with_its_trouble(broker: Broker) -> None:
    """The client gets the type, message and traceback of what was raised; equal ones come in one message."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0, 1, 2)
    failures = [m.FailedItem("upper", number, 1, "worker", TROUBLE, b"") for number in (0, 1)]
    server.tells(m.ItemsFailed(RUN, failures))
    (refusal,) = asker.was_told(m.Declined)
    assert (refusal.kind, refusal.spans, refusal.trouble) == ("error", (0, 2), TROUBLE)
    server.answers(2)
    assert asker.got() == {2: b"a2"}


# what is lost on the way ----------------------------------------------------------------------------------------------


def test_a_lost_reply_is_sent_again_when_it_is_asked_for(broker: Broker) -> None:
    """A client that has received later messages and still waits gets the reply anew; others are dropped."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0, 1)
    server.answers(0)
    server.answers(1)
    asker.waits_for(0)
    assert asker.got() == {0: b"a0"}
    asker.waits_for()
    asker.waits_for(0, 1)
    assert (asker.got(), asker.unknown()) == ({}, [0, 1])


def test_a_request_after_a_gap_confirms_nothing(broker: Broker) -> None:
    """Only an Asking tells what was received: a reply that was lost is not dropped by the next request."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0, 1)
    server.answers(0)
    server.answers(1)
    asker.asks(2)
    asker.waits_for(0, 2)
    assert (asker.got(), asker.unknown()) == ({0: b"a0"}, [])


def test_a_reply_under_way_is_not_sent_twice(broker: Broker) -> None:
    """A client that asks before the reply can have reached it gets no second one."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    asking = asker.hears().wrap(m.Asking((0, 1)))
    server.answers(0)
    broker.bench.scene_turn(e.Received(asker.peer, asking))
    assert (asker.got(), asker.unknown()) == ({}, [])


def test_what_never_arrived_is_said_to_be_unknown(broker: Broker) -> None:
    """An Asking is always answered; it names the requests that the broker has never heard of."""
    broker.server(window=10)
    asker = broker.asker()
    asker.loses(asker.request(0))
    asker.asks(1)
    asker.waits_for(0, 1)
    assert asker.unknown() == [0]
    asker.asks(0)
    asker.waits_for(0, 1)
    assert asker.was_told(m.Unknown) == [m.Unknown((), (), ROOM)]


def test_an_absurd_asking_costs_nothing(broker: Broker) -> None:
    """A peer that claims to wait for 2**60 requests is answered with a range."""
    broker.server()
    asker = broker.asker()
    asker.asks(5)
    asker.tells(m.Asking((0, 2**60)))
    assert asker.was_told(m.Unknown) == [m.Unknown((0, 5, 6, 2**60), (), ROOM)]
    asker.tells(m.Withdrawn((0, 2**60)))


def test_results_that_were_lost_are_asked_for(broker: Broker) -> None:
    """A worker that says it is done with what is still open is asked for the results, and nobody executes again."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0, 1)
    server.loses(server.results(0))
    server.reports(10, held=(0, 2), done=(0, 1))
    assert server.was_told(m.Missing) == [m.Missing(RUN, "upper", (0, 1))]
    server.answers(0)
    assert asker.got() == {0: b"a0"}


def test_work_that_was_lost_is_sent_again(broker: Broker) -> None:
    """A worker that received later messages and does not hold a request never had it: it is no loss of the worker."""
    server, asker = broker.server(window=10), broker.asker()
    asker.asks(0)
    asker.asks(1)
    server.reports(10, held=(1, 2), done=())
    assert server.given() == [0]


# withdrawn ------------------------------------------------------------------------------------------------------------


def test_a_withdrawn_request_that_waits_is_never_executed(broker: Broker) -> None:
    """It leaves the queue; the next in it is given instead."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0, 1, 2)
    asker.tells(m.Withdrawn((1, 2)))
    server.answers(0)
    assert server.given() == [2]


def test_a_withdrawn_request_that_runs_keeps_its_worker_busy(broker: Broker) -> None:
    """Its thread is not free before it has answered; the answer is dropped."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0, 1)
    asker.tells(m.Withdrawn((0, 1)))
    assert server.given() == []
    server.answers(0)
    assert (asker.got(), server.given()) == ({}, [1])


def test_what_is_not_asked_for_is_withdrawn(broker: Broker) -> None:
    """An Asking tells all that the client waits for, so that a lost Withdrawn is mended by it."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0, 1, 2)
    asker.loses(m.Withdrawn((1, 2)))
    asker.waits_for(0, 2)
    server.answers(0)
    assert server.given() == [2]


@pytest.mark.parametrize("idempotent", [True, False])
def test_an_abandoned_request_is_given_to_nobody_else(broker: Broker, idempotent: bool) -> None:
    """A withdrawn request whose worker is lost, or hands it back, is over."""
    first, second = (broker.server(idempotent=idempotent) for _ in range(2))
    asker = broker.asker()
    asker.asks(0, 1)
    asker.tells(m.Withdrawn((0, 2)))
    first.is_lost()
    second.tells(m.ItemsReturned(RUN, "upper", spans_of(second.given() or [1])))
    broker.server(idempotent=idempotent)
    assert not any(server.given() for server in broker.servers)
    assert broker.machine.snapshot().waiting == {"upper": 0}


# workers that go ------------------------------------------------------------------------------------------------------


def test_a_lost_worker_of_an_idempotent_service_is_replaced(broker: Broker) -> None:
    """Its requests go to another worker, one that may have killed it alone."""
    first, second, asker = broker.server(idempotent=True), broker.server(idempotent=True), broker.asker()
    asker.asks(0)
    assert first.given() == [0]
    first.is_lost()
    assert second.given() == [0]
    second.answers(0)
    assert asker.got() == {0: b"a0"}


def test_a_request_that_kills_its_workers_is_given_up(broker: Broker) -> None:
    """Three lost workers are enough, idempotent or not."""
    asker = broker.asker()
    for turn in range(3):
        server = broker.server(idempotent=True)
        if not turn:
            asker.asks(0)
        assert server.given() == [0]
        server.is_lost()
    assert asker.refused() == {0: "lost"}
    assert "3 workers" in asker.was_told(m.Declined)[0].trouble.message


def test_what_must_not_be_executed_twice_is_lost_with_its_worker(broker: Broker) -> None:
    """All that the worker had is refused, in one message, with what to do; what waited goes to others."""
    first, asker = broker.server(window=2), broker.asker()
    asker.asks(0, 1, 2)
    second = broker.server()
    assert second.given() == [2]
    first.is_lost()
    assert asker.refused() == {0: "lost", 1: "lost"}
    (refusal,) = asker.was_told(m.Declined)
    assert "idempotent=True" in refusal.trouble.message
    second.answers(2)
    assert asker.got() == {2: b"a2"}


def test_a_result_that_was_lost_with_its_worker_is_not_executed_again(broker: Broker) -> None:
    """The worker had said that it was done; its result never came: the request has been executed."""
    first, asker = broker.server(), broker.asker()
    asker.asks(0)
    first.reports(1, held=(0, 1), done=(0, 1))
    first.is_lost()
    assert asker.refused() == {0: "lost"}
    assert broker.server().given() == []


def test_a_late_result_of_a_lost_worker_counts_if_somebody_waits(broker: Broker) -> None:
    """It came back with the answer before the other worker had one."""
    first, second, asker = broker.server(idempotent=True), broker.server(idempotent=True), broker.asker()
    asker.asks(0)
    first.is_lost()
    first.reconnects(b"again").answers(0)
    assert asker.got() == {0: b"a0"}
    second.answers(0)
    assert asker.got() == {}


def test_a_late_result_for_a_refused_request_is_dropped(broker: Broker) -> None:
    """The client was told that the worker is lost; the worker that comes back may drop its result."""
    server, asker = broker.server(), broker.asker()
    asker.asks(0)
    server.is_lost()
    assert asker.refused() == {0: "lost"}
    server.reconnects(b"again").reports(1, held=(0, 1), done=(0, 1))
    assert [one.released for one in server.was_told(m.Settled)] == [(0, 1)]
    server.answers(0)
    assert asker.got() == {}


def test_a_worker_that_leaves_hands_back_what_it_did_not_begin(broker: Broker) -> None:
    """Returned requests go to others and are not lost, whatever the service is."""
    first, asker = broker.server(window=3), broker.asker()
    asker.asks(0, 1, 2)
    second = broker.server()
    first.reports(0, 1, held=(0, 3), done=(), draining=True)
    first.tells(m.ItemsReturned(RUN, "upper", (1, 3)))
    assert second.given() == [1]
    first.answers(0)
    first.tells(m.Goodbye(RUN, "upper"))
    assert asker.refused() == {}
    second.answers(1)
    assert second.given() == [2]


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_worker_that_leaves_in_the_middle_may_have_executed(broker: Broker, idempotent: bool) -> None:
    """Its drain time was over: what it held is given to another one only if that does no harm."""
    first, second = (broker.server(idempotent=idempotent) for _ in range(2))
    asker = broker.asker()
    asker.asks(0)
    first.hears()
    first.tells(m.Goodbye(RUN, "upper", TROUBLE))
    assert asker.refused() == ({} if idempotent else {0: "lost"})
    assert second.given() == ([0] if idempotent else [])


def test_work_that_crossed_a_goodbye_was_never_begun(broker: Broker) -> None:
    """Requests that were still on their way to a worker that left go to another one."""
    first, asker = broker.server(), broker.asker()
    goodbye = first.hears().wrap(m.Goodbye(RUN, "upper"))
    asker.asks(0)
    second = broker.server()
    broker.bench.scene_turn(e.Received(first.peer, goodbye))
    assert (second.given(), asker.refused()) == ([0], {})


def test_one_worker_that_says_no_makes_the_service_not_idempotent(broker: Broker) -> None:
    """Workers that differ are believed on the safe side; once all are gone the next one is asked."""
    asker = broker.asker()
    yes, no = broker.server(idempotent=True), broker.server(idempotent=False)
    yes.reports(1)
    asker.asks(0)
    yes.is_lost()
    assert asker.refused() == {0: "lost"}
    no.is_lost()
    last = broker.server(idempotent=True)
    asker.asks(1)
    last.is_lost()
    assert asker.refused() == {}


def test_what_was_lost_before_is_refused_when_a_worker_says_no(broker: Broker) -> None:
    """A request that waits for its second execution is not given to a worker that must not do it."""
    first, asker = broker.server(idempotent=True), broker.asker()
    asker.asks(0, 1)
    first.is_lost()
    second = broker.server(idempotent=False)
    assert asker.refused() == {0: "lost"}
    assert second.given() == [1]


# a broker that is new -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_request_of_an_earlier_broker_waits_for_a_worker_to_judge_it(idempotent: bool) -> None:
    """It may have been executed: its first worker knows whether that matters."""
    broker = Broker(young=True)
    asker = broker.asker()
    asker.asks(0, again=True)
    asker.asks(1)
    assert asker.refused() == {}
    server = broker.server(window=10, idempotent=idempotent)
    assert server.given() == ([0, 1] if idempotent else [1])
    assert asker.refused() == {} if idempotent else {0: "lost"}
    asker.asks(2, again=True)
    assert asker.refused() == ({} if idempotent else {2: "lost"})


def test_a_worker_of_an_earlier_broker_is_told_of_the_new_run(broker: Broker) -> None:
    """Its results are none of ours: numbers begin anew with each broker."""
    asker = broker.asker()
    server = Server(broker)
    server.reports(1, run="earlier", held=(0, 1), done=(0, 1))
    assert server.was_told(m.Welcome) == [m.Welcome(RUN, b"")]
    asker.asks(0)
    server.tells(m.Results("earlier", "upper", 1, (0, 1), [b"old"]))
    assert asker.got() == {}
