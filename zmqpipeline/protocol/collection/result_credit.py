"""How many bytes of results a collector lets its workers send; what they do with that, `outgoing` says.

The law:

* A result is **outstanding** from when it is sent until it is released: a worker sends while what is outstanding is
  within its **credit**, and asks when the next message is not (`Kept.wants`).
* Half of `max_held_bytes` is divided among the connected workers: each has a **share**, so that who sends ordinary
  results never asks. There are as many shares as the next power of two says, so that most workers that come or go
  change nothing. A worker begins with `first_credit`; it is told its share, larger or smaller.
* Who asks is given a **message** beyond its credit, in the order of the asking, if all that may be under way is then
  within `max_held_bytes`; or, however large it is, if nothing else beyond the shares is under way.
* Under way is, for each worker, the larger of its credit and of what is queued here from it, and what it was given
  beyond. A credit that was lowered counts until the worker says that it has heard of it.

So at most `max_held_bytes` and one value wait for the collector's function, or are on their way there, however many
workers there are; more only while many that have just come believe in their first credit (at most 64 KiB each).

It cannot stand still: what is queued is called, acknowledged and released, unless the collector's function does not
return; so the outstanding bytes of every worker fall to nothing, and nothing beyond the shares is under way: then the
first that asks is given what it asks for. Each word may be lost: `Kept` comes again each second, with the credit that
the worker believes in, and is answered by the right one. A worker that was given a message and keeps nothing any more
says no Kept by itself: while another one asks in vain, it is told its credit again, which it answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from zmqpipeline.protocol.messages import Blobs
from zmqpipeline.serialization.packed import Packed

FIRST_BYTES = 64 * 1024
"""A worker may send so many bytes before its collector has said anything; less, if little may be held."""


def first_credit(max_held_bytes: int) -> int:
    """What a worker may send before its collector has said anything."""
    return max(1, min(FIRST_BYTES, max_held_bytes // 16))


def bytes_of(payloads: Blobs) -> int:
    """How many bytes these have."""
    return len(payloads.data) if isinstance(payloads, Packed) else sum(map(len, payloads))


class _Giving:
    """What one worker may have under way."""

    __slots__ = ("most", "queued", "reserved", "reserved_at", "told", "told_at")

    def __init__(self, first: int) -> None:
        self.told = first
        """Its credit, as it was told last."""
        self.told_at = 0
        """The number of the message that told it."""
        self.most = first
        """The largest credit that it may still believe in."""
        self.queued = 0
        """The bytes that have come from it and are not called yet."""
        self.reserved = self.reserved_at = 0
        """What it was given beyond its credit, and the number of the message that said so."""

    @property
    def weight(self) -> int:
        """How many bytes of it may be under way."""
        return max(self.most, self.queued) + self.reserved

    @property
    def beyond(self) -> int:
        """How many of these are more than its credit."""
        return self.weight - self.most


class Credits:
    """What a collector lets its workers send; see the module. Workers are named by their incarnation."""

    def __init__(self, max_held_bytes: int) -> None:
        self.bound = max_held_bytes
        self.queued = 0
        """The bytes that wait for the collector's function."""
        self._first = first_credit(max_held_bytes)
        self._workers: dict[bytes, _Giving] = {}
        self._parts = 1
        self._short: dict[bytes, None] = {}
        """Those whose credit is less than their share."""
        self._lowered: dict[bytes, None] = {}
        """Those that are to be told of a smaller one."""
        self._asking: dict[bytes, int] = {}
        """Who has asked for a message, and of how many bytes; in that order."""
        self._given: dict[bytes, None] = {}
        """Who was given a message and has not said since that it has heard of it."""
        self._asked_again = False
        """Somebody who had asked has asked again, since those were told again."""
        self._calls: deque[tuple[_Giving, int, int]] = deque()
        """The results that wait for the collector's function, in order: whose they are, items, bytes."""
        self._called = 0
        """How many items of the first of these are done."""
        self._failing: deque[tuple[_Giving, int] | None] = deque()
        """The calls of the function for failed items that are under way, and what results are in them."""
        self._weight = self._beyond = 0

    @property
    def share(self) -> int:
        """The credit that each worker should have."""
        return max(1, self.bound // 2 // self._parts)

    # who is there ----------------------------------------------------------------------------------------------------

    def join(self, who: bytes) -> None:
        """This worker speaks here; nothing happens if it is known."""
        if who in self._workers:
            return
        one = self._workers[who] = _Giving(self._first)
        self._weight += one.weight
        if len(self._workers) > self._parts:
            self._divide(2 * self._parts)
        self._compare(who, one)

    def leave(self, who: bytes) -> None:
        """Its connection is gone: its credit is free again; what has come from it is still queued."""
        one = self._workers.pop(who, None)
        if one is None:
            return
        for places in (self._short, self._lowered, self._asking, self._given):
            places.pop(who, None)
        self._change(one, most=0, reserved=0)
        if self._parts > 1 and len(self._workers) * 4 < self._parts:
            self._divide(self._parts // 2)

    def _divide(self, parts: int) -> None:
        self._parts = parts
        for who, one in self._workers.items():
            self._compare(who, one)

    def _compare(self, who: bytes, one: _Giving) -> None:
        # no more than a share, also where the first credit is: else nobody could be given a message beyond it
        if one.told > self.share:
            one.told = self.share
            self._lowered[who] = None
            self._short.pop(who, None)
        elif one.told < self.share:
            self._short[who] = None

    def _change(
        self, one: _Giving, *, most: int | None = None, queued: int | None = None, reserved: int | None = None
    ) -> None:
        self._weight -= one.weight
        self._beyond -= one.beyond
        one.most = one.most if most is None else most
        one.queued = one.queued if queued is None else queued
        one.reserved = one.reserved if reserved is None else reserved
        self._weight += one.weight
        self._beyond += one.beyond

    # what they say ---------------------------------------------------------------------------------------------------

    def said(self, who: bytes, credit: int, wants: int, confirmed: int) -> None:
        """A worker's Kept: the credit that it believes in, what it asks for, and our last message that it has."""
        one = self._workers.get(who)
        if one is None:
            return
        if one.told_at <= confirmed and who not in self._lowered:
            if credit == one.told:
                self._change(one, most=credit)
            else:
                # it has forgotten, with its connection
                self._lowered[who] = None
        if one.reserved_at <= confirmed and one.reserved:
            self._change(one, reserved=0)
            self._given.pop(who, None)
        if not wants:
            self._asking.pop(who, None)
        elif not one.reserved:
            self._asked_again = self._asked_again or who in self._asking
            self._asking[who] = wants

    def arrived(self, who: bytes, items: int, payloads: Blobs) -> None:
        """These wait for the collector's function from now on."""
        one = self._workers.get(who)
        if one is None:
            one = _Giving(0)
        total = bytes_of(payloads)
        self.queued += total
        self._change_queued(one, total)
        self._calls.append((one, items, total))

    def called(self, items: int, failing: int) -> None:
        """The function was called for so many, the first that waited.

        Those of them for which it raised, which have `failing` bytes, are called again, as failed; 0 if there are none.
        """
        self._called += items
        last: _Giving | None = None
        while self._calls and self._called >= self._calls[0][1]:
            last, some, total = self._calls.popleft()
            self._called -= some
            self.queued -= total
            self._change_queued(last, -total)
        if failing:
            one = last or (self._calls[0][0] if self._calls else _Giving(0))
            self.queued += failing
            self._change_queued(one, failing)
            self._failing.append((one, failing))

    def call_failed(self, calls: int) -> None:
        """So many calls of the function for failed items are asked for, which have no results."""
        self._failing.extend([None] * calls)

    def failed_called(self) -> None:
        """The first of those calls has returned."""
        found = self._failing.popleft() if self._failing else None
        if found is not None:
            one, total = found
            self.queued -= total
            self._change_queued(one, -total)

    def _change_queued(self, one: _Giving, more: int) -> None:
        if one.queued + more <= one.most and one.queued <= one.most:
            # as a rule, and the sums stay as they are
            one.queued += more
        else:
            self._change(one, queued=one.queued + more)

    # what they are told ----------------------------------------------------------------------------------------------

    def to_tell(self) -> Iterable[tuple[bytes, int, int]]:
        """Who is to be told now which credit it has, and how many bytes it may send beyond, once."""
        if not (self._short or self._lowered or self._asking):
            return ()
        told = dict.fromkeys(self._lowered, 0)
        self._lowered.clear()
        while self._short and self._raise(who := next(iter(self._short))):
            told[who] = 0
        while self._asking:
            who, wants = next(iter(self._asking.items()))
            fits = self._weight + wants <= self.bound and not self._short
            if not fits and self._beyond:
                if self._asked_again:
                    told = {**dict.fromkeys(self._given, 0), **told}
                break
            del self._asking[who]
            self._change(self._workers[who], reserved=wants)
            self._given[who] = None
            told[who] = wants
        self._asked_again = False
        return [(who, self._workers[who].told, once) for who, once in told.items()]

    def _raise(self, who: bytes) -> bool:
        one, share = self._workers[who], self.share
        more = max(share, one.queued) - max(one.most, one.queued)
        if self._weight + more > self.bound:
            return False
        del self._short[who]
        one.told = share
        self._change(one, most=max(one.most, share))
        return True

    def was_told(self, who: bytes, number: int, once: int) -> None:
        """The message with this number tells it."""
        one = self._workers[who]
        one.told_at = number
        if once:
            one.reserved_at = number

    def gone(self) -> list[_Giving]:
        """Those whose connection is gone, of whom something is queued."""
        here = {id(one) for one in self._workers.values()}
        ones = {id(one): one for one, _, _ in self._calls if id(one) not in here}
        return list(ones.values())

    def check(self) -> None:
        """The sums are right; what may be under way is bounded."""
        everyone = {id(one): one for one in [*self._workers.values(), *(call[0] for call in self._calls)]}
        everyone.update({id(one[0]): one[0] for one in self._failing if one is not None})
        ones = everyone.values()
        assert self._weight == sum(one.weight for one in ones), "what may be under way is miscounted"
        assert self._beyond == sum(one.beyond for one in ones), "what is beyond the credits is miscounted"
        total = sum(call[2] for call in self._calls) + sum(one[1] for one in self._failing if one is not None)
        assert self.queued == total == sum(one.queued for one in ones), "the queued bytes are miscounted"
        assert all(one.queued >= 0 for one in ones), "a worker has fewer bytes queued than none"
