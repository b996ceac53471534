"""The page in a real Chromium: ``python -m tests.acceptance.browser``.

A run with failures, retries, a killed worker and failed items that are kept: each number on the page is the summary's.
Two thousand workers and ten thousand failures, made up: the first paint, the memory, no error. Items that are hostile.
At 360 pixels, in dark and light, by the keyboard alone. The number of workers is set on one page and followed on two;
with ``--axe FILE`` (axe.min.js of the package axe-core) the
rules of accessibility, too. ``--pictures FOLDER`` writes the pictures of the pages of this project.

It needs `chromium` in the PATH; where that is not, this says so and ends with status 3 (with ``--if-installed``: 0).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance.conftest import Program, Workshop, wait_until
from tests.acceptance.test_dashboard import TOKEN
from tests.acceptance.test_metrics import APP
from tests.acceptance.test_page_scales import ITEMS, SCALED
from tests.acceptance.test_run_dashboard import server_of
from tests.support.apps import ENDS_WHEN_TOLD
from tests.support.crowd import crowd, served
from zmqpipeline.cli.page.layout import columns
from zmqpipeline.cli.page.plan import PagePlan

NOT_INSTALLED = 3
MAX_PAINT, MAX_HEAP = 1000.0, 150e6
"""Milliseconds to the first paint, in the quickest of three pages; bytes of the heap of the page's script."""

ODD = "[\u202a-\u202e\u2066-\u2069\x00\x1b]"
"""Characters that no text of the page may have."""

PATIENCE = 120_000.0
"""Milliseconds that a page may take for what it is to do."""

COUNTS = ("sent", "collected", "failed", "aborted", "skipped", "retried")

HOSTILE = (
    """
import pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("<img src=x onerror='window.hit=1'>")
HERE = pathlib.Path(__file__).parent
TASK = "<script>window.hit=2</script>\\u202e\\u2066"

@app.task(TASK)
def first():
    yield {"text": "<script>window.hit=3</script>"}
    yield {"text": "x" * 1_000_000}
    yield {"text": "\\u202egnp.exe \\u2067 \\x00 \\x1b[2J </td><td>"}

@app.worker(TASK)
def work(data, number):
    if number == 0:
        raise ValueError(data["text"] * 50)
    if number == 1:
        raise KeyError(data["text"])
    raise OSError(data["text"])

@app.collector
def collect(data):
    pass
"""
    + ENDS_WHEN_TOLD
)

