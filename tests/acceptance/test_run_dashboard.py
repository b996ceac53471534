"""`run --dashboard` by real processes: a page beside the run, which costs it nothing, and whose death it outlives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.acceptance.test_dashboard import TOKEN, events
from tests.acceptance.test_metrics import APP

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

COUNTS = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")

# Items wait for files: `more` lets all of them go on.
WAITING = """
import pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("waits")
HERE = pathlib.Path(__file__).parent

@app.task("A", times=20)
def first():
    return {}

@app.worker("A")
def work(data, number):
    if number == 2:
        raise ValueError("<script>alert(1)</script>\\u202e")
    while number >= 5 and not (HERE / "more").exists():
        time.sleep(0.01)
    return data

@app.collector
def collect(data, number):
    if number == 3:
        raise KeyError("collector")

if __name__ == "__main__":
    app.main()
"""


def page_of(program: Program, eventually: Callable[..., None]) -> httpx.Client:
    """A client of the page that this run says it has."""
    eventually(lambda: program.ended() or "The page of" in program.err, "the address")
    said = re.search(r"The page of '[^']+': (http://\S+:\d+)/\n", program.err)
    assert said, program.err
    return httpx.Client(base_url=said[1].replace("0.0.0.0", "127.0.0.1"), timeout=60)


def server_of(program: Program) -> int:
    """The process id of the page's server that this run has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"zmqpipeline.cli.page" in words and parent == program.pid:
                return int(entry.name)
    raise AssertionError(program.err)


