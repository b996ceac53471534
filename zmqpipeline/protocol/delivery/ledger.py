"""Where every item of one task is, from the moment it is yielded until it is acknowledged.

An item is in exactly one of these places (`check` proves it):

===========  =========================================================================================================
place        meaning
===========  =========================================================================================================
fresh        yielded, never sent
returned     was with a worker that is gone, or handed it back; sent again before anything fresh
suspect      was lost with a worker while it may have been running: only ever sent to a free thread
group        the same, as one of a crowd (`suspects`): some go together to a worker that holds nothing else
last try     the next such loss is its last: only ever sent to a worker that holds nothing else, and stays alone there
later        its function raised; it is sent again when its back-off is over
leased       with one worker, until the ACK
given up     failed for good; the collector has been told, its ACK is awaited
done         acknowledged: kept as ranges only
===========  =========================================================================================================

What is known of them, and asked without a change, is in `protocol.delivery.item_states`.

The packed item is kept until `done`, so that it can be sent again. What is common (yielded, sent once, acknowledged) is
kept as runs of neighbours, and costs a few operations a batch. As soon as anything else happens to an item it is
singled out, into dictionaries that are empty as a rule.
"""

from __future__ import annotations

from collections import OrderedDict

from zmqpipeline.errors import Retry
from zmqpipeline.protocol import credit
from zmqpipeline.protocol.data.dedup import NEW, UNDER_WAY
from zmqpipeline.protocol.data.ranges import RangeSet, first_of, merged, numbers_of, pairs, size, spans_of
from zmqpipeline.protocol.delivery.failures import killer_of_workers, too_large
from zmqpipeline.protocol.delivery.item_states import ItemStates
from zmqpipeline.protocol.delivery.leases import (
    MAX_ATTEMPTS,
    MAX_CLAIMS,
    Batch,
    FirstDelivery,
    drop_claims_in,
    to_judge,
)
from zmqpipeline.protocol.delivery.suspects import LastWord
from zmqpipeline.protocol.error_info import NEVER_RETRIED, RETRY
from zmqpipeline.protocol.messages import Blobs, ErrorInfo, FailedItem, Spans
from zmqpipeline.serialization.traced import tried


