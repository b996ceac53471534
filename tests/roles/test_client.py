"""The service client: what it hands back, what it refuses at once, and that nothing of it ever hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.roles import running
from zmqpipeline import AsyncServiceClient, EndpointAddress, Options, Service, ServiceClient, ServiceWorker, TaskType
from zmqpipeline.errors import (
    ConfigurationError,
    EndpointError,
    RequestFailed,
    SerializeError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)

TaskType.register_type("echo")
_numbers = itertools.count()


class Place:
    """A broker and a worker whose handler stops at a gate for requests that say so."""

    def __init__(self) -> None:
        base = f"inproc://client-test-{next(_numbers)}"
        self.frontend, self.backend = EndpointAddress(f"{base}-front"), EndpointAddress(f"{base}-back")
        self.gate, self.reached = threading.Event(), threading.Event()
        self.seen: list[dict[str, Any]] = []

    def broker(self) -> Service:
        self.the_broker = Service(self.frontend, self.backend)
        return self.the_broker

    def await_queue(self, length: int) -> None:
        """Wait until so many requests wait in the broker."""
        end = time.monotonic() + 60
        while self.the_broker.machine.snapshot().waiting["echo"] != length:
            assert time.monotonic() < end
            time.sleep(0.001)

    def worker(self) -> ServiceWorker:
        place = self

        class Echo(ServiceWorker):
            task_type = TaskType("echo")
            endpoint = place.backend

            def handle_message(self, data: dict[str, Any]) -> Any:
                place.seen.append(data)
                if "raise" in data:
                    raise LookupError(data["raise"])
                if "unpackable" in data:
                    return {"it": object()}
                if data.get("stop"):
                    place.reached.set()
                    assert place.gate.wait(60)
                return data

        return Echo()

    def client(self, **keywords: Any) -> ServiceClient:
        return ServiceClient(self.frontend, "echo", **keywords)


@pytest.fixture
def place() -> Iterator[Place]:
    """Addresses of this test alone; whoever stands at the gate is let through at the end."""
    place = Place()
    yield place
    place.gate.set()


@pytest.fixture
def client(place: Place) -> Iterator[ServiceClient]:
    """A client of a running broker with one worker."""
    with running(place.broker(), place.worker()), place.client() as client:
        yield client
        place.gate.set()


@pytest.mark.slow
def test_a_list_of_a_hundred_thousand_comes_back_in_order(client: ServiceClient) -> None:
    """However long the list, it does not fill the broker's queue, and each reply is at its place."""
    requests = [{"n": n} for n in range(100_000)]
    assert client.request(requests, timeout=60) == requests


def test_an_empty_list_has_an_empty_list_of_replies(client: ServiceClient) -> None:
    """Nothing is asked, so there is nothing to wait for."""
    assert client.request([], timeout=60) == []


def test_one_dict_is_answered_by_one_value_and_a_list_of_one_by_a_list(client: ServiceClient) -> None:
    """A list of one is a list."""
    assert client.request({"n": 1}, timeout=60) == {"n": 1}
    assert client.request([{"n": 1}], timeout=60) == [{"n": 1}]


def test_the_first_error_of_a_list_is_the_error_of_the_request(client: ServiceClient) -> None:
    """The type, the message and the traceback arrive as text; the traceback shows the handler."""
    with pytest.raises(ServiceError) as caught:
        client.request([{"n": 1}, {"raise": "no such thing"}, {"n": 2}], timeout=60)
    error = caught.value
    assert (error.error, error.message) == ("LookupError", "no such thing")
    assert "handle_message" in error.traceback
    assert str(error) == "LookupError: no such thing"
    assert client.request({"n": 3}, timeout=60) == {"n": 3}


def test_a_reply_that_cannot_be_packed_says_where(client: ServiceClient) -> None:
    """The key and the type that was found there."""
    with pytest.raises(ServiceError, match=r"SerializeError.*\$\.it.*object"):
        client.request({"unpackable": True}, timeout=60)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"n": object()}, r"\$\.n"),
        ([{"n": 1}, {"n": object()}], r"\$\.n"),
        (object(), "object"),
    ],
)
def test_what_is_no_request_is_refused_before_anything_is_sent(client: ServiceClient, data: Any, words: str) -> None:
    """The error is a TypeError, too, and says what was seen."""
    with pytest.raises(SerializeError, match=words) as caught:
        client.submit(data)
    assert isinstance(caught.value, TypeError)


def test_a_request_over_the_limit_is_refused_with_both_numbers(place: Place) -> None:
    """Its size, the limit, and the variable that raises it."""
    with (
        place.client(options=Options(max_message_bytes=1000)) as client,
        pytest.raises(SerializeError, match=r"10\d\d bytes.*1000.*ZMQPIPELINE_MAX_MESSAGE_BYTES"),
    ):
        client.request({"text": "x" * 1000})


