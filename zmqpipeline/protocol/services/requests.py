"""The broker's books: what each client asked for, and what is known of each service.

A request is **open** from its arrival until it is answered or refused; both books name it, the client's by the client's
number, the service's by the number in its ledger. A request that its client gave up while a worker has it is
**abandoned**: it stays leased, since the worker is busy with it, and its result is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from zmqpipeline.protocol import credit
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.credit import NO_LIMIT
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, spans_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.events import Peer
from zmqpipeline.protocol.peers import Link
from zmqpipeline.protocol.services.broker_bytes import BrokerBytes
from zmqpipeline.serialization.pack import pack

_ALL = 1 << 30

CRASH_LIMIT = 3
"""A request of an idempotent service that so many workers were lost with is refused."""


MAX_REMEMBERED = 1000
"""Of so many services it is remembered what a client asked last."""

MAX_ANSWERS = 20_000
"""So many messages to one client are kept that it has not confirmed; a client confirms after a thousand answers."""


def with_name(service: str, payloads: m.Blobs) -> m.Blobs:
    """Requests as workers of the blank service get them, who serve many: pairs of the name asked for and the value."""
    # the header of an array of two, and its first element
    head = b"\x92" + pack(service)
    return [head + payload for payload in payloads]


def _bytes_of(answer: m.Replies | m.Declined) -> int:
    if isinstance(answer, m.Replies):
        return sum(map(len, answer.payloads))
    return len(answer.trouble.message) + len(answer.trouble.traceback)


class Client:
    """One client: its open requests, and the answers that it may not have received."""

    __slots__ = (
        "_answer_bytes", "_ready_bytes", "answers", "forgotten", "highest", "link", "lost_at", "open", "peer", "ready",
        "totals",
    )  # fmt: skip

    def __init__(self, link: Link, peer: Peer, totals: BrokerBytes, forgotten: dict[str, int] | None = None) -> None:
        """`peer` is its newest connection; `forgotten` what it had asked last when it was forgotten, if it was.

        Its replies are counted in `totals`.
        """
        self.link = link
        self.totals = totals
        self.peer = peer
        self.lost_at: float | None = None
        self.forgotten = forgotten or {}
        self.highest = dict(self.forgotten)
        """The highest number asked so far, by service; within one, the numbers ascend."""
        self.open: dict[int, tuple[Service, int]] = {}
        """The client's number -> service, the number in its ledger."""
        self.answers: deque[tuple[int, m.Replies | m.Declined]] = deque()
        """What was sent, with the number of the message, until the client says that it does not wait for it."""
        self.ready: list[tuple[int, bytes]] = []
        """Replies that are not sent yet: they go out at the end of this turn, or when there is room for them."""
        self._answer_bytes = self._ready_bytes = 0

    @property
    def reply_bytes(self) -> int:
        """How many bytes wait for it, sent or not."""
        return self._answer_bytes + self._ready_bytes

    def reply(self, number: int, payload: bytes) -> None:
        """This is the reply to one of its requests."""
        self.ready.append((number, payload))
        self._ready_bytes += len(payload)
        self.totals.replies += len(payload)

    def next_replies(self, room: int) -> m.Replies | None:
        """The next message with replies, if it may have one: at most so many bytes are sent and not confirmed."""
        if not self.ready or (self._answer_bytes and self._answer_bytes >= room):
            return None
        self.ready.sort()
        sizes = [len(payload) for _, payload in self.ready[: credit.MAX_BATCH]]
        count = credit.cut(sizes, max_bytes=min(credit.MAX_BATCH_BYTES, room))
        some, self.ready = self.ready[:count], self.ready[count:]
        self._ready_bytes -= sum(sizes[:count])
        self.totals.replies -= sum(sizes[:count])
        return m.Replies(spans_of([number for number, _ in some]), [payload for _, payload in some])

    @property
    def has_unsent_beside(self) -> bool:
        """Whether a reply is not sent yet, beside another one that waits."""
        return bool(self.ready) and (bool(self.answers) or len(self.ready) > 1)

    def shed(self, excess: int) -> list[int]:
        """Drop so many bytes of replies that are not sent yet, the newest first, but not the only one; the numbers."""
        self.ready.sort()
        dropped: list[int] = []
        while excess > 0 and self.has_unsent_beside:
            number, payload = self.ready.pop()
            dropped.append(number)
            excess -= len(payload)
            self._ready_bytes -= len(payload)
            self.totals.replies -= len(payload)
        return sorted(dropped)

    def forget(self) -> None:
        """It is gone: nothing is kept for it."""
        self.totals.replies -= self.reply_bytes
        self.ready, self._ready_bytes, self._answer_bytes = [], 0, 0
        self.answers.clear()

    def unknown_of(self, service: str, numbers: list[int]) -> list[int]:
        """Those of these requests that have not been heard of."""
        highest = self.highest.get(service, -1)
        if numbers and (highest >= 0 or len(self.highest) < MAX_REMEMBERED):
            self.highest[service] = max(highest, numbers[-1])
        if not numbers or (numbers[0] > highest and self.open.keys().isdisjoint(numbers)):
            return numbers
        known = self.known()
        return [number for number in numbers if number not in known]

    def keep(self, number: int, answer: m.Replies | m.Declined) -> None:
        """An answer is sent in this message. One that never says what it has received is not kept everything for."""
        before, most = self._answer_bytes, self.totals.most_replies
        self.answers.append((number, answer))
        self._answer_bytes += _bytes_of(answer)
        while len(self.answers) > MAX_ANSWERS or (self._answer_bytes > most and len(self.answers) > 1):
            self._answer_bytes -= _bytes_of(self.answers.popleft()[1])
        self.totals.replies += self._answer_bytes - before

    def take_answers(self, wanted: RangeSet) -> list[m.Replies | m.Declined]:
        """Drop the answers whose message, or a later one, the client has received; those still wanted were lost."""
        lost: list[m.Replies | m.Declined] = []
        under_way: deque[tuple[int, m.Replies | m.Declined]] = deque()
        for number, answer in self.answers:
            if number > self.link.confirmed:
                under_way.append((number, answer))
            elif wanted.common(answer.spans):
                lost.append(answer)
        self.answers, before = under_way, self._answer_bytes
        self._answer_bytes = sum(_bytes_of(answer) for _, answer in under_way)
        self.totals.replies += self._answer_bytes - before
        return lost

    def known(self) -> RangeSet:
        """The requests that are open, or whose answers are kept."""
        found = RangeSet(spans_of([*self.open, *(number for number, _ in self.ready)]))
        for _, answer in self.answers:
            found.update(answer.spans)
        return found


