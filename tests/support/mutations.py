"""Deliberate defects: each breaks the machines in one way that the simulation must find.

`mutated(name)` is a context manager that patches a machine for as long as it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.outgoing import Outgoing
from zmqpipeline.protocol.collection.result_credit import Credits
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.collected import CollectedItems
from zmqpipeline.protocol.data.dedup import DedupKeys
from zmqpipeline.protocol.delivery.dispatcher import Dispatcher
from zmqpipeline.protocol.delivery.gates import AckLog
from zmqpipeline.protocol.delivery.held import Held
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.lifespan import Lifespan
from zmqpipeline.protocol.delivery.parts import Parts
from zmqpipeline.protocol.delivery.roster import Roster
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.transitions import TaskMoves
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.peers import Link, Verdict
from zmqpipeline.protocol.worker import WorkerMachine

Patch = tuple[Any, str, Any]


def _no_reack() -> list[Patch]:
    """The collector does not acknowledge again, and does not tell what it holds when it is asked a second time."""

    def holding(self: CollectorMachine, progress: list[m.TaskProgress]) -> m.Holding:
        return m.Holding(self.run, self.phase == "finished", self.metadata, self.count, [])

    return [
        (CollectorMachine, "_ack_again", lambda self, task, spans: None),
        (CollectorMachine, "_holding", holding),
    ]


def _no_dedupe() -> list[Patch]:
    """The collector calls its function for every result that arrives."""
    return [(CollectedItems, "unseen", lambda self, spans: self.pending.missing(spans))]


def _leases_kept() -> list[Patch]:
    """A lost worker's items are not given to others."""

    def lost(self: Ledger, worker: bytes, **_: Any) -> tuple[int, list[m.FailedItem]]:
        return 0, []

    return [(Ledger, "lost", lost)]


def _early_end() -> list[Patch]:
    """The distributor ends the run when the sources are exhausted, whatever is still out."""
    return [(TaskState, "is_over", property(lambda self: self.state in ("exhausted", "complete", "aborted", "failed")))]


def _results_dropped() -> list[Patch]:
    """A worker keeps no results after it has sent them."""
    keep = WorkerMachine._keep

    def dropping(self: WorkerMachine, numbers: list[int], payloads: list[bytes], attempt: int) -> None:
        keep(self, numbers, payloads, attempt)
        self._kept.clear()

    return [(WorkerMachine, "_keep", dropping)]


def _released_early() -> list[Patch]:
    """The distributor releases what a worker reports as done, before the collector has acknowledged it."""
    report = Dispatcher._report

    def releasing(self: Dispatcher, body: m.WorkerReport, member: Any, link: Link) -> None:
        report(self, body, member, link)
        if member is not None and body.done and body.run == self.run:
            self._to(member, m.Settled(self.run, member.task, body.done))

    return [(Dispatcher, "_report", releasing)]


def _repeats_taken() -> list[Patch]:
    """Doubled messages are taken as fresh, and a worker executes again what it already holds."""
    admit = Link.admit

    def taking(self: Link, envelope: m.Envelope) -> Verdict:
        verdict = admit(self, envelope)
        return Verdict.FRESH if verdict is Verdict.REPEAT and envelope.number else verdict

    def all_new(self: Held, spans: m.Spans, payloads: list[bytes], attempt: int) -> Any:
        return spans, payloads

    return [(Link, "admit", taking), (Held, "new_of", all_new)]


def _no_resend() -> list[Patch]:
    """What was lost on the way to a worker is not sent again."""
    return [(Ledger, "reconcile", lambda self, worker, held, received: [])]


def _nothing_missing() -> list[Patch]:
    """The collector never asks for results that were lost on the way."""

    def kept(self: CollectorMachine, peer: Any, body: m.Kept) -> None:
        self._send(peer, m.Missing(self.run, body.task, ()))

    return [(CollectorMachine, "_kept", kept)]


def _dependents_early() -> list[Patch]:
    """A dependent task begins as soon as the sources it waits for are exhausted."""

    def move(self: TaskMoves, task: TaskState, now: float) -> None:
        needed = [self.tasks[name] for name in task.spec.depends_on]
        if task.state == "waiting" and all(one.state != "waiting" for one in needed):
            task.state = "open"
        real(self, task, now)

    real = TaskMoves._move_task
    return [(TaskMoves, "_move_task", move)]


def _no_crash_limit() -> list[Patch]:
    """An item that kills its workers is sent again for ever."""
    lost = Ledger.lost

    def forgiving(self: Ledger, worker: bytes, *, crashed: bool, word: Any) -> tuple[int, list[m.FailedItem]]:
        return lost(self, worker, crashed=False, word=word)

    return [(Ledger, "lost", forgiving)]


