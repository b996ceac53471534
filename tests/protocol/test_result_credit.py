"""What a collector lets its workers send, and what a worker makes of it."""

from __future__ import annotations

from zmqpipeline.protocol.collection.outgoing import Outgoing
from zmqpipeline.protocol.collection.result_credit import Credits, first_credit
from zmqpipeline.protocol.data.segments import SegmentMap
from zmqpipeline.protocol.messages import Kept, Results
from zmqpipeline.protocol.peers import Link

BOUND = 1600
FIRST = first_credit(BOUND)


def told(credits: Credits, number: int = 1) -> dict[bytes, tuple[int, int]]:
    """Tell all who are to be told, in messages with this number: their credit, and what they may send beyond."""
    said = {who: (credit, once) for who, credit, once in credits.to_tell()}
    for who, (_, once) in said.items():
        credits.was_told(who, number, once)
    credits.check()
    return said


def test_half_of_the_bound_is_divided_among_the_workers() -> None:
    """One has all of it, two a half each, three a quarter; what was lowered counts until it is confirmed."""
    credits = Credits(BOUND)
    credits.join(b"a")
    assert told(credits) == {b"a": (800, 0)}
    credits.join(b"b")
    assert told(credits, 2) == {b"a": (400, 0), b"b": (400, 0)}
    credits.join(b"c")
    assert told(credits, 3) == {b"a": (200, 0), b"b": (200, 0), b"c": (200, 0)}
    # 800 + 400 + 200 may still be believed in: the first that asks is given its message, the second waits for the word
    credits.said(b"c", 200, 300, 3)
    assert told(credits, 4) == {b"c": (200, 300)}
    credits.said(b"b", 400, 300, 2)
    assert told(credits, 5) == {}
    credits.said(b"a", 200, 0, 3)
    assert told(credits, 6) == {b"b": (200, 300)}


def test_so_many_workers_that_their_first_credits_are_more_than_the_bound_send_large_messages_together() -> None:
    """Each is told a smaller share; before that was so, one at a time was given a message."""
    credits = Credits(BOUND)
    workers = [b"%d" % number for number in range(64)]
    for who in workers:
        credits.join(who)
    assert len(workers) * FIRST > BOUND
    share = BOUND // 2 // len(workers)
    assert told(credits) == dict.fromkeys(workers, (share, 0))
    for who in workers:
        credits.said(who, share, 200, 1)
    given = {who: once for who, (_, once) in told(credits, 2).items() if once}
    assert given == dict.fromkeys(workers[:4], 200)
    # one that comes late believes in its first credit, until it has heard
    credits.leave(b"63")
    credits.join(b"late")
    assert told(credits, 3) == {b"late": (share, 0)}
    credits.said(b"late", share, 0, 3)
    credits.check()


def test_a_value_larger_than_the_bound_passes_alone() -> None:
    """It waits until nothing beyond the shares is under way, and so does the next one."""
    credits = Credits(BOUND)
    for who in (b"a", b"b"):
        credits.join(who)
    told(credits)
    credits.said(b"a", 400, 5000, 1)
    credits.said(b"b", 400, 6000, 1)
    assert told(credits, 2) == {b"a": (400, 5000)}
    credits.arrived(b"a", 1, [bytes(5000)])
    credits.said(b"a", 400, 0, 2)
    assert told(credits, 3) == {}
    credits.called(1, 0)
    assert told(credits, 4) == {b"b": (400, 6000)}


def test_what_a_dead_worker_was_given_comes_back() -> None:
    """The next one that asks is given it."""
    credits = Credits(BOUND)
    for who in (b"a", b"b"):
        credits.join(who)
    told(credits)
    credits.said(b"a", 400, 5000, 1)
    credits.said(b"b", 400, 6000, 1)
    told(credits, 2)
    credits.leave(b"a")
    assert told(credits, 3)[b"b"] == (400, 6000)