# What the pictures show: several tasks, items of some milliseconds, a failure now and then, a worker that is killed.
PICTURED = """
import os, pathlib, random, signal, time
from zmqpipeline import Pipeline

app = Pipeline("thumbnails")
HERE = pathlib.Path(__file__).parent

@app.task("scan", total=400)
def scan():
    for number in range(400):
        yield {"path": f"photos/{number:04}.jpg"}

@app.task("resize", for_each="scan")
def resize(result):
    yield {"path": result["path"], "width": 320}

@app.task("index", total=50, depends_on=["resize"])
def index():
    for number in range(50):
        yield {"page": number}

@app.worker("scan")
def on_scan(data):
    time.sleep(random.uniform(0.01, 0.03))
    return data

@app.worker("resize")
def on_resize(data, number):
    time.sleep(random.uniform(0.02, 0.08))
    if number % 45 == 7:
        raise OSError(f"{data['path']}: image file is truncated")
    if number == 100 and not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return data

@app.worker("index")
def on_index(data):
    time.sleep(0.05)
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""


class Chromium:
    """Pages of one browser, each of which must end without a word in its console."""

    def __init__(self, browser: Browser, axe: str) -> None:
        """`axe`: the script of axe-core, or nothing."""
        self._browser = browser
        self._axe = axe

    @contextmanager
    def page(
        self, address: str, *, width: int = 1280, dark: bool = False, drawn: str = "#tasks tr", said_too: str = "$^"
    ) -> Iterator[Page]:
        """This address, when `drawn` is there. `said_too`: what else its console may say."""
        scheme: Any = "dark" if dark else "light"
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        said: list[str] = []
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"a dialog: {dialog.message}"))
        page.goto(address)
        page.wait_for_selector(drawn)
        yield page
        context.close()
        # what a run that is over leaves behind is a connection that has ended
        fine = f"ERR_CONNECTION_(REFUSED|RESET|CLOSED)|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED|{said_too}"
        bad = [one for one in said if not re.search(fine, one)]
        assert not bad, bad

    def check_access(self, page: Page, what: str) -> int:
        """The rules of accessibility, if there is axe; how many were looked at."""
        if not self._axe:
            return 0
        page.evaluate(self._axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        told = [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]]
        assert not told, f"{what}: {told}"
        return len(found["passes"])


def table(page: Page, name: str) -> list[dict[str, str]]:
    """The rows of a table of the page, by the heads of its columns."""
    rows: list[dict[str, str]] = page.evaluate(
        """(name) => {
            const body = document.getElementById(name);
            const heads = [...body.closest("table").tHead.rows[0].cells].map((one) => one.textContent);
            const cells = (row) => [...row.cells].map((one, at) => [heads[at], one.innerText]);
            return [...body.rows].map((row) => Object.fromEntries(cells(row)));
        }""",
        name,
    )
    return rows


def until(page: Page, condition: str, seconds: float = PATIENCE / 1000) -> None:
    """Wait until this expression holds on the page, whose policy keeps it from looking by itself."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def address_of(run: Program) -> str:
    """Where this run says that its page is."""
    wait_until(lambda: run.ended() or "The page of" in run.err, "the page")
    found = re.search(r"(http://127\.0\.0\.1:\d+/)\n", run.err)
    assert found, run.err
    return found[1]


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A folder for programs, which is gone afterwards, as they are."""
    with tempfile.TemporaryDirectory(prefix="zp-page-", dir="/tmp") as folder:
        found = Workshop(Path(folder))
        try:
            yield found
        finally:
            found.close()


# what is looked at ----------------------------------------------------------------------------------------------------


def numbers(chromium: Chromium) -> str:
    """Each number on the page is that of the summary, once all items are done, and when the run is over."""
    with workshop() as place:
        place.write("app.py", APP)
        run = place.start(
            "-m", "app", "run", "--workers", "2", "--json", "--journal", "run.db", "--dashboard", "127.0.0.1:0"
        )
        with chromium.page(address_of(run)) as page:
            wait_until(lambda: run.ended() or (place.folder / "finishing").exists(), "the end of the items")
            until(page, "document.getElementById('lost').rows.length === 1")
            until(page, "document.getElementById('failures-text').textContent.startsWith('10 items failed')")
            # of the items that came last the failed ones are shown first
            wait_until(lambda: sum(int(row["collected"]) for row in table(page, "tasks")) == 90, "all on the page")
            before = table(page, "tasks")
            chromium.check_access(page, "a run with failures")
            place.write("go", "")
            assert run.wait() == 1, run.err
            until(page, "document.getElementById('well').textContent.startsWith('The run is over')")
            shown, failures, lost = table(page, "tasks"), table(page, "failures"), table(page, "lost")
            well = page.inner_text("#well")
        summary = run.json
    assert well == "The run is over, with status 1: 90 items are collected, 10 failed.", well
    for row in shown:
        counts = summary["tasks"][row["task"]]
        wanted = {name: str(counts["redelivered" if name == "retried" else name]) for name in COUNTS}
        assert {name: row[name] for name in COUNTS} == wanted, (row, counts)
    assert {row["task"] for row in shown} == set(summary["tasks"])
    assert [(row["task"], row["collected"], row["failed"]) for row in before] == [
        (row["task"], row["collected"], row["failed"]) for row in shown
    ]
    assert [(row["task"], row["items"]) for row in failures] == [
        (one["task"], str(one["items"])) for one in summary["reasons"]
    ]
    # the first item that failed: which one that is depends on the workers
    command = failures[0]["to try it again"]
    assert re.match(r"python -m app dead retry A \d?0 --journal run\.db", command), command
    assert [row["why"] for row in lost] == ["killed by SIGKILL"]
    return f"{len(shown)} tasks, {len(failures)} kind of failure, 1 lost worker: as the summary says"


def many(chromium: Chromium) -> str:
    """Two thousand workers and ten thousand failures: soon drawn, small, page by page; by the keyboard alone."""
    boxes = [{"id": f"t{at}", "task": f"T{at}", "shape": "task", "lines": [f"T{at}", "1 thread"]} for at in range(5)]
    arrows = [("t0", "t1", "then"), ("t0", "t2", "each"), ("t1", "t3", "gather"), ("t2", "t3", ""), ("t3", "t4", "")]
    places = columns([str(one["id"]) for one in boxes], arrows)
    placed = [{**one, "column": places[str(one["id"])][0], "row": places[str(one["id"])][1]} for one in boxes]
    plan = PagePlan("crowd", {"boxes": placed, "arrows": arrows}, ["python -m app dead", "run.db"])
    with served(crowd, plan) as address:
        paints = []
        for _ in range(2):
            with chromium.page(address) as page:
                paints.append(first_paint(page))
        with chromium.page(address) as page:
            paints.append(first_paint(page))
            until(page, "document.querySelectorAll('#rates canvas').length === 1")
            page.wait_for_timeout(3000)  # some events more
            heap = heap_of(page)
            rows = table(page, "workers")
            assert len(rows) == 50
            # those whose items have run longest
            assert {row["runs now"].rpartition(" for ")[2] for row in rows} <= {"19 s", "20 s"}
            assert page.inner_text("#failures-text").startswith("10000 items failed, of 100 kinds.")
            by_keyboard(page)
            chromium.check_access(page, "two thousand workers")
        for width, dark in ((360, False), (360, True), (1280, True)):
            with chromium.page(address, width=width, dark=dark) as page:
                wide = page.evaluate("document.scrollingElement.scrollWidth")
                assert wide <= width, f"{wide} pixels of {width}"
                chromium.check_access(page, f"{width} pixels, {'dark' if dark else 'light'}")
    # what else the machine does only adds to it
    paint = min(paints)
    assert paint < MAX_PAINT, f"the first paint took {paint:.0f} ms"
    assert heap < MAX_HEAP, f"the page has {heap / 1e6:.0f} MB"
    return f"first paint after {paint:.0f} ms, {heap / 1e6:.1f} MB in the page"


def first_paint(page: Page) -> float:
    """When something was first to be seen, in milliseconds."""
    until(page, "performance.getEntriesByName('first-contentful-paint').length")
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def heap_of(page: Page) -> float:
    """How many bytes the objects of the page's scripts have."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    told = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in told if one["name"] == "JSHeapUsedSize"))


