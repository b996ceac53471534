"""Traces by real processes, which export them by OTLP over HTTP to a receiver of the test."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

APP = """
import os, pathlib, signal
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from zmqpipeline import Options, Pipeline

provider = TracerProvider(resource=Resource({"service.name": "shop", "process.pid": os.getpid()}))
# each span at once: a worker that is killed sends nothing later
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=os.environ["RECEIVER"])))
trace.set_tracer_provider(provider)
app = Pipeline("shop", options=Options(traces=True))
HERE = pathlib.Path(__file__).parent

@app.task("A", times=20, retries=1, backoff=0.01)
def first():
    return {}

@app.task("B", for_each="A")
def second(result):
    yield {}

@app.worker("A")
def on_first(data, number, attempt):
    if number == 3 and attempt == 1:
        raise OSError("once")
    if number == 7 and not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

@app.worker("B")
def on_second(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""


class Receiver(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[int, Any]] = []
        """The process that made each, and itself."""
        self.address = f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    def take(self, body: bytes) -> None:
        """One message."""
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            pid = next(one.value.int_value for one in resource.resource.attributes if one.key == "process.pid")
            self.spans += [(pid, span) for scope in resource.scope_spans for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Take it, and say so."""
        self.server.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that runs."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_of_all_processes_are_one_trace_an_item(workshop: Workshop, receiver: Receiver) -> None:
    """Produced here, executed there, collected elsewhere, through a retry, a killed worker, and a second stage."""
    workshop.write("app.py", APP)
    status, run = workshop.run("-m", "app", "run", "--workers", "2", timeout=60, RECEIVER=receiver.address)
    assert status == 0, run.err
    spans = [span for _, span in receiver.spans]
    of_id = {span.span_id: span for span in spans}
    counts = Counter(span.name for span in spans)
    assert (counts["produce A"], counts["collect A"], counts["produce B"], counts["collect B"]) == (20,) * 4

    def path(span: Any) -> tuple[str, ...]:
        assert not span.parent_span_id or of_id[span.parent_span_id].trace_id == span.trace_id
        return (span.name, *path(of_id[span.parent_span_id])) if span.parent_span_id else (span.name,)

    collected = {path(span) for span in spans if span.name == "collect B"}
    assert collected == {("collect B", "execute B", "produce B", "execute A", "produce A")}
    assert len({span.trace_id for span in spans}) == 20
    failed = [span for span in spans if span.status.code == 2]
    # whichever process had the attempt before
    linked = [link.span_id for span in spans if span.name == "execute A" for link in span.links]
    assert linked == [span.span_id for span in failed]
    assert ["once" in str(span.events) for span in failed] == [True]
    makers = {name: {pid for pid, span in receiver.spans if span.name == name} for name in counts}
    assert makers["collect A"] == {run.pid} == makers["produce B"]
    assert not makers["execute A"] & (makers["collect A"] | makers["produce A"] | makers["execute B"])
    assert "TracerProvider" not in run.err


def test_without_a_provider_it_is_said_once_a_process(workshop: Workshop, receiver: Receiver) -> None:
    """Nothing else happens."""
    workshop.write("app.py", APP.replace("trace.set_tracer_provider(provider)", ""))
    (workshop.folder / "killed").touch()
    status, run = workshop.run("-m", "app", "run", "--workers", "1", RECEIVER=receiver.address)
    assert status == 0, run.err
    assert run.err.count("this process has no TracerProvider") == 4, run.err
    assert receiver.spans == []


def test_a_run_goes_on_without_traces(workshop: Workshop, receiver: Receiver) -> None:
    """What its journal has of items with spans are plain dicts then, for workers and collector."""
    app = APP.replace("times=20", "times=4").replace("if number", "if False and number")
    app = app.replace(
        "    return data\n",
        """    assert type(data) is dict, type(data)
    if os.environ.get("LEAVE"):
        os.kill(os.getppid(), signal.SIGKILL)
    return data
""",
    )
    workshop.write("app.py", app.replace("Options(traces=True)", "Options(traces=bool(os.environ.get('LEAVE')))"))
    run = ("-m", "app", "run", "--workers", "1", "--journal", "run.db")
    status, first = workshop.run(*run, LEAVE="yes", RECEIVER=receiver.address)
    assert status == -9, first.err
    made = len(receiver.spans)
    assert made
    status, second = workshop.run(*run, RECEIVER=receiver.address)
    assert status == 0, second.err
    assert "B: sent 4, collected 4" in second.err
    assert len(receiver.spans) == made


def test_a_receiver_that_is_gone_holds_up_the_end_for_seconds(workshop: Workshop, free_port: int) -> None:
    """As long as is promised, in all processes, and it is said; not for all that the SDK would try."""
    app = APP.replace("SimpleSpanProcessor", "BatchSpanProcessor").replace("times=20", "times=2000")
    workshop.write("app.py", app.replace("number ==", "number == -"))
    began = time.monotonic()
    nowhere = f"http://127.0.0.1:{free_port}/v1/traces"
    status, run = workshop.run("-m", "app", "run", "--workers", "1", timeout=60, RECEIVER=nowhere)
    assert status == 0, run.err
    assert time.monotonic() - began < 20
    assert "Not all spans were exported within 5 s" in run.err
    assert "did not end in time" not in run.err


SERVICE = APP.replace(
    'if __name__ == "__main__":',
    """
@app.service("upper")
def upper(data):
    with trace.get_tracer("mine").start_as_current_span("inside"):
        assert type(data) is dict
        return {"text": data["text"].upper()}

if __name__ == "client":
    with trace.get_tracer("mine").start_as_current_span("asking"):
        with app.client("upper", options=Options(endpoint=os.environ["PLACE"], traces=True)) as client:
            assert client.request({"text": "a"}) == {"text": "A"}
            assert [one for one in client.stream([{"text": "b"}])] == [{"text": "B"}]
    provider.force_flush()

if __name__ == "__main__":""",
)


def test_a_request_is_below_what_its_client_does(workshop: Workshop, free_port: int, receiver: Receiver) -> None:
    """In the process of the service's worker, and of a stream, too."""
    workshop.write("app.py", SERVICE)
    place = f"tcp://127.0.0.1:{free_port}"
    roles = [
        workshop.start("-m", "app", *role, "--endpoint", place, RECEIVER=receiver.address)
        for role in (("service",), ("service-worker", "upper"))
    ]
    asks = "import runpy; runpy.run_path('app.py', run_name='client')"
    status, client = workshop.run("-c", asks, RECEIVER=receiver.address, PLACE=place)
    assert status == 0, client.err
    for role in roles[::-1]:
        role.signal(15)
        role.wait()
    spans = [span for _, span in receiver.spans]
    of_id = {span.span_id: span for span in spans}
    executed = [span for span in spans if span.name == "execute upper"]
    assert [of_id[span.parent_span_id].name for span in executed] == ["asking"] * 2
    assert [of_id[span.parent_span_id] for span in spans if span.name == "inside"] == executed
    assert len({span.trace_id for span in spans}) == 1
