"""The benchmarks, at a tiny size: they run, check every answer, and print what they promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.benchmarks import figures, service

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

TINY = ("-m", "examples.benchmarks", "service", "--requests", "40", "--rounds", "1")


def test_the_service_benchmark_prints_a_table_with_ratios(workshop: Workshop) -> None:
    """Both sides have a figure, and the rows with a promise say what it is."""
    status, program = workshop.run(*TINY)
    assert status == 0, program.err
    title, head, *rows = program.out.splitlines()
    assert (title, head.split()) == ("service", ["pyzmq", "zmqpipeline", "ratio", "target"])
    assert [("at most 3" in row, "at least 0.5" in row) for row in rows] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_the_service_benchmark_as_json(workshop: Workshop) -> None:
    """One object; each row has the figures of both sides, above zero, and their ratio."""
    status, program = workshop.run(*TINY, "--json")
    assert status == 0, program.err
    assert program.json["benchmark"] == "service"
    for row in program.json["rows"]:
        assert row["raw"] > 0
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["raw"])


def test_the_journal_benchmark_has_both_rates(workshop: Workshop) -> None:
    """With and without a journal, and what their ratio should be."""
    status, program = workshop.run("-m", "examples.benchmarks", "journal", "--items", "300", "--rounds", "1")
    assert status == 0, program.err
    title, head, line = program.out.splitlines()
    assert (title, head.split()) == ("journal", ["without", "with", "ratio", "target"])
    assert line.endswith("at least 0.5")


def test_a_wrong_answer_ends_a_benchmark() -> None:
    """An answer in the wrong place counts as wrong."""
    requests = service.payloads(3)
    service.check(list(requests), requests)
    with pytest.raises(SystemExit, match="not the one to its request"):
        service.check([requests[0], requests[2], requests[1]], requests)


def test_a_row_is_of_medians() -> None:
    """One round that was disturbed does not show."""
    made = figures.row("what", "us", [1.0, 2.0, 90.0], [4.0, 80.0, 3.0])
    assert (made.raw, made.ours, made.ratio) == (2.0, 4.0, 2.0)
    assert figures.percentile(range(100), 0.99) == 99
