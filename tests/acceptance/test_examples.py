"""Every example, as its README says to start it: what it prints, and that it ends by itself with status 0."""

from __future__ import annotations

import re
import socket
import sysconfig
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from examples.crawl import demo
from examples.wordcount import words
from tests.acceptance.conftest import troubles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]

NAPS = r"after the first, 0\.\d\d s of naps took \d+\.\d\d s\n"

PRINTED = {
    "sequential": r"100 sleeps of 10 ms, 1\.00 s in all, took \d+\.\d\d s in a loop: \+\d+\.\d %\n",
    "sequential --items 20 --delay 0.001": r"20 sleeps of 1 ms, 0\.02 s in all, took \d+\.\d\d s in a loop: .*\n",
    "singlethread run": "100 naps of 10 ms; " + NAPS,
    "singlethread run --workers 2 --meta items=50 --meta delay=0.002": "50 naps of 2 ms; " + NAPS,
    "singlethread run --meta items=1": "There is nothing to measure: ask for two items or more.\n",
    "multithread run": r"200 naps of 10 ms: 2\.00 s of naps took \d+\.\d\d s\n10 beds, \d+ to \d+ naps in each\n",
    "multithread run --meta items=0": "There were no items.\n",
    "dependencies run": r"(\w+: 20 steps, from \d+ to \d+\n){4}",
    "dependencies check": r"(.*\n)*tasks in order: .*decorate after bake, whip\n",
    "metadata run": r"50 orders of 3 goods, 20 % VAT: 535\.44\n",
    "metadata run --meta vat=0 --meta orders=1": r"1 orders of 3 goods, 0 % VAT: \d+\.\d\d\n",
    "logging run": "",
    "service.client": (
        r"one request: 5 words, 22 letters\na list of them, in order: \[5, 5, 4, 5\] words\n"
        r"100 at once, answered by [12] processes\nfrom asyncio: \[22, 21, 17, 19\] letters\n"
        r"an error of the service: TypeError: The text must be a string; it is of type int\.\n"
    ),
    "wordcount run": (
        r"\d+ texts, \d+ words, \d+ different ones, in .* s\nmost frequent: .*\none loop finds the same, in .* s\n"
    ),
    "crawl.demo --pages 400 --kills 2": (
        r" +runs +ended +pages +missing +twice +again +in flight +seconds\n"
        r"zmqpipeline, --journal +1 +2 +408 +0 +0 +\d+ +\d+ +\d+\n"
    ),
    "thumbnails run --meta pictures=5": r"5 thumbnails in '.*/thumbnails/small': [\d,]+ bytes became [\d,]+\n",
    "thumbnails.client": r"thumbnail\.png: 128 x 96 pixels, [\d,]+ of [\d,]+ bytes\n",
}

LATE = """
import os, sys, time
from pathlib import Path
if sys.orig_argv[-1] == "examples.class_api.worker":
    folder = Path(os.environ["NAP_FOLDER"])
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        # the sockets are there while the run goes on
        seen = False
        while not (seen and not list(folder.glob("*.ipc"))):
            seen = seen or any(folder.glob("*.ipc"))
            time.sleep(0.002)
"""
"""Holds the second worker back."""


@pytest.mark.slow
@pytest.mark.parametrize("command", PRINTED)
def test_it_prints_what_its_readme_says_and_ends_with_0(workshop: Workshop, command: str) -> None:
    """Nothing but what is promised on stdout; on stderr no traceback, and no warning but of a worker that is slow."""
    status, program = workshop.run("-m", *f"examples.{command}".split())
    assert status == 0, program.out + program.err
    assert re.fullmatch(PRINTED[command], program.out), program.out
    # eight processes may take more than five seconds to start on a machine that is busy with other tests, or longer
    # than the others take for all of it
    assert not re.search("Traceback|WARNING|ERROR", "\n".join(troubles(program.err))), program.err


