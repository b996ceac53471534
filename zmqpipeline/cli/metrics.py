"""The command `metrics`: a process of its own that Prometheus scrapes; at each scrape it asks as `status` does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.asker import Asker, asker_of
from zmqpipeline.cli.common import settle, shared_flags
from zmqpipeline.cli.exposition import METRICS, Durations, Metric, Value, samples_of
from zmqpipeline.cli.output import tell
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.error_text import printable

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

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
    ended = threading.Event()
    with asker_of(app, options, flags["endpoint"]) as asker:
        server, address = _serve(asker, host, port)
        before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            tell(f"Metrics of {app.name!r}: {address}", err=True)
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


def exposed(ask: Callable[[], Sequence[Status]], accepted: str = "") -> tuple[bytes, str]:
    """The metrics as of now, as text, and its type; `accepted` are the types that whoever asks understands.

    Raises ImportError if the package is missing.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(AtScrape(ask))
    encoder, kind = choose_encoder(accepted)
    return encoder(registry), kind


class AtScrape:
    """A collector of prometheus-client that keeps no values: it asks when it is read."""

    def __init__(self, ask: Callable[[], Sequence[Status]]) -> None:
        """`ask` gives the answers of one run, perhaps none."""
        self._ask = ask

    def describe(self) -> Iterator[Family]:
        """The metrics without values, for which nobody is asked."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[Family]:
        """The metrics as of now."""
        for metric, values in samples_of(self._ask()).items():
            family = _family(metric)
            for labels, value in values.items():
                # the name of a task may hold what has no UTF-8
                _add(family, metric, [printable(label) for label in labels], value)
            yield family


def _add(family: Any, metric: Metric, labels: list[str], value: Value) -> None:
    if not isinstance(value, Durations):
        family.add_metric(labels, value)
    elif metric.kind == "histogram":
        family.add_metric(labels, value.classes(), value.seconds)
    else:
        family.add_metric(labels, value.number, value.seconds)


def _family(metric: Metric) -> Family:
    from prometheus_client import metrics_core as families

    kinds: dict[str, Any] = {
        "counter": families.CounterMetricFamily,
        "gauge": families.GaugeMetricFamily,
        "histogram": families.HistogramMetricFamily,
        "summary": families.SummaryMetricFamily,
    }
    made: Family = kinds[metric.kind](metric.name, metric.text, labels=metric.labels)
    return made
