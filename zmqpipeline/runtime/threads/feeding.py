"""What results give to other tasks: users' functions for it, on the collector's thread, and a task's own first items.

A function is called before the collector's own, for the same item, and what it gives goes into the journal's outbox as
the mark "collected" does: in one transaction, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from zmqpipeline.errors import SerializeError
from zmqpipeline.protocol.commands import Collect, Produce
from zmqpipeline.protocol.data.ranges import sequence_of
from zmqpipeline.protocol.events import Produced
from zmqpipeline.protocol.messages import ErrorInfo, Outbox
from zmqpipeline.runtime.journal import Journal, JournalLost
from zmqpipeline.runtime.threads.source import Producer, Take
from zmqpipeline.serialization.pack import unpack

ROOTS = 1000
"""So many first items are asked for at once."""

Make: TypeAlias = Callable[[Any, int, int, int], Any]
"""Called with a result, its item's number, attempt and depth: gives items, as an iterable, a dict or None."""


@dataclass(frozen=True)
class Feed:
    """How results of one task become items of another one."""

    task: str
    """The one that gets them."""
    make: Make | None
    """None: a result is an item as it is."""
    what: str
    """The function, for messages."""
    pack: Callable[[Any], bytes]
    digest: Callable[[dict[str, Any]], bytes] | None = None
    """Of the key of an item, if the task has one."""
    takes_depth: bool = False


@dataclass(frozen=True)
class Feeds:
    """All of a pipeline."""

    fed: tuple[str, ...]
    """The tasks that are fed, each once."""
    by_feeder: Mapping[str, list[Feed]]
    roots: Mapping[str, Callable[[int], Take]] = field(default_factory=dict)
    """Those of them that have first items of their own: what makes them, from this number on."""

    @property
    def takes_depth(self) -> bool:
        """Whether any function wants to know it."""
        return any(one.takes_depth for feeds in self.by_feeder.values() for one in feeds)

    def is_keyed(self, task: str) -> bool:
        """Whether the items of this task have keys."""
        return any(one.digest is not None for feeds in self.by_feeder.values() for one in feeds if one.task == task)


class Feeder:
    """Calls the functions, and puts what they give into the outboxes of a journal."""

    def __init__(self, journal: Journal, note_error: Callable[[str, int, BaseException], object] | None) -> None:
        """`note_error` is told what a function raised for an item."""
        self._journal = journal
        self._note_error = note_error
        self._feeds = Feeds((), {})
        self._has_depth = False
        self._failed: set[int] = set()

    def begin(self, feeds: Feeds) -> None:
        """The run begins: these are its functions."""
        self._feeds, self._has_depth = feeds, feeds.takes_depth

    def feeds(self, task: str) -> bool:
        """Whether results of this task become items of another one."""
        return task in self._feeds.by_feeder

    def told(self, troubles: Mapping[str, ErrorInfo]) -> list[Outbox]:
        """What the outboxes hold, after a commit; `troubles` are what sources of first items have raised."""
        return self._journal.outboxes.told(self._feeds.roots, troubles)

    def take_failed(self) -> frozenset[int]:
        """The numbers of the items whose results could not be made into others, since the last time."""
        failed, self._failed = frozenset(self._failed), set()
        return failed

    def has_failed(self, number: int) -> bool:
        """Whether it is one of these."""
        return number in self._failed

    def around(self, command: Collect, call: Callable[..., Any], *, placed: bool, first: int) -> Callable[[Any], Any]:
        """The call for one item, with what its result gives before it; the items come in order, from this one on."""
        numbers, payloads = iter(sequence_of(command.spans)[first:]), iter(command.payloads[first:])
        feeds, task, attempt = self._feeds.by_feeder[command.task], command.task, command.attempt
        outboxes = self._journal.outboxes

        def fed(value: Any) -> Any:
            number, payload = next(numbers), next(payloads)
            try:
                self._feed(feeds, task, number, attempt, value, payload)
                answer = call(number, value) if placed else call(value)
            except JournalLost:
                raise
            except BaseException:
                outboxes.undo()
                raise
            outboxes.accept()
            return answer

        return fed

    def _feed(self, feeds: list[Feed], task: str, number: int, attempt: int, value: Any, payload: bytes) -> None:
        outboxes = self._journal.outboxes
        try:
            depth = 0
            if self._has_depth and task in self._feeds.fed:
                depth = outboxes.depth_of(task, number)
            for one in feeds:
                if one.make is None:
                    digest = b"" if one.digest is None else one.digest(unpack(payload))
                    outboxes.give(one.task, bytes(payload), digest, depth + 1)
                    continue
                # a function may change what it is given, and others get the same result
                for item in items_of(one.make(unpack(payload), number, attempt, depth), one.what):
                    packed = one.pack(item)
                    digest = b"" if one.digest is None else one.digest(unpack(packed))
                    outboxes.give(one.task, packed, digest, depth + 1)
        except JournalLost:
            raise
        except BaseException as error:
            self._failed.add(number)
            if self._note_error is not None:
                self._note_error(task, number, error)
            raise