def _comeback_unheard() -> list[Patch]:
    """A failure counts only as the attempt that the distributor believes the item to be at."""
    failed_at = Ledger.failed_at

    def deaf(self: Ledger, *given: Any) -> m.FailedItem | None:
        self._reclaimed.clear()
        return failed_at(self, *given[:4])

    return [(Ledger, "failed_at", deaf)]


def _keys_forgotten() -> list[Patch]:
    """The collector knows items by their numbers alone."""
    return [(CollectedItems, "new_of", lambda self, spans, keys: self.unseen(spans))]


def _keys_not_told() -> list[Patch]:
    """A collector does not tell a new distributor which keys are done, and that one does not wait for them."""
    return [
        (CollectorMachine, "_say_keys", lambda self, peer: None),
        (Parts, "lacks", lambda self, holding: False),
    ]


def _numbers_again() -> list[Patch]:
    """A new distributor gives the numbers of its forerunner to other keys."""

    def take_over(self: Ledger, base: int) -> None:
        self.keys.take_over()

    return [(Ledger, "take_over", take_over)]


def _failed_keys_again() -> list[Patch]:
    """A new distributor sends again what had failed for good, when its source yields it for the first time."""
    return [(DedupKeys, "take_over", lambda self: None)]


def _said_before_done() -> list[Patch]:
    """The collector acknowledges a result before its function was called, and before it is in the journal."""
    results = CollectorMachine._results

    def early(self: CollectorMachine, peer: Any, body: m.Results) -> None:
        results(self, peer, body)
        if body.run == self.run and self.phase == "active":
            self._ack(body.task, body.spans, (), b"")

    return [(CollectorMachine, "_results", early)]


def _running_returned() -> list[Patch]:
    """A worker that is asked for unstarted items hands back those that run, too, and finishes them all the same."""

    def taken_back(self: WorkerMachine, numbers: list[int], now: float) -> None:
        if self._next_run is None and self.phase != "ended":
            self._to_distributor(m.ItemsReturned(self.run, self.task, self._pending.spans()))
        real(self, numbers, now)

    real = WorkerMachine._taken_back
    return [(WorkerMachine, "_taken_back", taken_back)]


def _journal_half_read() -> list[Patch]:
    """A collector does not take over from its journal what had failed."""
    restored = CollectorMachine._restored

    def half(self: CollectorMachine, event: e.Restored, now: float) -> None:
        progress = [replace(one, failed=(), failed_keys=0) for one in event.progress]
        restored(self, replace(event, progress=progress, failed_keys={}), now)

    return [(CollectorMachine, "_restored", half)]


def _metadata_forgotten() -> list[Patch]:
    """A distributor that takes over a run does not take over its metadata."""
    take_over = DistributorMachine._take_over

    def forgetful(self: DistributorMachine, holding: m.Holding, now: float) -> None:
        take_over(self, replace(holding, metadata=b""), now)

    return [(DistributorMachine, "_take_over", forgetful)]


def _ack_data_forgotten() -> list[Patch]:
    """A distributor that has not heard some ACKs is not told what they carried."""
    return [(AckLog, "after", lambda self, number: [])]


def _never_recalled() -> list[Patch]:
    """Nothing is taken back from behind a long item."""

    def look(self: Dispatcher, task: TaskState | None, name: str) -> None:
        del self._recalls[name]

    return [(Dispatcher, "_look_for_stuck", look)]


def _absent_forgotten() -> list[Patch]:
    """A collector that has finished does not stay longer for a distributor that is cut off."""
    return [(CollectorMachine, "_stay_for_the_absent", lambda self, now: None)]


def _bye_once() -> list[Patch]:
    """A distributor says Bye once, and does not wait until it is answered."""

    def say_bye(self: DistributorMachine, status: int, reason: str, now: float) -> None:
        self._to_collector(m.Bye(self.run))
        self._end(status, reason)

    return [(DistributorMachine, "_say_bye", say_bye)]


def _finished_too_soon() -> list[Patch]:
    """A collector says that the run is finished while its `finished` function runs."""
    holding = CollectorMachine._holding

    def hasty(self: CollectorMachine) -> m.Holding:
        told = holding(self)
        return replace(told, finished=told.finished or told.finishing, finishing=False)

    return [(CollectorMachine, "_holding", hasty)]


