"""Why items failed, for whoever asks how the run stands: of bounded size, whatever failed and however often.

Two roles know parts of it. A distributor sees what fails on workers, or is lost with them, in its own life; the
collector is told of all that, and sees itself what its functions raise. A kind that both know has the larger of the two
counts: each counts an item once, and the one that knows less was started later, or has not heard yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from zmqpipeline.protocol.delivery.failure_kinds import MAX_SENT, Kind, by_count
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, FailedKind, FailureStatus

MAX_FAILURES = 100
"""So many kinds are told to who asks."""

MAX_TRACEBACKS = 20
"""Of so many of them, those with the most items, the traceback is told, too."""

MAX_TEXT, MAX_TRACEBACK, MAX_PAYLOAD = 500, 2048, 4096
"""So many characters of a message and of the end of a traceback, and so many bytes of an item, are told."""

Key = tuple[str, str, str, str]
"""Task, stage, type of the error, place."""


def sent_kinds(kinds: Iterable[Kind[FailedItem]]) -> list[FailedKind]:
    """The most frequent kinds, as a collector tells them, with short texts and without large items."""
    return [FailedKind(kind.count, _short(_first(kind))) for kind in by_count(kinds)[:MAX_SENT]]


def _first(kind: Kind[FailedItem]) -> FailedItem:
    """The first item of a kind; that which stands for all further kinds has words of its own."""
    return replace(kind.first, trouble=kind.trouble)


def _short(item: FailedItem) -> FailedItem:
    payload = item.payload if len(item.payload) <= MAX_PAYLOAD else b""
    return replace(item, trouble=_cut(item.trouble), payload=payload)


def _cut(trouble: ErrorInfo) -> ErrorInfo:
    return ErrorInfo(
        trouble.error[:MAX_TEXT],
        trouble.message[:MAX_TEXT],
        trouble.traceback[-MAX_TRACEBACK:],
        trouble.place[:MAX_TEXT],
    )


def merged(own: Iterable[Kind[FailedItem]], told: Iterable[FailedKind]) -> list[FailedKind]:
    """What a distributor knows and what its collector has told, each kind once, the most frequent first."""
    found: dict[Key, FailedKind] = {}
    for kind in (*(FailedKind(one.count, _first(one)) for one in own), *told):
        key = _key(kind.first)
        known = found.get(key, kind)
        first = known.first if known.first.payload or not kind.first.payload else kind.first
        found[key] = FailedKind(max(known.items, kind.items), first)
    return sorted(found.values(), key=lambda kind: -kind.items)[:MAX_FAILURES]


def _key(item: FailedItem) -> Key:
    # what is told is cut
    return item.task, item.stage, item.trouble.error[:MAX_TEXT], item.trouble.place[:MAX_TEXT]


def statuses(kinds: Iterable[FailedKind], show: Callable[[bytes], str]) -> list[FailureStatus]:
    """As they are told to who asks; `show` makes text of an item."""
    return [_status(kind, show, with_traceback=index < MAX_TRACEBACKS) for index, kind in enumerate(kinds)]


def _status(kind: FailedKind, show: Callable[[bytes], str], *, with_traceback: bool) -> FailureStatus:
    first, trouble = kind.first, _cut(kind.first.trouble)
    return FailureStatus(
        task=first.task,
        stage=first.stage,
        error=trouble.error,
        message=trouble.message,
        place=trouble.place,
        traceback=trouble.traceback if with_traceback else "",
        items=kind.items,
        number=first.number,
        attempts=first.attempts,
        item=show(first.payload)[:MAX_TEXT] if first.payload else "",
    )
