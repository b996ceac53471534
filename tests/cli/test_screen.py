"""Lines that are drawn in their place: what a terminal gets of them, and what others get."""

from __future__ import annotations

import io

import pytest

from zmqpipeline.cli.screen import Line, Screen, bar, has_colors


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "5")
    monkeypatch.delenv("NO_COLOR", raising=False)


def drawn(*lots: list[str], again: bool = True) -> list[str]:
    """What a terminal gets of each lot."""
    stream, found = Terminal(), []
    screen = Screen(stream, again=again)
    for lot in lots:
        screen.draw(lot)
        found.append(stream.getvalue())
        stream.truncate(0)
        stream.seek(0)
    return found


def test_a_terminal_is_cleared_once_and_then_drawn_over() -> None:
    """Each line clears what was behind it, and the last one what was below; what is too long is not wrapped."""
    first, second = drawn(["a", "b"], ["c"])
    assert first == "\x1b[?7l\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h"
    assert second == "\x1b[?7l\x1b[Hc\x1b[K\n\x1b[J\x1b[?7h"


def test_what_does_not_fit_is_counted() -> None:
    """The terminal never scrolls: the last of its lines is where the cursor stays."""
    (text,) = drawn([str(number) for number in range(10)])
    lines = text.removeprefix("\x1b[?7l\x1b[2J\x1b[H").split("\x1b[K\n")
    assert lines[:4] == ["0", "1", "2", "and 7 more lines"]
    (text,) = drawn(list("abcd"))
    assert "more" not in text


def test_elsewhere_lines_are_printed() -> None:
    """One lot after another, with an empty line between them, without colours; once on a terminal, too."""
    stream = io.StringIO()
    screen = Screen(stream)
    screen.draw([Line("head", "head"), "a"])
    screen.draw(["b"] * 9)
    assert stream.getvalue() == "head\na\n\n" + "b\n" * 9
    assert (screen.is_live, screen.rows) == (False, None)
    assert drawn(["b"] * 9, again=False) == ["b\n" * 9]


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is bold, what is bad is red; nothing is with NO_COLOR, unless that is empty."""
    lines = [Line("head", "head"), Line("bad", "bad"), "plain"]
    (text,) = drawn(lines)
    assert "\x1b[1mhead\x1b[0m\x1b[K\n\x1b[31mbad\x1b[0m\x1b[K\nplain\x1b[K" in text
    monkeypatch.setenv("NO_COLOR", "")
    assert drawn(lines) == [text]
    monkeypatch.setenv("NO_COLOR", "1")
    (text,) = drawn(lines)
    assert "head\x1b[K\nbad\x1b[K\nplain\x1b[K" in text
    monkeypatch.setenv("TERM", "dumb")
    assert drawn(lines) == ["head\nbad\nplain\n"]
    monkeypatch.delenv("NO_COLOR")
    assert not has_colors(Terminal())


@pytest.mark.parametrize(
    ("done", "total", "text"), [(0, 10, "[----]"), (5, 10, "[##--]"), (999, 1000, "[###-]"), (12, 10, "[####]")]
)
def test_a_bar_is_full_when_all_is_done(done: int, total: int, text: str) -> None:
    """And not before."""
    assert bar(done, total, 4) == text
