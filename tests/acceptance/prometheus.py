"""A real Prometheus and a run with failures: ``python -m tests.acceptance.prometheus``.

`promtool` checks the alert rules of the page and what `metrics` serves. Then `prometheus` scrapes `python -m app
metrics` of a real run, with these rules: what it answers are the counts of the summary, and the alerts about failures
fire. That needs `prometheus` and `promtool` in the PATH; where they are not, this says so and ends with status 3 (with
``--if-installed``: 0).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tests.acceptance.conftest import ROOT, Workshop, wait_until
from tests.acceptance.test_metrics import APP
from tests.support.ports import free_ports

RULES = ROOT / "docs/howto/alerts.yml"

NOT_INSTALLED = 3

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s, scrape_timeout: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: counted
    static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
"""

STATES = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")

FIRING = {"PipelineItemsFailed", "PipelineTaskFailed"}
"""The alerts that a run fires in which items of A fail, so that B is aborted."""


def is_installed() -> bool:
    """Whether there is a Prometheus."""
    return all(shutil.which(one) for one in ("prometheus", "promtool"))


def got(address: str) -> str:
    """What is served there; empty if nobody is there yet."""
    try:
        with urllib.request.urlopen(address, timeout=30) as reply:
            return str(reply.read().decode())
    except OSError:
        # nobody is there, or it takes long
        return ""


class Server:
    """A Prometheus on a free port of the loopback, with its data in a folder of the test."""

    def __init__(self, folder: Path, target: int) -> None:
        shutil.copy(RULES, folder / "alerts.yml")
        (folder / "prometheus.yml").write_text(CONFIG.format(rules=folder / "alerts.yml", target=target))
        port = free_ports(1)[0]
        self.address = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, path: str, **values: str) -> Any:
        """An answer of its API."""
        text = got(f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(values)}")
        return json.loads(text)["data"] if text else None

    def values(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """What it answers to an expression, by the values of these labels."""
        found = self.ask("query", query=expression)
        results = [] if found is None else found["result"]
        return {tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1]) for one in results}

    def counted(self, wanted: Callable[[], dict[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
        """Ask until there is an answer: after a scrape that took too long there is none for a while."""
        found: dict[tuple[str, ...], float] = {}

        def is_there() -> bool:
            found.update(wanted())
            return bool(found)

        wait_until(is_there, "an answer", 120)
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        found = self.ask("alerts")
        alerts = [] if found is None else found["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


def checked(*command: str, text: str | None = None) -> None:
    """Run `promtool`; what it complains about ends this."""
    done = subprocess.run(["promtool", *command], input=text, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    click.echo(f"promtool {' '.join(command[:2])}: well")


def watch(workshop: Workshop) -> None:
    """A run, `metrics` and Prometheus together."""
    checked("check", "rules", str(RULES))
    workshop.write("app.py", APP)
    port = free_ports(1)[0]
    metrics = workshop.start("-m", "app", "metrics", "--port", str(port))
    server = Server(workshop.folder, port)
    try:
        run = workshop.start("-m", "app", "run", "--workers", "2", "--json", "--journal", "run.db")
        wait_until(lambda: run.ended() or (workshop.folder / "finishing").exists(), "the end of the items", 120)
        served = f"http://127.0.0.1:{port}/metrics"
        wait_until(lambda: told(got(served)) >= 100, f"the times of all items{metrics.err}", 120)
        text = got(served)
        checked("check", "metrics", text=text)
        # the run waits: what is scraped from now on does not change any more
        began = time.time()
        newest = "min(timestamp(zmqpipeline_items_total))"
        wait_until(lambda: server.values(newest).get((), 0) > began, "a scrape", 120)
        counted = server.counted(lambda: server.values("zmqpipeline_items_total", "task", "state"))
        times = server.counted(lambda: server.values("zmqpipeline_item_seconds_count", "task"))
        ninth = "histogram_quantile(0.9, sum by (le, task) (zmqpipeline_item_seconds_bucket))"
        quantiles = server.counted(lambda: server.values(ninth, "task"))
        mean = "zmqpipeline_journal_seconds_sum / zmqpipeline_journal_seconds_count"
        commits = server.counted(lambda: server.values(mean))
        fire: set[str] = set()

        def all_fire() -> bool:
            # what is not scraped for a moment does not fire then
            fire.update(server.firing())
            return fire >= FIRING

        wait_until(all_fire, "the alerts", 120)
        workshop.write("go", "")
        assert run.wait() == 1, run.err
    finally:
        server.close()
    tasks = run.json["tasks"]
    wanted = {(task, state): float(one[state]) for task, one in tasks.items() for state in STATES}
    assert counted == wanted, (counted, wanted)
    a = tasks["A"]
    least, most = a["collected"] + a["failed"], a["sent"] + a["redelivered"]
    assert least <= times["A",] <= most, (least, times, most)
    # seconds, and no other unit, on a slow machine, too
    assert 0 < quantiles["A",] <= 1, quantiles
    assert 0 < commits[()] < 5, commits
    assert fire == FIRING, fire
    click.echo(f"{len(counted)} counts are those of the summary; {int(times['A',])} times; firing: {sorted(fire)}")


def told(text: str) -> float:
    """How many items of A have been timed, by what `metrics` serves."""
    name = 'zmqpipeline_item_seconds_count{task="A"} '
    return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)


@click.command()
@click.option("--if-installed", is_flag=True, help="End with status 0 where there is no Prometheus.")
def main(*, if_installed: bool) -> None:
    """Run it, and print what was compared."""
    if not is_installed():
        click.echo("There is no Prometheus here: `prometheus` and `promtool` are not in the PATH.", err=True)
        sys.exit(0 if if_installed else NOT_INSTALLED)
    with tempfile.TemporaryDirectory(prefix="zp-prom-", dir="/tmp") as folder:
        workshop = Workshop(Path(folder))
        try:
            watch(workshop)
        finally:
            workshop.close()


if __name__ == "__main__":
    main()
