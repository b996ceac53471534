"""The page docs/howto/metrics.md is true: its program and its commands run, and expose the lines that it shows."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs/howto/metrics.md").read_text()
RUN, METRICS = (command.split() for command in re.findall(r"^python -m (survey .*)$", PAGE, re.MULTILINE))


def block(language: str) -> list[str]:
    """The blocks of this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def names(text: str) -> set[str]:
    """The samples in it, without their values."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("zmqpipeline_")}


@pytest.mark.slow
def test_the_commands_expose_what_is_shown(workshop: Workshop, free_port: int, eventually: Callable[..., None]) -> None:
    """Both workers are seen at work; each line of the page is among those that are served."""
    # for longer than it takes to look at it, on a busy machine, too
    workshop.write("survey.py", block("python")[0].replace("time.sleep(0.1)", "time.sleep(0.4)"))
    run = workshop.start("-m", *RUN)
    server = workshop.start("-m", *METRICS[:-1], str(free_port))
    eventually(lambda: "/metrics" in server.err, "the server")
    said = ""

    def told() -> bool:
        nonlocal said
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=60) as reply:
            said = reply.read().decode()
        return 'zmqpipeline_workers{state="busy",task="measure"} 2.0' in said

    eventually(told, "two workers at work")
    assert names(block("text")[0]) <= names(said)
    assert "zmqpipeline_up 1.0\n" in said
    run.signal(signal.SIGTERM)
    assert run.wait() == 143
    server.signal(signal.SIGTERM)
    assert server.wait() == 143


def test_the_settings_are_those_of_the_command() -> None:
    """The configuration is YAML, scrapes the port that the command takes, and loads the rules beside the page."""
    settings = yaml.safe_load(block("yaml")[0])
    (job,) = settings["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{METRICS[-1]}"]
    assert [(ROOT / "docs/howto" / name).is_file() for name in settings["rule_files"]] == [True]
