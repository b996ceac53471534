"""The collector's functions on a thread of their own, in order, and the journal that is written with them.

What user code raises is said once (`failure_log`) and becomes an ErrorInfo (`error_text`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from zmqpipeline.errors import JournalUnavailable
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import CallFailed, CallFinished, Collect, Fetch, SetRun
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import sequence_of, spans_of
from zmqpipeline.protocol.events import Collected, Event, FailedCalled, FinishedCalled, Given, JournalFailed
from zmqpipeline.protocol.messages import KEY_BYTES, ErrorInfo, FailedItem
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.journal import Journal, JournalLost
from zmqpipeline.runtime.leader import Leadership
from zmqpipeline.runtime.threads.collecting_lists import Waiting, call_with, joined
from zmqpipeline.runtime.threads.event_loop import CallCancelled
from zmqpipeline.runtime.threads.feeding import Feeder, Feeds, Roots
from zmqpipeline.runtime.threads.serial import Part, Post, SerialThread
from zmqpipeline.runtime.threads.ticker import Ticker
from zmqpipeline.runtime.threads.values import open_all
from zmqpipeline.serialization.pack import unpack

_WITH_OUTBOXES = (Collected, FailedCalled, Given)
"""What is said together with what the outboxes hold."""

PART_SECONDS = 0.01
"""So long the collector calls its functions before it hands over what was collected, and commits it first."""

_log = logging.getLogger("zmqpipeline.runtime")


Collecting = Callable[[str, int], tuple[Callable[..., Any], bool]]
"""By task and attempt: what is called for an item, and whether it is called with its number and its value, or with the
value alone."""


class CollectorThread:
    """The collector's thread: all its functions are called here, one after the other.

    With a journal everything is written down before it is said: answers are held, over as many commands as are there
    within 10 ms, until one commit has made all of them durable.
    """

    def __init__(
        self,
        collecting: Collecting,
        call_failed: Callable[[FailedItem], object],
        call_finished: Callable[[CallFinished], bytes | None],
        post: Post,
        *,
        note: Callable[[Any], bytes | None] = bytes,
        ack_data: Callable[[], bytes] | None = None,
        journal: Journal | None = None,
        leadership: Leadership | None = None,
        failures: FailureLog | None = None,
        feeds: Callable[[], Feeds] | None = None,
        options: Options | None = None,
        note_error: Callable[[str, int, BaseException], object] | None = None,
        batch: Callable[[str], int] = lambda task: 0,
    ) -> None:
        """`note` is given what the call for an item returned, if anything; it returns packed data for the next Ack.

        `ack_data` is called once a part, after its items; what it returns, unless b"", goes before theirs.

        `journal` is used on the thread alone from here on, and closed by it. With the role's `leadership` the thread
        may lead. `failures` says what the functions raise.

        `feeds` gives, once a run has begun, how results become items of other tasks, under these `options`; it needs a
        journal. `note_error` is told what functions that make items raise, with the task and the number of the result's
        item. `batch` says how many results the function of a task takes at once, 0 if one.
        """
        self._batch, self._listed = batch, Waiting()
        self._failures = failures or FailureLog(logging.getLogger("zmqpipeline.collector"))
        self._sums = Ticker("zmqpipeline-collect-failures", self._failures.look)
        self._collecting = collecting
        self._note = note
        self._call_failed = call_failed
        self._call_finished = call_finished
        self._ack_data = ack_data
        self._post = post
        self._journal = journal
        self._held: list[Event] = []
        self._is_over = False
        """A call was cancelled by the end of the role."""
        self._due = 0.0
        self._feeds = feeds
        self._feeder: Feeder | None = None
        self._roots: Roots | None = None
        if journal is not None and feeds is not None:
            options = options or Options()
            self._feeder = Feeder(journal, options.max_depth, note_error)
            self._roots = Roots(journal, options.max_waiting_bytes, self.submit, self._tell_given)
        self._fetches: dict[str, Fetch] = {}
        self.lost: BaseException | None = None
        """What the journal could not be written for."""
        self._serial = SerialThread("zmqpipeline-collect", leadership, brief=1.5 * PART_SECONDS)

    def begin(self, command: SetRun) -> None:
        """Write down that the run begins, if there is a journal; nothing answers."""
        journal = self._journal
        self._listed.next_run()
        if journal is not None:
            self.submit(lambda: journal.begin(command))
        if self._feeder is not None:
            self.submit(self._begin_feeding)

    def fetch(self, command: Fetch) -> None:
        """Look up items of a fed task, between two parts of what is collected; Fetched answers."""
        self._fetches[command.task] = command
        self.submit(self._serve_fetches)

    def collect(self, command: Collect) -> None:
        """Call the function for each item; Collected answers, in parts of at most 10 ms and the call that ends them."""
        if self._batch(command.task):
            self._listed.add(command)
            self.submit(self._collect_lists)
        else:
            self.submit(lambda: self._collect(Collection(command)))

    def call_failed(self, command: CallFailed) -> None:
        """Call the `failed` function for each item; FailedCalled answers, one for each task."""
        self.submit(lambda: self._tell_failed(command))

    def call_finished(self, command: CallFinished) -> None:
        """Call the `finished` function; FinishedCalled answers, with the packed data that it returned.

        A journal says before the call that every item is done, and after it that the run is finished, together with
        what the function wrote through it; if the function raises, neither its rows nor that mark.
        """
        self.submit(lambda: self._finish(command))

    def submit(self, call: Part) -> None:
        """Have something else called on this thread, in its turn."""
        self._serial.submit(partial(self._unless_over, call))

    def close(self, timeout: float) -> None:
        """End the thread after what was asked for; wait for it at most `timeout` seconds."""
        if self._roots is not None:
            self._roots.close(timeout)
        if self._journal is not None:
            self.submit(self._settle)
            # on the thread itself: a call that goes on for longer may still be using it
            self._serial.submit(self._journal.close)
        self._serial.close(timeout)
        self._sums.close(timeout)
        self._failures.close()

    def _unless_over(self, call: Part) -> Part | None:
        """Call it, unless a call was cancelled, as the role ends: from then on nothing is called or written down."""
        if self._is_over:
            return None
        try:
            rest = call() if self._journal is None else self._journalled(call)
        except CallCancelled:
            self._is_over = True
            if self._journal is not None:
                self._journal.rollback()
            return None
        return partial(self._unless_over, rest) if callable(rest) else None

    # written down before it is said -----------------------------------------------------------------------------------

    def _journalled(self, call: Part) -> Part | None:
        if self.lost is not None:
            return None
        try:
            rest = call()
            if callable(rest):
                return rest
            if self._serial.is_idle():
                self._settle()
        except CallCancelled:
            raise
        except BaseException as error:
            # No user's exception comes here. What is held is not on the disk, and so is not said.
            self._lose(error)
        return None

    def _begin_part(self) -> float:
        """When the part that begins now is over: with a journal, together with the transaction that is open."""
        if not self._held:
            self._due = time.perf_counter() + PART_SECONDS
        return self._due

    def _answer(self, event: Event) -> None:
        if self._journal is None:
            self._post(event)
            return
        self._held.append(event)
        if time.perf_counter() > self._due:
            self._settle()

    def _settle(self) -> None:
        if self._journal is not None:
            self._journal.commit()
            held, self._held = self._held, []
            if self._feeder is not None and self._roots is not None:
                given = self._feeder.told(self._roots.troubles)
                held = [replace(one, outboxes=given) if isinstance(one, _WITH_OUTBOXES) else one for one in held]
                self._roots.look()
            for event in held:
                self._post(event)

    def _lose(self, error: BaseException) -> None:
        assert self._journal is not None
        self.lost = error
        known = isinstance(error, JournalLost)
        trouble = ErrorInfo("JournalError", str(error)) if known else trouble_of(error)
        self._post(JournalFailed(trouble, may_pass=isinstance(error, JournalUnavailable)))
        self._journal.rollback()

    # what results give ------------------------------------------------------------------------------------------------

    def _begin_feeding(self) -> None:
        assert self._feeds is not None
        assert self._feeder is not None
        assert self._roots is not None
        feeds = self._feeds()
        self._feeder.begin(feeds)
        self._roots.begin(feeds)
        self._tell_given()

    def _tell_given(self) -> None:
        self._begin_part()
        self._answer(Given([]))

    def _serve_fetches(self) -> None:
        while self._fetches:
            _, command = self._fetches.popitem()
            if self._journal is not None:
                found = self._journal.outboxes.fetch(command)
                if command.apart:
                    # what has got its number by this is on the disk before it is said
                    self._begin_part()
                    self._answer(found)
                else:
                    self._post(found)

    # the calls --------------------------------------------------------------------------------------------------------

    def _collect(self, work: Collection) -> Part | None:
        """Call the function for one part; returns the next one."""
        command = work.command
        call, placed = self._collecting(command.task, command.attempt)
        if self._fetches:
            self._serve_fetches()
        if work.one_by_one:
            call = _opening(call)
        if self._feeder is not None and self._feeder.feeds(command.task):
            # what it is to make items of is read on from part to part
            work.call = call = work.call or self._feeder.around(command, call, placed=placed)
        elif placed:
            call = _numbered(call, iter(work.numbers[work.done :]))
        self._collect_part(work, call)
        return partial(self._collect, work) if work.done < len(work.numbers) else None

    def _collect_part(self, work: Collection, call: Callable[[Any], Any]) -> None:
        """Collect from `work.done` on until the part's time is over."""
        failures: list[tuple[int, ErrorInfo, bytes]] = []
        command, numbers, values, first = work.command, work.numbers, work.values, work.done
        data, clock, note, index = b"", time.perf_counter, self._note, first
        each = EachAck(self._ack_data, self._of_call) if command.each else None
        end = self._begin_part()
        for value in values[first:] if first else values:
            index += 1
            try:
                answer = call(value)
                if forks.in_child:
                    forks.end_child()
                if answer is not None:
                    data = note(answer) or data
                if each is not None:
                    each.collected(data)
                    data = b""
            except (JournalLost, CallCancelled):
                raise
            except BaseException as error:
                number, payload = numbers[index - 1], command.payloads[index - 1]
                failures.append((number, self._of_item(error, command, number, value), bytes(payload)))
            if clock() > end:
                break
        keys = command.keys[first * KEY_BYTES : index * KEY_BYTES]
        work.done = index
        self._answer(self._mark(command, numbers[first:index], keys, failures, data, each))

    def _collect_lists(self) -> None:
        """Call the function of a task with the results that are at hand; perhaps an earlier call has taken all."""
        works = [Collection(one) for one in self._listed.take(self._batch)]
        if not works:
            return
        command = works[0].command
        if self._feeder is not None and self._feeder.feeds(command.task):
            # each gives items of its own, in one transaction with its mark
            for work in works:
                while work.done < len(work.numbers):
                    self._collect(work)
            return
        self._begin_part()
        call, _ = self._collecting(command.task, command.attempt)
        numbers, values, packed = joined(works)
        errors, answers = call_with(call, self._batch(command.task), numbers, values, packed)
        data = b""
        for answer in answers:
            if answer is not None:
                data = self._note(answer) or data
        begin, events = 0, []
        for work in works:
            end = begin + len(work.numbers)
            mine = {at - begin: error for at, error in errors.items() if begin <= at < end}
            events.append(self._mark_list(work, mine, data))
            begin, data = end, b""
        # an answer may end the transaction: what one call wrote is in it, so all of its results are marked by then
        for event in events:
            self._answer(event)

    def _mark_list(self, work: Collection, errors: dict[int, BaseException], data: bytes) -> Collected:
        command, numbers = work.command, work.numbers
        failures = [
            (numbers[at], self._of_item(error, command, numbers[at], work.values[at]), bytes(command.payloads[at]))
            for at, error in sorted(errors.items())
        ]
        each = EachAck(self._ack_data, self._of_call) if command.each else None
        if each is not None:
            for _ in range(len(numbers) - len(failures)):
                each.collected(data)
        return self._mark(command, numbers, command.keys, failures, data, each)

    def _mark(
        self,
        command: Collect,
        numbers: Sequence[int],
        keys: bytes,
        failures: list[tuple[int, ErrorInfo, bytes]],
        data: bytes,
        each: EachAck | None,
    ) -> Collected:
        """These are collected, or have failed: marked with the next commit; what is to be said after it."""
        trouble = None
        if each is not None:
            data, trouble = each.newest, each.trouble
        elif self._ack_data is not None:
            try:
                data = self._ack_data() or data
            except BaseException as error:
                trouble = self._of_call(error, "ack_data")
        if failures:
            numbers, keys = _without({number for number, _, _ in failures}, numbers, keys)
        if self._journal is not None:
            self._journal.collected(command.task, numbers, keys, data)
        told = [] if each is None else each.runs
        unfed = {} if self._feeder is None else self._feeder.take_failed()
        spans = spans_of(numbers)
        return Collected(command.task, spans, failures, data, command.attempt, trouble, told, unfed=unfed)

    def _tell_failed(self, command: CallFailed) -> None:
        self._begin_part()
        ungathered: dict[str, ErrorInfo] = {}
        if self._journal is not None:
            self._journal.failed(command.failures)
            if self._feeder is not None:
                for (task, _), error in self._feeder.fail(command.failures).items():
                    ungathered.setdefault(task, self._of_call(error, "gather="))
        told: dict[str, tuple[list[int], list[ErrorInfo]]] = {}
        for item in command.failures:
            numbers, troubles = told.setdefault(item.task, ([], []))
            numbers.append(item.number)
            if trouble := self._troubled(self._call_failed, item):
                troubles.append(trouble)
        for task, (numbers, troubles) in told.items():
            trouble = troubles[0] if troubles else None
            self._answer(FailedCalled(task, spans_of(numbers), trouble, ungathered=ungathered.get(task)))

    def _finish(self, command: CallFinished) -> None:
        journal = self._journal
        if journal is not None:
            journal.over(command.ok, command.counts)
            self._settle()
        try:
            data = self._call_finished(command) or b""
        except (JournalLost, CallCancelled):
            raise
        except BaseException as error:
            trouble = self._of_call(error, "finished")
            if journal is not None:
                # what it returned may have been refused after its rows were accepted
                journal.rollback()
            self._post(FinishedCalled(trouble))
            return
        if journal is not None:
            journal.finish()
            self._settle()
        self._post(FinishedCalled(None, data))

    def _troubled(self, call: Callable[..., object], argument: object) -> ErrorInfo | None:
        try:
            call(argument)
        except (JournalLost, CallCancelled):
            raise
        except BaseException as error:
            return self._of_call(error, "failed")
        return None

    def _of_item(self, error: BaseException, command: Collect, number: int, value: object) -> ErrorInfo:
        stage = "collector" if self._feeder is None else self._feeder.stage_of(number)
        trouble = self._failures.item(error, command.task, number, command.attempt, value, stage)
        self._count_on()
        return trouble

    def _of_call(self, error: BaseException, function: str) -> ErrorInfo:
        trouble = self._failures.call(error, function)
        self._count_on()
        return trouble

    def _count_on(self) -> None:
        try:
            self._sums.kick()
        except RuntimeError:
            _log.debug("No thread can be started to sum up failures: they are summed up at the end.")


