"""Services as they are documented: a broker, workers that answer, many clients at once, and the end."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.roles import running
from zmqpipeline import EndpointAddress, Service, ServiceClient, ServiceWorker, TaskType
from zmqpipeline.errors import EndpointInUse, RequestFailed, WorkerInitError
from zmqpipeline.options import Options
from zmqpipeline.utils.messages import MESSAGE_TYPE_DATA

TaskType.register_type("spec-upper")
_numbers = itertools.count()


class Place:
    """A broker's two addresses, and workers for it."""

    def __init__(self) -> None:
        """New inproc addresses."""
        base = f"inproc://spec-service-{next(_numbers)}"
        self.frontend, self.backend = EndpointAddress(f"{base}-front"), EndpointAddress(f"{base}-back")

    def broker(self) -> Service:
        """A new broker."""
        return Service(self.frontend, self.backend)

    def worker(self, handler: Any, task_type: str = "spec-upper", *arguments: Any) -> ServiceWorker:
        """A worker of this service that answers with `handler(self, ...)`."""
        attributes = {"endpoint": self.backend, "task_type": task_type and TaskType(task_type)}
        made: ServiceWorker = type("Answers", (ServiceWorker,), {**attributes, "handle_message": handler})(*arguments)
        return made

    def client(self, task_type: str = "spec-upper") -> ServiceClient:
        """A client of the broker."""
        return ServiceClient(self.frontend, task_type)


@pytest.fixture
def place() -> Place:
    """Addresses of this test alone."""
    return Place()


