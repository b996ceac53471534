"""The program of docs/howto/parquet.md: each row once, though the collector is killed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import ROOT, wait_until
from tests.support.pages import blocks_of

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

PAGE = ROOT / "docs/howto/parquet.md"


@pytest.mark.processes
@pytest.mark.slow
def test_each_row_is_in_the_file_once_though_everything_is_killed(workshop: Workshop) -> None:
    """Four times, of 60,000 rows; files that nobody names are left out."""
    (program,) = [one.text for one in blocks_of(PAGE) if one.rest == "columns.py"]
    begin = "        yield"
    assert program.count(begin) == 1
    # in each of the first lives the source goes on to this row and no further: they are not over when they are killed
    waits = '        if str(number) == os.environ.get("END"):\n            __import__("time").sleep(1000)\n'
    workshop.write("columns.py", program.replace(begin, waits + begin))

    def start(end: int) -> list[Program]:
        roles = (("distributor",), ("worker",), ("collector", "--journal", "columns.journal"))
        return [workshop.start("-m", "columns", *role, ROWS="60000", END=f"{end}") for role in roles]

    def files() -> int:
        return len(list((workshop.folder / "columns").glob("*.parquet")))

    for life in range(1, 5):
        before, roles = files(), start(12_000 * life)
        wait_until(lambda before=before: files() > before + 2, "more files")  # type: ignore[misc]
        for role in roles:
            os.kill(role.pid, signal.SIGKILL)
            role.wait()
    roles = start(60_000)
    assert [role.wait(100) for role in roles] == [0, 0, 0], roles[2].err
    table = pq.read_table(workshop.folder / "columns.parquet")
    assert table["number"].to_pylist() == list(range(60_000))
    assert table["root"].to_pylist() == [n**0.5 for n in range(60_000)]
