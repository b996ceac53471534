"""The ledger, law by law: where an item is, and how often it is tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.ledgers import MEBIBYTE, TROUBLE, failure
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.leases import Batch, drop_claims_in
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.suspects import LastWord
from zmqpipeline.serialization.pack import pack
from zmqpipeline.serialization.traced import SpanId, attempted, traced, tried


def ledger(items: int = 0, **spec: Any) -> Ledger:
    """A ledger of so many items, whose payloads are their numbers."""
    made = Ledger(TaskSpec("A", **spec))
    made.add([b"%d" % number for number in range(items)])
    return made


def take(one: Ledger, worker: bytes = b"w1", count: int = 10, slots: int = 10, message: int = 0) -> Batch:
    """What this worker is given; it must be something."""
    batch = one.take(worker, count, slots, MEBIBYTE, message)
    assert batch is not None
    return batch


def test_a_batch_is_taken_in_order() -> None:
    """Fresh items go out as they were yielded, and a lost batch before anything fresh."""
    one = ledger(6)
    assert numbers_of(take(one, b"w1", 2).spans) == [0, 1]
    assert numbers_of(take(one, b"w2", 2).spans) == [2, 3]
    one.hand_back(b"w1", [0, 1])
    assert numbers_of(take(one, b"w2", 2).spans) == [0, 1]
    assert numbers_of(take(one, b"w2", 9).spans) == [4, 5]


def test_bytes_cut_a_batch_but_not_an_item() -> None:
    """A batch ends before it is too large; an item that is too large for any batch goes alone."""
    one = ledger()
    one.add([b"x" * 100, b"y", b"z" * 60, b"z" * 60])
    sizes = []
    while (batch := one.take(b"w1", 9, 9, 64)) is not None:
        sizes.append([len(payload) for payload in batch.payloads])
    assert sizes == [[100], [1, 60], [60]]
    assert one.lease_bytes(b"w1") == 221


def test_a_key_that_is_out_is_skipped() -> None:
    """However often a key is yielded, it is one item, whether it waits, is leased, or is done."""
    one = ledger()
    one.add([b"a", b"b", b"a"], [b"ka", b"kb", b"ka"])
    take(one, count=1)
    one.acknowledge((0, 1), ())
    one.add([b"a", b"b"], [b"ka", b"kb"])
    assert one.skipped == 3
    assert one.next_number == 2
    one.check()


def test_a_key_whose_item_failed_may_come_again() -> None:
    """A failed item frees its key, a collected one never does."""
    one = ledger()
    one.add([b"a"], [b"ka"])
    one.acknowledge((), (0, 1))
    one.add([b"a"], [b"ka"])
    assert (one.skipped, one.waiting, one.next_number) == (0, 1, 2)
    one.check()


def test_what_was_done_in_an_earlier_life_is_passed_over() -> None:
    """A source that is run again yields the same items; those done are numbered and not sent."""
    one = ledger()
    one.acknowledge((0, 2), (3, 4))
    one.add([b"0", b"1", b"2", b"3", b"4"])
    assert numbers_of(take(one).spans) == [2, 4]
    assert one.next_number == 5
    one.check()


def test_a_claim_becomes_a_lease_when_the_item_is_yielded() -> None:
    """A worker that holds an item of an earlier life keeps it: it is not sent to another when the source yields it."""
    one = ledger()
    one.take_over(0)
    assert one.reconcile(b"w1", RangeSet((1, 2)), 0) == ()
    one.add([b"0", b"1"])
    assert numbers_of(take(one, b"w2").spans) == [0]
    assert one.is_with(b"w1", 1)
    assert one.acknowledge((1, 2), ()) == {b"w1": [1, 2]}
    one.check()


def test_a_failure_of_a_claimed_item_counts_whatever_its_attempt() -> None:
    """Which attempt a worker of an earlier life is at is known to it alone: its failure is heard, not ignored."""
    one = ledger(retries=0)
    one.take_over(0)
    one.reconcile(b"w1", RangeSet((0, 1)), 0)
    one.add([b"0"])
    given_up = one.failed_at(b"w1", failure(0, attempts=3), 0.0, 1.0)
    assert given_up is not None
    assert given_up.attempts == 3
    one.check()


def test_a_claim_ends_with_its_own_number() -> None:
    """However many there are, or however many numbers are acknowledged at once."""
    claims = dict.fromkeys(range(10, 20), b"w1")
    drop_claims_in(claims, 12, 14)
    assert sorted(claims) == [10, 11, *range(14, 20)]
    drop_claims_in(claims, 11, 1 << 60)
    assert sorted(claims) == [10]
    drop_claims_in(claims, 0, 1 << 60)
    assert not claims
    drop_claims_in(claims, 0, 1 << 60)


def test_claims_end_with_the_source_the_worker_or_the_ack() -> None:
    """A claim on a number that never comes is forgotten."""
    one = ledger()
    one.take_over(0)
    one.reconcile(b"w1", RangeSet((0, 3)), 0)
    one.reconcile(b"w2", RangeSet((5, 6)), 0)
    one.acknowledge((0, 1), ())
    one.lost(b"w1", crashed=True, word=LastWord())
    assert one._claims == {5: b"w2"}
    one.drop_claims()
    assert one._claims == {}


def test_work_that_was_lost_on_the_way_goes_back() -> None:
    """A report that knows of message 7 and holds nothing of it hands back its items, and no later ones."""
    one = ledger(4)
    take(one, count=2, message=7)
    take(one, count=2, message=8)
    assert one.reconcile(b"w1", RangeSet((0, 1)), 7) == ()
    assert one.waiting == 1
    assert numbers_of(take(one, b"w2").spans) == [1]
    assert one.redelivered == 0, "it was never there, so that this is its first delivery"


def test_what_another_worker_has_may_be_kept_by_both() -> None:
    """A late result still counts: a worker thought lost keeps what it holds, though another one runs it now."""
    one = ledger(1)
    take(one, b"w1")
    one.lost(b"w1", crashed=True, word=LastWord())
    take(one, b"w2")
    assert one.reconcile(b"w1", RangeSet((0, 1)), 9) == ()
    assert one.is_with(b"w2", 0)


def test_what_is_done_or_given_up_may_be_dropped() -> None:
    """A worker that still keeps what is over is told to drop it."""
    one = ledger(3)
    take(one, b"w1")
    one.acknowledge((0, 1), (1, 2))
    assert one.failed_at(b"w1", failure(2), 0.0, 1.0) is not None
    assert one.reconcile(b"w1", RangeSet((0, 3)), 9) == (0, 3)


def test_a_connection_that_comes_back_was_no_crash() -> None:
    """A worker that comes back with its item was not killed by it: the item is no suspect."""
    one = ledger(1, crash_limit=2)
    take(one, b"w1")
    for _ in range(5):
        one.lost(b"w1", crashed=True, word=LastWord())
        assert one.has_alone
        assert one.reconcile(b"w1", RangeSet((0, 1)), 9) == ()
        assert not one.has_alone
    assert one.lost(b"w1", crashed=True, word=LastWord())[1] == []
    one.check()


def test_a_worker_that_comes_back_is_no_loss_although_another_has_its_item() -> None:
    """Three connections that break one after the other have killed nobody; a worker that stays away counts on."""
    one = ledger(1, crash_limit=3)
    for worker in (b"w1", b"w2", b"w3"):
        take(one, worker, slots=1) if not one.has_alone else one.take_alone(worker)
        assert one.is_with(worker, 0)
        assert one.lost(worker, crashed=True, word=LastWord())[1] == []
        if worker != b"w2":
            one.reconcile(worker, RangeSet(), 9)
        one.check()
    assert one.has_suspects
    assert not one.has_alone
    for worker in (b"w4", b"w5"):
        take(one, worker, slots=1) if not one.has_alone else one.take_alone(worker)
        given_up = one.lost(worker, crashed=True, word=LastWord())[1]
    (item,) = given_up
    assert "3 workers were lost" in item.trouble.message
    one.check()


def test_a_worker_keeps_an_item_that_a_new_distributor_was_about_to_send() -> None:
    """The source was quicker than the worker's report: it is the worker's again all the same, and executed once."""
    one = ledger(3)
    one.take_over(0)
    assert one.reconcile(b"w1", RangeSet((1, 2)), 0) == ()
    assert one.is_with(b"w1", 1)
    assert numbers_of(take(one, b"w2", count=5).spans) == [0, 2]
    one.check()


def test_a_failure_of_a_reclaimed_item_is_heard() -> None:
    """The attempts that were counted while its worker was thought lost do not make its failure old news."""
    one = ledger(1, retries=1, backoff=2.0)
    take(one, b"w1")
    for _ in range(2):
        one.lost(b"w1", crashed=True, word=LastWord())
        one.reconcile(b"w1", RangeSet((0, 1)), 9)
    assert one.failed_at(b"w1", failure(0, attempts=1), 10.0, 1.0) is None
    assert one.next_due() == 12.0
    assert one.leased == 0
    one.check()


def test_an_attempt_that_raised_is_told_to_the_next_one() -> None:
    """By its span beside that of the item; an item without one, and a failure without one, stay as they are."""
    parent, before = SpanId(bytes(16), bytes(8), 1, 1.0), SpanId(bytes(16), bytes(range(8)), 1, 0.0)
    item = traced(pack({"n": 0}), parent, 1000)
    one = ledger(retries=2, backoff=0.0)
    one.add([item, b"plain", item])
    take(one)
    for number, span in ((0, attempted(before)), (1, attempted(before)), (2, b"")):
        failed = replace(failure(number), trouble=replace(TROUBLE, span=span))
        assert one.failed_at(b"w1", failed, 0.0, 1.0) is None
    one.ripen(1.0)
    one.check()
    batch = take(one, b"w2")
    assert list(batch.payloads) == [tried(item, attempted(before)), b"plain", item]
    one.check()


def test_a_failure_that_was_counted_is_not_counted_again_when_it_comes_back() -> None:
    """A worker that brings back only a failure that was heard before is told to drop it; no retry is used up."""
    one = ledger(1, retries=1, backoff=1.0)
    take(one, b"w1")
    assert one.failed_at(b"w1", failure(0, attempts=1), 0.0, 1.0) is None
    one.ripen(5.0)
    assert one.reconcile(b"w1", RangeSet((0, 1)), 9) == ()
    assert one.failed_at(b"w1", failure(0, attempts=1), 5.0, 1.0) is None
    assert not one.is_with(b"w1", 0)
    assert take(one, b"w1").attempt == 2
    assert one.failed_at(b"w1", failure(0, attempts=2), 6.0, 1.0) is not None
    one.check()


def test_a_retry_that_was_lost_on_the_way_is_sent_again() -> None:
    """Its worker, which knows of later messages, still reports the attempt before: it has not got the next one."""
    one = ledger(1, retries=1, backoff=1.0)
    take(one, b"w1")
    one.failed_at(b"w1", failure(0, attempts=1), 0.0, 1.0)
    one.ripen(5.0)
    take(one, b"w1", message=7)
    assert one.failed_at(b"w1", failure(0, attempts=1), 5.0, 1.0, received=6) is None
    assert one.is_with(b"w1", 0), "the next attempt may still be under way"
    assert one.failed_at(b"w1", failure(0, attempts=1), 5.0, 1.0, received=7) is None
    assert not one.is_with(b"w1", 0)
    assert take(one, b"w1").attempt == 2
    one.check()


def test_a_suspect_goes_to_a_free_slot_only() -> None:
    """After a crash an item is never prefetched; what was done with when the worker died is no suspect."""
    one = ledger(3)
    take(one, b"w1")
    one.lost(b"w1", crashed=True, word=LastWord(RangeSet((1, 2))))
    assert numbers_of(take(one, b"w2", slots=0).spans) == [1]
    assert one.take(b"w2", 10, 0, MEBIBYTE) is None
    assert numbers_of(take(one, b"w2", count=10, slots=1).spans) == [0]


def test_a_retry_of_a_suspect_goes_to_a_free_slot_only() -> None:
    """An item that was lost with a worker, and then raised in another, is no less suspected when it is tried again."""
    one = ledger(1, retries=1, backoff=1.0)
    take(one, b"w1")
    one.lost(b"w1", crashed=True, word=LastWord())
    take(one, b"w2")
    assert one.failed_at(b"w2", failure(0, attempts=2), 0.0, 1.0) is None
    one.ripen(9.0)
    assert one.take(b"w2", 10, 0, MEBIBYTE) is None
    one.check()


def test_the_last_try_is_for_a_worker_of_its_own() -> None:
    """An item that may not be lost once more is in no batch; whoever takes it is alone until it is over."""
    one = ledger(2, crash_limit=2)
    take(one, b"w1")
    one.lost(b"w1", crashed=True, word=LastWord(RangeSet((1, 2))))
    assert numbers_of(take(one, b"w2", slots=9).spans) == [1]
    assert one.take(b"w2", 10, 9, MEBIBYTE) is None
    batch = one.take_alone(b"w3")
    assert batch is not None
    assert (numbers_of(batch.spans), batch.attempt) == ([0], 2)
    assert one.is_alone(b"w3")
    assert not one.is_alone(b"w2")
    one.acknowledge((0, 1), ())
    assert not one.is_alone(b"w3")


def test_the_crash_limit_gives_an_item_up() -> None:
    """At the crash_limit-th loss it is failed, with the stage, the attempts and the limit said."""
    one = ledger(1, crash_limit=3)
    for worker in (b"w1", b"w2"):
        take(one, worker)
        assert one.lost(worker, crashed=True, word=LastWord()) == (1, [])
    assert one.take_alone(b"w3") is not None
    back, (item,) = one.lost(b"w3", crashed=True, word=LastWord())
    assert back == 0
    assert (item.stage, item.attempts, item.trouble.error) == ("crash", 3, "WorkerLost")
    assert "3 workers were lost" in item.trouble.message
    assert "crash_limit=3" in item.trouble.message


def test_the_back_off_doubles() -> None:
    """Each retry waits twice as long as the one before, times the jitter."""
    one = ledger(1, retries=3, backoff=1.0)
    waits = []
    for attempt in (1, 2, 3):
        take(one)
        one.failed_at(b"w1", failure(0, attempt), 100.0, 1.25)
        due = one.next_due()
        assert due is not None
        waits.append(due - 100.0)
        one.ripen(due)
    assert waits == [1.25, 2.5, 5.0]
    assert one.redelivered == 2


def test_a_late_success_cancels_the_retry() -> None:
    """An older attempt that was collected after all ends the item, though it waits for its back-off."""
    one = ledger(2, retries=1)
    take(one)
    one.failed_at(b"w1", failure(0), 0.0, 1.0)
    one.failed_at(b"w1", failure(1), 0.0, 1.0)
    one.acknowledge((0, 1), ())
    one.ripen(99.0)
    assert numbers_of(take(one).spans) == [1]
    one.check()


def test_an_ack_for_what_is_not_yielded_yet_counts_at_once() -> None:
    """Progress of an earlier life is known before the source has come so far."""
    one = ledger(1)
    assert one.acknowledge((0, 10), ()) == {}
    assert one.progress().collected == (0, 10)
    assert one.counts("open").collected == 10
