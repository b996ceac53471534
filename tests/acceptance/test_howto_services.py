"""The page docs/howto/services.md is true: its programs run as they stand there, and print what it says."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs/howto/services.md").read_text()


def block(first_line: str) -> str:
    """The Python block that begins with this comment."""
    found = [one for one in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if one.startswith(f"# {first_line}\n")]
    assert len(found) == 1, first_line
    return str(found[0])


@pytest.mark.slow
def test_the_programs_and_commands_of_the_page(workshop: Workshop) -> None:
    """The service, the commands of the three terminals, the client, and the error that is shown."""
    workshop.write("shop.py", block("shop.py"))
    workshop.write("client.py", block("client"))
    workshop.write("errors.py", block("errors"))
    workshop.write("stream.py", block("stream"))
    workshop.write("asks.py", block("asks"))
    commands = re.findall(r"^python -m (shop .*)$", PAGE, re.MULTILINE)
    assert [one.split()[1] for one in commands] == ["service", "service-worker", "call"]
    broker, workers = (workshop.start("-m", *one.split()) for one in commands[:2])

    call = commands[2].split(maxsplit=3)
    status, program = workshop.run("-m", *call[:3], call[3].strip("'"))
    assert (status, program.out) == (0, '{"item": "bread", "cents": 250}\n'), program.err
    assert program.out.strip() in PAGE

    status, program = workshop.run("client.py")
    assert status == 0, program.err
    assert program.out.splitlines()[1:] == [
        "[{'item': 'salt', 'cents': 90}, {'item': 'bread', 'cents': 250}]",
        "[90, 250]",
    ]

    status, program = workshop.run("stream.py")
    assert (status, sorted(program.out.split())) == (0, ["250"] * 500 + ["90"] * 500), program.err

    status, program = workshop.run("asks.py")
    assert (status, sorted(program.out.splitlines()[1:])) == (0, ["250", "90"]), program.err

    status, program = workshop.run("errors.py")
    assert (status, program.out) == (0, "KeyError 'gold'\n"), program.err
    assert program.out.strip() in PAGE

    broker.signal(signal.SIGTERM)
    assert (broker.wait(), workers.wait()) == (143, 0)


def test_the_ports_that_the_page_names() -> None:
    """Clients and workers have the ports that it says, above the base."""
    from zmqpipeline import Options, Pipeline

    places = Pipeline("ports").places(Options(endpoint="tcp://127.0.0.1:5550"))
    assert (places.clients, places.service_workers) == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")
