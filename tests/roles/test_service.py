"""Broker and service workers as roles, over every transport: what goes wrong is said, and everyone else goes on."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.patience import PATIENCE
from tests.support.ports import free_ports
from tests.support.roles import RoleThread, running
from zmqpipeline import EndpointAddress, Options, Pipeline, Service, ServiceClient, ServiceWorker, TaskType
from zmqpipeline.addresses import derive
from zmqpipeline.errors import (
    ConfigurationError,
    EndpointInUse,
    ServiceError,
    ServiceUnavailable,
    WorkerInitError,
    WorkerLost,
)
from zmqpipeline.roles.runner import RoleRunner
from zmqpipeline.roles.service import ServiceWorkerRunner
from zmqpipeline.roles.worker import SingleThreadedWorker

for _name in ("test-echo", "test-other"):
    TaskType.register_type(_name)
_numbers = itertools.count()

Handler = Callable[..., Any]


def patient(**options: Any) -> Options:
    """These, for a process that may stand still for some seconds: it must not lose its connections by that."""
    return Options(heartbeat_timeout=PATIENCE, **options)


class Place:
    """A broker's two addresses, and what meets there."""

    def __init__(self, frontend: str, backend: str) -> None:
        self.frontend, self.backend = EndpointAddress(frontend), EndpointAddress(backend)

    def broker(self, **options: Any) -> Service:
        """A broker with these settings."""
        made = Service(self.frontend, self.backend)
        made.options = patient(**options)
        return made

    def worker(
        self,
        handler: Handler = lambda self, data: data,
        *,
        name: str = "test-echo",
        threads: int = 1,
        **attributes: Any,
    ) -> ServiceWorker:
        """A worker that answers with ``handler(self, data, ...)``."""
        space = {"endpoint": self.backend, "task_type": TaskType(name), "handle_message": handler, **attributes}
        made: ServiceWorker = type("Answers", (ServiceWorker,), space)()
        made.options = patient()
        ServiceWorkerRunner(made, threads=threads)
        return made

    def client(self, name: str = "test-echo", **options: Any) -> ServiceClient:
        """A client of one service."""
        return ServiceClient(self.frontend, name, options=patient(**options))


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Addresses of each kind."""
    if request.param == "tcp":
        return Place(*(f"tcp://127.0.0.1:{port}" for port in free_ports(2)))
    if request.param == "ipc":
        folder = tmp_path_factory.mktemp("s")
        return Place(f"ipc://{folder}/f", f"ipc://{folder}/b")
    base = f"inproc://service-test-{next(_numbers)}"
    return Place(f"{base}-f", f"{base}-b")


@pytest.fixture
def here() -> Place:
    """Addresses within this process, where the transport makes no difference."""
    base = f"inproc://service-test-{next(_numbers)}"
    return Place(f"{base}-f", f"{base}-b")


def large(size: int) -> dict[str, Any]:
    """A request of about this size."""
    return {"bytes": b"x" * size}


# every transport ------------------------------------------------------------------------------------------------------


def test_requests_are_answered(place: Place) -> None:
    """One, many, and large ones, by two workers of three threads."""
    with running(place.broker(), place.worker(threads=3), place.worker(threads=3)), place.client() as client:
        assert client.request({"n": 1}, timeout=60) == {"n": 1}
        requests = [{"n": n} for n in range(3000)]
        assert client.request(requests, timeout=60) == requests
        assert client.request(large(3_000_000), timeout=60) == large(3_000_000)
        assert client.request([large(200_000)] * 20, timeout=60) == [large(200_000)] * 20


def test_the_broker_that_is_shut_down_ends_its_workers(place: Place) -> None:
    """In good order: the worker ends by itself, with status 0, and what the client asks next is refused."""
    broker, worker = place.broker(), place.worker()
    with running(broker, worker) as threads, place.client() as client:
        assert client.request({}, timeout=60) == {}
        broker.shutdown()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert (broker.status, worker.status) == (0, 0)


@pytest.mark.parametrize("place", ["ipc", "tcp"], indirect=True)
def test_a_broker_that_is_started_anew_is_found_again(place: Place) -> None:
    """The client and the worker stay; the request that is made in between is answered by the second broker."""
    worker = RoleThread(place.worker())
    with place.client() as client:
        first = RoleThread(place.broker())
        worker_of_first = RoleThread(place.worker())
        for one in (first, worker_of_first):
            one.start()
        assert client.request({"n": 1}, timeout=60) == {"n": 1}
        first.role.shutdown()
        first.join(60)
        worker_of_first.join(60)
        future = client.submit({"n": 2}, timeout=60)
        with running(place.broker()):
            worker.start()
            assert future.result(60) == {"n": 2}
        worker.join(60)
        assert not worker.is_alive()


@pytest.mark.parametrize("place", ["ipc", "tcp"], indirect=True)
def test_a_second_broker_is_told_that_the_address_is_in_use(place: Place) -> None:
    """The first one goes on."""
    with running(place.broker(), place.worker()), place.client() as client:
        assert client.request({"n": 0}, timeout=60) == {"n": 0}, "the first one is bound"
        with pytest.raises(EndpointInUse, match="is in use"):
            place.broker().run()
        assert client.request({"n": 1}, timeout=60) == {"n": 1}


@pytest.mark.parametrize("place", ["ipc", "tcp"], indirect=True)
def test_garbage_at_both_addresses_is_dropped(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once a peer, and nobody else notices."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    broker = place.broker()
    with running(broker, place.worker()), place.client() as client:
        strangers = [context.socket(zmq.DEALER) for _ in range(2)]
        for stranger, address in zip(strangers, (place.frontend, place.backend), strict=True):
            stranger.connect(address)
            for frames in ([b"hello"], [b"\x01\xff"], [b""], [b"\x01", b"x" * 100_000]):
                stranger.send_multipart(frames)
        end, malformed = time.monotonic() + 60, 0
        while malformed < 8:
            assert time.monotonic() < end, malformed
            assert client.request({"n": 1}, timeout=60) == {"n": 1}
            loop = RoleRunner.of(broker)._loop
            malformed = 0 if loop is None else loop.malformed
        for stranger in strangers:
            stranger.close(0)
    context.term()
    assert caplog.text.count("none of this protocol") == 2


# what goes wrong in a handler -----------------------------------------------------------------------------------------


def test_a_handler_that_raises_fails_its_request_alone(here: Place) -> None:
    """Also SystemExit; the worker's other requests are answered, and it stays."""

    def handler(self: Any, data: dict[str, Any]) -> Any:
        if data["n"] % 3 == 1:
            raise ValueError(f"no {data['n']}")
        if data["n"] % 3 == 2:
            raise SystemExit(data["n"])
        return data

    with running(here.broker(), here.worker(handler)), here.client() as client:
        futures = [client.submit({"n": n}, timeout=60) for n in range(60)]
        errors = [future.exception(60) for future in futures]
        assert client.request({"n": 0}, timeout=60) == {"n": 0}
    assert [type(one) for one in errors] == [type(None), ServiceError, ServiceError] * 20
    assert (str(errors[1]), str(errors[2])) == ("ValueError: no 1", "SystemExit: 2")