class Service:
    """One service: its open requests, and whether they may be executed twice."""

    __slots__ = ("_counted", "abandoned", "doubtful", "idempotent", "name", "origins", "state", "totals", "was_served")

    def __init__(self, name: str, totals: BrokerBytes) -> None:
        """Nobody has served it yet. Its requests are counted in `totals`."""
        spec = TaskSpec(name)
        self.totals = totals
        self._counted = 0
        self.name = name
        self.state = TaskState(spec, Ledger(spec), state="open", has_source=False)
        self.origins: dict[int, tuple[Client, int]] = {}
        """The number in the ledger -> the client, its number."""
        self.abandoned: set[int] = set()
        self.doubtful: set[int] = set()
        """Requests that an earlier broker may have had executed, which no worker has been here to judge yet."""
        self.idempotent: bool | None = None
        """What its workers say; None while there is none."""
        self.was_served = False

    @property
    def ledger(self) -> Ledger:
        """Where its requests are."""
        return self.state.ledger

    def acknowledge(self, spans: m.Spans) -> dict[bytes, list[int]]:
        """These are over, for whatever reason; which workers may drop what they keep of them."""
        # all count as collected, so that the ledger keeps them as one range
        released = self.ledger.acknowledge(spans, ())
        self._weigh()
        return released

    def _weigh(self) -> None:
        """The ledger has taken in requests, or let go of some."""
        now = self.ledger.payload_bytes
        self.totals.requests += now - self._counted
        self._counted = now

    def open(self, client: Client, numbers: list[int], payloads: m.Blobs, *, again: bool) -> None:
        """Take in new requests of a client. `again`: they may have been executed before."""
        first = self.ledger.next_number
        self.ledger.add(payloads)
        self._weigh()
        mine = range(first, first + len(numbers))
        client.open.update(zip(numbers, ((self, one) for one in mine), strict=True))
        self.origins.update(zip(mine, ((client, number) for number in numbers), strict=True))
        if again and self.idempotent is None:
            self.doubtful.update(mine)

    def close(self, numbers: Sequence[int]) -> dict[Client, list[int]]:
        """These are answered or refused: whose they were, and by which numbers. The ledger is left to the caller."""
        closed: dict[Client, list[int]] = {}
        for mine in numbers:
            origin = self.origins.pop(mine, None)
            if origin is not None:
                client, number = origin
                del client.open[number]
                closed.setdefault(client, []).append(number)
        if self.doubtful:
            self.doubtful.difference_update(numbers)
        return closed

    def withdraw(self, numbers: list[int]) -> None:
        """Nobody waits for these: those that wait are dropped, those with a worker are left to it."""
        self.close(numbers)
        unstarted = [number for number in numbers if not self.ledger.is_leased(number)]
        self.abandoned.update(number for number in numbers if self.ledger.is_leased(number))
        self.drop(unstarted)

    def drop(self, numbers: Sequence[int]) -> None:
        """These are over, and no worker keeps anything of them."""
        self.acknowledge(spans_of(numbers))

    def drop_strays(self) -> None:
        """Abandoned requests that no worker has any more are not given to another."""
        if self.abandoned:
            gone = [number for number in self.abandoned if not self.ledger.is_leased(number)]
            self.abandoned.difference_update(gone)
            self.drop(gone)

    def maybe_executed(self) -> list[int]:
        """The waiting requests that an earlier broker, or a worker that was lost, may have executed."""
        lost = {number for number in self.ledger.tried() if not self.ledger.is_leased(number)}
        return sorted(lost | self.doubtful)

    def judge(self, idempotent: bool) -> None:
        """A worker says whether requests may be executed twice: one that says no is believed before all others."""
        verdict = idempotent and self.idempotent is not False
        self.doubtful.clear()
        if self.idempotent is not verdict:
            self.idempotent = verdict
            # One loss is the last where a request must not be executed twice.
            spec = TaskSpec(self.name, crash_limit=CRASH_LIMIT if verdict else 1)
            self.state.spec = self.ledger.spec = spec

    def hand_over(self, to: Service) -> None:
        """Give the requests that wait here to the blank service."""
        maybe_executed = set(self.maybe_executed())
        while (batch := self.ledger.take(b"", _ALL, _ALL, NO_LIMIT)) is not None:
            for mine, payload in zip(numbers_of(batch.spans), batch.payloads, strict=True):
                client, number = self.origins[mine]
                self.close([mine])
                to.open(client, [number], with_name(self.name, [payload]), again=mine in maybe_executed)
            self.acknowledge(batch.spans)

    def waiting(self) -> list[int]:
        """Open requests that no worker has."""
        return [number for number in self.origins if not self.ledger.is_leased(number)]

    def check(self) -> None:
        """Each unfinished request is open or abandoned, and in its client's book."""
        self.ledger.check()
        assert self._counted == self.ledger.payload_bytes, "the bytes of a service's requests are miscounted"
        assert not self.abandoned & self.origins.keys(), "a request both open and abandoned"
        assert len(self.origins) + len(self.abandoned) == self.ledger.unfinished, "a request is in no book"
        assert self.doubtful <= self.origins.keys(), "a doubtful request that is not open"
        for mine, (client, number) in self.origins.items():
            assert client.open.get(number) == (self, mine), "the books of client and service differ"