def until(stream: Iterator[dict[str, Any]], holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first event for which that holds."""
    for one in stream:
        if holds(one):
            return one
    raise AssertionError("the stream ended before")


@pytest.fixture
def waiting(workshop: Workshop) -> Workshop:
    """A folder with the app that waits."""
    workshop.write("app.py", WAITING)
    return workshop


def test_the_last_word_has_the_numbers_of_the_summary(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """With failures, retries and a killed worker: counts of each task, kinds of failure; the page ends with the run."""
    workshop.write("app.py", APP)
    run = workshop.start("-m", "app", "run", "--workers", "2", "--json", "--dashboard", "--journal", "run.db")
    with page_of(run, eventually) as client:
        server = server_of(run)
        stream = events(client)
        first = until(stream, lambda one: one["tasks"])
        assert not first["is_over"]
        eventually(lambda: run.ended() or (workshop.folder / "finishing").exists(), "the end of the items")
        told = until(stream, lambda one: one["lost"]["rows"] and one["failures"]["items"] == 10)
        assert (told["lost"]["count"], told["lost"]["rows"][0]["why"]) == (1, "killed by SIGKILL")
        assert "was lost (killed by SIGKILL)" in json.dumps(told["log"])
        workshop.write("go", "")
        last = list(stream)[-1]
    assert run.wait() == 1, run.err
    assert last["is_over"]
    assert {one["name"]: {key: one[key] for key in COUNTS} for one in last["tasks"]} == run.json["tasks"]
    shown = [(one["task"], one["error"], one["items"], one["place"]) for one in last["failures"]["rows"]]
    assert shown == [(one["task"], one["error"], one["items"], one["place"]) for one in run.json["reasons"]]
    assert "OSError: no answer" in last["failures"]["rows"][0]["traceback"]
    assert last["failures"]["retry"] == "python -m app dead retry --all --journal run.db"
    assert not Path(f"/proc/{server}").exists()


def test_failures_are_told_while_the_run_goes_on(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """Those of workers, and those of the collector, each with its traceback and its item; `status` knows them, too."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
    with page_of(run, eventually) as client:
        told = until(events(client), lambda one: one["failures"]["kinds"] == 2 and one["slow"])
        kinds = {one["stage"]: one for one in told["failures"]["rows"]}
        assert (kinds["worker"]["error"], kinds["worker"]["number"]) == ("ValueError", 2)
        assert kinds["worker"]["message"] == "<script>alert(1)</script>\\u202e"
        assert kinds["worker"]["item"] == "{}"
        assert (kinds["collector"]["error"], kinds["collector"]["items"]) == ("KeyError", 1)
        assert "KeyError" in kinds["collector"]["traceback"]
        assert told["slow"][0]["task"] == "A"
        status, program = waiting.run("-m", "app", "status", "--json")
        assert status == 0, program.err
        assert {one["stage"] for one in program.json["failures"]} == {"worker", "collector"}
        # one that looks at one task only
        assert next(events(client, task="B"))["failures"]["kinds"] == 0
    waiting.write("more", "")
    assert run.wait() == 1, run.err


def test_the_death_of_the_server_does_not_touch_the_run(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """Killed in the middle of it: the run says so, and ends as it would have."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--json", "--dashboard", "127.0.0.1:0")
    with page_of(run, eventually) as client:
        until(events(client), lambda one: one["tasks"])
        os.kill(server_of(run), signal.SIGKILL)
        eventually(lambda: "The page's server ended (killed by SIGKILL). The run goes on" in run.err, "a word of it")
        with pytest.raises(httpx.ConnectError):
            client.get("/")
    waiting.write("more", "")
    assert run.wait() == 1, run.err
    assert run.json["tasks"]["A"]["collected"] == 18


def test_the_server_ends_with_a_run_that_is_killed(
    waiting: Workshop, eventually: Callable[..., None], is_gone: Callable[[int], bool]
) -> None:
    """However that one ends."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
    page_of(run, eventually).close()
    server = server_of(run)
    run.signal(signal.SIGKILL)
    eventually(lambda: is_gone(server), "the end of the server")


def test_ctrl_c_drains_the_run_and_the_page_tells_its_end(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """The signal goes to all of the group, as a terminal sends it."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
    with page_of(run, eventually) as client:
        stream = events(client)
        until(stream, lambda one: one["slow"])
        run.signal(signal.SIGINT, group=True)
        waiting.write("more", "")
        last = list(stream)[-1]
    assert run.wait() == 130, run.err
    assert last["is_over"]
    assert "status 130" in last["well"]


def test_a_run_that_is_over_at_once_does_not_wait_for_its_page(workshop: Workshop) -> None:
    """Its server is still starting then."""
    workshop.write("app.py", WAITING.replace("number >= 5 and", "False and"))
    status, program = workshop.run("-m", "app", "run", "--workers", "1", "--json", "--dashboard", "127.0.0.1:0")
    assert status == 1, program.err
    assert program.json["tasks"]["A"]["collected"] == 18
    assert "The page's server ended" not in program.err


def test_many_tabs_hear_the_same(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """Each is told all of it when it comes, and the last word."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
    with page_of(run, eventually) as client:
        streams = [events(client) for _ in range(30)]
        for one in streams:
            assert {"boxes", "arrows"} <= next(one)["graph"].keys()
        until(streams[0], lambda one: one["points"])
        waiting.write("more", "")
        lasts = [list(one)[-1] for one in streams]
        assert [one["is_over"] for one in lasts] == [True] * 30
    assert run.wait() == 1, run.err


def test_metrics_are_behind_the_same_guard(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """With the token, as a scraper gives it; without it, or by another name of the host, nothing."""
    run = waiting.start(
        "-m", "app", "run", "--workers", "1", "--dashboard", "0.0.0.0:0", ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN
    )
    with page_of(run, eventually) as client:
        assert client.get("/metrics").status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        client.headers.update(bearer)
        until(events(client), lambda one: one["failures"]["items"] == 2)
        answer = client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert 'zmqpipeline_items_total{state="failed",task="A"} 2.0' in answer.text
        assert client.get("/metrics", headers={"Host": "x.example"}).status_code == 200
    waiting.write("more", "")
    assert run.wait() == 1, run.err


def test_the_token_is_on_no_command_line_and_in_no_other_process(
    workshop: Workshop, eventually: Callable[..., None]
) -> None:
    """Given as a variable: user code does not find it."""
    program = WAITING.replace(
        "    if number == 2:", "    (HERE / 'seen').write_text(str(dict(os.environ)))\n    if number == 2:"
    )
    workshop.write("app.py", "import os\n" + program)
    run = workshop.start(
        "-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0", ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN
    )
    with page_of(run, eventually) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        until(events(client), lambda one: one["failures"]["items"])
        assert TOKEN not in (workshop.folder / "seen").read_text()
        assert TOKEN.encode() not in Path(f"/proc/{server_of(run)}/cmdline").read_bytes()
    workshop.write("more", "")
    assert run.wait() == 1, run.err


def test_a_run_without_a_page_does_not_hand_the_token_on(workshop: Workshop) -> None:
    """The variable may be there for the next run."""
    program = WAITING.replace(
        "    if number == 2:", "    (HERE / 'seen').write_text(str(dict(os.environ)))\n    if number == 2:"
    )
    workshop.write("app.py", "import os\n" + program)
    workshop.write("more", "")
    status, run = workshop.run("-m", "app", "run", "--workers", "1", ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
    assert status == 1, run.err
    assert TOKEN not in (workshop.folder / "seen").read_text()


# control --------------------------------------------------------------------------------------------------------------


def word_of(client: httpx.Client) -> dict[str, str]:
    """What the page says with each request that changes something."""
    control = next(events(client))["control"]
    return {"X-Csrf-Token": control["word"], "Origin": str(client.base_url).rstrip("/")}


@pytest.mark.parametrize(("what", "collected"), [("drain", 4), ("cancel", 3)])
def test_a_run_is_ended_by_the_page(
    waiting: Workshop, eventually: Callable[..., None], what: str, collected: int
) -> None:
    """By whoever has the token, from the page itself: a drain finishes what runs, a cancel does not wait for it."""
    run = waiting.start(
        *("-m", "app", "run", "--workers", "1", "--json", "--dashboard", "127.0.0.1:0", "--dashboard-control"),
        ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN,
    )
    with page_of(run, eventually) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        # all are done but the one that waits, and those behind it
        until(
            events(client),
            lambda one: one["slow"] and one["failures"]["items"] == 2 and one["tasks"][0]["collected"] == 3,
        )
        good = word_of(client)
        for bad in (
            {},
            {"Origin": good["Origin"]},
            {**good, "X-Csrf-Token": "x"},
            {**good, "Origin": "http://evil.example"},
            {**good, "Origin": "null"},
            {**good, "Sec-Fetch-Site": "cross-site"},
            {**good, "Sec-Fetch-Site": "same-site"},
        ):
            assert client.post(f"/control/{what}", headers=bad).status_code == 403
        assert client.get(f"/control/{what}", headers=good).status_code == 405
        assert client.post("/control/other", headers=good).status_code == 404
        assert client.post(f"/control/{what}", headers={**good, "Authorization": "Bearer x"}).status_code == 401
        assert client.post(f"/control/{what}", headers={**good, "Sec-Fetch-Site": "same-origin"}).status_code == 202
        if what == "drain":
            eventually(lambda: "The run drains (SIGTERM)" in run.err, "the drain")
            waiting.write("more", "")
    assert run.wait() == 143, run.err
    assert f"The page asks for the run to be {what}" in run.err
    assert run.json["tasks"]["A"]["collected"] == collected


def test_without_the_flag_nothing_can_be_changed(waiting: Workshop, eventually: Callable[..., None]) -> None:
    """Nor by the command `dashboard`."""
    run = waiting.start("-m", "app", "run", "--workers", "1", "--dashboard", "127.0.0.1:0")
    with page_of(run, eventually) as client:
        assert next(events(client))["control"] is None
        origin = {"Origin": str(client.base_url).rstrip("/")}
        assert client.post("/control/cancel", headers=origin).status_code == 403
    waiting.write("more", "")
    assert run.wait() == 1, run.err


# what the user can mend -----------------------------------------------------------------------------------------------


def test_what_is_wrong_is_one_line_before_the_run_starts(waiting: Workshop) -> None:
    """Another address without a token, control without one, a port that is taken, what is no place: status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (("--dashboard", "0.0.0.0:0"), "ZMQPIPELINE_DASHBOARD_TOKEN="),
            (("--dashboard", "[::]:0"), "other machines could read the page"),
            (("--dashboard", "--dashboard-control"), "could end the run by the page"),
            (("--dashboard-control",), "Add --dashboard"),
            (("--dashboard-token", TOKEN), "--dashboard-token is about the page"),
            (("--dashboard", "--dashboard-token", "short"), "5 characters; it needs 16"),
            (("--dashboard", port), f"Nobody can listen at 127.0.0.1 port {port}"),
            (("--dashboard", "a:b"), "HOST:PORT"),
        ):
            status, program = waiting.run("-m", "app", "run", *arguments)
            assert (status, program.err.count("\n")) == (2, 1), program.err
            assert said in program.err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_packages_the_run_does_not_start(workshop: Workshop, package: str) -> None:
    """One line, status 2."""
    workshop.write("app.py", f"import sys\nsys.modules[{package!r}] = None\n" + WAITING)
    status, program = workshop.run("-m", "app", "run", "--dashboard")
    assert (status, program.err.count("\n")) == (2, 1), program.err
    assert "pip install 'zmqpipeline[dashboard]'" in program.err


def test_the_server_does_not_import_the_app(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """It may be large; a factory behind -A, and encrypted connections, are no hindrance."""
    factory = WAITING.replace('app = Pipeline("waits")', 'app = Pipeline("wa/its \\u202e")')
    factory = factory.replace("if __name__", "def create():\n    return app\n\nif __name__")
    workshop.write("made.py", "import os, pathlib\npathlib.Path(f'pid-{os.getpid()}').touch()\n" + factory)
    status, program = workshop.run("-m", "zmqpipeline", "-A", "made:create", "keygen", "keys")
    assert status == 0, program.err
    run = workshop.start(
        *("-m", "zmqpipeline", "-A", "made:create", "run", "--workers", "1", "--dashboard", "127.0.0.1:0"),
        *("--keys", "keys", "--endpoint", f"ipc://{workshop.folder}/here", "--journal", "run.db"),
    )
    eventually(lambda: run.ended() or "The page of" in run.err, "the address")
    with httpx.Client(base_url=re.findall(r"http://\S+:\d+", run.err)[0], timeout=60) as client:
        told = until(events(client), lambda one: one["failures"]["kinds"] == 2)
        assert told["title"] == "wa/its \\u202e"
        assert told["failures"]["list"].endswith("-A made:create dead list --journal run.db")
        assert not (workshop.folder / f"pid-{server_of(run)}").exists()
    workshop.write("more", "")
    assert run.wait() == 1, run.err


def test_a_bug_on_the_first_line_is_told_before_anything_starts(workshop: Workshop) -> None:
    """No page is there then."""
    workshop.write("app.py", "1 / 0\n" + WAITING)
    status, program = workshop.run("-m", "app", "run", "--dashboard")
    assert status == 1
    assert "ZeroDivisionError" in program.err
    assert "The page of" not in program.err
