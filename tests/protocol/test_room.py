"""What a worker tells of its room, and when."""

from __future__ import annotations

from zmqpipeline.options import Options
from zmqpipeline.protocol.delivery.window import ROOM_SECONDS, CreditWindow


def grown() -> CreditWindow:
    """The room of a worker of microseconds, whose window of 64 was told while nothing was held."""
    room = CreditWindow(1, Options())
    for _ in range(6):
        room.observe(1, 1e-6)
        room.resize(1, 12288)
    room.told(0)
    assert room.window == 64
    return room


def test_room_that_is_known_of_is_told_some_time_soon() -> None:
    """A few items came and are done: the distributor can go on, and hears once, 5 ms after the first."""
    room = grown()
    room.took(1)
    assert not room.is_news(0, 1, now=10.0)
    room.took(1)
    assert not room.is_news(0, 1, now=10.001)
    assert room.tell_at == 10.0 + ROOM_SECONDS
    room.told(0)
    assert room.tell_at is None


def test_room_that_is_not_known_of_is_news() -> None:
    """Half of the window came: the distributor may soon have to wait for the word."""
    room = grown()
    room.took(32)
    assert room.is_news(0, 1, now=10.0)


def test_nothing_is_told_while_there_is_no_room() -> None:
    """More than three quarters of what is wanted ahead is still here."""
    room = grown()
    room.took(60)
    assert not room.is_news(60, 1, now=10.0)
    assert room.tell_at is None


def test_too_much_is_news_at_once() -> None:
    """Items became longer: what is held is more than is wanted now, and others may need it."""
    room = grown()
    room.took(64)
    room.observe(1, 0.02)
    room.resize(1, 12288)
    assert room.window < 32
    assert room.is_news(60, 1, now=10.0)
