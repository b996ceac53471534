"""What results give to other tasks: users' functions for it, on the collector's thread, and a task's own first items.

A function is called before the collector's own, for the same item, and what it gives goes into the journal's outbox as
the mark "collected" does: in one transaction, or not at all. So does what functions give that gather results, when the
last item of a group is collected or has failed; groups are kept in the journal, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import partial
from typing import Any, TypeAlias

from zmqpipeline.errors import PipelineError, SerializeError
from zmqpipeline.protocol.collection.gathering import Gathering, Parent, Span
from zmqpipeline.protocol.commands import Collect, Produce
from zmqpipeline.protocol.data.ranges import sequence_of
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.gathers import Gather
from zmqpipeline.protocol.events import Produced
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, Outbox
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.journal import Journal, JournalLost
from zmqpipeline.runtime.threads.event_loop import CallCancelled
from zmqpipeline.runtime.threads.source import Producer, Take
from zmqpipeline.runtime.threads.values import open_all
from zmqpipeline.serialization.pack import MAX_DEPTH, opener, unpack

ROOTS = 1000
"""So many first items are asked for at once."""

Item: TypeAlias = tuple[str, bytes, bytes, int, bytes]
"""Of which task, packed, the digest of its key or nothing, how many results led to it, the digest for its rate."""

Maker: TypeAlias = tuple[Callable[[int], Item | None], Callable[[], object]]
"""What makes items of one result after the other, called with its number, and what passes over one.

A single item is returned; more are given to the outbox, pending.
"""


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
class GatherFeed:
    """How all results that came of one become items of a task."""

    gather: Gather
    function: Callable[..., Any]
    """Called with the parent and the list of results; gives items, as that of a Feed."""
    names: tuple[str, ...]
    """What it is called with besides, by name: number, attempt, depth, all of the parent's item, and failures."""
    what: str
    """The function, for messages."""
    pack: Callable[[Any], bytes]
    digest: Callable[[dict[str, Any]], bytes] | None = None
    """As in Feed."""


