"""Which workers of one task are to be looked at: who has credit, who is idle, who has items behind what it runs.

There may be ten thousand, and each event is about one of them. So each event moves that one, and who hands out looks at
no more of them than it gives to, or moves:

* Who **has credit** has room, as far as is known. Who is found without is moved: it has credit again with its next
  report; if it is only **full** (it wants more than it may hold), also when what it holds becomes less.
* Of those with credit, the source may be **asked for** some. For who has too little room to be worth it, it is not
  asked again before something happens to this worker; it gets what waits all the same.
* The load of a worker (`WorkerState.load`) tells whether it is **idle** (a thread of it is), has items **behind** those
  that it runs, and whether these are **beyond** what it wants. Those behind are in the order in which they were last
  heard to have done something. Of the workers of a service nobody asks that here: what these have is in the ledger.
"""

from __future__ import annotations

from collections import OrderedDict

from zmqpipeline.protocol.delivery.workers import WorkerState


class Roster:
    """See the module. Workers are named by their incarnation."""

    __slots__ = ("asking", "behind", "beyond", "full", "idle", "with_credit")

    def __init__(self) -> None:
        """Nobody is here."""
        # to find the first of a dict whose first ones were deleted takes a step for each of these
        self.with_credit: OrderedDict[bytes, None] = OrderedDict()
        self.asking: OrderedDict[bytes, None] = OrderedDict()
        """Those of them that the source may be asked for."""
        self.full: dict[bytes, None] = {}
        self.idle: dict[bytes, None] = {}
        self.behind: OrderedDict[bytes, None] = OrderedDict()
        self.beyond: dict[bytes, None] = {}

    def has_credit(self, who: bytes) -> None:
        """It has room, as far as is known."""
        self.full.pop(who, None)
        self.with_credit[who] = self.asking[who] = None

    def lost_credit(self, who: bytes, *, full: bool = False) -> None:
        """It has no room; if it is only `full`, it has some as soon as it holds less."""
        self.with_credit.pop(who, None)
        self.asking.pop(who, None)
        if full:
            self.full[who] = None
        else:
            self.full.pop(who, None)

    def holds_less(self, who: bytes) -> bool:
        """Something that it held is no longer there; whether it has credit now."""
        has_credit = who in self.with_credit or who in self.full
        if has_credit:
            self.has_credit(who)
        return has_credit

    def left(self, who: bytes) -> None:
        """It is gone."""
        self.lost_credit(who)
        for place in (self.idle, self.behind, self.beyond):
            place.pop(who, None)

    def has_load(self, member: WorkerState) -> None:
        """It has more items than before, or fewer; or another window, or other threads."""
        who, load, slots = member.who, member.load(), member.slots
        if load < slots:
            self.idle[who] = None
        else:
            self.idle.pop(who, None)
        if load <= slots:
            self.behind.pop(who, None)
        else:
            self.behind[who] = None
        if load <= slots or load <= member.window:
            self.beyond.pop(who, None)
        else:
            self.beyond[who] = None

    def did_something(self, who: bytes) -> None:
        """It has finished items."""
        if who in self.behind:
            self.behind.move_to_end(who)

    def check(self, members: list[WorkerState], *, loads: bool) -> None:
        """It holds what a look at all these workers finds, the loads only if they are to be here."""
        here = {member.who for member in members}
        assert self.with_credit.keys() <= here, "somebody who is gone has credit"
        assert self.asking.keys() <= self.with_credit.keys(), "a source is asked for somebody without credit"
        assert self.full.keys() <= here - self.with_credit.keys(), "somebody is full who is gone, or has credit"
        if loads:
            by_load = [(member.who, member.load(), member.slots, member.window) for member in members]
            assert self.idle.keys() == {who for who, load, slots, _ in by_load if load < slots}, "who is idle"
            assert self.behind.keys() == {who for who, load, slots, _ in by_load if load > slots}, "who has some behind"
            wanted = {who for who, load, slots, window in by_load if load > max(slots, window)}
            assert self.beyond.keys() == wanted, "who has more than it wants"
