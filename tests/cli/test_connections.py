"""Which connections of browsers are closed or refused if there are too many."""

from __future__ import annotations

from typing import Any

from zmqpipeline.cli.page.connections import Connections


class Fake:
    """A connection that notes that it is closed; its own transport, too."""

    def __init__(self) -> None:
        """It is open."""
        self.transport, self.is_aborted = self, False

    def abort(self) -> None:
        """Close it."""
        self.is_aborted = True


def opened(connections: Connections, count: int) -> list[Any]:
    """So many more, that have said nothing."""
    made: list[Any] = [Fake() for _ in range(count)]
    for one in made:
        connections.opened(one)
    return made


def test_the_oldest_stranger_makes_room_and_no_guest_does() -> None:
    """Whoever was let in is not counted among them."""
    connections = Connections(max_strangers=2, max_guests=2)
    guest, first, second, third = opened(connections, 1) + opened(connections, 1) + [Fake(), Fake()]
    assert connections.let_in(guest)
    connections.opened(second)
    connections.opened(third)
    assert [one.is_aborted for one in (guest, first, second, third)] == [False, True, False, False]
    connections.closed(second)
    (fourth,) = opened(connections, 1)
    assert not any(one.is_aborted for one in (guest, third, fourth))


def test_guests_beyond_the_limit_are_refused_until_one_leaves() -> None:
    """One that was let in stays so for all of its requests; whoever is refused stays a stranger."""
    connections = Connections(max_strangers=2, max_guests=2)
    first, second = opened(connections, 2)
    assert all(connections.let_in(one) for one in (first, second, first))
    (third,) = opened(connections, 1)
    assert not connections.let_in(third)
    connections.closed(first)
    assert connections.let_in(third)


def test_one_that_was_closed_before_its_request_was_looked_at_is_not_kept() -> None:
    """It would count for ever: nobody says again that it is gone."""
    connections = Connections(max_strangers=1, max_guests=1)
    first, _ = opened(connections, 2)
    assert first.is_aborted
    assert connections.let_in(first)
    connections.closed(first)
    (third,) = opened(connections, 1)
    assert connections.let_in(third)