@pytest.mark.parametrize(
    "timeout",
    [-1, math.nan, "3", True, [1], 10**400, -(10**5000)],
    ids=["-1", "nan", "text", "True", "list", "large", "small"],
)
def test_a_timeout_that_is_no_number_of_seconds_is_refused(place: Place, timeout: Any) -> None:
    """It is refused at the caller; the client's thread never sees it."""
    with place.client() as client, pytest.raises(ConfigurationError, match="timeout must be a number"):
        client.submit({}, timeout=timeout)


@pytest.mark.parametrize("timeout", [1e308, 10**300])
def test_a_timeout_may_be_as_long_as_numbers_are(client: ServiceClient, timeout: float) -> None:
    """It is waited for as without one."""
    assert client.request({"n": 1}, timeout=timeout) == {"n": 1}


@pytest.mark.parametrize(("name", "words"), [("s" * 4097, "has at most 4096 characters"), ("s\ud800", "surrogate")])
def test_a_name_that_no_broker_reads_is_refused_at_once(place: Place, name: str, words: str) -> None:
    """By each way of asking; a name that may be is asked for."""
    with place.client() as client, ServiceClient(place.frontend, name) as its_own:
        asks = AsyncServiceClient(place.frontend, name)
        with pytest.raises(ConfigurationError, match=words):
            client.request({}, name, timeout=60)
        with pytest.raises(ConfigurationError, match=words):
            client.submit_one({}, name)
        with pytest.raises(ConfigurationError, match=words):
            its_own.submit([{}, {}])
        with pytest.raises(ConfigurationError, match=words):
            list(its_own.stream([{}]))
        with pytest.raises(ConfigurationError, match=words):
            asyncio.run(asks.request({}))
        asyncio.run(asks.close())
        with pytest.raises(ServiceTimeout):
            client.request({}, name[:1] * 4096, timeout=0)


def test_a_timeout_of_0_is_over_at_once(client: ServiceClient, place: Place) -> None:
    """No reply can be there yet, and nobody works in vain."""
    client.request({"n": 2}, timeout=60)
    with pytest.raises(ServiceTimeout, match="over before the request was sent"):
        client.request({"n": 0}, timeout=0)
    assert client.request({"n": 1}, timeout=60) == {"n": 1}
    assert place.seen == [{"n": 2}, {"n": 1}]


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_without_a_timeout_a_request_waits_until_there_is_a_broker(place: Place, timeout: float | None) -> None:
    """It is asked before broker and worker are there, and answered when they are."""
    with place.client() as client:
        future = client.submit({"n": 1}, timeout=timeout)
        with running(place.broker(), place.worker()):
            assert future.result(60) == {"n": 1}


def test_a_timeout_names_the_service_the_address_and_the_seconds(place: Place) -> None:
    """So that a wrong address can be seen; it is a TimeoutError."""
    with place.client() as client, pytest.raises(TimeoutError) as caught:
        client.request({}, timeout=0.05)
    assert isinstance(caught.value, ServiceTimeout)
    assert "'echo'" in str(caught.value)
    assert str(place.frontend) in str(caught.value)
    assert "0.05 s" in str(caught.value)


def test_a_late_answer_finds_nobody_and_the_client_goes_on(client: ServiceClient, place: Place) -> None:
    """The handler returns after the time-out; its reply is not taken for that of a later request."""
    with pytest.raises(ServiceTimeout):
        client.request({"stop": True}, timeout=0.2)
    place.gate.set()
    assert client.request({"n": 2}, timeout=60) == {"n": 2}


def test_a_cancelled_future_wakes_whoever_waits_for_several(client: ServiceClient, place: Place) -> None:
    """`concurrent.futures.wait` and `as_completed` hear of it, and it may be cancelled twice."""
    future = client.submit({"stop": True})
    assert place.reached.wait(60)
    canceller = threading.Timer(0.05, future.cancel)
    canceller.start()
    done, _ = concurrent.futures.wait([future], timeout=60)
    canceller.join()
    assert done == {future}
    assert future.cancelled()
    assert future.cancel()
    assert list(concurrent.futures.as_completed([future], timeout=60)) == [future]


def test_a_cancelled_request_that_waits_is_never_executed(client: ServiceClient, place: Place) -> None:
    """It is taken back from the broker's queue, behind the one that the only worker is busy with."""
    first = client.submit({"stop": True})
    assert place.reached.wait(60)
    second, third = client.submit({"n": 2}), client.submit({"n": 3})
    place.await_queue(2)
    assert second.cancel()
    place.await_queue(1)
    place.gate.set()
    assert first.result(60) == {"stop": True}
    assert third.result(60) == {"n": 3}
    assert {"n": 2} not in place.seen