def test_the_list_of_examples_is_whole() -> None:
    """Each folder with an app has a README, a line in the list, and a run in these tests or in some of its own."""
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/README.md")}
    listed = re.findall(r"^- \[(\w+)\]\((\w+)/\)", (ROOT / "examples/README.md").read_text(), re.MULTILINE)
    assert {name for pair in listed for name in pair} == folders
    run = {re.split(r"[. ]", command)[0] for command in PRINTED}
    assert folders == run | {"benchmarks", "checksums", "class_api", "fastapi_app"}


@pytest.mark.slow
def test_the_dependencies_hold(workshop: Workshop) -> None:
    """With several workers for each task: nothing of a task is done before the last of those that it needs."""
    status, program = workshop.run("-m", "examples.dependencies", "run", "--workers", "2", "--meta", "cakes=30")
    assert status == 0, program.err
    found = re.findall(r"(\w+): 30 steps, from (\d+) to (\d+)", program.out)
    first = {name: int(begin) for name, begin, _ in found}
    last = {name: int(end) for name, _, end in found}
    assert last["mix"] < first["bake"]
    assert max(last["bake"], last["whip"]) < first["decorate"]
    assert last["decorate"] == 120


def test_log_lines_go_where_they_should(workshop: Workshop) -> None:
    """The console has what is INFO or above of all four roles; the file has three processes' DEBUG lines, too."""
    status, program = workshop.run("-m", "examples.logging", "run", "--workers", "1", LOG_FILE="here.log")
    assert status == 0, program.err
    roles = {"distributor", "task", "worker", "collector"}
    assert set(re.findall(r"^INFO    zmqpipeline\.(\w+)", program.err, re.MULTILINE)) == roles
    assert "INFO    zmqpipeline.collector.letters: beta has 4 letters" in program.err
    assert "DEBUG" not in program.err
    lines = workshop.lines("here.log")
    assert len([line for line in lines if "DEBUG zmqpipeline.worker.letters" in line]) == 3
    assert len([line for line in lines if "DEBUG zmqpipeline.task.letters" in line]) == 3
    assert len({found for line in lines for found in re.findall(r"process (\d+)", line)}) == 3


@pytest.mark.slow
def test_the_classes_share_the_naps(workshop: Workshop) -> None:
    """Four programs in a folder of their own: what the two workers did adds up; nothing is left behind."""
    # unbuffered, a line is written in two pieces, between which another program may write
    environ = {"TMPDIR": str(workshop.folder), "PYTHONUNBUFFERED": ""}
    status, program = workshop.run("-m", "examples.class_api.run_all", **environ)
    assert status == 0, program.err
    shares = [int(number) for number in re.findall(r"^worker: (\d+) naps$", program.out, re.MULTILINE)]
    assert len(shares) == 2
    assert sum(shares) == 100
    assert re.search(r"^collector: 100 naps of 10 ms took \d+\.\d\d s$", program.out, re.MULTILINE)
    assert "distributor: everything is collected\n" in program.out
    assert troubles(program.err) == []
    assert list(workshop.folder.glob("naps-*")) == []


def test_the_classes_meet_over_tcp_in_any_order(workshop: Workshop, free_port: int) -> None:
    """Started by hand, with an address in place of a folder."""
    environ = {"NAP_SERVER": "127.0.0.1", "NAP_PORT": f"{free_port}", "NAP_COUNT": "20"}
    names = ("run_distributor", "worker", "collector")
    programs = [workshop.start("-m", f"examples.class_api.{name}", **environ) for name in names]
    assert [program.wait() for program in programs] == [0, 0, 0]
    assert programs[1].out == "worker: 20 naps\n"
    assert list(workshop.folder.glob("*.ipc")) == []


@pytest.mark.slow
def test_a_worker_that_comes_too_late_ends_by_itself(workshop: Workshop) -> None:
    """One worker stays away until the run is over, and waits a while for another: the script still ends, with 0."""
    workshop.write("sitecustomize.py", LATE)
    path = f"{workshop.folder}:{ROOT}"
    environ = {"TMPDIR": str(workshop.folder), "NAP_COUNT": "1", "PYTHONPATH": path}
    status, program = workshop.run("-m", "examples.class_api.run_all", timeout=60.0, **environ)
    assert status == 0, program.err
    assert sorted(re.findall(r"worker: (\d+) naps", program.out)) == ["0", "1"]


