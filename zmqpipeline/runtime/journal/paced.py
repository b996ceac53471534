"""Items of an outbox that wait for the rate of their value (`rate_by`): which of them come next.

They are written as they are given, without a number. When a distributor asks for more, the values whose time has come
are taken in turn, the one that has waited longest first, and their first items get the next numbers: from then on they
are items as any others. So whatever waits for one value is on the disk, and keeps no other from going on. Who asks
again, or is started again, finds what has a number under that number.

The law of the times is that of `protocol.delivery.pace`, by the distributor's clock, which each question tells. The
distributor counts for itself, too: what is known here is only which value to take.
"""

from __future__ import annotations

import sqlite3
from dataclasses import field

from zmqpipeline.protocol.commands import Fetch
from zmqpipeline.protocol.dataclass import dataclass

_REST_SECONDS = 1.0
"""When to ask again if nothing is known to come."""


@dataclass(slots=True)
class Chosen:
    """Items that get the next numbers, in order; if there are none, when to ask again."""

    payloads: list[bytes] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    until: float = 0.0


class Paced:
    """Those of one journal. All of it is called within a transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Nothing is read yet."""
        self._db = db
        self._now: dict[int, float] = {}
        """What the clock of the distributor was when it asked last, by task."""

    def forget(self) -> None:
        """The tables may hold something else from now on."""
        self._now.clear()

    def bytes_of(self, task: int) -> int:
        """How many bytes wait without a number."""
        row = self._db.execute("SELECT total(length(payload)) FROM zmqpipeline_paced WHERE task = ?", (task,))
        return int(row.fetchone()[0])

    def add(self, task: int, value: bytes, payload: bytes, depth: int) -> None:
        """An item of this value waits; a new value behind those that wait already."""
        self._db.execute(
            "INSERT INTO zmqpipeline_paced (task, value, depth, payload) VALUES (?, ?, ?, ?)",
            (task, value, depth, payload),
        )
        self._db.execute(
            "INSERT OR IGNORE INTO zmqpipeline_values VALUES (?, ?, ?)", (task, value, self._now.get(task, 0.0))
        )

    def count_of(self, task: int) -> int:
        """How many wait without a number."""
        row = self._db.execute("SELECT count(*) FROM zmqpipeline_paced WHERE task = ?", (task,))
        return int(row.fetchone()[0])

    def take_first(self, task: int, most: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Take out those that came first, whatever their values: at most so many, and so many bytes, but at least one.

        Each with its depth.
        """
        found: list[tuple[int, bytes]] = []
        taken: list[tuple[int]] = []
        rows = self._db.execute(
            "SELECT id, depth, payload FROM zmqpipeline_paced WHERE task = ? ORDER BY id LIMIT ?", (task, most)
        )
        for number, depth, payload in rows:
            max_bytes -= len(payload)
            if max_bytes < 0 and found:
                break
            taken.append((number,))
            found.append((depth, payload))
        rows.close()
        self._db.executemany("DELETE FROM zmqpipeline_paced WHERE id = ?", taken)
        return found

    def choose(self, task: int, most: int, command: Fetch) -> Chosen:
        """Take out the items that come next: at most so many, and so many bytes, but at least one."""
        self._keep_time(task, command)
        latest = command.now + (command.burst - 1) * command.apart
        found, room, chosen = self._due(task, most, latest), command.max_bytes, Chosen()
        for at, (value, even) in enumerate(found):
            begins = max(even, command.now)
            allowed = min(command.burst, 1 + int((latest - begins) / command.apart))
            share = max(1, (most - len(chosen.payloads)) // (len(found) - at))
            items = self._db.execute(
                "SELECT id, depth, payload FROM zmqpipeline_paced WHERE task = ? AND value = ? ORDER BY id LIMIT ?",
                (task, value, min(allowed, share)),
            ).fetchall()
            taken = 0
            for _, depth, payload in items:
                room -= len(payload)
                if room < 0 and chosen.payloads:
                    break
                taken += 1
                chosen.payloads.append(payload)
                chosen.depths.append(depth)
                chosen.values.append(value)
            self._db.executemany("DELETE FROM zmqpipeline_paced WHERE id = ?", [(one[0],) for one in items[:taken]])
            if taken:
                self._db.execute(
                    "UPDATE zmqpipeline_values SET even = ? WHERE task = ? AND value = ?",
                    (begins + taken * command.apart, task, value),
                )
            if len(chosen.payloads) >= most or room < 0:
                break
        if not chosen.payloads:
            chosen.until = self._next(task, latest) - (latest - command.now)
        return chosen

    def _due(self, task: int, most: int, latest: float) -> list[tuple[bytes, float]]:
        """The values whose time has come, with an item that waits; those that have none any more are deleted."""
        found: list[tuple[bytes, float]] = []
        over: list[tuple[int, bytes]] = []
        rows = self._db.execute(
            "SELECT value, even, EXISTS (SELECT 1 FROM zmqpipeline_paced AS one WHERE one.task = all_of.task AND "
            "one.value = all_of.value) FROM zmqpipeline_values AS all_of WHERE task = ? AND even <= ? ORDER BY even",
            (task, latest),
        )
        for value, even, has_items in rows:
            if has_items:
                found.append((value, even))
                if len(found) >= most:
                    break
            else:
                over.append((task, value))
        rows.close()
        # what was given of these a moment ago is counted by the distributor
        self._db.executemany("DELETE FROM zmqpipeline_values WHERE task = ? AND value = ?", over)
        return found

    def _next(self, task: int, latest: float) -> float:
        """When the time of the first value comes, of those whose time has not come by then."""
        (even,) = self._db.execute(
            "SELECT min(even) FROM zmqpipeline_values WHERE task = ? AND even > ?", (task, latest)
        ).fetchone()
        return latest + _REST_SECONDS if even is None else float(even)

    def _keep_time(self, task: int, command: Fetch) -> None:
        """Times may be by the clock of another distributor: none is further ahead of this one than it can be."""
        if command.now < self._now.get(task, float("inf")):
            most = command.now + command.burst * command.apart
            self._db.execute("UPDATE zmqpipeline_values SET even = ? WHERE task = ? AND even > ?", (most, task, most))
        self._now[task] = command.now