class Ledger(ItemStates):
    """The items of one task. Workers are named by their incarnation."""

    # what others say ---------------------------------------------------------------------------------------------

    def learn_repeated(self, repeated: int) -> None:
        """The collector says that so many of the collected items are of keys that were done before."""
        self.repeated = min(max(self.repeated, repeated), len(self.collected))

    def learn_counts(self, redelivered: int, duplicates: int) -> None:
        """The collector knows of so many.

        It counts attempts, and one is also begun if a worker was lost that came back with its items. So whoever has
        delivered all that was delivered knows better.
        """
        if not self._is_first:
            self.redelivered = max(self.redelivered, redelivered)
        self.duplicates = max(self.duplicates, duplicates)

    def take_over(self, base: int, now: float = 0.0) -> None:
        """An earlier distributor's run goes on here; items with keys are numbered from `base` on."""
        self._is_first = False
        if self.pace is not None:
            self.pace.take_over(now)
        if self.spec.keyed:
            self.next_number = self.first_number = base
            self.keys.take_over()

    # yielded -----------------------------------------------------------------------------------------------------

    def add(
        self,
        payloads: Blobs,
        keys: Blobs | None = None,
        *,
        values: Blobs | None = None,
        max_bytes: int = credit.NO_LIMIT,
    ) -> list[FailedItem]:
        """Number the items that the source yielded; those done in an earlier life of this run are passed over.

        Items of more than `max_bytes` are given up at once, and returned: sent, they would be refused for ever.
        `values` are those that a rate goes by.
        """
        start = self.next_number
        total = sum(map(len, payloads))
        too_large = total > max_bytes and max(map(len, payloads)) > max_bytes
        is_plain = keys is None and not too_large
        if is_plain and self.pace is None and not self._claims and start >= self._skip_until:
            self._fresh.add(start, list(payloads), None, total)
            self.next_number += len(payloads)
            return []
        if is_plain and not self._missing(start, start + len(payloads)):
            self.next_number += len(payloads)
            return []
        for i, payload in enumerate(payloads):
            self._add_one(payload, keys[i] if keys else None, max_bytes, values[i] if values else b"")
        return [item for number, item in self.given_up.items() if number >= start] if too_large else []

    def pass_over(self, count: int) -> None:
        """The source has yielded so many of those that `done_ahead` counted."""
        self.next_number += count

    def _add_one(self, payload: bytes, key: bytes | None, max_bytes: int, value: bytes = b"") -> None:
        verdict = NEW if key is None else self.keys.judge(key)
        if verdict != NEW:
            self.skipped += verdict == UNDER_WAY
            self._passed += 1
            self._passed_in_a_row += 1
            return
        self._passed_in_a_row = 0
        number = self.next_number
        self.next_number += 1
        if number in self.collected or number in self.failed:
            return
        if key is not None:
            self.keys.open(number, key)
        if self.pace is not None:
            self.pace.values[number] = value
        if len(payload) > max_bytes:
            self._payloads[number] = b""
            self._give_up(number, "distributor", too_large(self.spec.task_type, len(payload), max_bytes))
            return
        owner = self._claims.pop(number, None)
        if owner is None and self.pace is None:
            self._fresh.add(number, [payload], None)
        elif owner is None:
            self._payloads[number] = payload
            self._again.returned[number] = None
        else:
            self._payloads[number] = payload
            self._leases.add([number], len(payload), owner, 0)
            self._reclaimed.add(number)

    # leased ------------------------------------------------------------------------------------------------------

    def take(self, worker: bytes, count: int, slots: int, max_bytes: int, message: int = 0) -> Batch | None:
        """Choose up to `count` items for this worker, of which suspects only for its `slots` free threads.

        They are leased at once, and travel in the message with this number.
        """
        again = self._again
        if again.suspects and slots > 0:
            batch = self._take_from(again.suspects, worker, min(slots, count), max_bytes, message)
            if batch is not None or self.pace is None:
                return batch
        if again.returned:
            return self._take_from(again.returned, worker, count, max_bytes, message)
        return self._take_fresh(worker, min(count, credit.MAX_BATCH), max_bytes, message)

    def _take_fresh(self, worker: bytes, count: int, max_bytes: int, message: int) -> Batch | None:
        """Items from the front of those that were never sent, at least one of them if there is one."""
        parts = self._fresh.take_first(count, max_bytes)
        for part in parts:
            self._leases.first_delivery(part, worker, message)
        if len(parts) <= 1:
            return Batch(1, (parts[0].start, parts[0].stop), list(parts[0].payloads)) if parts else None
        spans = merged([end for part in parts for end in (part.start, part.stop)])
        return Batch(1, spans, [payload for part in parts for payload in part.payloads])

    def take_alone(self, worker: bytes, message: int = 0) -> Batch | None:
        """Lease an item on its last try, or a group of suspects, to this worker, which has nothing to do."""
        queue, count = self._again.next_alone()
        batch = self._take_from(queue, worker, count, credit.MAX_BATCH_BYTES, message)
        if batch is not None:
            self._alone[worker] = numbers_of(batch.spans)
        return batch

    def _take_from(
        self, queue: OrderedDict[int, None], worker: bytes, count: int, max_bytes: int, message: int
    ) -> Batch | None:
        """Items of one attempt number from the front of a queue, those of them that the rates of their values allow."""
        pace = self.pace
        numbers: list[int] = []
        total = 0
        attempt = 0
        for number in queue:
            size = len(self._payloads[number])
            one = self._prior.get(number, 0) + 1
            if numbers and (one != attempt or total + size > max_bytes):
                break
            if len(numbers) >= min(count, credit.MAX_BATCH):
                break
            if pace is not None and not pace.take(number):
                continue
            attempt = one
            total += size
            numbers.append(number)
        if not numbers:
            return None
        for number in numbers:
            del queue[number]
        numbers.sort()
        payloads = [self._payloads[number] for number in numbers]
        self._leases.add(numbers, sum(map(len, payloads)), worker, message)
        self.redelivered += len(numbers) if attempt > 1 else 0
        return Batch(attempt, spans_of(numbers), payloads, on_trial=queue is not self._again.returned)

    def _unlease(self, number: int) -> None:
        """Take an item that was singled out from the worker that holds it."""
        self._reclaimed.discard(number)
        self._leases.end(number, len(self._payloads[number]))

    def _single_out(self, runs: list[FirstDelivery]) -> None:
        for run in runs:
            self._payloads.update(zip(range(run.start, run.stop), run.payloads, strict=True))

    # done --------------------------------------------------------------------------------------------------------

    def acknowledge(self, collected: Spans, failed: Spans) -> dict[bytes, list[int]]:
        """The collector has these; the ranges that each worker may drop of them, as (start, stop, start, ...)."""
        released: dict[bytes, list[int]] = {}
        for spans, done in ((collected, self.collected), (failed, self.failed)):
            for start, stop in pairs(spans):
                self._close(start, stop, done, released)
        return released

    def _close(self, start: int, stop: int, done: RangeSet, released: dict[bytes, list[int]]) -> None:
        for low, high in pairs(self._missing(start, stop)):
            done.add(low, high)
            self._skip_until = max(self._skip_until, high)
            for run in self._leases.end_runs(low, high):
                released.setdefault(run.tag[0], []).extend((run.start, run.stop))
            if self._payloads:
                for number in self._singled_out_in(low, high):
                    self._close_one(number, released)
            # yielded again, and done after all by what a worker of an earlier life had kept
            self._fresh.cut(low, high)
            if self.keys:
                for number in range(max(low, self.first_number), min(high, self.next_number)):
                    self.keys.close(number, failed=done is self.failed)
            drop_claims_in(self._claims, low, high)

    def _singled_out_in(self, low: int, high: int) -> list[int]:
        """Those of these numbers that were singled out."""
        if high - low < len(self._payloads):
            return [number for number in range(low, high) if number in self._payloads]
        return sorted(number for number in self._payloads if low <= number < high)

    def _close_one(self, number: int, released: dict[bytes, list[int]]) -> None:
        worker = self._leases.owner.get(number)
        if worker is None:
            self._again.drop(number)
        else:
            self._unlease(number)
            released.setdefault(worker, []).extend((number, number + 1))
        del self._payloads[number]
        self._drop_rare(number)

    def _drop_rare(self, number: int) -> None:
        if self.pace is not None:
            self.pace.values.pop(number, None)
        self._prior.pop(number, None)
        self._raised.pop(number, None)
        self._raised_at.pop(number, None)
        self._reclaimed.discard(number)
        self._again.forget(number)
        self.told.discard(number)
        given_up = self.given_up.pop(number, None)
        if given_up is not None:
            self.given_up_bytes -= len(given_up.payload)

    # not done after all ------------------------------------------------------------------------------------------

    def failed_at(
        self, worker: bytes, item: FailedItem, now: float, jitter: float, received: int = 0
    ) -> FailedItem | None:
        """User code raised. The item if it is given up, else it comes again after its back-off.

        A report of an attempt that is no longer this worker's is old news. `jitter` is a factor, about 1. The back-off
        is ``backoff * 2 ** (times raised - 1)`` seconds. `received` is our last message that the worker knows of.
        """
        number, prior, attempts = item.number, self._prior.get(item.number, 0), item.attempts
        if not self._leases.is_with(worker, number):
            return None
        self._single_out(self._leases.single_out(number, number + 1))
        if number in self._reclaimed:
            attempts = min(attempts, MAX_ATTEMPTS)
            is_news, is_all = attempts > self._raised_at.get(number, 0), True
        else:
            is_news, is_all = attempts == prior + 1, 0 < self._leases.singly[worker][number] <= received
        if not is_news:
            if is_all:
                # It holds a failure that was counted before, and nothing else: the next attempt was lost on the way.
                self.hand_back(worker, [number])
            return None
        self._unlease(number)
        self._prior[number] = max(prior, attempts)
        self._raised_at[number] = attempts
        if item.trouble.span and item.stage == "worker":
            self._payloads[number] = tried(self._payloads[number], item.trouble.span)
        if item.trouble.error == RETRY and item.stage == "worker":
            self._again.put_off(number, now + Retry.read(item.trouble.message)[0])
            return None
        raised = self._raised[number] = self._raised.get(number, 0) + 1
        if raised <= self.spec.retries and item.stage == "worker" and item.trouble.error not in NEVER_RETRIED:
            delay = self.spec.backoff * 2.0 ** min(raised - 1, 30) * jitter
            self._again.put_off(number, now + delay)
            return None
        return self._give_up(number, item.stage, item.trouble)

    def _give_up(self, number: int, stage: str, trouble: ErrorInfo) -> FailedItem:
        attempts = self._prior.get(number, 0)
        payload, key = self._payloads[number], self.keys.of(number)
        failed = FailedItem(self.spec.task_type, number, attempts, stage, trouble, payload, key)
        self.given_up[number] = failed
        self.given_up_bytes += len(payload)
        return failed

    def note_told(self, spans: Spans) -> None:
        """The collector has these, which it was told are given up: they need not be told again."""
        known = RangeSet(spans)
        self.told.update(number for number in self.given_up if number in known)

    def ripen(self, now: float) -> None:
        """Put the retries that are due into the queue."""
        self._again.ripen(now)

    def hand_back(self, worker: bytes, numbers: list[int]) -> None:
        """Items that this worker never started go back to the queue, with nothing held against them."""
        for start, stop in pairs(spans_of(numbers)):
            self._single_out(self._leases.single_out(start, stop))
        mine = self._leases.singly.get(worker, {})
        for number in reversed(numbers):
            if number in mine:
                self._unlease(number)
                self._again.put(number)

    def lost(self, worker: bytes, *, crashed: bool, word: LastWord) -> tuple[int, list[FailedItem]]:
        """A worker is gone: how many items go back to the queue, and which are given up as killers of workers.

        Which of them are suspects follows from its last `word`. What it had not begun comes at the same attempt again.
        """
        back = 0
        given_up = []
        self._single_out(self._leases.single_out_of(worker))
        held = dict(self._leases.singly.get(worker, {}))
        suspects = word.suspects_of(held, self._again.losses) if crashed else set()
        begun = {*suspects, *word.finished_of(held)} if crashed else held
        is_exact, group = word.is_exact(suspects, held, self.spec.crash_limit), word.group_of(suspects)
        for number in sorted(held, reverse=True):
            self._unlease(number)
            if number in begun:
                self._prior[number] = self._prior.get(number, 0) + 1
            if number in suspects:
                self._again.blame(number, worker, group)
            losses = self._again.lost_with(number)
            if number in suspects and is_exact and losses >= self.spec.crash_limit:
                trouble = killer_of_workers(self.spec, number, losses)
                given_up.append(self._give_up(number, "crash", trouble))
            else:
                self._again.put(number)
                back += 1
        self._leases.forget(worker)
        self._alone.pop(worker, None)
        if self._claims:
            self._claims = {number: claimant for number, claimant in self._claims.items() if claimant != worker}
        return back, given_up

    # a worker's full report ------------------------------------------------------------------------------------------

    def reconcile(self, worker: bytes, held: RangeSet, received: int) -> Spans:
        """Compare with what a worker says it holds, having received our messages up to `received`.

        What was sent and is not there goes back to the queue; what it holds and nobody else was given is its own again.
        The answer is what it may drop.
        """
        if self._again.losses:
            self._again.clear_of_blame(worker)
        lost, others = self._leases.compare(worker, held, received)
        self.hand_back(worker, lost)
        claimed = self.sent_of(others.spans())
        may_drop = RangeSet(first_of(self.collected.common(claimed)))
        may_drop.update(first_of(self.failed.common(claimed)))
        undone = self.failed.missing(self.collected.missing(claimed))
        room = MAX_CLAIMS - len(self._claims)
        for number in to_judge(undone, self.first_number, self.next_number, room):
            if self._leases.owner.get(number) != worker and not self._reclaim(worker, number):
                may_drop.add(number, number + 1)
        return may_drop.spans()

    def _reclaim(self, worker: bytes, number: int) -> bool:
        """Whether the worker shall keep this item, which is not leased to it; if nobody has it, it is leased."""
        if number in self.collected or number in self.failed or number in self.given_up:
            return False
        if self.is_leased(number):
            return True
        for run in self._fresh.cut(number, number + 1):
            self._payloads[number] = run.payloads[0]
            self._again.returned[number] = None
        if number not in self._payloads:
            self._claims[number] = worker
            return True
        if not self._again.take(number):
            return False
        self._leases.add([number], len(self._payloads[number]), worker, 0)
        self._reclaimed.add(number)
        return True

    def drop_claims(self) -> None:
        """The source is exhausted: numbers that only a worker knows will never be yielded."""
        self._claims.clear()

    def abandon(self) -> None:
        """Give up every item that no worker holds: the run is interrupted, or the task aborted."""
        queued = self._again.numbers()
        for number in queued:
            del self._payloads[number]
            if self.pace is not None:
                del self.pace.values[number]
        fresh = self._fresh.spans()
        for number in (*queued, *numbers_of(fresh)) if self.keys else ():
            self.keys.forget(number)
        self.dropped += len(queued) + size(fresh)
        self._fresh.clear()
        self._again.clear()
