"""A rate for each value of a field: in test runs, and in simulations with faults."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.errors import RegistrationError, RunFailed
from zmqpipeline.protocol import messages as m
from zmqpipeline.serialization.pack import unpack
from zmqpipeline.testing.simulation.faults import FAULTS, climate
from zmqpipeline.testing.simulation.pipeline import World

HOSTS = {"slow": 30, "b": 10, "c": 10, "d": 3}
"""How many pages each has."""


def crawl(rate: str, **keywords: Any) -> Pipeline:
    """Pages of several hosts, those of the slow one first, found one by one; each page of it leads to the next."""
    app = Pipeline("crawl")

    def seeds() -> Iterator[dict[str, Any]]:
        for host, pages in HOSTS.items():
            for page in range(pages // 2):
                yield {"host": host, "page": page}

    @app.task("page", first=seeds, for_each="page", key=str, rate=rate, rate_by="host", retries=9, backoff=0.1)
    def links(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for further in (page["page"] + HOSTS[page["host"]] // 2, page["page"] + 1):
            if further < HOSTS[page["host"]]:
                yield {"host": page["host"], "page": further}

    @app.worker("page")
    def fetch(data: dict[str, Any]) -> dict[str, Any]:
        return data

    return app


ALL = sorted((host, page) for host, pages in HOSTS.items() for page in range(pages))


def test_each_page_of_each_host_once() -> None:
    """As without a rate."""
    run = crawl("1000/s").test_run(workers=2)
    assert sorted((data["host"], data["page"]) for _, data in run.results) == ALL


class Watched(World):
    """A simulated world that writes down when an item of which host was handed out."""

    handed: list[tuple[float, str]]

    def note_sent(self, who: Any, body: object) -> None:
        """By any distributor."""
        super().note_sent(who, body)
        if isinstance(body, m.Work):
            self.handed += [(self.now, unpack(payload)["host"]) for payload in body.payloads]


def simulated(seed: int, rate: str, faults: Any, *, journal: bool = False) -> Watched:
    """One life of the crawl."""
    world = Watched(seed)
    world.handed = []
    app = crawl(rate)
    app.freeze()
    with tempfile.TemporaryDirectory() as folder:
        try:
            world.scratch = Path(folder, "outbox.db")
            path = Path(folder, "run.db") if journal else None
            world.begin(app, {"page": 2}, climate(random.Random(seed), faults, 0.05), None, path)
            world.run(120.0)
        finally:
            world.close()
    return world


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rate", ["2/s", "0.5/s"])
def test_whoever_dies_no_host_is_asked_faster_than_its_rate(rate: str, seed: int) -> None:
    """In every window, retries and items of lost workers counted; and each page is collected once."""
    world = simulated(seed, rate, FAULTS, journal=bool(seed % 2))
    assert sorted((data["host"], data["page"]) for _, data in world.answer().results) == ALL
    per_second = float(rate.removesuffix("/s"))
    burst = max(1.0, per_second)
    for host, pages in HOSTS.items():
        times = [at for at, one in world.handed if one == host]
        assert len(times) >= pages
        for at, first in enumerate(times):
            for more, last in enumerate(times[at:], 1):
                assert more <= per_second * (last - first) + burst + 1e-6, (host, first, last, more)


def test_a_slow_host_does_not_stop_the_others() -> None:
    """Without faults: each is through in about the time of its own pages."""
    world = simulated(1, "0.5/s", ())
    for host, pages in HOSTS.items():
        times = [at for at, one in world.handed if one == host]
        assert len(times) == pages
        assert times[-1] - times[0] <= 2.0 * (pages - 1) + 3.0, host


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"rate_by": "host", "for_each": "A"}, r"rate_by='host' without rate="),
        ({"rate_by": "host", "rate": "1/s"}, r"rate_by='host' without for_each="),
        ({"rate_by": "", "rate": "1/s", "for_each": "A"}, "must be the name of a field"),
        ({"rate_by": len, "rate": "1/s", "for_each": "A"}, "must be the name of a field"),
    ],
)
def test_it_is_refused_where_it_has_no_meaning(keywords: dict[str, Any], says: str) -> None:
    """With what to write."""
    app = Pipeline("refused")
    with pytest.raises(RegistrationError, match=says):
        app.add_task("B", lambda data=None: {}, **keywords)


@pytest.mark.parametrize("where", ["first", "each"])
def test_an_item_without_the_field_is_told_of(where: str) -> None:
    """Of a result it has failed; of the task's first items their source has."""
    app = Pipeline("lacking")
    first = [{"host": "a"}, {"hots": "b"}] if where == "first" else [{"host": "a"}]
    app.add_task("page", lambda page: {"page": 1}, first=first, for_each="page", key=str, rate="9/s", rate_by="host")
    app.add_worker("page", dict)
    text = "An item of task 'page' has no field 'host', which its rate goes by (rate_by)."
    if where == "first":
        with pytest.raises(RunFailed, match=re.escape(text)):
            app.test_run(raise_failures=False)
        return
    (failure,) = app.test_run(raise_failures=False).failures
    assert failure.stage == "feed"
    assert text in failure.message
