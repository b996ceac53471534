"""Values for the tests of serialization."""

from __future__ import annotations

from typing import Any


def same(one: Any, other: Any) -> bool:
    """Equal and of equal types all the way down: 1, 1.0 and True differ here, as do a list and a tuple."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(k, j) and same(v, w) for (k, v), (j, w) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


class Foo:
    """Something that cannot be sent."""