def test_hundreds_of_long_errors_all_arrive(here: Place) -> None:
    """Together they are longer than any header may be: they come in pieces."""

    def handler(self: Any, data: dict[str, Any]) -> Any:
        raise ValueError(f"{data['n']} " + "long " * 12_000)

    with running(here.broker(), here.worker(handler)), here.client() as client:
        futures = [client.submit({"n": n}, timeout=60) for n in range(200)]
        for n, future in enumerate(futures):
            assert str(future.exception(60)).startswith(f"ValueError: {n} long")


@pytest.mark.parametrize(
    ("reply", "words"),
    [(object(), "object"), ({"a": [1, {2: object()}]}, r"\$\.a\[1\]\[2\]"), (b"x" * 2000, "max_message_bytes")],
)
def test_a_reply_that_cannot_be_sent_names_the_handler(here: Place, reply: Any, words: str) -> None:
    """And says where, or how large, it is."""
    worker = here.worker(lambda self, data: reply)
    worker.options = Options(max_message_bytes=1000)
    with running(here.broker(), worker), here.client() as client, pytest.raises(ServiceError, match=words) as caught:
        client.request({}, timeout=60)
    assert "Answers.handle_message" in str(caught.value)


@pytest.mark.parametrize("reply", [None, 7, "text", [1, (2,)], {1: {2}}])
def test_a_handler_may_return_anything_that_can_be_packed(here: Place, reply: Any) -> None:
    """It arrives as it was."""
    with running(here.broker(), here.worker(lambda self: reply)), here.client() as client:
        assert client.request({}, timeout=60) == reply