def test_a_future_that_is_done_cannot_be_cancelled(client: ServiceClient) -> None:
    """As any future."""
    future = client.submit({"n": 1})
    assert future.result(60) == {"n": 1}
    assert not future.cancel()


def test_a_cancelled_task_of_asyncio_withdraws_its_request(client: ServiceClient, place: Place) -> None:
    """The second request is cancelled while it waits, and never executed; `arequest` answers like `request`."""

    async def ask() -> Any:
        first = asyncio.create_task(client.arequest({"stop": True}))
        await asyncio.to_thread(place.reached.wait, 60)
        second = asyncio.create_task(client.arequest({"n": 2}))
        await asyncio.to_thread(place.await_queue, 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.to_thread(place.await_queue, 0)
        place.gate.set()
        return await first, await client.arequest([{"n": 3}, {"n": 4}])

    assert asyncio.run(ask()) == ({"stop": True}, [{"n": 3}, {"n": 4}])
    assert {"n": 2} not in place.seen


def test_a_timeout_within_asyncio_is_a_timeout(client: ServiceClient, place: Place) -> None:
    """`asyncio.wait_for` gives up, and the client is as good as before."""

    async def ask() -> Any:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.arequest({"stop": True}), 0.2)
        place.gate.set()
        return await client.arequest({"n": 1})

    assert asyncio.run(ask()) == {"n": 1}


def test_a_callback_that_waits_on_the_clients_own_thread_is_refused(client: ServiceClient) -> None:
    """It would wait for itself for ever; it may submit, though."""
    found: list[Any] = []
    done = threading.Event()

    def callback(future: concurrent.futures.Future[Any]) -> None:
        try:
            client.request({"n": 2})
        except RequestFailed as error:
            found.append(error)
        client.submit({"n": 3}).add_done_callback(lambda second: (found.append(second.result()), done.set()))

    client.submit({"n": 1}).add_done_callback(callback)
    assert done.wait(60)
    assert "Use `submit` there" in str(found[0])
    assert found[1] == {"n": 3}


def test_a_callback_that_raises_does_not_end_the_client(
    client: ServiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even by SystemExit."""

    def leave(future: concurrent.futures.Future[Any]) -> None:
        raise SystemExit("from a callback")

    client.submit({"n": 1}).add_done_callback(leave)
    assert client.request({"n": 2}, timeout=60) == {"n": 2}
    assert "A callback of a request's future raised" in caplog.text


def test_close_fails_what_is_open_and_may_be_called_twice(client: ServiceClient, place: Place) -> None:
    """Whoever waits hears ServiceUnavailable at once, and so does whoever asks afterwards."""
    future = client.submit({"stop": True})
    assert place.reached.wait(60)
    client.close()
    client.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        future.result(60)
    with pytest.raises(ServiceUnavailable, match="Make a new one"):
        client.submit({})


def test_a_client_without_a_broker_closes_at_once(place: Place) -> None:
    """Nobody is there to hear of it, and nobody is waited for."""
    client = place.client()
    future = client.submit({"n": 1}, timeout=None)
    client.close()
    assert isinstance(future.exception(60), ServiceUnavailable)


def test_a_client_that_nobody_holds_ends_when_it_is_answered(place: Place) -> None:
    """Its request is answered although only the future is held; afterwards its thread is gone."""
    with running(place.broker(), place.worker()):
        client = place.client()
        thread, watched = client._inner._thread, weakref.ref(client)
        future = client.submit({"n": 1})
        del client
        gc.collect()
        assert future.result(60) == {"n": 1}
        gc.collect()
        assert watched() is None
        thread.join(60)
        assert not thread.is_alive()


def test_many_threads_ask_one_client(client: ServiceClient) -> None:
    """Each of them has its own replies."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [(n, pool.submit(client.request, {"n": n}, timeout=60)) for n in range(400)]
        assert all(future.result(60) == {"n": n} for n, future in asked)


def test_a_bad_address_is_refused_at_once() -> None:
    """No thread is started for it."""
    with pytest.raises(EndpointError):
        ServiceClient("tpc://nowhere:1")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_client_is_the_parents(client: ServiceClient) -> None:
    """The child is told so at once, even if another thread held the lock during the fork; the parent goes on."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with client._inner._guard:
            held.set()
            assert let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(_child_status(client))
    let_go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.request({"n": 1}, timeout=60) == {"n": 1}


def _child_status(client: ServiceClient) -> int:
    try:
        client.request({"n": 1})
    except ServiceUnavailable as error:
        client.close()
        return 0 if "fork" in str(error) else 1
    return 2
