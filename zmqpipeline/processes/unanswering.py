"""Workers that are still there when everything is done, and do not answer `run`.

They are stopped (SIGSTOP, a debugger), or the system holds them in a call, or one call of C holds their interpreter.
None of them drains, however long it is waited for, and nothing is lost with it: what it had, others have done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.restarts import Slot
from zmqpipeline.runtime.child import ANSWER

ANSWER_SECONDS, ANSWER_SECONDS_EACH = 5.0, 0.05
"""So long the workers of this machine have to answer, and for each of them more: they share its cores."""

log = logging.getLogger("zmqpipeline.run")


def ask(places: Sequence[Slot]) -> float:
    """Have the workers in these places answer, on a thread that user code cannot hold up unless it is C.

    Returns how long they have for it, in seconds.
    """
    asked = [place.child for place in places if place.child is not None and place.engine is THIS_MACHINE]
    for child in asked:
        child.tell(ANSWER)
    return ANSWER_SECONDS + ANSWER_SECONDS_EACH * len(asked)


def unanswering(places: Sequence[Slot]) -> list[Slot]:
    """Where the workers are that have not answered; one that closes what user code opened has more time than this."""
    there = [(place, place.child.has_told()) for place in places if place.child and place.engine is THIS_MACHINE]
    silent = [place for place, told in there if not (told.has_answered or told.is_closing)]
    for place in silent:
        log.warning("The %s does not answer: it is killed (SIGKILL).", place.label)
    return silent
