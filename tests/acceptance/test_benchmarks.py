"""The benchmarks, at a tiny size: they run, check every answer, and print what they promise."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from examples.benchmarks import (
    apps,
    figures,
    killed,
    latency,
    meeting,
    memory,
    peers,
    sides,
    work,
)
from examples.benchmarks.__main__ import BENCHMARKS, main

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

SIDES = ("pyzmq", "zmqpipeline", "ratio")
TINY: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "floor": (
        "--items 2000 --workers 2 --transport tcp",
        ("packed whole", "one a message", "x 100", "ratio"),
        {"tcp, 2 workers, items/s": ""},
    ),
    "throughput": (
        "--items 2000 --workers 2",
        ("packed whole", "pyzmq x 100", "zmqpipeline", "ratio"),
        {"ipc, 2 workers, items/s": "at least 0.6"},
    ),
    "overhead": (
        "--items 20 --workers 2 --threads 1 --threads 2",
        ("plain loop", "pyzmq", "zmqpipeline", "difference"),
        {
            "ipc, 2 workers x 1 thread, %": "at most +0.5",
            "ipc, 2 workers x 2 threads, %": "at most +1",
        },
    ),
    "payload": (
        "--size 100 --size 1000000 --megabytes 1",
        SIDES,
        {"100 B an item, MB/s": "", "1 MB an item, MB/s": "at least 0.6"},
    ),
    "arrays": (
        "--size 8000 --size 8000000 --megabytes 1",
        SIDES,
        {"float64, 8 kB, MB/s": "", "float64, 8000 kB, MB/s": "at least 0.6"},
    ),
    "autoscale": (
        "--items 40 --seconds 0.02 --most 2",
        ("2 workers", "1:2", "ratio"),
        {
            "40 naps of 20 ms, with a total, s": "at most 1.2",
            "40 naps of 20 ms, without one, s": "at most 1.2",
            "back to one worker, of 15 s, with a total, s": "at most 1",
            "back to one worker, of 15 s, without one, s": "at most 1",
        },
    ),
    "dask": (
        "--items 1000 --workers 1",
        ("the other", "by Dask", "ratio"),
        {
            "1 worker, beside those of this machine, items/s": "at least 0.95",
            "1 worker, beside client.map, items/s": "at least 500",
        },
    ),
    "crowd": (
        "--workers 12 --items 2000",
        ("10 workers", "so many", "ratio"),
        {
            "12 workers, processor, us an item": "at most 1.5",
            "12 workers, clock, us an item": "",
            "12 workers, memory of each beside a bare ROUTER, kB": "at most 30",
            "12 workers, until all are in, s": "at most 60",
            "12 workers, until all are in again, s": "at most 60",
        },
    ),
    "machines": (
        "--workers 20 --each 1",
        ("10 workers", "so many", "ratio"),
        {
            "20 workers, an item, us": "",
            "20 workers, a worker that comes, us": "",
            "20 workers, a worker that is lost and comes again, us": "",
            "20 workers, memory a worker, kB": "",
        },
    ),
    "latency": (
        "--items 20",
        SIDES,
        {
            "ipc, one item, median, us": "at most 3",
            "ipc, one item, 99 of 100, us": "",
            "ipc, one request, median, us": "at most 3",
            "ipc, one request, 99 of 100, us": "",
        },
    ),
    "memory": (
        "--items 3000 --fed 2000 --mark 1000",
        ("item 1,000", "largest after", "difference"),
        {
            f"{role}{kind}, MB resident": target
            for kind, target in memory.KINDS.values()
            for role in ("distributor", "worker", "collector")
        },
    ),
    "scale": (
        "--items 1000 --workers 2 --workers 10 --tasks 3 --longer 2",
        ("on the clock", "the base", "so many", "ratio"),
        {
            "2 workers, us an item": "",
            "10 workers, us an item": "",
            "3 tasks, 3 workers, us an item": "",
            "2,000 items, 10 workers, us an item": "",
        },
    ),
    "mixed": (
        "--items 10 --workers 2 --threads 2",
        ("best possible", "zmqpipeline", "ratio"),
        {"2 workers x 2 threads, s": "at most 1.1"},
    ),
    "threads": (
        "--seconds 0.02 --lengths 1ms --threads 2",
        ("one thread", "so many", "ratio"),
        {
            "2 threads, loops of 1 ms, items/s": "at least 0.95",
            "2 threads, SHA-256 of 256 KiB, items/s": "at least 1.8",
            "2 threads, zlib of 256 KiB, items/s": "at least 1.8",
        },
    ),
    "uneven": (
        "--share 0.01 --threads 2",
        ("Pool", "best possible", "zmqpipeline", "ratio"),
        {
            "10 us to 100 ms, log-normal, 2 workers x 2 threads, s": "at most 1.1",
            "20 us, 1 in 1,000 of 50 ms, 2 workers x 2 threads, s": "at most 1.1",
        },
    ),
    "waiting": (
        "--calls 200 --requests 20 --items 100",
        ("the plain side", "zmqpipeline", "ratio"),
        {
            "200 calls of 20 ms, 1,000 at a time, s": "at most 1.15",
            "20 HTTP requests of 50 ms, 200 at a time, s": "at most 1.1",
            "trivial items, async beside a thread, items/s": "at least 0.25",
            "records of five fields beside dicts, items/s": "at least 0.7",
        },
    ),
    "watched": (
        "--items 20000",
        ("alone", "looked at", "ratio"),
        {"ipc, 1 worker, items/s": "at least 0.95"},
    ),
    "checksums": (
        f"--workers 2 --path {Path(figures.__file__).parents[2] / 'docs/tutorial'}",
        ("the other", "zmqpipeline", "ratio"),
        {
            "2 workers beside a plain loop, s": "at most 0.8",
            "2 workers beside Pool, chunks of 100, s": "",
            "2 workers beside xargs and sha256sum, s": "",
            "start and end alone, 2 workers beside a plain loop, s": "",
            "start and end alone, 2 workers beside Pool, chunks of 100, s": "",
            "start and end alone, 2 workers beside xargs and sha256sum, s": "",
        },
    ),
    "journal": (
        "--items 300",
        ("without", "with", "ratio"),
        {"trivial items, 1 worker, items/s": "at least 0.5"},
    ),
    "chain": (
        "--items 300",
        ("one task", "three stages", "ratio"),
        {"A > B > C, items/s": "at least 0.4", "A > B > C, with a journal, items/s": "at least 0.25"},
    ),
    "curve": (
        "--items 300",
        ("without", "with", "ratio"),
        {
            "trivial items, items/s": "at least 0.8",
            "items of 1 KB, items/s": "at least 0.8",
            "items of 1 KB, given back, items/s": "",
        },
    ),
    "turns": (
        "--steps 300",
        ("5 ms", "as in a role", "ratio"),
        {"1 thread, ms": "", "2 threads, ms": "", "4 threads, ms": "", "10 threads, ms": ""},
    ),
    "stages": (
        "--seconds 0.01",
        ("plain", "zmqpipeline", "difference"),
        {
            "distributor: the source, packed, us": "",
            "distributor: the ledger, us": "",
            "worker: unpack, execute, pack, us": "",
            "worker: its threads around that, us": "",
            "worker: the machine, us": "",
            "collector: unpack, call, us": "",
            "collector: the machine, us": "",
            "all: a message to frames, us": "",
            "all: frames to a message, us": "",
            "the sum, with two messages, us": "",
        },
    ),
    "startup": (
        "",
        ("without", "zmqpipeline", "ratio"),
        {
            "import, ms": "at most 1.5",
            "import of Pipeline, ms": "at most 1.5",
            "import of the class API, ms": "",
            "--help, ms": "",
            "first item collected, ms": "",
        },
    ),
    "service": (
        "--requests 40",
        SIDES,
        {
            "one request at a time, median, us": "at most 3",
            "one request at a time, 99 of 100, us": "",
            "4 clients, 100 under way each, requests/s": "at least 0.5",
        },
    ),
    "peers": (
        "--items 1000 --workers 1 --only pool --only processpool",
        ("the peer", "zmqpipeline", "ratio"),
        {
            "Pool, chunks of 1, 1 worker, items/s": "at least 8",
            "Pool, chunks of 100, 1 worker, items/s": "at least 0.6",
            "ProcessPoolExecutor, chunks of 1, 1 worker, items/s": "",
            "ProcessPoolExecutor, chunks of 100, 1 worker, items/s": "",
        },
    ),
}
"""By benchmark: its arguments, the heads of its columns, and its rows, each with what it promises."""


def test_every_benchmark_is_tried_here() -> None:
    """The table above forgets none but those with tests of their own; each has a line in the README."""
    assert set(TINY) | {"granularity", "killed"} == set(BENCHMARKS) == set(main.commands) - {"plot", "record"}
    readme = (Path(figures.__file__).parent / "README.md").read_text()
    assert [name for name in BENCHMARKS if f"| `{name}` |" not in readme] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_prints_its_table(workshop: Workshop, name: str) -> None:
    """It ends with 0, and every row has its figures and says what is promised, if anything is."""
    arguments, heads, rows = TINY[name]
    status, program = workshop.run("-m", "examples.benchmarks", name, *arguments.split(), "--rounds", "1", timeout=110)
    assert status == 0, program.err
    title, head, *lines = program.out.splitlines()
    assert title == name
    assert re.split(r"\s{2,}", head.strip()) == [*heads, "target"]
    assert len(lines) == len(rows)
    for line, (what, target) in zip(lines, rows.items(), strict=True):
        assert line.startswith(what)
        values = line.removeprefix(what).removesuffix(target).split()
        assert len(values) == len(heads)
        assert all(_number(value) is not None for value in values)
        assert line.endswith(target if target else values[-1])


def _number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "third", "compared"), [("latency", None, "ratio"), ("overhead", "plain_loop", "difference")]
)
def test_a_benchmark_as_json(workshop: Workshop, name: str, third: str | None, compared: str) -> None:
    """One object a result, each on a line, with the figures of both sides, above zero, and how they compare."""
    arguments, _, rows = TINY[name]
    status, program = workshop.run(
        "-m", "examples.benchmarks", name, *arguments.split(), "--rounds", "1", "--json", timeout=110
    )
    assert status == 0, program.err
    found = [json.loads(line) for line in program.out.splitlines()]
    assert [f"{one['what']}, {one['unit']}" for one in found] == list(rows)
    for one in found:
        expected = {"benchmark", "what", "unit", "raw", "ours", "target", compared} | ({third} if third else set())
        assert set(one) == expected
        assert one["benchmark"] == name
        assert one["raw"] > 0
        assert one["ours"] > 0
        by = one["ours"] / one["raw"] if compared == "ratio" else one["ours"] - one["raw"]
        assert one[compared] == pytest.approx(by)


# the checks -----------------------------------------------------------------------------------------------------------

DRIVER = "from examples.benchmarks.sides import run_ours; run_ours('mutant:{app}', items={items}, size=100, mark=10)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "right", "wrong", "message"),
    [
        ("trivial", '2 * data["n"]', '2 * data["n"] + (data["n"] == 7)', "50 of 50 items were collected"),
        ("trivial", '("trivial", int(metadata["items"]))', '("trivial", 49)', "49 of 50 items"),
        ("given_back", "work.hand_on(data)", '{**work.hand_on(data), "data": bytes(100)}', "ended with status 1"),
    ],
)
def test_a_wrong_or_missing_result_ends_a_run_with_an_error(
    workshop: Workshop, app: str, right: str, wrong: str, message: str
) -> None:
    """An app of the benchmarks with one mistake in it does not get through."""
    source = Path(apps.__file__).read_text()
    assert right in source
    workshop.write("mutant.py", source.replace(right, wrong, 1))
    status, program = workshop.run("-c", DRIVER.format(app=app, items=50))
    assert status == 1
    assert message in program.err


def test_a_process_that_fails_ends_the_yardstick_with_what_it_said() -> None:
    """A kind of items that nobody knows how to execute: the worker dies, and nothing waits for it for ever."""
    with pytest.raises(SystemExit, match="KeyError: 'unknown'"):
        sides.run_raw("unknown", 10)


def test_a_meeting_to_which_somebody_cannot_come_is_called_off(tmp_path: Path) -> None:
    """When a process that was to come has ended, neither the host nor those who are there wait for it."""
    place = tmp_path / "start"
    with ThreadPoolExecutor(1) as threads, figures.processes(["-c", "pass"]) as hosts:
        with meeting.Meeting(place) as start:
            guest = threads.submit(meeting.attend, str(place))
            with pytest.raises(SystemExit, match="of 2 workers came to the start"):
                start.hold(2, hosts)
        with pytest.raises(ConnectionError):
            guest.result(60)


def test_all_who_come_to_a_meeting_go_on_together(tmp_path: Path) -> None:
    """Nobody before the last has come; whoever is not asked to a meeting does not wait."""
    place = tmp_path / "start"
    meeting.attend("")
    with ThreadPoolExecutor(2) as threads, meeting.Meeting(place) as start:
        first = threads.submit(meeting.attend, str(place))
        assert not wait([first], 0.05).done
        second = threads.submit(meeting.attend, str(place))
        began = start.hold(2, [])
        first.result(60)
        second.result(60)
    assert began <= time.monotonic()


@pytest.mark.parametrize("doubles", [[0, 2, 4, 6], [0, 2], [0, 2, 2], [0, 0, 4]])
def test_a_tally_refuses_what_is_not_each_item_once(tmp_path: Path, doubles: list[int]) -> None:
    """One too many, one too few, one twice in the place of another: none is written down."""
    tally = work.Tally()
    for double in doubles:
        tally.add(double)
    with pytest.raises(SystemExit, match=f"{len(doubles)} of 3 items were collected"):
        tally.write(3, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tally_writes_when_all_have_come(tmp_path: Path) -> None:
    """With the times of the first and the last, and what else there is to say."""
    tally = work.Tally()
    for item in work.items("trivial", 3):
        tally.add(work.double(item)["double"])
    tally.write(3, tmp_path / "out", more=5)
    found = json.loads((tmp_path / "out").read_text())
    assert found.pop("first") <= found.pop("last")
    assert found == {"items": 3, "more": 5}


def test_a_peer_that_loses_or_changes_an_item_is_found_out() -> None:
    """What comes back from a peer is checked as ours is."""
    results = [work.double(item) for item in work.items("trivial", 3)]
    peers.check(reversed(results), 3)
    for wrong in (results[:2], [*results, results[0]], [results[0], results[0], results[2]]):
        with pytest.raises(SystemExit, match="of 3 items came back"):
            peers.check(wrong, 3)


@pytest.mark.slow
def test_peers_with_naps(workshop: Workshop) -> None:
    """Percent beyond the naps, in the place of a rate; what gets its items in chunks is left out."""
    arguments = "--naps 4 --workers 2 --only pool --rounds 1 --json"
    status, program = workshop.run("-m", "examples.benchmarks", "peers", *arguments.split())
    assert status == 0, program.err
    (found,) = [json.loads(line) for line in program.out.splitlines()]
    assert (found["what"], found["unit"]) == ("Pool, chunks of 1, 2 workers", "%")
    assert found["difference"] == pytest.approx(found["ours"] - found["raw"])


def test_a_peer_that_is_not_installed_is_named() -> None:
    """With what it lacks; one that needs nothing is never skipped."""
    absent = peers.Peer("None", lambda workers: peers.pool(workers, 1), needs=("no_such_module", "no-such/program"))
    assert peers.missing(absent.needs) == ["no_such_module", "no-such/program"]
    assert [peer.name for peer in peers.PEERS if not peer.needs] == [
        "Pool, chunks of 1",
        "Pool, chunks of 100",
        "ProcessPoolExecutor, chunks of 1",
        "ProcessPoolExecutor, chunks of 100",
    ]


@pytest.mark.slow
def test_a_worker_is_killed_and_nothing_is_lost() -> None:
    """The job of `killed`, with a journal and without: its worker was killed, and each item comes back once."""
    for side in ("zmqpipeline", "zmqpipeline, --journal"):
        came = killed.job(side, 300)
        assert (came.lost, came.twice, came.hung) == (0, 0, 0)
        assert 0 < came.seconds < 60


def test_what_is_lost_and_done_again_is_counted() -> None:
    """Of three items one has not come back and one came twice; a step was done twice."""
    done = [["first", n, at, "7"] for n, at in [("0", "1.5"), ("1", "2.0"), ("1", "3.0")]]
    collected = [["item", n, "4.0", "8"] for n in "011"]
    assert killed.judged(done, collected, 3, hung=True) == killed.Came(1.5, lost=1, again=1, twice=1, hung=1)


def test_a_side_of_killed_that_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the table, and as a line of JSON."""
    monkeypatch.setitem(killed.NEEDS, "Dask futures", ("no_such_module",))
    said = CliRunner().invoke(killed.command, ["--only", "dask"]).output
    assert said.splitlines()[2].split(maxsplit=2) == ["Dask", "futures", "not installed: no_such_module"]
    said = CliRunner().invoke(killed.command, ["--only", "dask", "--json"]).output
    assert json.loads(said) == {"benchmark": "killed", "what": "Dask futures", "not_installed": ["no_such_module"]}


def test_a_wrong_answer_ends_the_service_benchmark() -> None:
    """An answer in the wrong place counts as wrong."""
    requests = latency.payloads(3)
    latency.check(list(requests), requests)
    with pytest.raises(SystemExit, match="not the one to its request"):
        latency.check([requests[0], requests[2], requests[1]], requests)
