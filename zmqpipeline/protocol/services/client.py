"""The service client's machine: requests out, each answered once, or refused, or timed out.

The law:

* Nothing is asked before the broker has spoken on this connection: so it is known which broker was asked.
* Of each service at most `WINDOW` requests are with the broker; further ones wait here, in order, so that a long list
  does not fill the broker's queue, which is for all clients. And no more than have replies, by the size of the last
  ones, that the broker has room for, as it says (`broker_bytes`). As long as no reply has told their size, these are
  `FIRST_REQUESTS`, and twice as many each second.
* A request is sent again if a broker says that it does not know it. If an earlier broker was asked, that is said, too:
  the request may have been executed.
* All that is awaited is asked for at each connection, after a gap, each second, and after many answers: that mends
  every loss on the way, and lets the broker drop the answers that it keeps.
* The first answer counts; a later one finds nobody waiting and is dropped. A request that ran out of time is withdrawn.
* The broker says for which requests there is no worker at the moment. Those that run out of time then are unavailable.
* What is submitted in one turn of the loop is sent together, by a Tick at its end.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import credit
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, spans_of
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.peers import Link, Verdict

ASK_SECONDS = 1.0
"""How often the client asks for what it waits for."""

ASK_ANSWERS = 1000
"""After so many answers it asks at once, since the broker keeps them until then."""

ASK_BYTES = 1024 * 1024
"""Or after answers of so many bytes."""

WINDOW = 1000
"""The most requests of one service that are with the broker; a tenth of what waits there by default for all clients."""

WINDOW_BYTES = 16 * 1024 * 1024
"""And the most bytes of them; one request of any size is sent."""

FIRST_REQUESTS = 8
"""So many requests of a service are with the broker while nothing is known of its replies."""

MAX_SIZES = 1000
"""The size of replies is known of so many services."""

_BROKER: e.Peer = ("clients", b"")


@dataclass(frozen=True)
class ClientSnapshot:
    """What a client waits for."""

    connected: bool
    waiting: int


class _Sizes:
    """How large the replies of a service are: what came before is forgotten as more bytes come."""

    __slots__ = ("bytes", "first", "items")

    def __init__(self) -> None:
        self.items = self.bytes = 0.0
        self.first = FIRST_REQUESTS

    def observe(self, size: int, room: int) -> None:
        unit = max(1, room / 16)
        kept = unit / (unit + size)
        self.items = kept * self.items + 1
        self.bytes = kept * self.bytes + size

    def most(self, room: int) -> int:
        """How many replies have room."""
        if not room:
            return WINDOW
        if not self.items:
            return self.first
        return max(1, int(room * self.items / max(1.0, self.bytes)))


class _Line:
    """The requests of one service: those that are not sent yet, and how much is with the broker."""

    __slots__ = ("bytes", "count", "unsent")

    def __init__(self) -> None:
        self.unsent: deque[int] = deque()
        """Numbers that wait here; one that is not waited for any more is passed over."""
        self.count = 0
        self.bytes = 0

    def has_room(self, most: int) -> bool:
        return self.count < min(WINDOW, most) and (self.bytes < WINDOW_BYTES or not self.count)


class ClientMachine:
    """See the module. Hop: ``clients``. Requests are numbered by whoever submits them, ascending."""

    def __init__(self, *, incarnation: bytes) -> None:
        self.phase = "open"
        self._link = Link(incarnation)
        self._connected = False
        self._heard = False
        """Whether the broker has spoken since the connection was made."""
        self._waiting: dict[int, tuple[str, bytes]] = {}
        self._sent: dict[int, bytes] = {}
        """The requests that are with a broker, and with which (its incarnation)."""
        self._unserved = RangeSet()
        """The requests for which the broker has no worker, by its last word."""
        self._lines: dict[str, _Line] = {}
        self._sizes: dict[str, _Sizes] = {}
        self._room = 0
        """So many bytes the replies may have that are asked for, by the broker's last word; 0: any number."""
        self._to_send: dict[str, None] = {}
        """Services with unsent requests and room for them."""
        self._due: list[tuple[float, int, list[int]]] = []
        self._ask_at: float | None = None
        self._turn_at: float | None = None
        self._unconfirmed = self._unconfirmed_bytes = 0
        self._out: list[c.Command] = []

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        self._out = []
        if self.phase == "ended":
            return []
        match event:
            case e.Submit():
                self._submit(event, now)
            case e.Received(_, envelope):
                self._received(envelope, now)
            case e.Connected():
                self._connected, self._heard = True, False
                self._ask(now)
            case e.Disconnected():
                self._connected = self._heard = False
                self._unserved = RangeSet()
            case e.Withdraw(numbers):
                self._withdraw(numbers)
            case e.Drain():
                self._end()
            case _:
                pass
        if self.phase != "ended":
            self._by_the_clock(event, now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        due = self._due[0][0] if self._due else None
        times = (due, self._ask_at, self._turn_at)
        return min((one for one in times if one is not None), default=None)

    def snapshot(self) -> ClientSnapshot:
        """What a client waits for."""
        return ClientSnapshot(self._connected, len(self._waiting))

    def check(self) -> None:
        """What was sent and not answered is waited for; what waits is either sent or in its line."""
        assert self._sent.keys() <= self._waiting.keys(), "a request was sent that nobody waits for"
        unsent = {number for line in self._lines.values() for number in line.unsent if number in self._waiting}
        assert unsent.isdisjoint(self._sent), "a request both sent and unsent"
        assert unsent | self._sent.keys() == self._waiting.keys(), "a request that is nowhere"
        for service, line in self._lines.items():
            mine = [len(self._waiting[n][1]) for n in self._sent if self._waiting[n][0] == service]
            assert (line.count, line.bytes) == (len(mine), sum(mine)), "what is with the broker is miscounted"

    # requests ----------------------------------------------------------------------------------------------------

    def _submit(self, event: e.Submit, now: float) -> None:
        service = event.service
        self._waiting.update({n: (service, one) for n, one in zip(event.numbers, event.payloads, strict=True)})
        line = self._lines.get(service)
        if line is None:
            line = self._lines[service] = _Line()
        line.unsent.extend(event.numbers)
        self._to_send[service] = None
        if event.timeout is not None and event.numbers:
            heapq.heappush(self._due, (now + event.timeout, event.numbers[0], event.numbers))
        if self._ask_at is None:
            self._ask_at = now + ASK_SECONDS

    def _send_unsent(self) -> None:
        """Send what there is room for."""
        services, self._to_send = self._to_send, {}
        for service in services:
            line = self._lines[service]
            most = self._sizes_of(service).most(self._room)
            numbers: list[int] = []
            while line.unsent and line.has_room(most):
                number = line.unsent.popleft()
                if number in self._waiting:
                    line.count += 1
                    line.bytes += len(self._waiting[number][1])
                    numbers.append(number)
            self._send(service, numbers, again=False)
            if not line.count and not line.unsent:
                del self._lines[service]

    def _sizes_of(self, service: str) -> _Sizes:
        found = self._sizes.get(service)
        if found is None:
            if len(self._sizes) >= MAX_SIZES:
                self._sizes.clear()
            found = self._sizes[service] = _Sizes()
        return found

    def _ask_for_more(self) -> None:
        """A second has passed: where no reply has come, more of what waits here may be asked for.

        Not while the broker has no worker: they would only wait there.
        """
        if self._unserved:
            return
        for service, line in self._lines.items():
            sizes = self._sizes_of(service)
            if line.unsent and not sizes.items:
                sizes.first = min(WINDOW, 2 * sizes.first)
                self._to_send[service] = None

    def _send(self, service: str, numbers: list[int], *, again: bool) -> None:
        """Send these requests, in messages of a bounded size."""
        broker = self._link.peer
        while numbers:
            payloads = [self._waiting[number][1] for number in numbers[: credit.MAX_BATCH]]
            count = credit.cut([len(one) for one in payloads])
            self._sent.update(dict.fromkeys(numbers[:count], broker))
            self._say(m.Requests(service, again, spans_of(numbers[:count]), payloads[:count]))
            numbers = numbers[count:]

    def _send_again(self, unknown: RangeSet, broker: bytes) -> None:
        """Send what this broker does not know; it has never had what it was asked itself."""
        alike: dict[tuple[str, bool], list[int]] = {}
        for number, asked in self._sent.items():
            if number in unknown:
                alike.setdefault((self._waiting[number][0], asked != broker), []).append(number)
        for (service, again), numbers in alike.items():
            self._send(service, sorted(numbers), again=again)

    def _ask(self, now: float) -> None:
        """Say what is awaited; until the broker has spoken, each second."""
        self._ask_at = now + ASK_SECONDS if self._waiting or (self._connected and not self._heard) else None
        self._unconfirmed = self._unconfirmed_bytes = 0
        if self._connected:
            self._say(m.Asking(spans_of(list(self._sent))))

    # answers -----------------------------------------------------------------------------------------------------

    def _received(self, envelope: m.Envelope, now: float) -> None:
        verdict = self._link.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        self._heard = self._connected
        if verdict is Verdict.GAP:
            # first of all: the next word to the broker must tell what is still awaited
            self._ask(now)
            self._unserved = RangeSet()
        match envelope.body:
            case m.Replies(spans, payloads):
                self._replies(numbers_of(spans), payloads, now)
            case m.Declined(kind, spans, trouble):
                told = RangeSet(spans)
                numbers = [number for number in sorted(self._waiting) if number in told and self._forget(number)]
                if numbers:
                    self._do(c.Reject(numbers, kind, trouble))
            case m.Unknown(spans, unserved, room):
                self._room = room
                self._unserved = RangeSet(unserved)
                self._send_again(RangeSet(spans), envelope.sender)
            case _:
                pass

    def _replies(self, numbers: list[int], payloads: m.Blobs, now: float) -> None:
        for number, payload in zip(numbers, payloads, strict=True):
            if number in self._waiting:
                self._sizes_of(self._waiting[number][0]).observe(len(payload), self._room)
        good = [(n, one) for n, one in zip(numbers, payloads, strict=True) if self._forget(n)]
        if good:
            self._do(c.Resolve([number for number, _ in good], [one for _, one in good]))
        self._unconfirmed += len(numbers)
        self._unconfirmed_bytes += sum(map(len, payloads))
        most = min(ASK_BYTES, self._room // 2) if self._room else ASK_BYTES
        if self._unconfirmed >= ASK_ANSWERS or self._unconfirmed_bytes >= most:
            self._ask(now)

    def _forget(self, number: int) -> bool:
        """Whether this request was still waited for; it is not any more."""
        found = self._waiting.pop(number, None)
        if found is None:
            return False
        service, payload = found
        line = self._lines[service]
        if self._sent.pop(number, None) is not None:
            line.count -= 1
            line.bytes -= len(payload)
        self._to_send[service] = None
        return True

    def _withdraw(self, numbers: Iterable[int]) -> None:
        sent = [number for number in numbers if number in self._sent]
        for number in numbers:
            self._forget(number)
        if sent and self._connected:
            self._say(m.Withdrawn(spans_of(sent)))

    # the clock, and the end --------------------------------------------------------------------------------------

    def _by_the_clock(self, event: e.Event, now: float) -> None:
        self._reject_late(now)
        if self._ask_at is not None and now >= self._ask_at:
            # The last one, when nothing is awaited any more, lets the broker drop the answers that it keeps.
            self._ask(now)
            self._ask_for_more()
        if isinstance(event, e.Tick):
            self._turn_at = None
            if self._heard:
                self._send_unsent()
        elif self._to_send and self._heard and self._turn_at is None:
            self._turn_at = now

    def _reject_late(self, now: float) -> None:
        late: list[int] = []
        while self._due and self._due[0][0] <= now:
            late += [number for number in heapq.heappop(self._due)[2] if number in self._waiting]
        unserved: dict[str, list[int]] = {}
        for number in late:
            if number in self._unserved:
                unserved.setdefault(self._waiting[number][0], []).append(number)
        for service, numbers in unserved.items():
            text = f"Nobody served {service!r} within the timeout. Start a worker for it, or check the name."
            self._do(c.Reject(numbers, "unavailable", m.ErrorInfo("ServiceUnavailable", text)))
        timed_out = [number for number in late if number not in self._unserved]
        if timed_out:
            self._do(c.Reject(timed_out, "timeout", m.ErrorInfo("ServiceTimeout", self._why_late(timed_out))))
        self._withdraw(late)
        if len(self._due) > 1000 and len(self._due) > 2 * len(self._waiting):
            # answered long before their time: they would pile up for as long as the time-outs are
            self._due = [one for one in self._due if any(number in self._waiting for number in one[2])]
            heapq.heapify(self._due)

    def _why_late(self, late: list[int]) -> str:
        if not self._connected:
            return "No answer came in time; no broker is connected."
        if any(number in self._sent for number in late):
            return "No answer came in time."
        if not self._heard:
            return "No answer came in time; a connection is there, and the broker has said nothing on it."
        services = {self._waiting[number][0] for number in late}
        if all(self._lines[one].has_room(self._sizes_of(one).most(self._room)) for one in services):
            return "No answer came in time; the time was over before the request was sent."
        return "No answer came in time; the request still waited for earlier ones of this client."

    def _end(self) -> None:
        numbers = list(self._waiting)
        self._withdraw(numbers)
        if numbers:
            self._do(c.Reject(numbers, "unavailable", m.ErrorInfo("ServiceUnavailable", "The client was closed.")))
        self.phase = "ended"
        self._do(c.Ended(0, "closed"))

    # out ---------------------------------------------------------------------------------------------------------

    def _say(self, body: m.Message) -> None:
        self._do(c.Send(_BROKER, self._link.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
