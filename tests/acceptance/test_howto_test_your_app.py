"""The page docs/howto/test-your-app.md is true: its tests run as they stand there, and fail where it says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs/howto/test-your-app.md").read_text()
BLOCKS: dict[str, str] = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def results(workshop: Workshop) -> dict[str, str]:
    """What pytest says of each test file of the page, beside the app."""
    workshop.write("temperatures.py", BLOCKS["temperatures.py"])
    told = {}
    for name, block in BLOCKS.items():
        if name.startswith("test_"):
            workshop.write(name, block)
            _, program = workshop.run("-m", "pytest", "-q", "-p", "zmqpipeline.pytest_plugin", name)
            told[name] = program.out + program.err
    return told


@pytest.mark.slow
def test_the_tests_of_the_page(results: dict[str, str]) -> None:
    """Those that are to pass do, the failing one shows what the page shows, and of the seeds some find the mistake."""
    assert sorted(results) == ["test_failing.py", "test_mended.py", "test_temperatures.py", "test_trouble.py"]
    assert "4 passed" in results["test_temperatures.py"], results["test_temperatures.py"]
    assert "20 passed" in results["test_mended.py"], results["test_mended.py"]

    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    failing = results["test_failing.py"]
    assert shown.strip() in failing, failing
    assert re.search(r"^>.*float\(data\[\"fahrenheit\"\]\)", failing, re.MULTILINE), failing

    (failed, passed) = re.findall(r"(\d+) failed, (\d+) passed", results["test_trouble.py"])[0]
    assert (int(failed) + int(passed), int(failed) > 0, int(passed) > 0) == (20, True, True)
    assert "assert len(temperatures.rows) == 50" in results["test_trouble.py"]
    assert "assert len(run.results) == 50\nE" not in results["test_trouble.py"]


def test_the_names_of_the_page() -> None:
    """The kinds of trouble and the keywords are those that there are."""
    import inspect

    from zmqpipeline.pytest_plugin import RunPipeline
    from zmqpipeline.testing import FAULTS

    said = re.findall(r"`(\w+)`", PAGE[PAGE.index("some kinds of trouble only") : PAGE.index("`item_seconds=2.0`")])
    assert said == list(FAULTS)
    (signature,) = re.findall(r"`run_pipeline\(app, \*, (.*?)\)`", PAGE)
    parameters = list(inspect.signature(RunPipeline.__call__).parameters.values())[2:]
    assert signature == ", ".join(f"{one.name}={one.default}" for one in parameters)