def by_keyboard(page: Page) -> None:
    """The next page of workers, without a mouse; the focus stays where it is while events come."""
    page.focus("#workers-pages button:last-child")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#workers-pages span').textContent === 'page 2 of 40'")
    page.wait_for_timeout(1500)
    assert page.evaluate("document.activeElement.textContent") == "Next"
    page.focus("#failures summary")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("document.querySelector('#failures details').open")
    page.focus("#of-task")
    page.keyboard.type("T3")
    until(page, "document.querySelector('#workers-pages span').textContent === 'page 1 of 8'")


def hostile(chromium: Chromium) -> str:
    """Names, items and messages that are HTML, very long, or turn the direction of text, are shown as text."""
    with workshop() as place:
        place.write("app.py", HOSTILE)
        run = place.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
        with chromium.page(address_of(run)) as page:
            wait_until(lambda: run.ended() or (place.folder / "finishing").exists(), "the end of the items")
            until(page, "document.getElementById('failures').rows.length === 3")
            assert page.evaluate("window.hit") is None
            assert page.evaluate("document.querySelectorAll('body script, body img, body iframe').length") == 0
            text = page.evaluate("document.documentElement.textContent")
            assert "<script>window.hit=2</script>\\u202e\\u2066" in text
            odd = [text[max(0, found.start() - 60) : found.end() + 20] for found in re.finditer(ODD, text)]
            assert not odd, odd
            assert len(text) < 50_000
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 1280
            chromium.check_access(page, "hostile items")
            place.write("go", "")
            run.wait()
    return "shown as text"


