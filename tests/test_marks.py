"""No test is left out: what README's command leaves out, `.ci/run` runs; and none is run twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.marks import SETS

ROOT = Path(__file__).parent.parent


def test_what_is_deselected_has_a_step_of_its_own() -> None:
    """Each mark that pyproject.toml deselects is selected by a step of `.ci/run`, and named in CONTRIBUTING.md."""
    addopts = re.search(r"^addopts = (.*)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert addopts is not None
    assert f'"-m", "{" and ".join(f"not {name}" for name in SETS)}"' in addopts[1]
    script, page = (ROOT / ".ci/run").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    for name in SETS:
        (step,) = re.findall(rf"^step (python -m pytest -q .*-m {name})$", script, re.MULTILINE)
        assert f"`{step}`" in page


def test_a_test_of_two_sets_is_refused(pytester: pytest.Pytester) -> None:
    """It would run twice, once beside the neighbours that it must not have."""
    pytester.makeini("[pytest]\nmarkers =\n    slow\n    alone\n")
    pytester.makepyfile("import pytest\n\n@pytest.mark.slow\n@pytest.mark.alone\ndef test_it(): pass\n")
    result = pytester.runpytest_inprocess("-p", "tests.support.marks")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it is marked as slow and as alone: choose one."])
