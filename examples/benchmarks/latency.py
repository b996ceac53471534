"""How long one item takes until it is executed, collected and acknowledged, and one request until it has its reply.

The yardstick of items is the round trip ventilator - worker - sink - ventilator in plain pyzmq: the same three
processes and the same three ways. That of requests is an echo over DEALER - ROUTER - ROUTER - DEALER in plain pyzmq.

Of requests each side has three processes for one at a time (broker, worker, client), and six for four clients at once
that keep a window of requests under way. The payload is the same, both pack it with msgpack, and both go over ipc.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

import click

from examples.benchmarks.apps import echo as app
from examples.benchmarks.figures import Row, percentile, processes, row, show, standard
from examples.benchmarks.raw import EchoClient
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw
from zmqpipeline import Options

# requests and replies ------------------------------------------------------------------------------------------------

CLIENTS = 4
WINDOW = 100
SERVICE_SIDES = ("raw", "ours")


class Client(Protocol):
    """What both sides have: one request, many at a time, a list of them."""

    def ask(self, data: dict[str, Any]) -> Any:
        """The reply to one request."""

    def ask_many(self, requests: list[dict[str, Any]], window: int) -> list[Any]:
        """The replies to all, with at most `window` of them under way."""

    def close(self) -> None:
        """Close."""


class OurClient:
    """A client of the service."""

    def __init__(self, folder: str) -> None:
        self._client = app.client("echo", options=Options(endpoint=f"ipc://{folder}"))

    def ask(self, data: dict[str, Any]) -> Any:
        """The reply to one request."""
        return self._client.request(data)

    def ask_many(self, requests: list[dict[str, Any]], window: int) -> list[Any]:
        """The replies to all, by futures, with at most `window` of them under way."""
        replies: list[Any] = []
        waiting: deque[Future[Any]] = deque()
        for data in requests:
            if len(waiting) >= window:
                replies.append(waiting.popleft().result())
            waiting.append(self._client.submit(data))
        replies.extend(one.result() for one in waiting)
        return replies

    def close(self) -> None:
        """Close."""
        self._client.close()


MAKERS: dict[str, Callable[[str], Client]] = {"raw": EchoClient, "ours": OurClient}


def servers(side: str, folder: str) -> list[list[str]]:
    """The commands of one side's broker and worker."""
    if side == "raw":
        return [["-m", "examples.benchmarks.raw", "echo", part, folder] for part in ("broker", "worker")]
    parts = (["service"], ["service-worker", "echo"])
    return [
        ["-m", "zmqpipeline", "-A", "examples.benchmarks.apps:echo", *part, "--endpoint", f"ipc://{folder}"]
        for part in parts
    ]


def payloads(count: int) -> list[dict[str, Any]]:
    """Requests of about 100 bytes, all different."""
    return [{"number": n, "text": f"request {n:010d} " * 4, "flags": [True, None, 0.5]} for n in range(count)]


def check(replies: Sequence[Any], requests: Sequence[Any]) -> None:
    """Every reply must be the request."""
    if list(replies) != list(requests):
        raise SystemExit("A reply was not the one to its request.")


def one_at_a_time(client: Client, count: int) -> list[float]:
    """The seconds that each of so many requests took."""
    requests, replies, times = payloads(count), [], []
    for data in requests:
        began = time.perf_counter()
        replies.append(client.ask(data))
        times.append(time.perf_counter() - began)
    check(replies, requests)
    return times


