"""The benchmark of items that compute, at a tiny size, and the pure part of it: METG, counts, tables."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from examples.benchmarks import bare_loops, granularity, lines, metg, peers, roles, work

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

TINY = ["granularity", "--lengths", "20us,1ms", "--workers", "2", "--rounds", "1", "--seconds", "0.02"]
KEYS = "ours,bare,pool1,pool100,pyzmq"


def rate(side: str, length: float, share: float, workers: int = 2, target: str = "") -> lines.Line:
    """A line of a rate, with so much of a limit of 1,000 items a second."""
    return {
        "benchmark": "granularity", "what": side, "unit": metg.RATES, "raw": 1000.0, "ours": 1000 * share,
        "target": target, "ratio": share, "side": side, "workers": workers, "nominal": length, "length": length,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.processes
def test_all_sides_are_compared_with_the_bare_loops(workshop: Workshop) -> None:
    """Three tables: the shares by length, METG, and what each role used."""
    status, program = workshop.run("-m", "examples.benchmarks", *TINY, "--only", KEYS, timeout=60)
    assert status == 0, program.err
    shares, metgs, costs = (block.splitlines() for block in program.out.strip().split("\n\n"))
    assert {block[0] for block in (shares, metgs, costs)} == {"granularity"}
    heads = [re.split(r"\s{2,}", block[1].strip()) for block in (shares, metgs, costs)]
    sides = ["Pool, chunks of 1", "Pool, chunks of 100", "plain pyzmq, batches of 100", "zmqpipeline", "aim"]
    assert heads[0] == ["share of the limit", "bare loops, items/s", *sides]
    assert heads[1] == ["us", *sides]
    assert heads[2][1:6] == ["on the clock", "bare loops", *roles.ROLES]
    assert [line.split("  ")[0] for line in shares[2:]] == ["2 workers, 20 us", "2 workers, 1 ms"]
    assert [line.rpartition("  ")[2] for line in shares[2:]] == ["at least 0.85", "at least 0.9"]
    assert [line.split("  ")[0] for line in metgs[2:]] == ["2 workers, METG(50 %)", "2 workers, METG(90 %)"]


@pytest.mark.slow
@pytest.mark.processes
def test_two_sides_as_json(workshop: Workshop) -> None:
    """A result a line: two rates, METG of each level, and three roles for each length, with figures that can be."""
    status, program = workshop.run("-m", "examples.benchmarks", *TINY, "--only", "ours,bare", "--json")
    assert status == 0, program.err
    found = [json.loads(line) for line in program.out.splitlines()]
    assert [one["unit"] for one in found] == [metg.RATES] * 2 + [metg.METG] * 2 + [metg.COSTS] * 6
    for one in found:
        assert one["benchmark"] == "granularity"
        assert one["ours"] > 0
    for one in found[:2]:
        assert one["ratio"] == pytest.approx(one["ours"] / one["raw"])
        assert one["length"] == pytest.approx(2e6 / one["raw"])
    workers = [one for one in found if one.get("role") == "worker"]
    for one in workers:  # the work itself is in it, on a machine whose speed may have changed since the bare loop
        assert one["ours"] > 0.2 * one["raw"]
        assert one["voluntary"] > 0
        assert one["forced"] >= 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "100"], "'100' is no length. Say, for example, 100us,1ms."),
        (["--lengths", "0us"], "'0us' is no length"),
        (["--workers", "1,none"], "'1,none' are no numbers of workers. Say, for example, 1,2."),
        (["--only", "ours,celery"], "'celery' unknown. Known: ours, bare, pool1, pool100, pyzmq, dask, ray."),
        (["--only", "bare"], "The bare loops are what the others are compared with."),
    ],
)
def test_what_cannot_be_measured_is_refused(workshop: Workshop, arguments: list[str], message: str) -> None:
    """As a usage error that says what to write."""
    status, program = workshop.run("-m", "examples.benchmarks", "granularity", *arguments)
    assert status == 2
    assert message in " ".join(program.err.split())


def test_lengths_have_units() -> None:
    """All are microseconds inside; one that is named twice is measured once."""
    parsed: Any = granularity.parse_lengths
    assert parsed(None, None, "1us,0.5ms, 2 s,500us") == [1.0, 500.0, 2e6]
    assert parsed(None, None, granularity.LENGTHS)[-1] == 20_000.0


def test_metg_lies_between_the_last_that_fails_and_the_next() -> None:
    """Over the logarithm of the length; what is reached once and lost again does not count."""
    points = [(10.0, 0.6), (100.0, 0.4), (1000.0, 0.6), (10_000.0, 0.95)]
    bound, length = metg.metg(points, 0.5)
    assert (bound, round(length, 6)) == ("", round(10**2.5, 6))
    assert metg.metg(list(reversed(points)), 0.5) == metg.metg(points, 0.5)
    assert metg.metg(points, 0.3) == ("at most ", 10.0)
    assert metg.metg(points, 0.99) == ("more than ", 10_000.0)
    assert metg.metg([(5.0, 0.5)], 0.5) == ("at most ", 5.0)


def test_metg_follows_from_the_rates() -> None:
    """One line a side, number of workers, and level; ours is the one that an aim is set for."""
    rates = [rate(side, length, share) for side in ("Pool", metg.OURS) for length, share in ((10, 0.3), (100, 0.7))]
    found = list(metg.summed_up(rates))
    assert [one["what"] for one in found] == [
        "Pool, 2 workers, METG(50 %)",
        "Pool, 2 workers, METG(90 %)",
        "zmqpipeline, 2 workers, METG(50 %)",
        "zmqpipeline, 2 workers, METG(90 %)",
    ]
    assert [one["ours"] for one in found] == [pytest.approx(10**1.5), 100, pytest.approx(10**1.5), 100]
    assert [one["target"] for one in found] == ["", "", "at most 4", ""]
    assert metg.grid(found).rows == [
        ["2 workers, METG(50 %)", "31.6", "31.6", "at most 4"],
        ["2 workers, METG(90 %)", "more than 100", "more than 100", ""],
    ]


def test_a_side_that_was_not_measured_everywhere_leaves_its_cells_empty() -> None:
    """Ours stands last, whatever the order of the lines."""
    rates = [rate(metg.OURS, 20, 0.9, target="at least 0.85"), rate("Pool", 50, 0.5), rate(metg.OURS, 50, 0.95)]
    grid = metg.grid(rates)
    assert grid.head == ["share of the limit", "bare loops, items/s", "Pool", "zmqpipeline", "aim"]
    assert grid.rows == [
        ["2 workers, 20 us", "1,000", "", "0.90", "at least 0.85"],
        ["2 workers, 50 us", "1,000", "0.50", "0.95", ""],
    ]


def test_each_worker_gets_as_many_batches() -> None:
    """Whole ones, and one at least; a side is not asked for more than it can do in the time."""
    assert granularity.count_of(0.5, 100.0, 2, 1e6) == 10_000
    assert granularity.count_of(0.5, 1.0, 2, 1e6) == 500_000
    assert granularity.count_of(0.5, 1.0, 2, 700.0) == 350
    assert granularity.count_of(0.5, 20_000.0, 2, 1e6, batch=100) == 200
    assert granularity.count_of(0.5, 1000.0, 2, 1e6, batch=100) == 1000
    assert granularity.count_of(0.001, 20_000.0, 1, 1e6) == 2


def test_only_all_loops_of_an_item_give_its_double() -> None:
    """One loop less, and the sum of the doubles is another one."""
    item = next(work.items("loops", 1, loops=50))
    assert work.count(item) == {"n": 0, "double": 0}
    assert work.count({"n": 7, "loops": 50}) == {"n": 7, "double": 14}
    peers.check(map(work.count, work.items("loops", 30, loops=3)), 30)
    with pytest.raises(SystemExit, match="of 30 items came back"):
        peers.check(({"n": n, "double": 2 * n + 2} for n in range(30)), 30)


@pytest.mark.alone
def test_what_an_item_takes_is_calibrated() -> None:
    """Ten times the length is some ten times the loops; a length below that of the call itself has none."""
    short, long = bare_loops.loops_of(1e-4), bare_loops.loops_of(1e-3)
    assert 3 < long / short < 30
    assert bare_loops.loops_of(1e-9) == 0


@pytest.mark.processes
def test_a_bare_loop_that_fails_ends_the_benchmark() -> None:
    """With what it said."""
    with pytest.raises(SystemExit, match="KeyError: 'unknown'"):
        bare_loops.run_bare("unknown", 10, 1)


@pytest.mark.processes
def test_what_a_process_uses_grows() -> None:
    """Its own time of a processor, and its switches, never get less."""
    (mine,) = roles.folders()["collector"]
    before = roles.used([mine])
    bare_loops.loop("loops", work.items("loops", 100, loops=10_000))
    more = roles.used([mine]) - before
    assert more.cpu > 0
    assert min(more.voluntary, more.forced) >= 0
    assert roles.Used(1.0, 2, 3) + roles.Used(1.0, 1, 1) == roles.Used(2.0, 3, 4)
