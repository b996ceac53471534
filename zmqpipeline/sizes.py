"""Sizes of memory as people write them: ``2GiB``, ``500 MB``, or a number of bytes."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "B": 1}
_UNITS.update({f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)})
_UNITS.update({f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)})
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)

EXPECTED = "a number of bytes, 1 or more, or a text such as '2GiB' or '500MB' (KB, MB, GB, TB, KiB, MiB, GiB, TiB)"
"""What a size may be, for messages."""


def size_in_bytes(size: object) -> int:
    """A size as a number of bytes.

    Raises:
        ValueError: it is none, or less than one byte.
    """
    found = -1.0
    if isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        found = float(match[1]) * _UNITS.get(match[2].upper(), -1)
    elif isinstance(size, int) and not isinstance(size, bool):
        found = size
    if not 1 <= found < math.inf:
        raise ValueError(f"{size!r} is no size; it must be {EXPECTED}.")
    return int(found)


def shown_size(size: int) -> str:
    """A number of bytes for people: ``1.5 GiB``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} B"