@dataclass(frozen=True)
class Feeds:
    """All of a pipeline."""

    fed: tuple[str, ...]
    """The tasks that are fed, each once."""
    by_feeder: Mapping[str, list[Feed]]
    gathered: Mapping[str, GatherFeed] = field(default_factory=dict)
    """By task, those that gather."""
    roots: Mapping[str, Callable[[int], Take]] = field(default_factory=dict)
    """Those of them that have first items of their own: what makes them, from this number on."""
    values: Mapping[str, Callable[[dict[str, Any]], bytes]] = field(default_factory=dict)
    """Of those with a rate for each value of a field: what makes the digest of that, of an item."""

    @property
    def takes_depth(self) -> bool:
        """Whether any function wants to know it."""
        each = [one.names for feeds in self.by_feeder.values() for one in feeds]
        return any("depth" in names for names in (*each, *(one.names for one in self.gathered.values())))

    def value_of(self, task: str, payload: bytes) -> bytes:
        """The digest of what the rate of a packed item goes by; nothing, if its task has no such rate."""
        digest = self.values.get(task)
        return b"" if digest is None else digest(unpack(payload))

    def is_keyed(self, task: str) -> bool:
        """Whether the items of this task have keys."""
        each = [one.digest for feeds in self.by_feeder.values() for one in feeds if one.task == task]
        return any(digest is not None for digest in (*each, *self._digests_of_groups(task)))

    def _digests_of_groups(self, task: str) -> list[Any]:
        return [self.gathered[task].digest] if task in self.gathered else []


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
        self._failed: dict[int, str] = {}
        self._gathering = Gathering([], journal.groups, self._give_group)

    def begin(self, feeds: Feeds) -> None:
        """The run begins: these are its functions."""
        self._feeds, self._has_depth = feeds, feeds.takes_depth
        gathers = [one.gather for one in feeds.gathered.values()]
        self._gathering = Gathering(gathers, self._journal.groups, self._give_group)
        self._journal.outboxes.begin_rates({task: partial(feeds.value_of, task) for task in feeds.values})

    def feeds(self, task: str) -> bool:
        """Whether results of this task become items of another one, or belong to a group."""
        return task in self._feeds.by_feeder or self._gathering.concerns(task)

    def told(self, troubles: Mapping[str, ErrorInfo]) -> list[Outbox]:
        """What the outboxes hold, after a commit; `troubles` are what sources of first items have raised."""
        return self._journal.outboxes.told(self._feeds.roots, troubles)

    def take_failed(self) -> dict[int, str]:
        """The numbers of the items whose results could not be made into others, since the last time.

        Each with its stage: "feed", or "gather" if what raised was for a group whose last item it is.
        """
        failed, self._failed = self._failed, {}
        return failed

    def stage_of(self, number: int) -> str:
        """That of one of these; "collector" of any other."""
        return self._failed.get(number, "collector")

    def fail(self, items: Iterable[FailedItem]) -> dict[tuple[str, int], BaseException]:
        """These have failed for good, which may be what a group waited for; what its function has raised, by item.

        Such an item does not count in the group, nor one that has failed since the function of its group raised: the
        group waits for it.
        """
        raised: dict[tuple[str, int], BaseException] = {}
        outboxes = self._journal.outboxes
        for item in items:
            if item.stage == "gather" or not self._gathering.concerns(item.task):
                continue
            outboxes.begin()
            try:
                self._gathering.failed(item.task, item.number)
            except (JournalLost, CallCancelled):
                raise
            except BaseException as error:
                forks.end_child(error)
                outboxes.undo()
                raised[item.task, item.number] = error
            else:
                outboxes.accept()
        return raised

    def around(self, command: Collect, call: Callable[..., Any], *, placed: bool) -> Callable[[Any], Any]:
        """The call for each item in turn, with what its result gives before it."""
        if self._gathering.concerns(command.task):
            return self._around_members(command, call, placed=placed)
        numbers, outboxes = iter(sequence_of(command.spans)), self._journal.outboxes
        made = [self._maker(one, command) for one in self._feeds.by_feeder[command.task]]
        alone = made[0][0] if len(made) == 1 else None

        def fed(value: Any) -> Any:
            number = next(numbers)
            is_made, item = False, None
            try:
                if alone is None:
                    _make_all(made, number, outboxes.give)
                else:
                    item = alone(number)
                is_made = True
                answer = call(number, value) if placed else call(value)
                if forks.in_child:
                    forks.end_child()
            except (JournalLost, CallCancelled):
                raise
            except BaseException as error:
                forks.end_child(error)
                outboxes.undo()
                if not is_made:
                    self._note(command.task, number, error, "feed")
                raise
            if item is not None:
                outboxes.add(*item)
            else:
                outboxes.accept()
            return answer

        return fed

    def _around_members(self, command: Collect, call: Callable[..., Any], *, placed: bool) -> Callable[[Any], Any]:
        """The same of a task whose items begin groups, or belong to some.

        A group that is complete is given before the collector's function is called, and what the result gave counts in
        it: then all of it is within a savepoint. Else it is counted after that call.
        """
        numbers, payloads = iter(sequence_of(command.spans)), iter(command.payloads)
        outboxes, task = self._journal.outboxes, command.task
        feeds = self._feeds.by_feeder.get(task, [])
        made, boxes = [self._maker(one, command) for one in feeds], [outboxes.box(one.task) for one in feeds]
        gathering, is_deep = self._gathering, self._has_depth and task in self._feeds.fed

        def count(number: int, payload: Any, before: list[int]) -> None:
            outboxes.place()
            given = {box.name: (start, box.count) for box, start in zip(boxes, before, strict=True)}
            depth = outboxes.depth_of(task, number) if is_deep else 0
            gathering.collected(task, number, Parent(bytes(payload), command.attempt, depth), given)

        def fed(value: Any) -> Any:
            number, payload = next(numbers), next(payloads)
            stage, before = "feed", [box.count for box in boxes]
            try:
                _make_all(made, number, outboxes.give)
                at_least = {
                    box.name: box.count - start + outboxes.promised(box.name)
                    for box, start in zip(boxes, before, strict=True)
                }
                if gathering.completes(task, number, at_least):
                    stage = "gather"
                    outboxes.begin()
                    count(number, payload, before)
                    stage = "collector"
                    answer = call(number, value) if placed else call(value)
                    if forks.in_child:
                        forks.end_child()
                else:
                    stage = "collector"
                    answer = call(number, value) if placed else call(value)
                    if forks.in_child:
                        forks.end_child()
                    count(number, payload, before)
            except (JournalLost, CallCancelled):
                raise
            except BaseException as error:
                forks.end_child(error)
                outboxes.undo()
                if stage != "collector":
                    self._note(task, number, error, stage)
                raise
            outboxes.accept()
            return answer

        return fed

    def _give_group(self, gather: Gather, group: int) -> Span:
        """Call the function for a group that is complete; which items it gave."""
        feed, groups, outboxes = self._feeds.gathered[gather.task], self._journal.groups, self._journal.outboxes
        parent = groups.parent(gather.task, group)
        values: dict[str, Any] = {"number": group, "attempt": parent.attempt, "depth": parent.depth}
        if "failures" in feed.names:
            values["failures"] = groups.failures(gather.task, group)
        results = [self._open(one) for task in gather.results for one in groups.results(gather.task, group, task)]
        # what other functions gave is counted where it was given
        outboxes.place()
        start = outboxes.box(gather.task).count
        made = feed.function(self._open(parent.result), results, **{one: values[one] for one in feed.names})
        packed = self._packer(gather.task, feed)
        forks.end_child()
        for item in items_of(made, feed.what):
            if forks.in_child:
                forks.end_child()
            outboxes.give(*packed(item, parent.depth + gather.levels))
        forks.end_child()
        outboxes.place()
        return start, outboxes.box(gather.task).count

    def _maker(self, feed: Feed, command: Collect) -> Maker:
        """What makes items of the results of this command, called for one after the other with its number."""
        name, digest, outboxes = feed.task, feed.digest, self._journal.outboxes
        task, attempt, names, function = command.task, command.attempt, feed.names, feed.function
        is_deep = self._has_depth and task in self._feeds.fed
        if function is None:
            payloads, value_of = iter(command.payloads), self._feeds.value_of

            def pass_on(number: int) -> Item:
                payload = bytes(next(payloads))
                depth = 1 + (outboxes.depth_of(task, number) if is_deep else 0)
                key = b"" if digest is None else digest(self._open(payload))
                return name, payload, key, depth, value_of(name, payload)

            return pass_on, partial(next, payloads)
        # a function may change what it is given, and others get the same result
        packed_results, results = self._opened(command)
        packed = self._packer(name, feed)

        def make(number: int) -> Item | None:
            data = next(results)
            depth = outboxes.depth_of(task, number) if is_deep else 0
            if names:
                values = {"number": number, "attempt": attempt, "depth": depth}
                made = function(data, **{one: values[one] for one in names})
            else:
                made = function(data)
            if forks.in_child:
                forks.end_child()
            if type(made) is dict:
                return packed(made, depth + 1)
            for item in items_of(made, feed.what):
                if forks.in_child:
                    forks.end_child()
                outboxes.give(*packed(item, depth + 1))
            if forks.in_child:
                forks.end_child()
            return None

        return make, partial(next, packed_results)

    def _packer(self, task: str, feed: Feed | GatherFeed) -> Callable[[Any, int], Item]:
        """What packs an item for this task, with its digests; called with the item and its depth."""
        pack, key, rate = feed.pack, feed.digest, self._feeds.values.get(task)

        def packed(item: Any, depth: int) -> Item:
            data = pack(item)
            digest = b"" if key is None else key(unpack(data))
            return task, data, digest, depth, b"" if rate is None else rate(unpack(data))

        return packed

    def _opened(self, command: Collect) -> tuple[Iterator[Any], Iterator[Any]]:
        """Each result once more, after what that goes by: a step of the former passes over one."""
        values = open_all(command.payloads) if self._max_depth >= MAX_DEPTH else None
        if values is not None:
            opened = iter(values)
            return opened, opened
        each: Iterator[Any] = iter(command.payloads)
        return each, map(self._open, each)

    def _note(self, task: str, number: int, error: BaseException, stage: str) -> None:
        self._failed[number] = stage
        if self._note_error is not None:
            self._note_error(task, number, error)


