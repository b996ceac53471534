"""The number of worker processes of a run, set by its page, by real processes: more, fewer, none; each item once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.test_autoscale import children_of
from tests.acceptance.test_dashboard import TOKEN, events
from tests.acceptance.test_run_dashboard import page_of, server_of, until, word_of
from tests.support.apps import NOTES_NUMBERS

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ITEMS = 2000

# Its items say who executed them, and take a while until there is the file `more`; some wait for that.
SCALED = (
    f"""ITEMS = {ITEMS}
WAITING = ()
"""
    + """
import os, pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("scaled")
HERE = pathlib.Path(__file__).parent

def note(name, text):
    with open(HERE / name, "a") as file:
        file.write(f"{text}\\n")

@app.task("A", total=ITEMS)
def first():
    for number in range(ITEMS):
        yield {"n": number}

@app.worker("A")
def work(data):
    note("workers", os.getpid())
    while not (HERE / "more").exists():
        time.sleep(0.05)
        if data["n"] not in WAITING:
            break
    return data
"""
    + NOTES_NUMBERS
)


class Scaled:
    """A run whose page may be told how many workers it shall have."""

    def __init__(self, workshop: Workshop, eventually: Callable[..., None], *flags: str, program: str = SCALED) -> None:
        workshop.write("app.py", program)
        self.workshop, self._eventually = workshop, eventually
        page = ("--dashboard", "127.0.0.1:0", "--dashboard-control")
        self.run = workshop.start(
            "-m", "app", "run", "--json", "--log-level", "info", *page, *flags, ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN
        )
        self.client = page_of(self.run, eventually)
        self.client.headers["Authorization"] = f"Bearer {TOKEN}"
        self.word = word_of(self.client)

    def __enter__(self) -> Scaled:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def order(self, workers: object, task: object = 0) -> int:
        """Ask for so many; the status of the answer."""
        data = {"task": str(task), "workers": str(workers)}
        return self.client.post("/control/scale", headers=self.word, data=data).status_code

    def shows(self, there: int, wanted: int) -> dict[str, Any]:
        """Wait until the page shows that."""
        return until(
            events(self.client),
            lambda one: [(row["there"], row["wanted"]) for row in one.get("staff", ())] == [(there, wanted)],
        )

    def ends(self, status: int = 0) -> dict[str, Any]:
        """Let it end; its summary."""
        self.workshop.write("more", "")
        assert self.run.wait(60) == status, self.run.err
        summary: dict[str, Any] = self.run.json
        return summary

    def assert_each_once(self) -> None:
        """Every item was collected, and executed once."""
        assert sorted(self.workshop.numbers("collected")) == list(range(ITEMS))
        assert len(self.workshop.numbers("workers")) == ITEMS


def test_a_run_is_scaled_by_the_page(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """More, fewer, none, and as at the beginning; workers that leave finish what they have, and lose nothing."""
    with Scaled(workshop, eventually, "--workers", "1") as scene:
        scene.shows(1, 1)
        assert scene.order(3) == 202
        scene.shows(3, 3)
        eventually(lambda: len(set(workshop.numbers("workers"))) == 3, "all three are at work")
        status, asked = workshop.run("-m", "app", "status", "--json")
        assert (status, asked.json["tasks"]["A"]["desired_workers"]) == (0, 3), asked.err
        assert scene.order(1) == 202
        scene.shows(1, 1)
        assert scene.order(0) == 202
        scene.shows(0, 0)
        none = until(events(scene.client), lambda one: "no worker" in one.get("well", ""))
        assert none["well"].endswith("It was set to 0 workers on this page: set another number.")
        assert [scene.order(bad) for bad in (-1, "1e9", "NaN", 10**9, "", "x")] == [400] * 6
        assert [scene.order(1, task) for task in (1, -1, "A", "")] == [400] * 4
        assert scene.order("auto") == 202
        scene.shows(1, 1)
        summary = scene.ends()
        assert summary["workers"] == {"A": 3}
        scene.assert_each_once()
    assert scene.run.err.count("The page asks for task 'A' to have") == 4
    assert "Traceback" not in scene.run.err


def test_a_worker_that_leaves_takes_as_long_as_its_item(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Beyond `drain_timeout`, which is for the end of a run: the item is executed once, and by nobody else."""
    program = SCALED.replace(f"ITEMS = {ITEMS}", "ITEMS = 40").replace("WAITING = ()", "WAITING = (5,)")
    with Scaled(workshop, eventually, "--workers", "1", "--drain-timeout", "1", program=program) as scene:
        eventually(lambda: len(workshop.numbers("workers")) == 6, "the item that waits")
        assert scene.order(0) == 202
        shown = scene.shows(1, 0)
        eventually(lambda: "Task 'A' is given 0 workers" in scene.run.err, "the order is carried out")
        until(
            events(scene.client),
            lambda one: one["workers"]["rows"] and one["workers"]["rows"][0]["state"] == "draining",
        )
        # longer than its drain might take
        time.sleep(2)
        assert shown["staff"][0]["limit"] >= 16
        workshop.write("more", "")
        scene.shows(0, 0)
        assert scene.order("auto") == 202
        scene.ends()
    assert sorted(workshop.numbers("collected")) == list(range(40))
    assert len(workshop.numbers("workers")) == 40
    assert "The drain time is over" not in scene.run.err


