"""Lines on a terminal that are drawn again and again in their place; elsewhere they are printed, one lot after another.

Colours and bold print are for terminals alone, and not where the variable NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import IO

import click

from zmqpipeline.cli.output import written

BAR_WIDTH = 20
"""Characters between the brackets of a bar."""

HOME, CLEAR_ALL, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
"""What is too long is cut by the terminal, which alone knows how wide it draws a character."""


class Line(str):
    """A line that is to be seen among others."""

    __slots__ = ("style",)

    def __new__(cls, text: str, style: str) -> Line:
        """`style` is "head" or "bad"."""
        line = super().__new__(cls, text)
        line.style = style
        return line

    style: str


def bar(done: int, total: int, width: int = BAR_WIDTH) -> str:
    """How much of it is done, ``[####------]``: full when all is, and only then."""
    full = width if done >= total else done * width // total
    return f"[{'#' * full}{'-' * (width - full)}]"


def is_terminal(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether lines can be drawn in their place."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def has_colors(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether colours are wanted."""
    return is_terminal(stream, environ) and not environ.get("NO_COLOR")


def painted(text: str, style: str) -> str:
    """The text in the colours of this style."""
    return click.style(text, bold=True) if style == "head" else click.style(text, fg="red")


class Screen:
    """Shows the newest lines; on a terminal those before are gone."""

    def __init__(self, stream: IO[str], *, again: bool = True) -> None:
        """`stream` is a terminal, or anything else; `again` is whether more than one lot will come."""
        self._stream = stream
        self._has_colors = has_colors(stream)
        self._is_first = True
        self.is_live = again and is_terminal(stream)
        """Whether lines are drawn in their place."""

    @property
    def rows(self) -> int | None:
        """How many lines there is room for now; None if there is no end."""
        return shutil.get_terminal_size().lines - 1 if self.is_live else None

    def draw(self, lines: Sequence[str]) -> None:
        """Show these in the place of those before; below what does not fit, how much that is."""
        with written():
            self._stream.write(self._drawn(lines) if self.is_live else self._printed(lines))
            self._stream.flush()
        self._is_first = False

    def _printed(self, lines: Sequence[str]) -> str:
        return "".join(f"{line}\n" for line in (lines if self._is_first else ["", *lines]))

    def _drawn(self, lines: Sequence[str]) -> str:
        rows = max(1, self.rows or 0)
        more = len(lines) - rows
        shown = [*lines[: rows - 1], f"and {more + 1} more lines"] if more > 0 else lines
        text = "".join(f"{self._painted(line)}{CLEAR_LINE}\n" for line in shown)
        return f"{NO_WRAP}{CLEAR_ALL if self._is_first else ''}{HOME}{text}{CLEAR_BELOW}{WRAP}"

    def _painted(self, line: str) -> str:
        return painted(line, line.style) if self._has_colors and isinstance(line, Line) else line
