"""When the places of a crew are filled again, and what reaches its queue."""

from __future__ import annotations

import os
import signal
import time

import pytest

from zmqpipeline.runtime.crew import FIRST_DELAY, LONGEST_DELAY, ChildEnded, Crew, Place, Signalled


def test_delays_double_up_to_a_limit() -> None:
    """A child that dies at once is started again later and later, but never later than the limit."""
    place = Place("worker", [])
    delays = [place.ended(-9, 0.0, 100.0) for _ in range(8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY, LONGEST_DELAY]
    assert place.restart_at == 100.0 + LONGEST_DELAY


def test_a_child_that_lived_long_is_started_again_soon() -> None:
    """Ten seconds of life put the delay back to the first one."""
    place = Place("worker", [])
    for _ in range(5):
        place.ended(-9, 0.0, 0.0)
    assert place.ended(-9, 10.0, 0.0) == FIRST_DELAY
    assert place.ended(-9, 9.9, 0.0) == FIRST_DELAY * 2


def test_failed_starts_count_only_in_a_row() -> None:
    """Status 1 counts as a failed start; any other end begins the count anew."""
    place = Place("worker", [])
    for status in (1, 1, -9, 1):
        place.ended(status, 0.0, 0.0)
    assert place.failed_starts == 1


@pytest.mark.processes
def test_a_dead_child_is_started_again_when_it_is_due() -> None:
    """The queue tells the end; the place is filled when its delay is over, and not before."""
    crew = Crew()
    place = Place("worker", ["-c", "raise SystemExit(3)"])
    try:
        crew.start(place)
        ended = crew.wait(time.monotonic() + 20)
        assert isinstance(ended, ChildEnded)
        assert (ended.place, ended.status) == (place, 3)
        place.ended(ended.status, ended.lived, 50.0)
        crew.start_due(50.05)
        assert crew.running() == []
        assert crew.next_start() == pytest.approx(50.1)
        crew.start_due(50.2)
        assert crew.running() == [place]
        assert crew.next_start() is None
    finally:
        crew.kill()


@pytest.mark.processes
def test_kill_leaves_nobody() -> None:
    """After kill, every child has ended."""
    crew = Crew()
    places = [Place(str(number), ["-c", "import time; time.sleep(60)"]) for number in range(3)]
    for place in places:
        crew.start(place)
    children = [place.child for place in places]
    crew.kill()
    assert [child.status for child in children if child is not None] == [-signal.SIGKILL] * 3


def test_signals_reach_the_queue_and_the_handlers_come_back() -> None:
    """Within the context a signal is a happening; afterwards the handler from before is in place."""
    crew = Crew()
    before = signal.getsignal(signal.SIGTERM)
    with crew.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert crew.wait(time.monotonic() + 5) == Signalled(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wait_ends_in_time() -> None:
    """A wait with nothing to tell ends at its time, with None."""
    assert Crew().wait(time.monotonic() + 0.01) is None
