"""What waits to be sent again: which of the ledger's queues an item is in, by how often it was lost with a worker."""

from __future__ import annotations

import heapq
from collections import OrderedDict


class RetryQueue:
    """The items of one task that were sent before, or singled out, and are with no worker. Numbers only.

    The four queues are read, and taken from, by the ledger.
    """

    __slots__ = (
        "_blamed",
        "_crash_limit",
        "_group",
        "_later",
        "groups",
        "last_tries",
        "losses",
        "returned",
        "suspects",
    )

    def __init__(self, crash_limit: int) -> None:
        """An item that was lost with all but one of `crash_limit` workers is on its last try."""
        self.returned: OrderedDict[int, None] = OrderedDict()
        """Nothing is held against these."""
        self.suspects: OrderedDict[int, None] = OrderedDict()
        self.last_tries: OrderedDict[int, None] = OrderedDict()
        self.groups: OrderedDict[int, None] = OrderedDict()
        """Suspects of a crowd, which are tried in groups."""
        self._group: dict[int, int] = {}
        """Of how many the group is in which an item is tried."""
        self.losses: dict[int, set[bytes]] = {}
        """The workers that were lost while they may have been running an item, and have not come back."""
        self._blamed: dict[bytes, dict[int, None]] = {}
        """The same by worker: each that comes back asks for its own."""
        self._later: list[tuple[float, int]] = []
        self._crash_limit = crash_limit

    def of(self, number: int) -> OrderedDict[int, None]:
        """The queue that an item belongs to."""
        losses = len(self.losses.get(number, ()))
        if not losses:
            return self.returned
        if number in self._group:
            return self.groups
        return self.suspects if losses < self._crash_limit - 1 else self.last_tries

    def put(self, number: int) -> None:
        """At the front of its queue."""
        queue = self.of(number)
        queue[number] = None
        queue.move_to_end(number, last=False)

    def put_off(self, number: int, due: float) -> None:
        """At the end of its queue, not before `due`: see `ripen`."""
        heapq.heappush(self._later, (due, number))

    def take(self, number: int) -> bool:
        """Take an item out of its queue; whether it was there. One that is put off is none of a queue."""
        queue = self.of(number)
        if number not in queue:
            return False
        del queue[number]
        return True

    def drop(self, number: int) -> None:
        """Take an item out wherever it waits."""
        if not self.take(number) and self._later:
            self._later = [entry for entry in self._later if entry[1] != number]
            heapq.heapify(self._later)

    def ripen(self, now: float) -> None:
        """Put what is due into its queue."""
        while self._later and self._later[0][0] <= now:
            number = heapq.heappop(self._later)[1]
            self.of(number)[number] = None

    def next_due(self) -> float | None:
        """When the first that is put off is due."""
        return self._later[0][0] if self._later else None

    @property
    def put_off_count(self) -> int:
        """How many are put off."""
        return len(self._later)

    @property
    def alone(self) -> int:
        """How many wait for a worker that holds nothing else."""
        return len(self.groups) + len(self.last_tries)

    def next_alone(self) -> tuple[OrderedDict[int, None], int]:
        """From which queue the next are taken that are sent to a worker alone, and how many of it."""
        if self.last_tries or not self.groups:
            return self.last_tries, 1
        return self.groups, self._group[next(iter(self.groups))]

    def blame(self, number: int, worker: bytes, group: int = 0) -> None:
        """An item may have been what killed this worker; `group`: as one of a crowd, tried with so many next.

        Who was in a group already is tried by itself: the crowd was that group.
        """
        self.losses.setdefault(number, set()).add(worker)
        self._blamed.setdefault(worker, {})[number] = None
        if group and number not in self._group:
            self._group[number] = group
        else:
            self._group.pop(number, None)

    def lost_with(self, number: int) -> int:
        """How many workers it may have killed."""
        return len(self.losses.get(number, ()))

    def clear_of_blame(self, worker: bytes) -> None:
        """A worker that comes back had not died: whatever was lost with its connection, no item of it was to blame.

        Not even one that another worker holds by now, or that waits to be the last try.
        """
        for number in self._blamed.pop(worker, ()):
            was_here = self.take(number)
            self.losses[number].discard(worker)
            if not self.losses[number]:
                self.forget(number)
            if was_here:
                self.put(number)

    def forget(self, number: int) -> None:
        """Nothing is held against an item any more."""
        for worker in self.losses.pop(number, ()):
            blamed = self._blamed[worker]
            del blamed[number]
            if not blamed:
                del self._blamed[worker]
        self._group.pop(number, None)

    def numbers(self) -> list[int]:
        """All that wait."""
        queues = (self.returned, self.suspects, self.groups, self.last_tries)
        return [*(number for queue in queues for number in queue), *(number for _, number in self._later)]

    def check(self) -> None:
        """Who was lost with an item is known by the item and by the worker alike."""
        by_worker = {(worker, number) for worker, numbers in self._blamed.items() for number in numbers}
        assert by_worker == {(worker, number) for number, lost in self.losses.items() for worker in lost}, "the blame"
        assert all(self.losses.values()), "an item that was lost with nobody"

    def clear(self) -> None:
        """Nothing waits any more; who is to blame for what is kept."""
        for queue in (self.returned, self.suspects, self.groups, self.last_tries):
            queue.clear()
        self._later.clear()
