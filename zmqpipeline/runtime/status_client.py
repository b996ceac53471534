"""Asking distributors how their runs stand: one socket to each, and an end to every wait."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.events import Connected, Disconnected
from zmqpipeline.protocol.messages import AskStatus, Envelope, Status
from zmqpipeline.runtime.transport.sockets import Arrival
from zmqpipeline.runtime.transport.transport import Transport

PATIENCE = 2.0
"""Seconds that the first answer may take."""

LOOK_SECONDS = 0.05
"""Seconds between two looks whether nobody waits any more."""

OTHERS = 0.5
"""Seconds that the others have after the first one."""


class Pacing:
    """How long nobody is asked after an answer: so long that answers take no more than a part of the time.

    Whoever answers about thousands of workers has something to do for that.
    """

    def __init__(self, part: float, most: float = math.inf) -> None:
        """Answers take `part` of the time at most, about, unless `most` seconds of rest are too few for that."""
        self._part = part
        self._most = most
        self._before = 0.0

    def rest(self, taken: float, least: float) -> float:
        """The seconds until the next question, `least` or more, after an answer that has taken so long; 0: none came.

        A single one that took long may have waited: the first does, until the distributor is up.
        """
        costs, self._before = min(self._before, taken), taken
        return min(self._most, max(least, costs / self._part))


class StatusClient:
    """Asks at these addresses as often as it is told to; close it, or use it with `with`.

    Raises EndpointError for an address that nobody can ever be reached at.
    """

    def __init__(self, places: Sequence[EndpointAddress], options: Options | None = None) -> None:
        """Connect to each of the status addresses `places`."""
        self.strange: dict[EndpointAddress, str] = {}
        """What came from an address, last, that was no answer."""
        self._incarnation = os.urandom(8)
        self._number = 0
        self._connected: set[str] = set()
        self._transport = Transport(options or Options(linger=0.0))
        self._decode = codec.Decoder(self._transport.options).decode
        self._hops = {f"status/{index}": place for index, place in enumerate(places)}
        try:
            for hop, place in self._hops.items():
                self._transport.connect(hop, place)
        except BaseException:
            self._transport.close(0.0)
            raise

    def __enter__(self) -> StatusClient:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._transport.close(0.0)

    def ask(self, is_over: Callable[[], bool] | None = None) -> Mapping[EndpointAddress, Status]:
        """Ask all of them now; the answers that came, by address, in the order of the addresses. Perhaps none.

        Nothing is waited for any more when `is_over` says so, which is asked now and then.
        """
        self._number += 1
        found: dict[str, Status] = {}
        for hop in self._connected:
            self._send(hop)
        end = time.monotonic() + PATIENCE
        while len(found) < len(self._hops) and (left := end - time.monotonic()) > 0:
            for arrival in self._transport.poll(left if is_over is None else min(left, LOOK_SECONDS)):
                self._take(arrival, found)
            if is_over is not None and is_over():
                break
            if found:
                end = min(end, time.monotonic() + OTHERS)
        return {place: found[hop] for hop, place in self._hops.items() if hop in found}

    def _send(self, hop: str) -> None:
        envelope = Envelope(self._incarnation, b"", self._number, 0, AskStatus())
        self._transport.send((hop, b""), codec.encode(envelope))

    def _take(self, arrival: Arrival, found: dict[str, Status]) -> None:
        if isinstance(arrival, Connected):
            self._connected.add(arrival.hop)
            self._send(arrival.hop)
        elif isinstance(arrival, Disconnected):
            self._connected.discard(arrival.hop)
        elif isinstance(arrival, tuple):
            (hop, _), frames = arrival
            try:
                envelope = self._decode(frames)
            except WireError as error:
                self.strange[self._hops[hop]] = str(error)
                return
            # an older answer than that to the last question came too late
            if isinstance(envelope.body, Status) and envelope.received == self._number:
                found[hop] = envelope.body