class Collection:
    """What one Collect brought, and how much of it is done."""

    __slots__ = ("call", "command", "done", "numbers", "one_by_one", "values")

    def __init__(self, command: Collect) -> None:
        """Nothing of it is done."""
        self.command = command
        self.call: Callable[[Any], Any] | None = None
        """For all of them in turn, if something is made of them."""
        self.numbers = sequence_of(command.spans)
        self.done = 0
        values = open_all(command.payloads)
        self.one_by_one = values is None
        """One of them cannot be opened: it fails, and no other with it."""
        self.values: list[Any] = list(command.payloads) if values is None else values


class EachAck:
    """What goes along with the ACK of each item of a part, for gates: as (how many items in a row, data)."""

    def __init__(self, ack_data: Callable[[], bytes] | None, tell: Callable[[BaseException, str], ErrorInfo]) -> None:
        """`ack_data` is called after each item; `tell` makes an ErrorInfo of what that function raises."""
        self._ack_data = ack_data
        self._tell = tell
        self.runs: list[tuple[int, bytes]] = []
        self.trouble: ErrorInfo | None = None
        """What `ack_data` raised first."""

    @property
    def newest(self) -> bytes:
        """The data of the newest ACK."""
        return self.runs[-1][1] if self.runs else b""

    def collected(self, data: bytes) -> None:
        """One more item is collected; `data` are those that its function returned."""
        if self._ack_data is not None:
            try:
                data = self._ack_data() or data
            except BaseException as error:
                trouble = self._tell(error, "ack_data")
                self.trouble = self.trouble or trouble
        if self.runs and self.runs[-1][1] == data:
            self.runs[-1] = (self.runs[-1][0] + 1, data)
        else:
            self.runs.append((1, data))


def _numbered(call: Callable[[int, Any], Any], numbers: Iterator[int]) -> Callable[[Any], Any]:
    return lambda value: call(next(numbers), value)


def _opening(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: call(*given[:-1], unpack(given[-1]))


def _without(gone: set[int], numbers: Sequence[int], keys: bytes) -> tuple[list[int], bytes]:
    """These numbers, and their keys if they have any, but for some."""
    left = [at for at, number in enumerate(numbers) if number not in gone]
    digests = split_keys(keys)
    kept = b"".join([digests[at] for at in left]) if keys else b""
    return [numbers[at] for at in left], kept
