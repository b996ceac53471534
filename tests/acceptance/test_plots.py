"""What is kept of benchmarks, and what the pages show of it: the plots and tables are those of the committed lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from examples.benchmarks import lines, metg, plot, record
from examples.benchmarks.__main__ import BENCHMARKS
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

FOLDER = ROOT / "docs/explanation"
KEPT = FOLDER / "results.jsonl"
PAGE = FOLDER / "performance.md"
SVG = "{http://www.w3.org/2000/svg}"


def line(benchmark: str, what: str, unit: str, raw: float, ours: float, **more: Any) -> lines.Line:
    """A result as `--json` prints it."""
    return {"benchmark": benchmark, "what": what, "unit": unit, "raw": raw, "ours": ours, "target": "", **more}


@pytest.mark.processes
def test_the_plots_and_tables_are_what_the_command_makes(workshop: Workshop) -> None:
    """Each committed plot, and the page with its tables, comes out again, to the letter, from the committed lines."""
    page = workshop.write("performance.md", PAGE.read_text(encoding="utf-8"))
    status, program = workshop.run("-m", "examples.benchmarks", "plot", KEPT, "plots", "--page", page)
    assert status == 0, program.err
    again = "python -m examples.benchmarks plot docs/explanation/results.jsonl docs/explanation --page " + str(PAGE)
    made = sorted((workshop.folder / "plots").iterdir())
    assert [path.name for path in made] == ["cost.svg", "granularity.svg", "overhead.svg"]
    for path in [*made, page]:
        assert path.read_text(encoding="utf-8") == (FOLDER / path.name).read_text(encoding="utf-8"), again


def test_the_page_has_a_table_of_every_result() -> None:
    """Nothing that is kept is hidden; a mark without results is of a benchmark that `record` measures."""
    text = PAGE.read_text(encoding="utf-8")
    kept = lines.read(KEPT)
    marked = {(found[2], found[3] or "") for found in plot.MARK.finditer(text)}
    units = {(one["benchmark"], one["unit"]) for one in kept if "unit" in one}
    assert {(name, unit) for name, unit in units if (name, "") not in marked} <= marked
    planned = {command.split()[0] for command in record.PLAN}
    assert {name for name, _ in marked} == {one["benchmark"] for one in kept} | planned
    measured = {one["benchmark"] for one in kept}
    assert text.count("Not measured yet.") == sum(name not in measured for name, _ in marked)


def test_the_plots_say_what_they_are() -> None:
    """Each is well-formed, has a title and a description, and fits: no text and no shape leaves the picture."""
    for name, text in plot.drawn(lines.read(KEPT)).items():
        root = ElementTree.fromstring(text)
        assert [root.findtext(f"{SVG}{tag}") for tag in ("title", "desc")] != [None, None], name
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for one in root.iter():
            for key, most in (
                ("x", width),
                ("cx", width),
                ("x2", width),
                ("y", height),
                ("cy", height),
                ("y2", height),
            ):
                assert 0 <= float(one.get(key, 0)) <= most, ElementTree.tostring(one)
            for point in one.get("points", "").split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width, ElementTree.tostring(one)
                assert 0 <= y <= height, ElementTree.tostring(one)


def test_bars_are_as_long_as_what_they_show() -> None:
    """Twice the value is twice the length; what is below zero has none; names are escaped."""
    text = plot.bars("T", "about", " %", [("head", [plot.Bar("a<b", 2.0), plot.Bar("c", 4.0, True)])], "foot")
    long = [float(one) for one in re.findall(r'<rect class="(?:ours|other)"[^>]* width="([\d.]+)"', text)]
    assert long[1] == pytest.approx(2 * long[0], abs=0.2)
    assert "a&lt;b" in text
    assert ">2.0 %<" in text
    assert 'width="0.0"' in plot.bars("T", "", "", [("", [plot.Bar("a", -1.0)])], "")


def test_a_power_of_ten_is_as_far_everywhere() -> None:
    """On the logarithmic axis of pairs, 1 to 10 is as long as 10 to 100."""
    text = plot.pairs(
        "T", "about", "us", [("head", [plot.Pair("p", 100.0, 1.0), plot.Pair("q", 10.0, 1.0)])], "", ("x", "y")
    )
    (far, near), (middle, same) = re.findall(r'class="span" x1="([\d.]+)" y1="\d+" x2="([\d.]+)"', text)
    assert near == same
    assert float(far) - float(middle) == pytest.approx(float(middle) - float(near), abs=0.2)


def test_a_share_is_as_high_as_it_says() -> None:
    """Half is in the middle between nothing and all, ten times the length is as far everywhere, and ours is bold."""
    points = [(1.0, 0.0), (10.0, 0.5), (100.0, 1.0)]
    text = plot.curves("T", "", [("head", [plot.Curve("c", points, ours=True)])], "", metg.length_named)
    sample, drawn = re.findall(r'<polyline class="curve mine"[^>]* points="([^"]*)"', text)
    assert len(sample.split()) == 2
    (x0, y0), (x1, y1), (x2, y2) = [map(float, one.split(",")) for one in drawn.split()]
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, y1 - y2), abs=0.2)
    assert x0 == plot.LABELS
    assert x2 == plot.RIGHT
    assert [f">{name}<" in text for name in ("1 us", "10 us", "100 us")] == [True] * 3


def test_the_curves_are_those_of_the_rates() -> None:
    """A panel for each number of workers, a curve for each side that was measured with it."""
    kept = [
        {
            **line("granularity", "x", metg.RATES, 1.0, 0.5),
            "ratio": 0.5,
            "side": side,
            "workers": workers,
            "length": 5.0,
        }
        for side, workers in ((metg.OURS, 1), ("Pool", 1), (metg.OURS, 2))
    ]
    text = plot.granularity(kept)
    assert text.count("<polyline") == 2 * 3
    assert text.index("1 worker<") < text.index(">Pool<") < text.index("2 workers<")
    assert "Not measured" not in text
    assert "Not measured yet." in plot.granularity([])


def test_a_table_says_what_the_lines_say() -> None:
    """With the command and the date above it, the unit in its corner, and what was aimed at, if anything was."""
    kept = [
        line(
            "payload", "1 MB an item", "MB/s", 1000.0, 800.0, ratio=0.8, command="payload --rounds 2", date="2026-01-02"
        ),
        line("peers", "Pool", "%", 1.0, 2.5, difference=1.5),
        line("peers", "Pool", "items/s", 1.0, 2.5, ratio=2.5),
    ]
    kept[0]["target"] = "at least 0.6"
    page = "<!-- figures: payload -->\nold\n<!-- figures: end -->\n\n<!-- figures: peers % -->\n<!-- figures: end -->\n"
    filled = plot.fill(page, kept)
    assert filled == plot.fill(filled, kept)
    assert filled.splitlines() == [
        "<!-- figures: payload -->",
        "`python -m examples.benchmarks payload --rounds 2`, 2026-01-02:",
        "",
        "| MB/s | plain pyzmq | zmqpipeline | ratio | aim |",
        "| --- | ---: | ---: | ---: | --- |",
        "| 1 MB an item | 1,000 | 800 | 0.80 | at least 0.6 |",
        "<!-- figures: end -->",
        "",
        "<!-- figures: peers % -->",
        "`python -m examples.benchmarks peers`:",
        "",
        "| % | the peer | zmqpipeline | difference |",
        "| --- | ---: | ---: | ---: |",
        "| Pool | 1.00 | 2.50 | +1.50 |",
        "<!-- figures: end -->",
    ]


@pytest.mark.slow
@pytest.mark.processes
def test_results_are_kept_with_their_command(workshop: Workshop) -> None:
    """Measured again, they take the place of the old ones; the rest stays; the machine is told."""
    kept = workshop.folder / "kept.jsonl"
    old = [line("scale", "s", "us", 1.0, 2.0), line("mixed", "old", "s", 1.0, 2.0, command="mixed --rounds 9")]
    lines.write(kept, old)
    small = "mixed --items 10 --workers 1 --threads 1 --rounds 1"
    status, program = workshop.run("-m", "examples.benchmarks", "record", kept, "--only", small)
    assert status == 0, program.err
    machine, first, second = lines.read(kept)
    assert machine == lines.machine()
    assert first == old[0]
    assert (second["command"], second["what"]) == (small, "1 worker x 1 thread")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", second["date"])


def test_naps_and_rates_of_the_peers_are_kept_apart() -> None:
    """They are of one command, and neither takes the place of the other."""
    rate, naps = line("peers", "Pool", "items/s", 1, 2), line("peers", "Pool", "%", 1, 2, command="peers --naps 9")
    merged = record.merge([rate, naps], [], "peers --rounds 1")
    assert merged == [lines.machine(), naps]
    assert record.merge([rate, naps], [], "peers --rounds 1 --naps 200") == [lines.machine(), rate]


def test_results_of_another_machine_say_so() -> None:
    """Theirs is named above their table; what is known of peers that are not installed here stays."""
    here = lines.machine()
    assert record.merge([{**here, "rabbit": "1.0"}], [], "scale")[0]["rabbit"] == "1.0"
    there, new = {**here, "python": "2.7"}, line("scale", "10 workers", "us an item", 1, 2, ratio=2)
    first, old, moved = record.merge([there, line("curve", "s", "us", 1, 2)], [new], "scale")
    assert (first, old) == (there, line("curve", "s", "us", 1, 2))
    assert moved == {**new, "machine": lines.told(here)}
    page = plot.fill("<!-- figures: scale -->\n<!-- figures: end -->\n", [first, old, moved])
    assert f"{lines.told(here)}:" in page
    assert record.merge([here], [new], "scale") == [here, new]


def test_the_plan_of_recording_is_of_benchmarks_that_have_tables() -> None:
    """Heads of tables are of benchmarks; what the plan names are benchmarks, none of them twice."""
    assert set(plot.HEADS) <= set(BENCHMARKS)
    assert {command.split()[0] for command in record.PLAN} <= set(BENCHMARKS)
    assert len({record.kind(command) for command in record.PLAN}) == len(record.PLAN)
    assert record._planned("scale") == [one for one in record.PLAN if one.startswith("scale ")]
    assert record._planned("floor") == ["floor"]


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    """With its number, in one line."""
    path = tmp_path / "kept.jsonl"
    for wrong in ("no json", "[]", json.dumps({"what": "no benchmark"})):
        path.write_text(json.dumps(line("scale", "s", "us", 1, 2)) + f"\n{wrong}\n")
        with pytest.raises(SystemExit, match=r"kept.jsonl:2 is no line that --json prints"):
            lines.read(path)
