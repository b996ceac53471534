"""Asking distributors how their runs stand: one socket to each, and an end to every wait."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
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

OTHERS = 0.5
"""Seconds that the others have after the first one."""


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

    def ask(self) -> Mapping[EndpointAddress, Status]:
        """Ask all of them now; the answers that came, by address, in the order of the addresses. Perhaps none."""
        self._number += 1
        found: dict[str, Status] = {}
        for hop in self._connected:
            self._send(hop)
        end = time.monotonic() + PATIENCE
        while len(found) < len(self._hops) and (left := end - time.monotonic()) > 0:
            for arrival in self._transport.poll(left):
                self._take(arrival, found)
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