def many_at_a_time(side: str, folder: str, count: int, clients: int) -> float:
    """Requests a second of so many client processes together, from the first request to the last reply."""
    command = [sys.executable, "-m", "examples.benchmarks.latency", side, folder, str(count // clients)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **pipes) for _ in range(clients)]
    for one in started:
        one.stdout.readline()  # it is connected
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    spans = [json.loads(one.communicate()[0]) for one in started]
    if any(one.returncode for one in started):
        raise SystemExit("A client of the benchmark failed.")
    return (count // clients) * clients / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def pipelining_client(side: str, folder: str, count: int) -> None:
    """One client process: says that it is ready, waits for a line, asks, and prints when it began and ended."""
    client = MAKERS[side](folder)
    requests = payloads(count)
    client.ask(requests[0])
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    replies = client.ask_many(requests, WINDOW)
    ended = time.monotonic()
    check(replies, requests)
    client.close()
    print(json.dumps([began, ended]))


def service_round(side: str, count: int) -> dict[str, float]:
    """One round of one side, with new processes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, processes(*servers(side, folder)):
        client = MAKERS[side](folder)
        one_at_a_time(client, max(20, count // 20))  # nothing is cold afterwards
        times = one_at_a_time(client, count)
        client.close()
        rate = many_at_a_time(side, folder, 4 * count, CLIENTS)
    return {"p50": percentile(times, 0.5) * 1e6, "p99": percentile(times, 0.99) * 1e6, "rate": rate}


def measure_service(count: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SERVICE_SIDES}
    for _, side in itertools.product(range(rounds), SERVICE_SIDES):
        found[side].append(service_round(side, count))

    def made(what: str, unit: str, key: str, target: str = "") -> Row:
        raw, ours = ([one[key] for one in found[side]] for side in SERVICE_SIDES)
        return row(what, unit, raw, ours, target)

    return [
        made("one request at a time, median", "us", "p50", "at most 3"),
        made("one request at a time, 99 of 100", "us", "p99"),
        made(f"{CLIENTS} clients, {WINDOW} under way each", "requests/s", "rate", "at least 0.5"),
    ]


@click.command("service")
@click.option("--requests", type=click.IntRange(4), default=5000, show_default=True, help="So many, one at a time.")
@standard
def service(requests: int, rounds: int, as_json: bool) -> None:
    """Requests and replies, beside a raw DEALER - ROUTER - ROUTER - DEALER echo."""
    show("service", measure_service(requests, rounds), as_json=as_json)


# one item at a time --------------------------------------------------------------------------------------------------

LATENCY_SIDES = ("raw", "ours")


def latency_round(side: str, items: int, transport: str) -> Sequence[float]:
    """The seconds that each of so many items took; a tenth more go before them, so that nothing is cold."""
    warm = max(20, items // 10)
    if side == "ours":
        run = run_ours("examples.benchmarks.apps:single", transport=transport, items=items + warm)
    else:
        run = run_raw("trivial", items + warm, transport=transport, one_at_a_time=True)
    times: list[float] = run.more["times"]
    if len(times) != items + warm:
        raise SystemExit(f"{len(times)} of {items + warm} items were timed.")
    return times[warm:]


def measure_latency(items: int, rounds: int, transports: Sequence[str]) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    found: dict[tuple[str, str], list[Sequence[float]]] = {}
    for _, transport, side in itertools.product(range(rounds), transports, LATENCY_SIDES):
        found.setdefault((transport, side), []).append(latency_round(side, items, transport))

    def made(transport: str, what: str, share: float, target: str) -> Row:
        raw, ours = ([1e6 * percentile(one, share) for one in found[transport, side]] for side in LATENCY_SIDES)
        return row(f"{transport}, one item, {what}", "us", raw, ours, target)

    rows = []
    for transport in transports:
        rows.append(made(transport, "median", 0.5, "at most 3"))
        rows.append(made(transport, "99 of 100", 0.99, ""))
    return rows


def service_rows(requests: int, rounds: int) -> list[Row]:
    """The two rows of the service benchmark that are about one request at a time."""
    return [
        replace(one, what=one.what.replace("one request at a time", "ipc, one request"))
        for one in measure_service(requests, rounds)
        if one.unit == "us"
    ]


@click.command("latency")
@click.option("--items", type=click.IntRange(20), default=2000, show_default=True, help="So many, one at a time.")
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=("ipc",), show_default=True)
@standard
def latency(items: int, transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """One item at a time, and one service request, beside raw round trips."""
    rows = measure_latency(items, rounds, transport) + service_rows(items, rounds)
    show("latency", rows, as_json=as_json)


if __name__ == "__main__":
    pipelining_client(sys.argv[1], sys.argv[2], int(sys.argv[3]))
