"""The command `metrics`: a process of its own that Prometheus scrapes; at each scrape it asks as `status` does."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import ENDPOINT_VARIABLE, settle, shared_flags
from zmqpipeline.cli.exposition import METRICS, Metric, samples_of
from zmqpipeline.cli.tables import printable
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.processes import launch
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.status_client import StatusClient

if TYPE_CHECKING:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

log = logging.getLogger("zmqpipeline.metrics")

INSTALL = "pip install 'zmqpipeline[metrics]'"


@click.command("metrics", epilog="Example: python -m app metrics --port 9108 --endpoint tcp://SERVER:5550")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9108,
    show_default=True,
    metavar="P",
    help="Port to listen on. 0: any free one, which is printed.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Address to listen on. Whoever reaches it can read the metrics.",
)
@shared_flags
@click.pass_obj
def metrics(app: Pipeline, /, port: int, host: str, **flags: Any) -> int:
    """Serve the state of a running pipeline to Prometheus, until it is ended.

    At each scrape the distributor is asked, as `status` does; of several runs, that which was started first. Nobody
    there: zmqpipeline_up is 0, and the process stays.
    """
    options = settle(app, flags)
    given = flags["endpoint"] or os.environ.get(ENDPOINT_VARIABLE)
    if given:
        refuse_inproc(EndpointAddress(given))
    roles = ("status", "service-clients") if app.service_names else ("status",)
    find = (lambda: [given]) if given else (lambda: launch.status_bases(app, options))
    ended = threading.Event()
    with Asker(find, roles, options) as asker:
        # what is wrong with the address or the keys is said now, and not to the first who asks
        asker.connect()
        server, address = _serve(asker, host, port)
        before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            click.echo(f"Metrics of {app.name!r}: {address}", err=True)
            ended.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
            server.shutdown()
            server.server_close()
    return 128 + signal.SIGTERM


def _serve(asker: Asker, host: str, port: int) -> tuple[Any, str]:
    """The server, which has begun, and its address.

    Raises:
        ConfigurationError: the package is missing, or nobody can listen there.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise ConfigurationError(
            f"The command `metrics` needs the package prometheus-client, which cannot be imported ({error}). "
            f"Install it: {INSTALL}"
        ) from error
    registry = CollectorRegistry()
    registry.register(AtScrape(asker.ask))
    try:
        server, _ = start_http_server(port, host, registry)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"Nobody can listen at {host} port {port}: {error}. Name others: --host HOST --port PORT."
        ) from error
    name, bound = server.server_address[:2]
    name = str(name)
    return server, f"http://{f'[{name}]' if ':' in name else name}:{bound}/metrics"


class AtScrape:
    """A collector of prometheus-client that keeps no values: it asks when it is read."""

    def __init__(self, ask: Callable[[], Sequence[Status]]) -> None:
        """`ask` gives the answers of one run, perhaps none."""
        self._ask = ask

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics without values, for which nobody is asked."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics as of now."""
        for metric, values in samples_of(self._ask()).items():
            family = _family(metric)
            for labels, value in values.items():
                # the name of a task may hold what has no UTF-8
                family.add_metric([printable(label) for label in labels], value)
            yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.text, labels=metric.labels)


class Asker:
    """Asks for a run wherever one may be; may be called from any thread. Close it, or use it with `with`."""

    def __init__(self, find: Callable[[], list[str]], roles: Sequence[str], options: Options) -> None:
        """`find` gives the base addresses, `roles` who answers there."""
        self._find = find
        self._roles = roles
        self._options = options
        self._lock = threading.Lock()
        self._bases: list[str] = []
        self._client: StatusClient | None = None
        self._warned: set[EndpointAddress] = set()
        self._began = 0.0
        self._answers: Sequence[Status] = ()

    def __enter__(self) -> Asker:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        with self._lock:
            self._close()

    def connect(self) -> None:
        """Look where runs are, and connect. Raises EndpointError or KeysError."""
        bases = self._find()
        if bases != self._bases or self._client is None:
            self._close()
            self._bases = bases
            self._client = StatusClient([derive(base, role) for base in bases for role in self._roles], self._options)

    def ask(self) -> Sequence[Status]:
        """The answers of the first run that answers, its distributor's first; none if nobody does.

        Who comes while somebody else asks waits for that, and gets the answers of a question that was asked since.
        """
        came = time.monotonic()
        with self._lock:
            if self._began <= came:
                self._began, self._answers = time.monotonic(), ()
                self._answers = self._ask()
            return self._answers

    def _ask(self) -> Sequence[Status]:
        self.connect()
        assert self._client is not None
        found = self._client.ask() if self._bases else {}
        for place, text in self._client.strange.items():
            if place not in self._warned:
                self._warned.add(place)
                log.warning("What answers at %s is none of this version: %s", place, text)
        for base in self._bases:
            places = (derive(base, role) for role in self._roles)
            if answers := [found[place] for place in places if place in found]:
                return answers
        return ()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