def scaled(chromium: Chromium) -> str:
    """The number of workers, set by the keyboard and by clicks, is followed by the run and by another page."""
    with workshop() as place:
        # so slow that there are items left when all has been looked at
        place.write("app.py", SCALED.replace("time.sleep(0.05)", "time.sleep(0.25)"))
        flags = ("--workers", "1", "--json", "--dashboard", "127.0.0.1:0", "--dashboard-control")
        run = place.start("-m", "app", "run", *flags, ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
        address = address_of(run)
        # of the page without the token, and of what is refused below
        with chromium.page(address, drawn="#token", said_too="status of 40[01]") as page:
            page.fill("#token", TOKEN)
            page.keyboard.press("Enter")
            page.wait_for_selector("#staff tr")
            # the token is nowhere that is kept
            assert TOKEN not in page.url
            other = page.context.new_page()
            other.goto(address)
            other.wait_for_selector("#staff tr")
            assert not page.get_by_role("button", name="Back to").is_visible()
            wanted = page.get_by_role("spinbutton", name="Wanted workers of A")
            wanted.fill("3")
            wanted.press("Enter")
            until(page, "document.getElementById('staffed').textContent === 'The run is told: 3 workers for A.'")
            for one in (page, other):
                until(one, "document.getElementById('staff').rows[0].cells[1].textContent === '3'")
            until(other, "document.querySelector('#staff input').value === '3'")
            wait_until(lambda: len(set(place.numbers("workers"))) == 3, "three are at work")
            until(page, "document.getElementById('workers').rows.length === 3")
            chromium.check_access(page, "a run that may be scaled")
            # a number that cannot be had is refused by the browser, and by the server
            wanted.fill("100000")
            wanted.press("Enter")
            assert not page.evaluate("document.querySelector('#staff input').validity.valid")
            refused = page.evaluate(
                "fetch('control/scale', {method: 'POST', headers: {'X-Csrf-Token': control.word}, "
                "body: new URLSearchParams({task: 0, workers: 100000})}).then((one) => one.text())"
            )
            assert refused.endswith("Nothing was changed.\n"), refused
            page.wait_for_timeout(1500)
            assert wanted.input_value() == "100000"  # what was typed stays
            wanted.fill("2")
            page.get_by_role("button", name="Set").click()
            until(other, "document.querySelector('#staff input').value === '2'")
            until(page, "document.getElementById('staff').rows[0].cells[1].textContent === '2'")
            page.get_by_role("button", name="Back to 1, as --workers says").click()
            until(other, "document.querySelector('#staff input').value === '1'")
            until(page, "document.getElementById('staff').rows[0].cells[1].textContent === '1'")
            assert page.evaluate("document.activeElement.textContent") == "Set"
            place.write("more", "")
            assert run.wait(60) == 0, run.err
            until(page, "document.getElementById('staff-part').hidden")
        assert run.json["workers"] == {"A": 3}
        assert sorted(place.numbers("collected")) == list(range(ITEMS))
    return "3, 2 and 1 workers, each item once"


def unheard(chromium: Chromium) -> str:
    """The server is killed while somebody sets a number: the page says so, and the run ends well."""
    with workshop() as place:
        place.write("app.py", SCALED)
        flags = ("--workers", "1", "--dashboard", "127.0.0.1:0", "--dashboard-control")
        run = place.start("-m", "app", "run", *flags, ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
        with chromium.page(address_of(run), drawn="#token", said_too="status of 401|ERR_") as page:
            page.fill("#token", TOKEN)
            page.keyboard.press("Enter")
            page.wait_for_selector("#staff tr")
            os.kill(server_of(run), signal.SIGKILL)
            page.get_by_role("spinbutton", name="Wanted workers of A").fill("3")
            page.get_by_role("button", name="Set").click()
            until(page, "document.getElementById('staffed').textContent.includes('server does not answer')")
        place.write("more", "")
        assert run.wait(60) == 0, run.err
        assert sorted(place.numbers("collected")) == list(range(ITEMS))
    return "said so, each item once"


def pictures(chromium: Chromium, folder: Path) -> None:
    """What the pages of this project show: a run on its way, wide and light, small and dark; and its report."""
    with workshop() as place:
        place.write("app.py", PICTURED)
        flags = ("--journal", "run.db", "--dashboard", "127.0.0.1:0", "--report", "report.html")
        run = place.start("-m", "app", "run", "--workers", "2", *flags)
        address = address_of(run)
        with chromium.page(address) as page, chromium.page(address, width=360, dark=True) as small:
            for one in (page, small):
                until(one, "document.getElementById('lost').rows.length === 1")
                until(one, "document.getElementById('tasks').rows[1].cells[6].textContent > 150")
            page.screenshot(path=folder / "dashboard.png", full_page=True)
            page.screenshot(path=folder / "dashboard-top.png", clip={"x": 0, "y": 0, "width": 1280, "height": 720})
            small.screenshot(path=folder / "dashboard-small.png", clip={"x": 0, "y": 0, "width": 360, "height": 900})
        run.wait(60)
        with chromium.page((place.folder / "report.html").as_uri(), drawn="table tr") as page:
            # up to its long tables
            clip: Any = {"x": 120, "y": 0, "width": 1040, "height": 1310}
            page.screenshot(path=folder / "report.png", full_page=True, clip=clip)
    for name in ("dashboard.png", "dashboard-top.png", "dashboard-small.png", "report.png"):
        # with a palette it has a third of the bytes
        Image.open(folder / name).quantize(64).save(folder / name, optimize=True)


@click.command()
@click.option("--if-installed", is_flag=True, help="End with status 0 where there is no Chromium.")
@click.option("--axe", type=click.Path(exists=True, path_type=Path), help="axe.min.js, of the npm package axe-core.")
@click.option("--pictures", "folder", type=click.Path(path_type=Path), help="Write the pictures here, and no more.")
def main(*, if_installed: bool, axe: Path | None, folder: Path | None) -> None:
    """Look at the page in all these ways, and print what was found."""
    found = shutil.which("chromium")
    if found is None:
        click.echo("There is no Chromium here: `chromium` is not in the PATH.", err=True)
        sys.exit(0 if if_installed else NOT_INSTALLED)
    # the sandbox of Chromium is not for root
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    # containers may have little shared memory
    flags.append("--disable-dev-shm-usage")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags, timeout=PATIENCE)
        chromium = Chromium(browser, "" if axe is None else axe.read_text(encoding="utf-8"))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            pictures(chromium, folder)
        else:
            for look in (numbers, many, hostile, scaled, unheard):
                click.echo(f"{look.__name__}: {look(chromium)}")
            click.echo("rules of accessibility: " + ("looked at" if axe else "not looked at: see --axe"))
        browser.close()


if __name__ == "__main__":
    main()