def test_an_order_holds_in_the_place_of_a_range(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Until it is taken back; without --json the last line says of how many workers."""
    with Scaled(workshop, eventually, "--workers", "1:2", "--report", "report.html") as scene:
        assert scene.order(4) == 202
        row = scene.shows(4, 4)["staff"][0]
        assert (row["own"], row["is_ordered"]) == ("1 to 2", True)
        eventually(lambda: len(set(workshop.numbers("workers"))) == 4, "all four are at work")
        assert scene.order("auto") == 202
        scene.shows(2, 2)
        summary = scene.ends()
        assert summary["workers"] == {"A": 4}
        scene.assert_each_once()
    assert "worker 4 of" in (workshop.folder / "report.html").read_text()


def test_workers_behind_a_command_are_scaled(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """They are asked to leave by their lifeline; new ones have the next index."""
    launch = """sh -c 'echo $0 >> indexes; "$@"; true' {index}"""
    with Scaled(workshop, eventually, "--workers", "1", "--launch", launch) as scene:
        eventually(lambda: workshop.numbers("workers"), "one is at work")
        assert scene.order(3) == 202
        scene.shows(3, 3)
        eventually(lambda: len(set(workshop.numbers("workers"))) == 3, "all three are at work")
        assert scene.order(1) == 202
        scene.shows(1, 1)
        scene.ends()
        scene.assert_each_once()
    assert sorted(workshop.numbers("indexes")) == [0, 1, 2]


def test_without_its_page_a_run_has_workers_again(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Nobody could give it one any more; a number that is not 0 stays."""
    with Scaled(workshop, eventually, "--workers", "2") as scene:
        assert scene.order(0) == 202
        scene.shows(0, 0)
        os.kill(server_of(scene.run), signal.SIGKILL)
        eventually(lambda: "has workers again, as --workers says" in scene.run.err, "a word of it")
    assert scene.ends()["workers"] == {"A": 2}
    scene.assert_each_once()


def test_the_next_distributor_is_told_how_many_were_ordered(
    workshop: Workshop, eventually: Callable[..., None]
) -> None:
    """It is killed after an order, and the run goes on with that number."""
    with Scaled(workshop, eventually, "--workers", "1") as scene:
        assert scene.order(2) == 202
        scene.shows(2, 2)
        eventually(lambda: len(set(workshop.numbers("workers"))) == 2, "both are at work")
        ours = {server_of(scene.run), *workshop.numbers("workers")}
        (distributor,) = set(children_of(scene.run.pid)) - ours
        os.kill(distributor, signal.SIGKILL)
        eventually(lambda: "The run goes on" in scene.run.err, "its death is seen")
        until(events(scene.client), lambda one: one["tasks"] and one["tasks"][0]["workers"] == "2 of 2")
        scene.ends()
        assert sorted(workshop.numbers("collected")) == list(range(ITEMS))


def test_a_run_that_drains_is_not_scaled(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Its page offers it no more, and says why."""
    with Scaled(
        workshop, eventually, "--workers", "1", program=SCALED.replace("WAITING = ()", "WAITING = (3,)")
    ) as scene:
        scene.shows(1, 1)
        eventually(lambda: len(workshop.numbers("workers")) >= 4, "the item that waits")
        assert scene.client.post("/control/drain", headers=scene.word).status_code == 202
        until(events(scene.client), lambda one: one.get("staff") == [])
        answer = scene.client.post("/control/scale", headers=scene.word, data={"task": "0", "workers": "2"})
        assert (answer.status_code, "The run ends" in answer.text) == (400, True)
        scene.ends(143)
    assert "The page asks for task" not in scene.run.err


def test_orders_that_follow_each_other_end_no_run(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Workers are sent away before they are ready, again and again: no start has failed, and the last number holds."""
    with Scaled(workshop, eventually, "--workers", "1") as scene:
        for number in (3, 0) * 20:
            assert scene.order(number) == 202
        assert scene.order(2) == 202
        scene.shows(2, 2)
        scene.ends()
        scene.assert_each_once()
    assert "ended by SIGTERM" not in scene.run.err
    assert "failed to start" not in scene.run.err


def test_who_may_not_change_the_run_does_not_scale_it(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Without the token, without the word of the page, from another origin, or in the address."""
    with Scaled(workshop, eventually, "--workers", "1") as scene:
        scene.shows(1, 1)
        body = {"task": "0", "workers": "3"}
        good = scene.word
        for bad, status in (
            ({}, 403),
            ({"Origin": good["Origin"]}, 403),
            ({**good, "X-Csrf-Token": "x"}, 403),
            ({**good, "Origin": "http://evil.example"}, 403),
            ({**good, "Sec-Fetch-Site": "cross-site"}, 403),
            ({**good, "Authorization": "Bearer x"}, 401),
        ):
            assert scene.client.post("/control/scale", headers=bad, data=body).status_code == status
        there = f"/control/scale?task=0&workers=3&token={TOKEN}"
        assert scene.client.get(there, headers=good).status_code == 405
        assert scene.client.post(there, headers=good).status_code == 400
        assert scene.client.post("/control/scale/", headers=good, data=body).status_code == 404
        assert (
            scene.client.post("/control/scale", headers=good, content=b"task=0&workers=2%0acancel").status_code == 400
        )
        del scene.client.headers["Authorization"]
        assert scene.client.post(there, headers=good, data=body).status_code == 401
        assert scene.client.get(f"/?token={TOKEN}").status_code == 401
        assert scene.ends()["workers"] == {"A": 1}