def test_a_program_that_fails_takes_the_others_along(workshop: Workshop, free_port: int) -> None:
    """The distributor's port is taken: run_all ends the three programs that wait for it; its status tells."""
    with socket.create_server(("127.0.0.1", free_port)):
        environ = {"NAP_SERVER": "127.0.0.1", "NAP_PORT": f"{free_port}"}
        status, program = workshop.run("-m", "examples.class_api.run_all", **environ)
    assert status == 1
    assert f"127.0.0.1:{free_port}" in program.err.splitlines()[-1]
    assert "collector:" not in program.out


@pytest.mark.slow
def test_the_words_are_those_of_a_counter(workshop: Workshop) -> None:
    """Every count of every word is what one Counter finds by a way of its own, with two workers a task."""
    out = workshop.folder / "words.txt"
    library = Path(sysconfig.get_path("stdlib"), "encodings")
    meta = ("--meta", f"path={library}", "--meta", f"out={out}")
    command = ("-m", "examples.wordcount", "run", "--workers", "2", *meta)
    status, program = workshop.run(*command, TMPDIR=str(workshop.folder))
    assert status == 0, program.err
    plain: Counter[str] = Counter()
    for path in library.rglob("*"):
        folders = set(path.relative_to(library).parts[:-1])
        if path.is_file() and path.suffix in words.SUFFIXES and not folders & words.LEFT_OUT:
            text = path.read_bytes().decode("utf-8", "replace").lower()
            plain.update("".join(letter if is_letter(letter) else " " for letter in text).split())
    found = {word: int(times) for times, word in (line.split("\t") for line in out.read_text().splitlines())}
    assert found == plain


def is_letter(character: str) -> bool:
    """What the example takes for a part of a word: alphanumeric, and no decimal digit."""
    return character.isalnum() and not character.isdecimal()


def test_without_all_texts_there_is_no_count(workshop: Workshop) -> None:
    """A text that cannot be read: it is said, its folder is not added up, but the other one is; status 1."""
    texts = workshop.folder / "texts"
    for name in ("good", "bad"):
        (texts / name).mkdir(parents=True)
        (texts / name / "good.txt").write_text("one two two")
    (texts / "bad" / "gone.txt").symlink_to("nowhere")
    command = ("-m", "examples.wordcount", "run", "--meta", f"path={texts}")
    status, program = workshop.run(*command, TMPDIR=str(workshop.folder))
    assert status == 1
    assert "failed: count: FileNotFoundError" in program.out
    assert "so there is no result" in program.out
    assert "  merge: sent 2, collected 2" in program.err
    check = workshop.run("-m", "examples.wordcount", "check")[1].out
    said = "tasks in order: folder; count for each folder; merge for each count gathered by folder"
    assert said in check
    assert said in (ROOT / "examples" / "wordcount" / "README.md").read_text()


FORGETFUL = """
import signal, sqlite3, sys
from pathlib import Path
from urllib.request import urlopen

address, folder = sys.argv[1:]
is_first = not Path(folder, "pages.db").exists()
db = sqlite3.connect(f"{folder}/pages.db", isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS pages (url, links)")
for path, links, times in ("/", 5, 2), ("/1", 2, 1), ("/2", 2, 0):
    urlopen(address + path)
    for _ in range(times):
        db.execute("INSERT INTO pages VALUES (?, ?)", (address + path, links))
if is_first:
    signal.pause()
"""
"""Crawls three of four pages each time: the first one is two rows, the third none."""


