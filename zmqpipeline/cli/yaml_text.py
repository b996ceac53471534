"""Values as YAML that people read: block style, strings without quotes where no reader takes them for something else.

What is written is read alike by the readers of YAML 1.1 and 1.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""What needs no quotes: it begins no number, and has no character that means something."""

_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
"""What some reader of YAML takes for a truth or for nothing."""


def scalar(value: object) -> str:
    """One string, number, truth or None."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    return json.dumps(value)


def _escaped(letter: str) -> str:
    """As it stands between double quotes: JSON writes what is beyond 16 bits as two, which YAML takes for two."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable() and letter != "\ufeff":
        return letter
    number = ord(letter)
    return {"\n": "\\n", "\t": "\\t"}.get(letter) or (f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")


def lines(value: Any) -> Iterator[str]:
    """A mapping, or a sequence with mappings in it, as lines; empty ones, and a sequence of scalars, as one line."""
    if not _is_block(value):
        yield _flow(value)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _entry(f"{scalar(key)}:", one, deeper=not isinstance(one, Sequence))
    else:
        for one in value:
            first, *rest = lines(one)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _entry(key: str, value: Any, *, deeper: bool) -> Iterator[str]:
    if _is_block(value):
        yield key
        yield from (f"{'  ' if deeper else ''}{line}" for line in lines(value))
    else:
        yield f"{key} {_flow(value)}"


def _is_block(value: Any) -> bool:
    """Whether it takes lines of its own."""
    if isinstance(value, Mapping):
        return bool(value)
    return _is_list(value) and any(isinstance(one, Mapping) or _is_list(one) for one in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if _is_list(value):
        return f"[{', '.join(map(scalar, value))}]"
    return scalar(value)


def document(value: Mapping[str, Any], comment: str = "") -> str:
    """One document, which begins with its separator, and then with a comment."""
    above = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join(["---", *above, *lines(value), ""])
