"""Handing out: how many bytes of items all workers hold."""

from __future__ import annotations

import pytest

from tests.support.scenes import Scene
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m


@pytest.mark.parametrize(("slots", "each"), [(1, 2), (4, 8)])
def test_what_all_workers_hold_is_bounded_in_bytes(slots: int, each: int) -> None:
    """Each has a share of max_held_bytes, beyond it two items a thread. Who is left has the shares of the others."""
    scene = Scene(options=Options(max_held_bytes=100))
    workers = [scene.worker(slots=slots, window=20)]
    asked = scene.bench.of(c.Produce)
    workers += [scene.worker(slots=slots, window=20) for _ in range(3)]

    def ask_and_give() -> list[int]:
        for _ in range(100):
            while asked:
                scene.bench.tell(e.Produced("A", "ready", [b"x" * 13] * asked.pop().count))
                asked.extend(scene.bench.of(c.Produce))
            for worker in workers:
                worker.report(window=20, backlog=0)
                asked.extend(scene.bench.of(c.Produce))
        ledger = scene.machine.tasks["A"].ledger
        return [ledger.leases(worker.link.incarnation) for worker in workers]

    assert ask_and_give() == [each] * 4
    gone = workers[1:]
    del workers[1:]
    for worker in gone:
        worker.says(m.Goodbye("run", "A"))
    (left,) = ask_and_give()
    assert 100 <= left * 13 <= 200, "its share is all of it now, and a message may go beyond"
