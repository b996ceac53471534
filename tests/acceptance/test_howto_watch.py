"""The page docs/howto/watch.md is true: its program and its commands run as they stand there, and say what it shows."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs/howto/watch.md").read_text()
COMMANDS = re.findall(r"^python -m (crawl .*)$", PAGE, re.MULTILINE)


def block(language: str) -> list[str]:
    """The blocks of this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def crawl(workshop: Workshop) -> Workshop:
    """A folder with the program of the page."""
    (program,) = block("python")
    workshop.write("crawl.py", program)
    return workshop


def test_the_commands_before_it_runs(crawl: Workshop) -> None:
    """Roles and order; a flowchart and a drawing of both tasks."""
    said = [crawl.run("-m", *command.split()) for command in COMMANDS[:3]]
    assert [status for status, _ in said] == [0, 0, 0]
    checked, drawn, dotted = (program.out for _, program in said)
    assert "tasks in order: fetch; report after fetch" in checked
    assert "task0 ==>|then| task1" in drawn
    assert "task0 -> task1" in dotted


@pytest.mark.slow
def test_the_commands_while_it_runs(crawl: Workshop, eventually: Callable[..., None]) -> None:
    """The tables have the columns that are shown; an object a line; --watch goes on until the run ends."""
    # a run that lasts until all have looked at it
    napping = 'while not __import__("os").path.exists("go"):\n        time.sleep(0.01)'
    crawl.write("crawl.py", block("python")[0].replace("time.sleep(0.5)", napping))
    run = crawl.start("-m", *COMMANDS[3].split())
    table, as_json, watch, top = (command.split() for command in COMMANDS[4:8])
    eventually(lambda: crawl.run("-m", *table)[0] == 0, "a run")
    watching, topping = crawl.start("-m", *watch), crawl.start("-m", *top)

    said: list[str] = []

    def told() -> bool:
        status, program = crawl.run("-m", *table)
        said.append(program.out)
        return status == 0 and len(re.findall(r" fetch +busy ", program.out)) == 2

    eventually(told, "two workers at work")
    shown = block("text")[1]
    heads = ("task", "worker")
    seen, expected = (
        [line.split() for line in text.splitlines() if line.split(" ")[0] in heads] for text in (said[-1], shown)
    )
    assert seen == expected
    assert re.search(r"^report  waiting .*  waits for 'fetch': \d+ of 90 left$", said[-1], re.MULTILINE)

    status, program = crawl.run("-m", *as_json)
    assert status == 0, program.err
    assert program.json["tasks"]["fetch"]["total"] == 90
    eventually(lambda: "crawl at ipc://" in watching.out and "task  " in topping.out, "both watch it")
    run.signal(signal.SIGTERM)
    eventually(lambda: "The run drains" in run.err, "the run drains")
    crawl.write("go", "")
    assert run.wait() == 143
    assert watching.wait() == 0, watching.err
    assert topping.wait() == 0, topping.err
    assert topping.out.index("worker  ") < topping.out.index("task  ")


@pytest.mark.slow
def test_the_lines_of_a_run_in_json(crawl: Workshop) -> None:
    """What the worker's function logs has the fields that the page shows."""
    crawl.write("crawl.py", block("python")[0].replace("time.sleep(0.5)", "time.sleep(0.01)"))
    status, program = crawl.run("-m", *COMMANDS[8].split())
    assert status == 0, program.err
    assert program.json["tasks"]["fetch"]["collected"] == 90
    lines = [json.loads(line) for line in program.err.splitlines()]
    (line,) = (line for line in lines if line["message"] == "the server is busy")
    shown = json.loads(block("json")[0])
    assert line.keys() == shown.keys()
    assert [line[key] for key in ("task", "item", "attempt", "logger")] == ["fetch", 5, 1, "zmqpipeline.crawl"]