def test_who_was_given_a_message_and_keeps_nothing_is_asked_while_another_waits() -> None:
    """Its answer was lost, and it says nothing by itself: what it was given would never come back."""
    credits = Credits(BOUND)
    for who in (b"a", b"b"):
        credits.join(who)
    told(credits)
    credits.said(b"a", 400, 5000, 1)
    assert told(credits, 2) == {b"a": (400, 5000)}
    credits.said(b"b", 400, 6000, 1)
    assert told(credits, 3) == {}
    credits.said(b"b", 400, 6000, 1)
    assert told(credits, 3) == {b"a": (400, 0)}
    assert told(credits, 4) == {}
    credits.said(b"a", 400, 0, 3)
    assert told(credits, 4) == {b"b": (400, 6000)}


def test_a_worker_that_has_forgotten_its_credit_is_told_again() -> None:
    """Its connection broke and came back, and nobody here had noticed."""
    credits = Credits(BOUND)
    credits.join(b"a")
    told(credits, 7)
    credits.said(b"a", FIRST, 0, 6)
    assert told(credits) == {}, "the word is still on its way"
    credits.said(b"a", FIRST, 0, 7)
    assert told(credits, 8) == {b"a": (800, 0)}


def test_failing_results_count_until_they_are_told_to_the_failed_function() -> None:
    """The collector's function raised for one of two: its bytes are held until `failed` was called."""
    credits = Credits(BOUND)
    credits.join(b"a")
    credits.arrived(b"a", 2, [bytes(10), bytes(20)])
    credits.called(2, 20)
    assert credits.queued == 20
    credits.failed_called()
    assert credits.queued == 0
    credits.check()


def outgoing(*sizes: int) -> Outgoing:
    """A connected worker that has results of these sizes, numbered from 0, and has tried to send each."""
    kept: SegmentMap[int] = SegmentMap()
    one = Outgoing("A", kept, {}, Link(b"w"), ("results", b""), max_held_bytes=BOUND)
    one.is_connected = True
    for number, size in enumerate(sizes):
        before = kept.size
        kept.add(number, [bytes(size)], 1)
        one.observe(1, before)
        one.send(1, (number, number + 1), [bytes(size)])
        one.check()
    return one


def sent(one: Outgoing) -> list[int]:
    """The first numbers of the messages with results."""
    bodies = [command.envelope.body for command in one.out]  # type: ignore[attr-defined]
    return [body.spans[0] for body in bodies if isinstance(body, Results)]


def test_what_is_beyond_the_credit_waits_and_asks() -> None:
    """In order; a small one behind a large one waits, too; what it asks for is the next message."""
    one = outgoing(60, 300, 10)
    assert sent(one) == [0]
    one.send_unsent(0.0)
    kept = one.out[-1].envelope.body  # type: ignore[attr-defined]
    assert isinstance(kept, Kept)
    assert (kept.spans, kept.credit, kept.wants) == ((0, 3), FIRST, 310)
    one.send_unsent(0.0, once=310)
    assert sent(one) == [0, 1]
    one.check()


def test_what_was_sent_since_is_not_missing() -> None:
    """The collector speaks of what it had seen then."""
    one = outgoing(10, 10)
    assert sent(one) == [0, 1]
    one.is_missing((0, 2), confirmed=1)
    assert one.unsent_bytes == 10
    assert one.next_message() == (1, (0, 1), [bytes(10)])


def test_a_worker_is_full_at_half_of_its_bound_until_a_quarter() -> None:
    """And wants no more items than have results of the other half."""
    one = outgoing(*[100] * 8)
    assert one.turns()
    assert one.is_full
    assert one.most_items(1) == 8
    one.drop(0, 3)
    one.kept.cut(0, 3)
    assert not one.turns()
    one.drop(3, 4)
    one.kept.cut(3, 4)
    assert one.turns()
    assert not one.is_full
