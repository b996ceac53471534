"""What goes through ssh, shells and containers between `run` and a worker: words, the greeting, lines on stderr."""

from __future__ import annotations

import itertools
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.runtime.child import settings_of
from zmqpipeline.runtime.child_report import Told
from zmqpipeline.runtime.launch_words import MARK, MAX_GREETING, Greeting, Words, plain, unplain

HARD = [
    "",
    "=x",
    "~",
    "a b",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "*",
    "[::1]",
    "!",
    "%",
    "%41",
    "a\nb",
    "\udcff",
    "é",
    "#",
    "{a,b}",
]

words = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")))


@given(words)
def test_words_come_back_as_they_were(given: list[str]) -> None:
    """Whatever is in them, and no word is one that a shell would read otherwise."""
    written = plain(given)
    assert unplain(written) == given
    assert all(shlex.quote(word) == word for word in written)


def test_two_shells_leave_words_as_they_are() -> None:
    """As ssh does it: joined with blanks, and read by a shell; and that once more behind another one."""
    command = " ".join(["printf '%s\\n'", *plain(HARD)])
    seen = subprocess.run(["sh", "-c", "eval $0", command], capture_output=True, check=True, text=True).stdout
    assert unplain(seen.split("\n")[:-1]) == HARD


def test_a_greeting_comes_back_as_it_was() -> None:
    """In one line, also with values that have lines of their own."""
    greeting = Greeting("head", 4711, ("tasks", "more.tasks"), {"ZMQPIPELINE_KEYS": "a\nb\udcff"}, {"public": "p"})
    line = greeting.line()
    assert line.count(b"\n") == 1
    assert Greeting.read(line) == greeting


@pytest.mark.parametrize("line", [b"", b"hello", b"{}", b"[1]", b"3", b'{"host": "h", "pid": "x"}', b"\xff"])
def test_other_lines_are_no_greeting(line: bytes) -> None:
    """None, and no exception, whatever somebody types."""
    assert Greeting.read(line) is None


def test_settings_are_greeted_with_and_nothing_else() -> None:
    """Not the variables that are between a parent and its child on one machine."""
    environ = {"ZMQPIPELINE_RETRIES": "3", "ZMQPIPELINE_PARENT": "1 2", "ZMQPIPELINE_IMPORTS": "x", "HOME": "/"}
    assert settings_of(environ) == {"ZMQPIPELINE_RETRIES": "3"}


STDERR = (
    b"one\n" + MARK + b"ready\ntwo, unfinished" + MARK + b"exit 0\n\x1ezmq is mine\n\x1e\x1e" + MARK + b"x\nlast\x1e"
)


@given(st.lists(st.integers(0, len(STDERR))))
def test_stderr_is_sorted_in_whatever_parts_it_comes(cuts: list[int]) -> None:
    """The words are taken out, and all else is passed on, in order and complete."""
    sorter = Words()
    places = [0, *sorted(cuts), len(STDERR)]
    passed = b"".join(sorter.take(STDERR[a:b]) for a, b in itertools.pairwise(places)) + sorter.last()
    assert passed == b"one\ntwo, unfinished\x1ezmq is mine\n\x1e\x1elast\x1e"
    assert sorter.told == b"ready\nexit 0\nx\n"


def test_what_is_no_word_is_passed_on_at_once() -> None:
    """A progress bar of a user's function has no end of line."""
    assert Words().take(b"10 %\r") == b"10 %\r"


def test_a_word_without_an_end_is_not_kept_for_ever() -> None:
    """Whoever writes the mark and no end of line does not fill our memory."""
    sorter = Words()
    sorter.take(MARK)
    for _ in range(10):
        sorter.take(b"x" * MAX_GREETING)
    assert len(sorter.last()) <= 2 * MAX_GREETING


def test_torn_words_are_left_out() -> None:
    """Standard error is shared with user code, which may write into a long word: no exception, nothing believed."""
    told = Told.read(b'here 4711 node7\nready\nfailed-start ["Va oops lue\nexit 123456\nfailed-start [1]\n')
    assert (told.host, told.pid, told.is_ready) == ("node7", 4711, True)
    assert told.init_trouble is None
    assert told.status is None
