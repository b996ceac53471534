"""The broker in cases that once went wrong: each of these scenes failed before it was mended."""

from __future__ import annotations

from tests.support.services import RUN, Asker, Broker, Server
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.services.to_clients import FORGET_SECONDS


def scene(*, idempotent: bool = False) -> tuple[Broker, Asker, Server]:
    """A broker with a client and a worker of one thread."""
    broker = Broker()
    server = Server(broker, idempotent=idempotent)
    server.reports(held=(), done=())
    return broker, Asker(broker), server


def given(server: Server) -> list[int]:
    """The numbers in the last Work for this worker."""
    return [number for one in server.was_told(m.Work) for number in range(one.spans[0], one.spans[-1])]


def test_a_worker_whose_handler_raised_gets_the_next_request_at_once() -> None:
    """It has room as if it had answered; it need not say so."""
    _, client, server = scene()
    client.asks(0, 1)
    assert given(server) == [0]
    trouble = m.ErrorInfo("ValueError", "as planned")
    server.tells(m.ItemsFailed(RUN, [m.FailedItem("upper", 0, 1, "worker", trouble, b"")]))
    assert client.refused() == {0: "error"}
    assert given(server) == [1]


def test_a_client_that_was_forgotten_does_not_have_a_request_executed_twice() -> None:
    """It comes back after a long time to the same broker; what it had asked may have been executed since."""
    broker, client, server = scene()
    client.asks(0)
    assert given(server) == [0]
    client.is_lost()
    server.answers(0)
    broker.bench.wait(FORGET_SECONDS + 1)
    server.reports(held=(), done=())
    client.reconnects(b"another")
    client.waits_for(0)
    assert client.unknown() == [0]
    client.asks(0)
    assert client.refused() == {0: "lost"}
    client.asks(1)
    assert given(server) == [1]


def test_results_of_what_was_never_given_out_are_dropped() -> None:
    """A later request with such a number is as any other."""
    _, client, server = scene()
    server.tells(m.Results(RUN, "upper", 1, (0, 3), [b"x", b"y", b"z"]))
    client.asks(0)
    assert given(server) == [0]
    server.answers(0)
    assert set(client.got()) == {0}


def test_a_gap_before_results_is_noticed_at_once() -> None:
    """The worker is asked for its whole state."""
    _, client, server = scene()
    client.asks(0, 1)
    server.loses(m.Results(RUN, "upper", 1, (7, 8), [b"lost"]))
    server.answers(0)
    assert any(one.resync for one in server.was_told(m.Settled))