def test_a_handler_that_needs_too_many_arguments_is_refused_before_anything_runs(here: Place) -> None:
    """With how many there are."""
    with pytest.raises(TypeError, match="at most 3"):
        here.worker(lambda self, data, kind, msgtype, more: None).run()


def test_a_worker_whose_init_raises_gives_its_requests_back(here: Place) -> None:
    """It was never begun: another worker answers, although the service is not idempotent."""

    def fail(self: Any) -> None:
        raise OSError("no such device")

    with running(here.broker(), bad := here.worker(init_worker=fail)) as threads, here.client() as client:
        future = client.submit({"n": 1}, timeout=60)
        threads[1].join(60)
        assert isinstance(threads[1].error, WorkerInitError)
        assert bad.status == 1
        with running(here.worker()):
            assert future.result(60) == {"n": 1}


def test_a_drain_time_that_is_over_costs_the_request_that_still_runs(here: Place) -> None:
    """The service is not idempotent: the caller hears that its worker left; nobody executes it again."""
    gate, reached, seen = threading.Event(), threading.Event(), []

    def handler(self: Any, data: dict[str, Any]) -> Any:
        seen.append(data)
        reached.set()
        assert gate.wait(60)
        return data

    worker = here.worker(handler)
    worker.options = Options(drain_timeout=0.1)
    with running(here.broker(), worker), here.client() as client:
        future = client.submit({"n": 1}, timeout=60)
        assert reached.wait(60)
        with running(here.worker(handler)):
            worker.shutdown()
            assert isinstance(future.exception(60), WorkerLost)
            gate.set()
            assert client.request({"n": 2}, timeout=60) == {"n": 2}
    assert seen == [{"n": 1}, {"n": 2}]


# names, bounds, strangers ---------------------------------------------------------------------------------------------


def test_past_the_bound_a_client_is_told_so(here: Place) -> None:
    """The newest are refused, those that wait are answered, and then there is room again."""
    gate, reached = threading.Event(), threading.Event()

    def handler(self: Any, data: dict[str, Any]) -> Any:
        reached.set()
        assert gate.wait(60)
        return data

    with running(here.broker(max_queued_requests=5), here.worker(handler)), here.client() as client:
        first = client.submit({"n": 0}, timeout=60)
        assert reached.wait(60)
        futures = [client.submit({"n": n}, timeout=60) for n in range(1, 11)]
        errors = [future.exception(60) for future in futures[5:]]
        gate.set()
        assert [first.result(60), *(one.result(60) for one in futures[:5])] == [{"n": n} for n in range(6)]
        assert client.request({"n": 11}, timeout=60) == {"n": 11}
    assert all(isinstance(error, ServiceUnavailable) for error in errors)
    assert "max_queued_requests" in str(errors[0])


def test_a_pipelines_worker_is_refused_by_a_broker(here: Place) -> None:
    """It would send its results elsewhere; the broker says so, and serves the others."""
    backend = here.backend

    class Stranger(SingleThreadedWorker):
        task_type = TaskType("test-echo")
        endpoint = backend
        collector_endpoint = EndpointAddress(f"inproc://nobody-{next(_numbers)}")

        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
            return data

    with running(here.broker(), here.worker()), here.client() as client:
        with pytest.raises(ConfigurationError, match="broker of services"):
            Stranger().run()
        assert client.request({"n": 1}, timeout=60) == {"n": 1}


