"""Workers whose functions keep the interpreter for long: they live, and keep their items."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.acceptance.test_run import HEAD, MAIN

pytestmark = pytest.mark.processes

HOLDERS = (
    HEAD
    + """
app.task("C")(lambda: ({"n": n} for n in range(1000)))
app.task("D")(lambda: ({"n": n} for n in range(20000)))

def hold(name, data, first):
    note(name, data["n"])
    if data["n"] == first:
        ctypes.PyDLL(None).usleep(8_000_000)  # a PyDLL call keeps the GIL
    return data

@app.worker("C")
def slow(data):
    time.sleep(0.001)
    return hold("started", data, 0)

@app.worker("D")
def fast(data):
    return hold("others", data, 5000)

@app.collector("D")
def collect_other(data):
    note("collected-others", data["n"])
"""
    + MAIN
)


@pytest.mark.slow
def test_holding_the_gil_is_not_death(workshop: Any) -> None:
    """Workers that hold the GIL for 8 s, one of two and one with thousands waiting, keep their items: no redelivery."""
    workshop.write("app.py", HOLDERS)
    began = time.monotonic()
    status, program = workshop.run("-m", "app", "run", "--workers", "C=2", "--json", timeout=80)
    assert status == 0, program.err
    assert time.monotonic() - began > 8
    assert sorted(workshop.numbers("started")) == sorted(workshop.numbers("collected")) == list(range(1000))
    assert sorted(workshop.numbers("others")) == sorted(workshop.numbers("collected-others")) == list(range(20000))
    for counts in program.json["tasks"].values():
        assert counts["redelivered"] == counts["duplicates"] == 0