def _make_all(makers: list[Maker], number: int, give: Callable[..., object]) -> None:
    """Have each make items of the result of this item; if one raises, those behind it pass over that result."""
    each = iter(makers)
    try:
        for make, _ in each:
            if (one := make(number)) is not None:
                give(*one)
    except BaseException:
        for _, pass_over in each:
            pass_over()
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
        self._feeds = Feeds((), {})
        self._paused: set[str] = set()
        self.troubles: dict[str, ErrorInfo] = {}
        """What the sources raised."""

    def begin(self, feeds: Feeds) -> None:
        """Ask each source that is not at its end."""
        self._feeds = feeds
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
        if name in self.troubles:
            return
        outboxes, given = self._journal.outboxes, 0
        trouble = event.trouble or ErrorInfo("Error", "the source failed") if event.state == "failed" else None
        for index, payload in enumerate(event.payloads):
            try:
                value = self._feeds.value_of(name, payload)
            except (LookupError, PipelineError, TypeError, ValueError) as error:
                trouble = trouble_of(error)
                break
            outboxes.give(name, payload, event.keys[index] if event.keys else b"", 0, value)
            given += 1
        outboxes.accept()
        outboxes.note_roots(name, given, closed=event.state == "exhausted" and trouble is None)
        if trouble is not None:
            self.troubles[name] = trouble
        elif event.state == "ready":
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