def items_of(made: Any, what: str) -> Iterable[Any]:
    """What a function gave, item by item.

    Raises:
        SerializeError: that is no iterable of items, nor one item, nor None.
    """
    if made is None:
        return ()
    if isinstance(made, dict):
        return (made,)
    if isinstance(made, (str, bytes)) or not isinstance(made, Iterable):
        raise SerializeError(
            f"The {what} returned a {type(made).__name__}. Yield dicts, or return an iterable of them, one dict, or "
            "None for no item."
        )
    return made


class Roots:
    """The first items of tasks that have some of their own: they go into the outbox, as what results give does.

    Each source has a thread of its own, and is asked for some items at a time: for no more while too much waits.
    """

    def __init__(
        self,
        journal: Journal,
        max_waiting_bytes: int,
        submit: Callable[[Callable[[], object]], object],
        tell: Callable[[], object],
    ) -> None:
        """`submit` has something called on the collector's thread; `tell` says, on it, that there is more."""
        self._journal, self._most = journal, max_waiting_bytes
        self._submit, self._tell = submit, tell
        self._producers: dict[str, Producer] = {}
        self._paused: set[str] = set()
        self.troubles: dict[str, ErrorInfo] = {}
        """What the sources raised."""

    def begin(self, feeds: Feeds) -> None:
        """Ask each source that is not at its end."""
        for name, begin in feeds.roots.items():
            box = self._journal.outboxes.box(name)
            if not box.closed:
                # those with keys may come in another order: they are known by these
                over = 0 if feeds.is_keyed(name) else box.roots
                producer = Producer(name, begin(over), partial(self._produced, name))
                self._producers[name] = producer
                producer.produce(Produce(name, ROOTS, "", "", 0, b"", over=over))

    def _produced(self, name: str, event: Any) -> None:
        """On the source's thread."""
        self._submit(partial(self._take, name, event))

    def _take(self, name: str, event: Produced) -> None:
        outboxes = self._journal.outboxes
        for index, payload in enumerate(event.payloads):
            outboxes.give(name, payload, event.keys[index] if event.keys else b"")
        outboxes.accept()
        outboxes.note_roots(name, len(event.payloads), closed=event.state == "exhausted")
        if event.state == "failed":
            self.troubles[name] = event.trouble or ErrorInfo("Error", "the source failed")
        if event.state == "ready":
            self._paused.add(name)
            self.look()
        self._tell()

    def look(self) -> None:
        """Ask those that may go on."""
        for name in list(self._paused):
            if self._journal.outboxes.box(name).waiting <= self._most:
                self._paused.discard(name)
                self._producers[name].produce(Produce(name, ROOTS, "", "", 0, b""))

    def close(self, timeout: float) -> None:
        """End the threads."""
        for producer in self._producers.values():
            producer.close(timeout)
