"""Items that wait at a worker for the distributor's word, before which none of them begins.

* Those on trial were lost with another worker; they begin when the distributor has heard that they are here.
* The first items of a worker with init functions begin when the distributor has heard that these have returned.

So the distributor knows of each whether it can have begun: who is lost before, was not killed by it.
"""

from __future__ import annotations

from dataclasses import replace

from zmqpipeline.protocol.commands import Execute

_UNSAID = 1 << 62


class Trials:
    """What waits for the distributor's word."""

    __slots__ = ("_left", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Execute]] = []
        self._left: list[int] = []

    def add(self, message: int, command: Execute) -> None:
        """These are here; our message of this number is the first to say so."""
        self.waiting.append((message, command))

    @property
    def items(self) -> int:
        """How many items wait."""
        return sum(len(command.numbers) for _, command in self.waiting)

    def add_unready(self, command: Execute) -> None:
        """These are here, before the init functions have returned."""
        self.waiting.append((_UNSAID, command))

    def ready(self, message: int) -> None:
        """The init functions have returned; our message of this number is the first to say so."""
        self.waiting = [(min(number, message), command) for number, command in self.waiting]

    def say_again(self, message: int) -> None:
        """One of our messages was lost: that of this number says again what is here."""
        self.waiting = [(number if number == _UNSAID else message, command) for number, command in self.waiting]

    def heard(self, message: int) -> list[Execute]:
        """The distributor has received our messages up to this one: what may begin."""
        begin = [command for number, command in self.waiting if number <= message]
        self.waiting = [one for one in self.waiting if one[0] > message]
        return begin

    def give_back(self, most: int) -> int:
        """At most so many items, the last first, are not to begin; how many there were."""
        count = 0
        while self.waiting and count < most:
            number, last = self.waiting.pop()
            stays = max(0, len(last.numbers) - (most - count))
            count += len(last.numbers) - stays
            self._left += last.numbers[stays:]
            if stays:
                first = replace(last, numbers=last.numbers[:stays], payloads=last.payloads[:stays])
                self.waiting.append((number, first))
        return count

    def end(self) -> None:
        """Nothing of it is to begin any more: all is taken back."""
        self._left += [number for _, command in self.waiting for number in command.numbers]
        self.waiting.clear()

    def take_left(self) -> list[int]:
        """The items that did not begin, since all was taken back."""
        left, self._left = self._left, []
        return left