@pytest.mark.slow
def test_a_service_that_is_named_wrongly_by_one_client_is_right_for_the_other(here: Place) -> None:
    """The broker is young: the wrong name waits, the right one is answered in the meantime."""
    with running(here.broker(), here.worker()), here.client("test-other") as wrong, here.client() as right:
        future = wrong.submit({}, timeout=60)
        assert right.request({"n": 1}, timeout=60) == {"n": 1}
        error = future.exception(60)
    assert isinstance(error, ServiceUnavailable)
    assert "Nobody serves 'test-other'. Served now: 'test-echo'" in str(error)


def test_a_client_that_goes_away_leaves_the_others_in_peace(here: Place) -> None:
    """Its request runs to its end for nobody; the next client has its answer."""
    gate, reached = threading.Event(), threading.Event()

    def handler(self: Any, data: dict[str, Any]) -> Any:
        if data.get("stop"):
            reached.set()
            assert gate.wait(60)
        return data

    with running(here.broker(), here.worker(handler)), here.client() as client:
        with here.client() as gone:
            gone.submit({"stop": True})
            gone.submit([{"n": n} for n in range(100)])
            assert reached.wait(60)
        gate.set()
        assert client.request({"n": 1}, timeout=60) == {"n": 1}


def test_services_of_one_broker_do_not_mix(here: Place) -> None:
    """Two services, a client of each, a thousand requests."""
    workers = [
        here.worker(lambda self, data, kind: [kind, data["n"]], name=name) for name in ("test-echo", "test-other")
    ]
    with running(here.broker(), *workers), here.client("test-echo") as one, here.client("test-other") as other:
        futures = [(client, n, client.submit({"n": n}, timeout=60)) for n in range(500) for client in (one, other)]
        assert all(future.result(60) == [client.task_type, n] for client, n, future in futures)


# by decorators --------------------------------------------------------------------------------------------------------


def test_a_decorated_service_has_what_it_asks_for_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """Its task type, thread, attempt, message type, and the resource that its init functions make."""
    caplog.set_level(logging.INFO)
    app = Pipeline("decorated", endpoint=f"inproc://decorated-{next(_numbers)}")

    @app.service("decorated-service", threads=2)
    def answer(data: Any, resource: Any, *, task_type: str, thread_index: int, attempt: int, msgtype: str) -> Any:
        return [data, resource, task_type, thread_index, attempt, msgtype]

    @app.worker_init("decorated-service")
    def shared() -> str:
        return "shared"

    @app.thread_init("decorated-service")
    def own(resource: str, thread_index: int) -> str:
        return f"{resource} by {thread_index}"

    with running(app.compile("service"), app.compile("service-worker")), app.client("decorated-service") as client:
        data, resource, task_type, index, attempt, msgtype = client.request({"n": 1}, timeout=60)
    assert (data, resource, task_type, attempt) == ({"n": 1}, f"shared by {index}", "decorated-service", 1)
    assert msgtype
    assert answer({}, 1, task_type="t", thread_index=0, attempt=1, msgtype="m") == [{}, 1, "t", 0, 1, "m"]


def test_an_apps_places_are_where_its_service_is() -> None:
    """Its client and its worker find the broker without an address."""
    base = f"inproc://places-{next(_numbers)}"
    app = Pipeline("places", endpoint=base)
    app.add_service("places-service", lambda data: data)
    assert app.places().clients == derive(EndpointAddress(base), "service-clients")
    with pytest.raises(ConfigurationError, match="Did you mean 'places-service'"):
        app.client("place-service")


def test_a_sockets_file_is_gone_when_the_broker_has_ended(tmp_path: Path) -> None:
    """Nothing of an ipc address stays behind."""
    place = Place(f"ipc://{tmp_path}/f", f"ipc://{tmp_path}/b")
    with running(place.broker(), place.worker()), place.client() as client:
        assert client.request({}, timeout=60) == {}
    assert not [one.name for one in tmp_path.iterdir() if not one.name.endswith(".lock")]
