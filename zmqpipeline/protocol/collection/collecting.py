"""The collector machine's results: what is called, acknowledged and answered by its thread, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.acks import Acks
from zmqpipeline.protocol.collection.pauses import KeptPauses
from zmqpipeline.protocol.collection.result_credit import Credits, bytes_of
from zmqpipeline.protocol.credit import MAX_BATCH, MAX_BATCH_BYTES
from zmqpipeline.protocol.data.collected import CollectedItems, Gathered
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import first_of, numbers_of, size, spans_of
from zmqpipeline.protocol.delivery.failing import sent_kinds
from zmqpipeline.protocol.delivery.failure_kinds import FailedItems, told
from zmqpipeline.protocol.delivery.parts import in_parts
from zmqpipeline.protocol.delivery.workers import MAX_NAME_LENGTH, Links
from zmqpipeline.protocol.early_end import EarlyEnd
from zmqpipeline.protocol.missed_run import Stay
from zmqpipeline.protocol.peers import Link, ViolationLog

MAX_TASKS = 10_000
"""Results of so many tasks are taken while no distributor has named its tasks: the run comes from a journal."""

FAILING_SECONDS = 1.0
"""So often the distributor is told why items failed, at most."""


class CollectedResults:
    """What a collector machine holds, does with results, and says of them; see `protocol.collector`."""

    def __init__(  # noqa: PLR0915 - all that it knows
        self,
        pipeline: str,
        *,
        incarnation: bytes,
        options: Options | None = None,
        is_dict: Callable[[bytes], bool] = lambda packed: True,
        stay: float = 0.0,
        age: float | None = None,
        commits: Callable[[], tuple[int, float]] = lambda: (0, 0.0),
    ) -> None:
        """`is_dict` tells whether a packed value is a dict: what is in one is not known here.

        `stay`: one that is ended by its user within so many seconds from its first event on stays until they are over,
        so that those who try to connect from time to time hear of it. `age` is that of `EarlyEnd`. `commits` tells how
        many transactions the journal has written, and how long these took.
        """
        self._commits = commits
        self.pipeline = pipeline
        self.phase = "empty"
        self.run = ""
        self.metadata = b""
        self.counts: list[m.TaskCounts] = []
        self.ok = False
        self.inherited = 0
        """How many of these were done before this process came to the run."""
        self.inherited_failed = 0
        """How many of those had failed."""
        self.troubles: dict[str, m.ErrorInfo] = {}
        """What the functions beside the one for results raised first: ack_data, failed, finished, gather=."""
        self.failed = FailedItems()
        self.unsent: dict[str, m.ErrorInfo] = {}
        """By task, why not everything was sent: the distributor's word."""
        self.early = ""
        """Why the run ended before its time, if it did so by the distributor's word."""
        self._is_final = False
        self._was_left = False
        """The distributor has said Bye, and no other has come since."""
        self._told_early: set[e.Peer] = set()
        """Who was told so by us."""
        self.interrupted_at: float | None = None
        """When its user has ended it, and the run with it, before that was over."""
        self._early_end = EarlyEnd(age)
        self._unready_lines = 0
        self._stay_young = Stay(stay)
        self._pauses = KeptPauses()
        self._options = options or Options()
        self._tasks = Gathered()
        self._acks = Acks()
        self._links = Links(incarnation)
        self._violations = ViolationLog()
        self._credits = Credits(self._options.max_held_bytes)
        self._is_dict = is_dict
        self._outboxes: dict[str, m.Outbox] = {}
        """What there is for the tasks that results feed, as far as it is written down."""
        self._aside: e.Restored | None = None
        """What a journal holds that counts only if a distributor begins that run."""
        self._named: frozenset[str] = frozenset()
        """The tasks that the distributor has named; results of no others are taken."""
        self._distributor: e.Peer | None = None
        self._is_last = False
        """No distributor comes after this one."""
        self._was_served = False
        """A distributor of this run has spoken to this process."""
        self._has_failed, self._failing_at = False, 0.0
        """More has failed than the distributor was told of, and when it may be told."""
        self._calls = 0
        self._finish: m.Finish | None = None
        self._finished_data = b""
        self._was_finished = self.has_finished = False
        self._deadline: float | None = None
        self._drain_by: float | None = None
        self._company: e.Peer | None = None
        """The distributor that was heard last, also if it has not begun a run."""
        self._warn_at: float | None = None
        self._alone_since: float | None = None
        self._born = False
        self._out: list[c.Command] = []

    @property
    def count(self) -> int:
        """How many items are acknowledged so far."""
        return self._acks.count

    def _results(self, peer: e.Peer, body: m.Results) -> None:
        if body.run != self.run or self.phase != "active" or self._is_no_task(peer, body.task):
            return
        progress = self._task(body.task)
        new = progress.new_of(body.spans, body.keys)
        who = self._links.who(peer)
        if who is not None:
            self._credits.join(who)
        if new == body.spans:
            self._collect(who, progress, body, new, body.payloads, body.keys)
            return
        wanted = set(numbers_of(new))
        progress.duplicates += size(body.spans) - len(wanted)
        kept = [index for index, number in enumerate(numbers_of(body.spans)) if number in wanted]
        keys = split_keys(body.keys)
        self._ack_again(body.task, body.spans)
        left = b"".join([keys[index] for index in kept] if keys else ())
        self._collect(who, progress, body, new, [body.payloads[index] for index in kept], left)

    def _collect(
        self,
        who: bytes | None,
        progress: CollectedItems,
        body: m.Results,
        new: m.Spans,
        payloads: m.Blobs,
        keys: bytes,
    ) -> None:
        """Have the function called for these of the results; `keys` are theirs, joined."""
        if new:
            self._credits.arrived(who or b"", size(new), payloads)
            progress.tried(body.attempt, size(new))
            progress.expect(new, split_keys(keys))
            self._call(c.Collect(body.task, body.attempt, new, payloads, keys, self._acks.is_gated), size(new))

    def _kept(self, peer: e.Peer, body: m.Kept) -> None:
        if body.run == self.run and self.phase == "active" and not self._is_no_task(peer, body.task):
            link, who = self._link(peer), self._links.who(peer)
            if link is not None and who is not None:
                self._credits.join(who)
                self._credits.said(who, body.credit, body.wants, link.confirmed)
            unseen = first_of(self._task(body.task).unseen(body.spans))
            self._send(peer, m.Missing(self.run, body.task, unseen))

    def _ack_again(self, task: str, spans: m.Spans) -> None:
        progress = self._task(task)
        collected, failed = progress.collected.common(spans), progress.failed.common(spans)
        if collected or failed:
            # it is news to a distributor that has missed an ACK, and perhaps the newest one: that one's data go along
            newest, data = self._acks.newest
            self._tell_acks([], task, collected, failed, data, newest if newest != task else "")

    def _ack(
        self, task: str, collected: m.Spans, failed: m.Spans, data: bytes, each: Sequence[tuple[int, bytes]] = ()
    ) -> None:
        """Acknowledge what has just been done; `each` as in Collected."""
        notes = self._acks.add(task, size(collected) + size(failed), data, each)
        self._tell_acks(notes, task, collected, failed, data)

    def _tell_acks(
        self,
        notes: list[m.AckNote],
        task: str,
        collected: m.Spans,
        failed: m.Spans,
        data: bytes,
        data_of: str = "",
    ) -> None:
        if self._distributor is not None:
            known, queued = self._tasks.get(task) or CollectedItems(), self._credits.queued
            done = (collected, failed)
            given, commits = list(self._outboxes.values()), self._commits()
            for ack in self._acks.messages(self.run, notes, task, done, data, data_of, known, queued, given, commits):
                self._send(self._distributor, ack)

    def _call(self, command: c.Command, parts: int, *, failing: bool = False) -> None:
        """Count the calls that are out, so that the end can wait for them."""
        self._calls += parts
        if isinstance(command, c.CallFailed) and not failing:
            self._credits.call_failed(parts)
        self._do(command)

    def _call_failed(self, items: list[m.FailedItem], parts: int, *, failing: bool = False) -> None:
        self._has_failed = True
        for item in items:
            self.failed.add(item)
        self._call(c.CallFailed(items), parts, failing=failing)

    def _collected(self, event: e.Collected) -> None:
        done = size(event.spans) + len(event.failures)
        self._calls -= done
        self._credits.called(done, bytes_of([payload for _, _, payload in event.failures]))
        self._note("ack_data", event.trouble)
        self._give(event.outboxes)
        progress = self._task(event.task)
        if event.spans:
            progress.collect(event.spans)
        if event.failures:
            items = [
                m.FailedItem(
                    *(event.task, number, event.attempt, event.unfed.get(number, "collector")),
                    *(trouble, payload, progress.keys.of(number)),
                )
                for number, trouble, payload in event.failures
            ]
            self._call_failed(items, 1, failing=any(item.payload for item in items))
        if event.spans:
            self._ack(event.task, event.spans, (), event.data, event.each)

    def _failing_due(self) -> float | None:
        """When the distributor is to be told why items failed."""
        return self._failing_at if self._has_failed and self._distributor is not None else None

    def _tell_failing(self, now: float) -> None:
        """Tell it, if that is due: it is asked how the run stands, and has not seen all of them fail."""
        if not self._has_failed or self._distributor is None or self.phase == "ended":
            return
        if now >= self._failing_at:
            self._has_failed, self._failing_at = False, now + FAILING_SECONDS
            self._send(self._distributor, m.Failing(self.run, sent_kinds(self.failed.kinds)))

    def _failed_called(self, event: e.FailedCalled) -> None:
        self._calls -= 1
        self._credits.failed_called()
        self._note("failed", event.trouble)
        self._note("gather=", event.ungathered)
        self._give(event.outboxes)
        progress = self._task(event.task)
        progress.fail(event.spans)
        self._ack(event.task, (), event.spans, b"")

    def _give(self, outboxes: Sequence[m.Outbox]) -> None:
        """There is more for fed tasks: whoever is told of the results is told of that in the same message."""
        self._outboxes.update((one.task, one) for one in outboxes)

    def _given(self, event: e.Given) -> None:
        """No result gave these."""
        self._give(event.outboxes)
        self._tell_acks([], "", (), (), b"")

    def _fetch(self, body: m.Fetch) -> None:
        """Look up what is written down, no further."""
        known = self._outboxes.get(body.task)
        stop = min(body.start + min(body.count, MAX_BATCH), 0 if known is None else known.count)
        if self.phase == "active" and body.start < stop:
            pace = (body.now, body.apart, body.burst)
            self._do(c.Fetch(body.task, body.start, stop, min(body.max_bytes, MAX_BATCH_BYTES), *pace))

    def _fetched(self, event: e.Fetched) -> None:
        if self._distributor is not None and self.phase == "active":
            found = (event.spans, event.payloads, event.values, event.until)
            self._send(self._distributor, m.Fetched(self.run, event.task, *found))

    def _note(self, function: str, trouble: m.ErrorInfo | None) -> None:
        # the first one is kept; it was said where it was raised
        if trouble is not None:
            self.troubles.setdefault(function, trouble)

    def _is_no_task(self, peer: e.Peer, name: str) -> bool:
        """Whether nothing of this task is taken, since the pipeline has none of this name."""
        if name in self._tasks or (name in self._named if self._named else len(self._tasks) < MAX_TASKS):
            return False
        self._out += self._violations.note(
            peer, f"speaks of a task {name[:MAX_NAME_LENGTH]!r}, which this pipeline has not"
        )
        return True

    def _give_up(self, peer: e.Peer, failures: list[m.FailedItem]) -> None:
        new = []
        for item in failures:
            progress = self._task(item.task)
            if progress.new_of((item.number, item.number + 1), item.key):
                progress.expect((item.number, item.number + 1), [item.key] if item.key else [])
                progress.tried(item.attempts)
                new.append(item)
            else:
                self._ack_again(item.task, (item.number, item.number + 1))
        if new:
            self._call_failed(new, len({item.task for item in new}))
        # those that wait for their call by now, whether they came just now or before
        for task in {item.task for item in failures}:
            spans = spans_of([item.number for item in failures if item.task == task])
            if waits := self._task(task).pending.common(spans):
                self._send(peer, m.Noted(self.run, task, waits))

    def _say_keys(self, peer: e.Peer) -> None:
        """Before a Holding that answers a distributor without a run: the keys that its progress counts."""
        for part in self._tasks.messages(self.run) if self.run else ():
            self._send(peer, part)

    def _call_workers(self) -> None:
        """Every worker that spoke before the run began says again what it keeps."""
        for peer in self._links.peers():
            if peer[0] == "results":
                self._send(peer, m.Missing(self.run, "", ()))

    def _say_holding(self, peer: e.Peer) -> None:
        """Say all that is held, the ranges of it before, if they are many."""
        progress, parts = in_parts(self.run, self._tasks.told() if self.run else [], list(self._outboxes.values()))
        for part in parts:
            self._send(peer, part)
        self._send(peer, self._holding(progress))
        # it may be another one, which knows of no failure
        self._has_failed = bool(self.failed.kinds)

    def _holding(self, progress: list[m.TaskProgress]) -> m.Holding:
        finished, finishing = self.phase == "finished", self.phase == "finishing"
        end = (finishing, self._is_good(), self.counts) if finished or finishing else (False, True, [])
        acks, outboxes = (*self._acks.newest, self._acks.kept_from), list(self._outboxes.values())
        given = (outboxes, self._pauses.left())
        return m.Holding(self.run, finished, self.metadata, self.count, progress, *acks, *end, *given)

    def _is_good(self) -> bool:
        """Whether the exit status of a run that is over is 0, as far as it is known."""
        return self.ok and not self.troubles

    def _last_word(self) -> m.Finished:
        kinds = self.failed.of_stage("collector", "feed", "gather")
        return m.Finished(self.run, told(self.troubles), self._finished_data, kinds)

    def _keep_pauses(self, pauses: list[m.TaskPause]) -> None:
        self._pauses.told(pauses)
        self._do(c.KeepPauses(self._pauses.left()))

    def _task(self, name: str) -> CollectedItems:
        return self._tasks.of(name)

    def _link(self, peer: e.Peer) -> Link | None:
        who = self._links.who(peer)
        return self._links.link(who) if who is not None else None

    def _send(self, peer: e.Peer, body: m.Message) -> None:
        link = self._link(peer)
        if link is not None:
            self._do(c.Send(peer, link.wrap(body)))

    def _tell_credit(self, who: bytes, credit: int, once: int) -> None:
        peer, link = self._links.peer(who), self._links.link(who)
        if peer is not None and link is not None:
            self._credits.was_told(who, link.sent + 1, once)
            self._do(c.Send(peer, link.wrap(m.Credit(credit, once))))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)

    def _log(self, level: int, text: str) -> None:
        self._do(c.Log(level, text))
