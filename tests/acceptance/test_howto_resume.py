"""The page docs/howto/resume.md is true: its program and its lines run as they stand there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PAGE = (ROOT / "docs/howto/resume.md").read_text()


def test_the_program_and_commands_of_the_page(workshop: Workshop) -> None:
    """A run with a failed item, what `dead` says of it, and the run that goes on once the program is mended."""
    program, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = workshop.write("survey.py", program)
    first, *others = re.findall(r"^python -m (survey .*)$", PAGE, re.MULTILINE)
    assert [line.split()[1:3] for line in (first, *others)] == [
        ["run", "--journal"],
        ["dead", "list"],
        ["dead", "show"],
        ["dead", "retry"],
        ["run", "--journal"],
        ["run", "--journal"],
    ]

    status, run = workshop.run("-m", *first.split())
    assert status == 1, run.err
    status, run = workshop.run("-m", *first.split())
    assert (status, "already finished" in run.err) == (1, True), run.err

    said = [workshop.run("-m", *line.split()) for line in others[:3]]
    assert [status for status, _ in said] == [0, 0, 0]
    listed, shown, retried = (program.out for _, program in said)
    assert re.search(r"measure +12 .*ValueError +not this one", listed)
    assert "not this one" in shown
    assert "Marked 1 failed item" in retried

    path.write_text(program.replace("== 13", "== -1"))
    status, run = workshop.run("-m", *others[3].split())
    assert status == 0, run.err
    with contextlib.closing(sqlite3.connect(path.with_name("survey.db"))) as db:
        assert db.execute("SELECT count(*), max(square) FROM squares").fetchone() == (1000, 1_000_000)

    for finished in (False, True):
        status, run = workshop.run("-m", *others[4].split())
        assert (status, "already finished" in run.err) == (0, finished), run.err
