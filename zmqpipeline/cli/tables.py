"""Text for terminals: columns that are in line, and times."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Lines with the cells of each column in line, on the right for the columns named in `right`."""
    widths = [max(len(one) for one in column) for column in zip(head, *rows, strict=True)]
    numbers = [name in right for name in head]

    def line(row: Sequence[str]) -> str:
        cells = (
            one.rjust(width) if number else one.ljust(width)
            for one, width, number in zip(row, widths, numbers, strict=True)
        )
        return "  ".join(cells).rstrip()

    return [line(row) for row in (head, *rows)]


def duration(seconds: float) -> str:
    """A time for people: ``0.4 s``, ``12 s``, ``3:05``, ``2:00:09``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
