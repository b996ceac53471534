"""Workers that are still there when everything is done, and do not answer `run`.

They are stopped (SIGSTOP, a debugger), or the system holds them in a call, or one call of C holds their interpreter.
None of them drains, however long it is waited for, and nothing is lost with it: what it had, others have done.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.restarts import Slot
from zmqpipeline.runtime.child import ANSWER

ANSWER_SECONDS = 5.0
"""So long a worker of this machine has to answer."""


def ask(places: Sequence[Slot]) -> None:
    """Have the workers in these places answer, on a thread that user code cannot hold up unless it is C."""
    for place in places:
        if place.child is not None and place.engine is THIS_MACHINE:
            place.child.tell(ANSWER)


def unanswering(places: Sequence[Slot]) -> list[Slot]:
    """Where the workers are that have not answered; one that closes what user code opened has more time than this."""
    there = [(place, place.child.has_told()) for place in places if place.child and place.engine is THIS_MACHINE]
    return [place for place, told in there if not (told.has_answered or told.is_closing)]