def test_the_demo_counts_what_a_crawl_loses_and_does_twice(tmp_path: Path) -> None:
    """Killed when three pages were asked for, and started again; the page that is no row was in flight."""
    forgetful = demo.Side("forgetful", lambda address, folder: ("-c", FORGETFUL, address, str(folder)))
    came = demo.trial(forgetful, 3, [3])
    figures = (came.ended, came.pages, came.missing, came.twice, came.again, came.in_flight)
    assert figures == (1, 4, 2, 4, 3, 1)
    assert demo.lacks(forgetful) == ""
    assert demo.lacks(replace(forgetful, needs="no_such_module")) == "not installed: pip install no_such_module"


@pytest.mark.slow
def test_own_pictures_become_small(workshop: Workshop) -> None:
    """Large, small, turned and transparent ones are as they should be; a file that is none is said, with status 1."""
    large = workshop.folder / "own"
    large.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (1000, 500), "red").save(large / "turned.jpg", exif=turned)
    Image.new("RGBA", (300, 600), (0, 0, 255, 40)).save(large / "glass.png")
    Image.new("CMYK", (30, 20)).save(large / "print.tif")
    (large / "text.txt").write_text("no picture")
    out = workshop.folder / "out"
    meta = ("--meta", f"path={large}", "--meta", f"out={out}", "--meta", "edge=100")
    status, program = workshop.run("-m", "examples.thumbnails", "run", *meta)
    assert status == 1
    assert "no thumbnail of 'text.txt': PIL.UnidentifiedImageError" in program.out
    assert "resize" in program.err
    sizes = {}
    for path in (out / "small").iterdir():
        with Image.open(path) as small:
            sizes[path.name] = (small.size, small.mode)
    assert sizes == {
        "turned.jpg.png": ((50, 100), "RGB"),
        "glass.png": ((50, 100), "RGBA"),
        "print.tif.png": ((30, 20), "RGB"),
    }


@pytest.mark.slow
def test_a_thumbnail_on_request(workshop: Workshop) -> None:
    """A broker and a worker that stay, asked from outside; what is no picture is said in one line, and they go on."""
    source, out = workshop.folder / "source.png", workshop.folder / "out.png"
    Image.new("RGB", (400, 200), "green").save(source)
    place = ("--endpoint", f"ipc://{workshop.folder}/s")
    workshop.start("-m", "examples.thumbnails", "service", *place)
    workshop.start("-m", "examples.thumbnails", "service-worker", *place)
    ask = ("-m", "examples.thumbnails.client", *place, "--out", str(out), "--edge", "40")
    status, program = workshop.run(*ask, str(workshop.write("text.txt", "no picture")))
    assert status == 1
    assert program.err.startswith("No thumbnail: PIL.UnidentifiedImageError: ")
    assert program.err.count("\n") == 1
    status, program = workshop.run(*ask, str(source))
    assert status == 0, program.err
    with Image.open(out) as small:
        assert small.size == (40, 20)
        assert small.getpixel((20, 10)) == (0, 128, 0)


@pytest.mark.parametrize("command", ["thumbnails run", "thumbnails.client"])
def test_without_pillow_it_says_what_to_install(workshop: Workshop, command: str) -> None:
    """One line and no traceback."""
    workshop.write("PIL.py", "raise ModuleNotFoundError(\"No module named 'PIL'\")")
    path = f"{workshop.folder}:{ROOT}"
    status, program = workshop.run("-m", *f"examples.{command}".split(), PYTHONPATH=path)
    assert status == 1
    assert "pip install '.[thumbnails]'" in program.err
    assert program.err.count("\n") == 1


def test_a_service_by_its_commands(workshop: Workshop) -> None:
    """Broker, worker and call in processes of their own, as the README says; the worker ends with the broker."""
    place = ("--endpoint", f"ipc://{workshop.folder}/s")
    broker = workshop.start("-m", "examples.service", "service", *place)
    worker = workshop.start("-m", "examples.service", "service-worker", "count", *place)
    status, call = workshop.run("-m", "examples.service", "call", "count", '{"text": "Look before you leap"}', *place)
    assert status == 0, call.err
    assert call.json == {"words": 4, "letters": 17, "process": worker.pid}
    broker.signal(15)
    assert broker.wait() == 143
    assert worker.wait() == 0
