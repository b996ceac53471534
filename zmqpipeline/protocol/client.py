"""The service client's machine: requests out, each answered once, or refused, or timed out.

The law:

* A request is sent when the broker is connected, and again to a broker that says it does not know it.
* All that is awaited is asked for at each connection, after a gap, and each second: that mends every loss on the way.
* The first answer counts; a later one finds nobody waiting and is dropped. A request that ran out of time is withdrawn.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from zmqpipeline.protocol import batching
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.link import Link, Verdict
from zmqpipeline.protocol.seqset import numbers_of, spans_of

ASK_SECONDS = 1.0
"""How often the client asks for what it waits for."""

_BROKER: e.Peer = ("clients", b"")


@dataclass(frozen=True)
class ClientSnapshot:
    """What a client waits for."""

    connected: bool
    waiting: int


class ClientMachine:
    """See the module. Hop: ``clients``. Requests are numbered by whoever submits them."""

    def __init__(self, *, incarnation: bytes) -> None:
        self.phase = "open"
        self._link = Link(incarnation)
        self._connected = False
        self._waiting: dict[int, tuple[str, bytes]] = {}
        self._sent: set[int] = set()
        self._due: list[tuple[float, int]] = []
        self._ask_at: float | None = None
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
                self._connected = True
                self._greet(now)
            case e.Disconnected():
                self._connected = False
            case e.Withdraw(numbers):
                self._withdraw(numbers)
            case e.Drain():
                self._end()
            case _:
                pass
        self._by_the_clock(now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        due = self._due[0][0] if self._due else None
        return min((one for one in (due, self._ask_at) if one is not None), default=None)

    def snapshot(self) -> ClientSnapshot:
        """What a client waits for."""
        return ClientSnapshot(self._connected, len(self._waiting))

    def check(self) -> None:
        """What was sent and not answered is waited for."""
        assert self._sent <= self._waiting.keys(), "a request was sent that nobody waits for"

    # requests ----------------------------------------------------------------------------------------------------

    def _submit(self, event: e.Submit, now: float) -> None:
        self._waiting.update({n: (event.service, one) for n, one in zip(event.numbers, event.payloads, strict=True)})
        if event.timeout is not None:
            for number in event.numbers:
                heapq.heappush(self._due, (now + event.timeout, number))
        if self._connected:
            self._send(event.numbers, again=False)
        if self._ask_at is None:
            self._ask_at = now + ASK_SECONDS

    def _send(self, numbers: list[int], *, again: bool) -> None:
        """Send these requests, in messages of one service and a bounded size."""
        by_service: dict[str, list[int]] = {}
        for number in sorted(numbers):
            by_service.setdefault(self._waiting[number][0], []).append(number)
        self._sent.update(numbers)
        for service, ones in by_service.items():
            while ones:
                payloads = [self._waiting[number][1] for number in ones[: batching.MAX_BATCH]]
                count = batching.cut([len(one) for one in payloads])
                self._say(m.Requests(service, again, spans_of(ones[:count]), payloads[:count]))
                ones = ones[count:]

    def _greet(self, now: float) -> None:
        """At each connection: ask for what was sent, send what was not."""
        fresh = [number for number in self._waiting if number not in self._sent]
        if self._sent:
            self._ask(now)
        if fresh:
            self._send(fresh, again=False)

    def _ask(self, now: float) -> None:
        self._ask_at = now + ASK_SECONDS if self._waiting else None
        if self._connected:
            self._say(m.Asking(spans_of(list(self._sent))))

    # answers -----------------------------------------------------------------------------------------------------

    def _received(self, envelope: m.Envelope, now: float) -> None:
        verdict = self._link.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        match envelope.body:
            case m.Replies(spans, payloads):
                self._replies(numbers_of(spans), payloads)
            case m.Declined(kind, spans, trouble):
                numbers = [number for number in numbers_of(spans) if self._forget(number)]
                if numbers:
                    self._do(c.Reject(numbers, kind, trouble))
            case m.Unknown(spans):
                self._send([number for number in numbers_of(spans) if number in self._waiting], again=True)
            case _:
                pass
        if verdict is Verdict.GAP and self._waiting:
            self._ask(now)

    def _replies(self, numbers: list[int], payloads: m.Blobs) -> None:
        good = [(n, one) for n, one in zip(numbers, payloads, strict=True) if self._forget(n)]
        if good:
            self._do(c.Resolve([number for number, _ in good], [one for _, one in good]))

    def _forget(self, number: int) -> bool:
        """Whether this request was still waited for; it is not any more."""
        self._sent.discard(number)
        return self._waiting.pop(number, None) is not None

    def _withdraw(self, numbers: list[int]) -> None:
        sent = [number for number in numbers if number in self._sent]
        for number in numbers:
            self._forget(number)
        if sent and self._connected:
            self._say(m.Withdrawn(spans_of(sent)))

    # the clock, and the end --------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        late = []
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            if number in self._waiting:
                late.append(number)
        if late:
            self._withdraw(late)
            text = "No answer came in time." if self._connected else "No answer came in time; no broker is connected."
            self._do(c.Reject(late, "timeout", m.Trouble("ServiceTimeout", text)))
        if not self._waiting and self._due:
            self._due.clear()
        if self._ask_at is not None and now >= self._ask_at:
            # The last one, when nothing is awaited any more, lets the broker drop the answers that it keeps.
            self._ask(now)

    def _end(self) -> None:
        numbers = list(self._waiting)
        self._withdraw(numbers)
        if numbers:
            self._do(c.Reject(numbers, "unavailable", m.Trouble("ServiceUnavailable", "The client was closed.")))
        self.phase = "ended"
        self._do(c.Ended(0, "closed"))

    # out ---------------------------------------------------------------------------------------------------------

    def _say(self, body: m.Message) -> None:
        self._do(c.Send(_BROKER, self._link.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
