"""What results give to other tasks: users' functions for it, on the collector's thread, and a task's own first items.

A function is called before the collector's own, for the same item, and what it gives goes into the journal's outbox as
the mark "collected" does: in one transaction, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from zmqpipeline.runtime.threads.values import open_all
from zmqpipeline.serialization.pack import MAX_DEPTH, opener, unpack

ROOTS = 1000
"""So many first items are asked for at once."""

Item: TypeAlias = tuple[str, bytes, bytes, int]
"""Of which task, packed, with the digest of its key or nothing, and how many results led to it."""


@dataclass(frozen=True)
class Feed:
    """How results of one task become items of another one."""

    task: str
    """The one that gets them."""
    function: Callable[..., Any] | None
    """Called with a result; gives items, as an iterable, a dict or None. None: a result is an item as it is."""
    names: tuple[str, ...]
    """What it is called with besides, by name: number, attempt, depth."""
    what: str
    """The function, for messages."""
    pack: Callable[[Any], bytes]
    digest: Callable[[dict[str, Any]], bytes] | None = None
    """Of the key of an item, if the task has one."""


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
        return any("depth" in one.names for feeds in self.by_feeder.values() for one in feeds)

    def is_keyed(self, task: str) -> bool:
        """Whether the items of this task have keys."""
        return any(one.digest is not None for feeds in self.by_feeder.values() for one in feeds if one.task == task)


class Feeder:
    """Calls the functions, and puts what they give into the outboxes of a journal."""

    def __init__(
        self, journal: Journal, max_depth: int, note_error: Callable[[str, int, BaseException], object] | None = None
    ) -> None:
        """A value may be nested so deeply; `note_error` is told what a function raised for an item."""
        self._open, self._max_depth = opener(max_depth), max_depth
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

    def take_failed(self) -> list[int]:
        """The numbers of the items whose results could not be made into others, since the last time."""
        failed, self._failed = sorted(self._failed), set()
        return failed

    def has_failed(self, number: int) -> bool:
        """Whether it is one of these."""
        return number in self._failed

    def around(self, command: Collect, call: Callable[..., Any], *, placed: bool) -> Callable[[Any], Any]:
        """The call for each item in turn, with what its result gives before it."""
        numbers, outboxes = iter(sequence_of(command.spans)), self._journal.outboxes
        made = [self._maker(one, command) for one in self._feeds.by_feeder[command.task]]
        alone = made[0] if len(made) == 1 else None

        def fed(value: Any) -> Any:
            number = next(numbers)
            is_made, item = False, None
            try:
                if alone is None:
                    for make in made:
                        if (one := make(number)) is not None:
                            outboxes.give(*one)
                else:
                    item = alone(number)
                is_made = True
                answer = call(number, value) if placed else call(value)
            except JournalLost:
                raise
            except BaseException as error:
                outboxes.undo()
                if not is_made:
                    self._note(command.task, number, error)
                raise
            if item is not None:
                outboxes.add(*item)
            else:
                outboxes.accept()
            return answer

        return fed

    def _maker(self, feed: Feed, command: Collect) -> Callable[[int], Item | None]:
        """What makes items of the results of this command, called for one after the other with its number.

        A single item is returned; more are given to the outbox, pending.
        """
        name, pack, digest, outboxes = feed.task, feed.pack, feed.digest, self._journal.outboxes
        task, attempt, names, function = command.task, command.attempt, feed.names, feed.function
        is_deep = self._has_depth and task in self._feeds.fed

        def packed(item: Any, depth: int) -> Item:
            data = pack(item)
            return name, data, b"" if digest is None else digest(unpack(data)), depth

        if function is None:
            payloads = iter(command.payloads)

            def pass_on(number: int) -> Item:
                payload = bytes(next(payloads))
                depth = 1 + (outboxes.depth_of(task, number) if is_deep else 0)
                return name, payload, b"" if digest is None else digest(self._open(payload)), depth

            return pass_on
        # a function may change what it is given, and others get the same result
        results = self._opened(command)

        def make(number: int) -> Item | None:
            data = next(results)
            depth = outboxes.depth_of(task, number) if is_deep else 0
            if names:
                values = {"number": number, "attempt": attempt, "depth": depth}
                made = function(data, **{one: values[one] for one in names})
            else:
                made = function(data)
            if type(made) is dict:
                return packed(made, depth + 1)
            for item in items_of(made, feed.what):
                outboxes.give(*packed(item, depth + 1))
            return None

        return make

    def _opened(self, command: Collect) -> Iterator[Any]:
        """Each result once more."""
        values = open_all(command.payloads) if self._max_depth >= MAX_DEPTH else None
        return map(self._open, command.payloads) if values is None else iter(values)

    def _note(self, task: str, number: int, error: BaseException) -> None:
        self._failed.add(number)
        if self._note_error is not None:
            self._note_error(task, number, error)


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
