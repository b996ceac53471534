"""The parts of the page's server that need none: its history, where boxes are, where it listens, what it is told."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.cli.test_shown import RUN, TASK, WORKER
from zmqpipeline.cli.page.history import MAX_POINTS, History
from zmqpipeline.cli.page.layout import columns
from zmqpipeline.cli.page.orders import MAX_FIELDS, Order, read_order
from zmqpipeline.cli.page.place import HOST, PORT, listening, read_place, url_of
from zmqpipeline.cli.page.plan import PagePlan, Scalable, ServerPlan, plain_options
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.protocol.messages import Status


def at(seconds: float, collected: int, run: str = "run") -> Status:
    """The run, when so many items were collected."""
    counts = replace(TASK.counts, collected=collected)
    return replace(RUN, run=run, seconds=seconds, tasks=[replace(TASK, counts=counts, inherited=0, seconds=seconds)])


# history --------------------------------------------------------------------------------------------------------------


def test_a_point_has_the_rate_since_the_answer_before() -> None:
    """And what an item takes, as the workers observe it; the first one has the rate since the task opened."""
    history = History()
    history.add([at(2.0, 20)], [], 100.0)
    history.add([at(3.0, 25)], [at(2.0, 20)], 101.0)
    assert history.series == ["A"]
    assert [(one.at, one.rates, one.seconds) for one in history.points] == [
        (100.0, (10.0,), (WORKER.service_time,)),
        (101.0, (5.0,), (WORKER.service_time,)),
    ]


def test_it_is_of_bounded_size_and_covers_all_of_the_run() -> None:
    """Each two points become one; a browser is told all of them again then."""
    history, before = History(), at(0.0, 0)
    for second in range(1, 10 * MAX_POINTS):
        now = at(float(second), 7 * second)
        history.add([now], [before], float(second))
        before = now
    assert MAX_POINTS / 4 < len(history.points) < MAX_POINTS
    assert {one.rates for one in history.points} == {(7.0,)}
    assert history.points[0].at < 40
    assert history.points[-1].at > 10 * MAX_POINTS - 40
    gaps = [other.at - one.at for one, other in zip(history.points, history.points[1:], strict=False)]
    assert max(gaps) <= 4 * min(gaps)
    assert history.version > 1


def test_another_run_begins_anew() -> None:
    """And while nobody answers there are no points."""
    history = History()
    history.add([at(2.0, 20)], [], 100.0)
    history.add([], [at(2.0, 20)], 101.0)
    history.add([at(1.0, 1, "other")], [at(2.0, 20)], 102.0)
    assert [one.rates for one in history.points] == [(1.0,)]
    assert history.version == 2


# the graph ------------------------------------------------------------------------------------------------------------


def test_each_box_is_to_the_right_of_what_leads_to_it() -> None:
    """The longest way counts; boxes of a column are below each other."""
    arrows = [("a", "b", "then"), ("b", "d", "each"), ("a", "c", "then"), ("a", "d", ""), ("x", "d", "")]
    assert columns(["a", "b", "c", "d", "x"], arrows) == {
        "a": (0, 0),
        "b": (1, 0),
        "c": (1, 1),
        "d": (2, 0),
        "x": (0, 1),
    }


def test_circles_and_long_chains_have_places() -> None:
    """Tasks may feed each other in a circle, or themselves."""
    found = columns(["a", "b", "c"], [("a", "b", "each"), ("b", "c", "each"), ("c", "a", "each"), ("b", "b", "each")])
    assert sorted(column for column, _ in found.values()) == [0, 1, 2]
    names = [f"t{number}" for number in range(5000)]
    chain = [(one, other, "then") for one, other in pairwise(names)]
    assert columns(names[::-1], chain)["t4999"] == (4999, 0)


# where it listens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", (HOST, None)),
        ("8000", (HOST, 8000)),
        (":8000", (HOST, 8000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("box", ("box", None)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", None)),
    ],
)
def test_a_place_is_read(text: str, place: tuple[str, int | None]) -> None:
    """With or without host and port."""
    assert read_place(text) == place


@pytest.mark.parametrize("text", ["::1", "a:b", "box:99999", "[::1", "box:80:90", "99999", "box:\u0663"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """In one sentence that says what is one."""
    with pytest.raises(ConfigurationError, match="--dashboard"):
        read_place(text)


def test_without_a_port_another_one_is_taken_if_the_usual_one_is() -> None:
    """With one, that is an error."""
    with listening(HOST, 0, "x") as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            listening(HOST, port, "x")
        why = os.strerror(errno.EADDRINUSE)
        assert str(caught.value) == (
            f"Nobody can listen at {HOST} port {port}: [Errno {errno.EADDRINUSE}] {why}. Name others: x."
        )
    with pytest.raises(ConfigurationError, match="at no such host port 0: "):
        listening("no such host", 0, "x")
    held: list[socket.socket] = []
    try:
        held += [listening(HOST, None, "x") for _ in range(2)]
        assert {url_of(one) for one in held} != {f"http://{HOST}:{PORT}/"}
    finally:
        for one in held:
            one.close()


# what the server is told ----------------------------------------------------------------------------------------------


def test_a_plan_arrives_as_it_was_written() -> None:
    """Options included, but for observers, which are programs."""
    options = Options(keys="folder", observers=(print,), drain_timeout=3.0)
    scalable = [Scalable("a\udcffb", 32, "1:8")]
    page = PagePlan("na\udcffme", {"boxes": [], "arrows": []}, ["dead", "run.db"], True, scalable)
    plan = ServerPlan(page, "ipc://x", ["status"], plain_options(options), 7, "127.0.0.1", 1.0, True)
    read = ServerPlan.read(plan.write())
    assert read == plan
    assert Options(**read.options) == replace(options, observers=())


# what is ordered ------------------------------------------------------------------------------------------------------

SCALABLE = [Scalable("A", 32, "2"), Scalable("B\n\u202e", 8, "1:8")]


@pytest.mark.parametrize(
    ("body", "order"),
    [
        (b"task=0&workers=4", Order(0, 4)),
        (b"task=0&workers=0", Order(0, 0)),
        (b"task=1&workers=8", Order(1, 8)),
        (b"task=1&workers=auto", Order(1, None)),
        (b"workers=1&workers=3&task=0", Order(0, 3)),
    ],
)
def test_an_order_is_read_and_arrives(body: bytes, order: Order) -> None:
    """As a line, which no name of a task can break."""
    assert read_order(SCALABLE, {0, 1}, body) == order
    assert Order.of_line(order.line()) == order
    assert "\n" not in order.line()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        *(
            (b"task=0&workers=" + one, "from 0 to 32 workers")
            for one in (b"-1", b"33", b"1e9", b"NaN", b"4.0", b"", b"x")
        ),
        *(
            (b"task=0&workers=" + one, "from 0 to 32 workers")
            for one in (b"9" * 100, b"%D9%A3", b"\xff", b"0x4", b"+1")
        ),
        (b"task=1&workers=9", "'B\\n\\u202e' can have from 0 to 8"),
        *((one, "There is no such task") for one in (b"", b"workers=1", b"task=2&workers=1", b"task=-1&workers=1")),
        (b"task=A&workers=1", "There is no such task"),
        (b"&".join([b"task=0&workers=1"] * MAX_FIELDS), "There is no such task"),
    ],
)
def test_what_cannot_be_ordered_is_refused_in_a_sentence(body: bytes, why: str) -> None:
    """Numbers that are none, or too large; tasks that there are not."""
    refused = read_order(SCALABLE, {0, 1}, body)
    assert isinstance(refused, str)
    assert why in refused


def test_nothing_is_ordered_of_a_run_that_ends() -> None:
    """It has told that it does."""
    assert read_order(SCALABLE, (), b"task=0&workers=4") == (
        "The run ends: the number of its workers is not changed any more."
    )


@pytest.mark.parametrize("line", ["drain", "scale", "scale 1", "scale x 1", "scale 1 -1", "scale 1 x", ""])
def test_another_line_is_no_order(line: str) -> None:
    """`run` does not trust its page's server with more than it may say."""
    assert Order.of_line(line) is None