def test_a_worker_gets_data_task_type_and_msgtype_and_its_answer_comes_back(place: Place) -> None:
    """The task type is a registered one, the data what the client sent; the client has the returned dict."""
    seen: list[Any] = []

    def handle_message(self: Any, data: Any, task_type: Any, msgtype: Any) -> dict[str, Any]:
        seen.append((data, task_type, type(task_type), msgtype))
        return {"text": data["text"].upper()}

    with running(place.broker(), place.worker(handle_message)), place.client() as client:
        assert client.request({"text": "a"}, timeout=60) == {"text": "A"}
    assert seen == [({"text": "a"}, "spec-upper", TaskType, MESSAGE_TYPE_DATA)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_handle_message_may_take_fewer_arguments(place: Place, count: int) -> None:
    """As every handler, it is called with the first few if it takes no more."""
    names = ", ".join(["self", "data", "task_type"][: count + 1])
    space: dict[str, Any] = {}
    exec(f"def handle_message({names}):\n    return [{names}][1:]", space)
    with running(place.broker(), place.worker(space["handle_message"])), place.client() as client:
        assert client.request({"n": 1}, timeout=60) == [{"n": 1}, "spec-upper"][:count]


def test_a_worker_may_leave_its_task_type_blank(place: Place) -> None:
    """It answers the clients that name no service."""
    blank = type(
        "Blank", (ServiceWorker,), {"endpoint": place.backend, "handle_message": lambda self, data, kind: [kind]}
    )
    assert blank.task_type == ""
    with running(place.broker(), blank()), place.client("") as client:
        assert client.request({}, timeout=60) == [""]


def test_a_blank_worker_serves_every_name_that_nobody_else_serves(place: Place) -> None:
    """Also what has waited since before it came, and is told it; a name with a worker of its own is that one's."""
    blank = type(
        "Blank", (ServiceWorker,), {"endpoint": place.backend, "handle_message": lambda self, data, kind: [kind, data]}
    )
    with running(place.broker()), place.client("other") as client:
        names = ("early", "early", "another")
        waiting = [client.submit(number, name, timeout=60) for number, name in enumerate(names)]
        with running(place.worker(lambda self: "own")):
            assert client.request({}, "spec-upper", timeout=60) == "own"
            with running(blank()):
                assert [one.result(60) for one in waiting] == [["early", 0], ["early", 1], ["another", 2]]
                new = client.request([{}, 7], "never-heard-of", timeout=60)
                assert new == [["never-heard-of", {}], ["never-heard-of", 7]]
                assert client.request({}, "spec-upper", timeout=60) == "own"
                assert client.request({1}, "", timeout=60) == ["other", {1}]


def test_a_blank_worker_refuses_what_is_nested_too_deeply(place: Place) -> None:
    """As others do: the name that comes with it does not count."""
    blank = type("Blank", (ServiceWorker,), {"endpoint": place.backend, "handle_message": lambda self, data: "taken"})()
    blank.options = Options(max_depth=3)
    with running(place.broker(), blank), place.client("some") as client:
        assert client.request([[[1]]], timeout=60) == ["taken"]
        assert client.request({"a": {"b": {}}}, timeout=60) == "taken"
        with pytest.raises(RequestFailed, match="more than 3 levels"):
            client.request({"a": {"b": {"c": {}}}}, timeout=60)


@pytest.mark.parametrize("data", ["text", 7, None, {1, 2}, b"bytes", {"a": 1}])
def test_a_request_may_be_anything_that_can_be_packed(place: Place, data: Any) -> None:
    """It arrives as it was sent; a list of them is as many requests."""
    with running(place.broker(), place.worker(lambda self, data: data)), place.client() as client:
        assert client.request(data, timeout=60) == data
        assert client.request([data, [data]], timeout=60) == [data, [data]]


@pytest.mark.parametrize(("given", "prefix"), [((), "worker"), (("painter",), "painter")])
def test_the_prefix_of_a_worker_is_in_the_brokers_log(
    place: Place, caplog: pytest.LogCaptureFixture, given: tuple[str, ...], prefix: str
) -> None:
    """The name of a worker begins with it; unless one is given it is "worker"."""
    worker = place.worker(lambda self: None, "spec-upper", *given)
    worker.init_worker = lambda: 1 / 0  # type: ignore[method-assign]
    with running(place.broker(), worker) as threads, place.client() as client:
        client.submit({})
        threads[1].join(60)
        assert isinstance(threads[1].error, WorkerInitError)
    assert f"Worker {prefix}@" in caplog.text


def test_requests_are_spread_over_the_workers(place: Place) -> None:
    """Two workers that wait for each other at each of many requests both have some, and the answers come in order."""
    counts: Counter[str] = Counter()
    both, pause = threading.Barrier(2, timeout=60), threading.Event()

    def worker(name: str) -> ServiceWorker:
        def handle_message(self: Any, data: dict[str, Any]) -> dict[str, Any]:
            counts[name] += 1
            pause.wait(0.005)
            # one that stands still for a while holds up the other one
            if counts[name] <= 30:
                both.wait()
            return {"n": data["n"]}

        made = place.worker(handle_message)
        made.init_worker = both.wait  # type: ignore[method-assign,assignment]
        return made

    with running(place.broker(), worker("one"), worker("other")), place.client() as client:
        requests = [{"n": n} for n in range(100)]
        assert client.request(requests, timeout=60) == requests
    assert counts.total() == 100
    assert all(30 <= count <= 70 for count in counts.values())


def test_many_clients_ask_at_once(place: Place) -> None:
    """Eight clients wait for their answers at the same time, each gets its own."""
    together = threading.Barrier(8, timeout=60)

    def handle_message(self: Any, data: dict[str, Any]) -> dict[str, Any]:
        return {"sum": data["client"] * 1000 + data["n"]}

    def ask(number: int) -> list[int]:
        with place.client() as client:
            together.wait()
            return [client.request({"client": number, "n": n}, timeout=60)["sum"] for n in range(25)]

    workers = [place.worker(handle_message) for _ in range(2)]
    with running(place.broker(), *workers), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [[number * 1000 + n for n in range(25)] for number in range(8)]


def test_shutdown_ends_the_broker_and_by_it_the_workers(place: Place) -> None:
    """`shutdown` from another thread: run() returns, and a worker's run() returns on the END that it is told."""
    broker, worker = place.broker(), place.worker(lambda self, data: data)
    with running(broker, worker) as threads:
        with place.client() as client:
            assert client.request({"n": 1}, timeout=60) == {"n": 1}
        assert all(thread.is_alive() for thread in threads)
        broker.shutdown()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
            assert thread.error is None
    assert (broker.status, worker.status) == (0, 0)


def test_what_a_service_is_given_must_be_addresses() -> None:
    """A bad address of broker or client is a TypeError, at once."""
    good = "inproc://spec-service"
    for made in (lambda: Service("tpc://x:1", good), lambda: Service(good, 5), lambda: ServiceClient("x")):
        with pytest.raises(TypeError):
            made()


def test_a_role_that_cannot_begin_again_knows_nothing_of_its_last_run(place: Place) -> None:
    """What it would leave behind, a note that its run is over, say, would be about another one."""
    broker = place.broker()
    with running(broker):
        pass
    assert broker.machine is not None
    with running(place.broker(), place.worker(lambda self: None)), place.client() as client:
        assert client.request({}, timeout=60) is None
        with pytest.raises(EndpointInUse):
            broker.run()
    assert broker.machine is None
