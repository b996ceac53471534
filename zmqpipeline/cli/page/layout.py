"""Where the boxes of the graph are: in columns, each to the right of what leads to it, as far as no circle says else.

Pure: boxes and arrows in, columns and rows out. The script of the page draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(names: Sequence[str], arrows: Iterable[tuple[str, str, str]]) -> dict[str, tuple[int, int]]:
    """The column and the row of each box. An arrow that closes a circle moves nothing."""
    into: dict[str, list[str]] = {name: [] for name in names}
    for one, other, _ in arrows:
        if one in into and other in into and one != other:
            into[other].append(one)
    depth: dict[str, int] = {}
    for name in names:
        _find_depth(name, into, depth)
    rows: dict[int, int] = {}
    found: dict[str, tuple[int, int]] = {}
    for name in names:
        row = rows.get(depth[name], 0)
        rows[depth[name]] = row + 1
        found[name] = (depth[name], row)
    return found


def _find_depth(start: str, into: dict[str, list[str]], depth: dict[str, int]) -> None:
    """The longest way to this box; with a stack of our own, since a chain may be longer than Python's."""
    stack, on_way = [(start, iter(into[start]))], {start}
    while stack:
        name, rest = stack[-1]
        following = next((one for one in rest if one not in depth and one not in on_way), None)
        if following is not None:
            on_way.add(following)
            stack.append((following, iter(into[following])))
            continue
        stack.pop()
        on_way.discard(name)
        depth.setdefault(name, 1 + max((depth[one] for one in into[name] if one in depth), default=-1))