def _finished_once_at_most() -> list[Patch]:
    """A collector whose journal says that all is done takes the run for finished, though `finished` never returned."""
    restored = CollectorMachine._restored

    def careless(self: CollectorMachine, event: e.Restored, now: float) -> None:
        restored(self, replace(event, finished=event.over), now)

    return [(CollectorMachine, "_restored", careless)]


def _claims_refused() -> list[Patch]:
    """What a worker says that it holds is not its own again, even if nobody else has it."""
    return [(Ledger, "_reclaim", lambda self, worker, number: False)]


def _not_alone() -> list[Patch]:
    """An item on its last try is given others beside it."""
    return [(Ledger, "is_alone", lambda self, worker: False)]


def _drained_at_once() -> list[Patch]:
    """A distributor that is drained does not wait for what is out."""
    drain = DistributorMachine._drain

    def hasty(self: DistributorMachine, deadline: float) -> None:
        drain(self, 0.0)

    return [(DistributorMachine, "_drain", hasty)]


def _drained_unsaid() -> list[Patch]:
    """A collector that is drained does not acknowledge what its thread has under way."""
    ack = CollectorMachine._ack

    def mute(self: CollectorMachine, *given: Any) -> None:
        if self.phase != "draining":
            ack(self, *given)

    return [(CollectorMachine, "_ack", mute)]


def _retired_at_once() -> list[Patch]:
    """A worker that retires does not wait until what it did is acknowledged."""

    def retire(self: WorkerMachine, reason: str, level: int, now: float) -> None:
        self._end(0, "drained")

    return [(WorkerMachine, "_retire", retire)]


def _never_retired() -> list[Patch]:
    """A worker executes more items than one process may."""
    return [(Lifespan, "left", lambda self, executed: 1 << 53)]


def _never_full() -> list[Patch]:
    """A worker takes items however much it keeps."""
    return [(Outgoing, "turns", lambda self: False), (Outgoing, "is_over", lambda self: False)]


def _credit_kept_of_the_dead() -> list[Patch]:
    """What a worker was given beyond its credit is not given to another one when it dies."""

    def leave(self: Credits, who: bytes) -> None:
        self._asking.pop(who, None)

    return [(Credits, "leave", leave)]


def _full_forgotten() -> list[Patch]:
    """A worker that held as much as it may gets no more before its next report, however much was acknowledged."""
    return [(Roster, "holds_less", lambda self, who: who in self.with_credit)]


def _released_unsaid() -> list[Patch]:
    """Who may drop what is done is not told when the time has come, but with its next item or report."""

    def release_all(self: Dispatcher) -> None:
        self.release_at = None

    return [(Dispatcher, "release_all", release_all)]


MUTATIONS: dict[str, Callable[[], list[Patch]]] = {
    "no-reack": _no_reack,
    "no-dedupe": _no_dedupe,
    "leases-never-returned": _leases_kept,
    "end-before-last-ack": _early_end,
    "results-dropped": _results_dropped,
    "released-early": _released_early,
    "repeats-taken": _repeats_taken,
    "no-resend": _no_resend,
    "nothing-missing": _nothing_missing,
    "dependents-early": _dependents_early,
    "no-crash-limit": _no_crash_limit,
    "comeback-unheard": _comeback_unheard,
    "keys-forgotten": _keys_forgotten,
    "keys-not-told": _keys_not_told,
    "numbers-again": _numbers_again,
    "failed-keys-again": _failed_keys_again,
    "said-before-done": _said_before_done,
    "running-returned": _running_returned,
    "journal-half-read": _journal_half_read,
    "metadata-forgotten": _metadata_forgotten,
    "ack-data-forgotten": _ack_data_forgotten,
    "never-recalled": _never_recalled,
    "absent-forgotten": _absent_forgotten,
    "bye-once": _bye_once,
    "finished-too-soon": _finished_too_soon,
    "finished-once-at-most": _finished_once_at_most,
    "claims-refused": _claims_refused,
    "not-alone": _not_alone,
    "drained-at-once": _drained_at_once,
    "drained-unsaid": _drained_unsaid,
    "retired-at-once": _retired_at_once,
    "never-retired": _never_retired,
    "never-full": _never_full,
    "credit-kept-of-the-dead": _credit_kept_of_the_dead,
    "full-forgotten": _full_forgotten,
    "released-unsaid": _released_unsaid,
}


@contextmanager
def mutated(name: str | None, known: Mapping[str, Callable[[], list[Patch]]] = MUTATIONS) -> Iterator[None]:
    """The machines with this defect, one of the `known` ones, or as they are."""
    patches = known[name]() if name else []
    started = [mock.patch.object(owner, attribute, value) for owner, attribute, value in patches]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in reversed(started):
            one.stop()
