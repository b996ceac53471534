"""Waking the loop: a file that becomes readable, and harmless calls whenever they come."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from zmqpipeline.runtime.transport.wakeup import Waker


@pytest.fixture
def waker() -> Iterator[Waker]:
    """One, closed at the end."""
    made = Waker()
    yield made
    made.close()


def is_readable(waker: Waker, seconds: float = 0.0) -> bool:
    """Whether a poll for its file returns within so many seconds."""
    poller = select.poll()
    poller.register(waker.file, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def test_a_wake_is_seen_until_it_is_cleared(waker: Waker) -> None:
    """A poll that begins after the wake returns, too; however often it was woken, one clear is enough."""
    assert not is_readable(waker)
    waker.wake()
    waker.wake()
    assert is_readable(waker)
    waker.clear()
    assert not is_readable(waker)


def test_more_wakes_than_fit_do_not_block(waker: Waker) -> None:
    """Nobody may be reading for a while: a thread that wakes goes on, and the next clear takes everything."""
    for _ in range(300_000):
        waker.wake()
    assert is_readable(waker)
    waker.clear()
    assert not is_readable(waker)


def test_a_poll_in_another_thread_returns(waker: Waker) -> None:
    """A loop that waits is woken."""
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(is_readable(waker, 10.0)))
    thread.start()
    waker.wake()
    thread.join()
    assert woken == [True]


def test_a_wake_after_the_end_writes_to_nobodys_file() -> None:
    """The number of a closed file is given to the next one that is opened: that one must not get the byte."""
    reading, writing = os.pipe()
    waker = Waker()
    before = waker.number()
    waker.close()
    try:
        os.dup2(writing, before)
        os.set_blocking(reading, False)
        waker.wake()
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        for file in (reading, writing, before):
            os.close(file)


def test_a_signal_handler_may_wake_in_the_middle_of_a_wake(waker: Waker) -> None:
    """Signals come while the main thread is waking: neither waits for the other."""
    came: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        waker.wake()
        came.append(number)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        while len(came) < 300:
            waker.wake()
            waker.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert set(came) == {signal.SIGALRM}
