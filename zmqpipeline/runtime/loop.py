"""The one loop of a role: events to the machine, its commands to whoever carries them out.

It knows no leases, credit or acks. User code never runs here: the actions hand it to threads (`collecting`, `source`,
`pool`), which answer by `Loop.post`. Which thread makes the turns is another question, and `leader` answers it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.allowed import allowed_on
from zmqpipeline.protocol.commands import Ended, Log, Send
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.events import Connected, Disconnected, Event, Peer, PeerLost, Received, Tick
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.messages import Message
from zmqpipeline.runtime.leader import Leadership
from zmqpipeline.runtime.transport.sockets import Arrival
from zmqpipeline.runtime.transport.transport import Transport

Action = Callable[[Any], object]
"""What carries out commands of one type; it is called with the command, and must not block."""


WARNINGS, WARNING_SECONDS = 20, 60.0
"""So many lines about malformed messages are written in so many seconds, however many peers send them."""


class Loop:
    """Runs one machine on one transport. `malformed` counts the messages that were none of this protocol."""

    def __init__(
        self,
        machine: Machine,
        transport: Transport,
        actions: Mapping[type, Action],
        *,
        log: logging.Logger,
        end_to_end: bool = False,
        leadership: Leadership | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`actions` maps types of commands to what does them; Send, Log and Ended are done here.

        `end_to_end`: what this role sends on was packed here, and may travel so; see `protocol.codec`. `leadership` is
        the one that the threads of user code know, if they may run the loop.
        """
        self.machine = machine
        self.malformed = 0
        self._transport = transport
        limits = transport.options
        self._encode = codec.Encoder(end_to_end=end_to_end, max_header_bytes=limits.max_header_bytes).encode
        self._decode = codec.Decoder(limits).decode
        self._log = log
        self._clock = clock
        self._actions: dict[type, Action] = {**actions, Send: self._send, Log: self._write}
        self._posted: deque[Event] = deque()
        self._awake = False
        """Whoever posts need not wake anybody."""
        self._leadership = Leadership() if leadership is None else leadership
        self._is_chatty = False
        """Whether lines about each message are written: asked once a turn."""
        self._warned: set[Peer] = set()
        self._warnings: deque[float] = deque(maxlen=WARNINGS)

    def post(self, event: Event) -> None:
        """Tell the machine of an event soon; from any thread or signal handler, also after the end."""
        self._posted.append(event)
        # One wake-up is enough until the next turn.
        if not self._awake:
            self._awake = True
            self._transport.wake()

    def wake_file(self) -> int:
        """The file number that a written byte wakes the loop by, for `signal.set_wakeup_fd`."""
        return self._transport.wake_file()

    def run(self, first: Iterable[Event] = ()) -> Ended:
        """Run until the machine says Ended, and return that; the transport stays open.

        `first` are events that come before all others, what is posted or waits at the sockets already included.
        Whatever an action raises comes out of here, and a KeyError for a command that no action is known for.
        """
        for event in first:
            if ended := self._handle(event):
                return ended
        return self._leadership.run(self)

    def turn(self, *, patient: bool) -> Ended | None:
        """One turn: what arrived, waiting for it if `patient`; what was posted; the time that has come.

        This and the next three are for whoever leads.
        """
        # Cleared before the posted events are looked for: what is posted from here on ends the wait.
        self._awake = False
        deadline = self.machine.next_deadline()
        if not patient or self._posted:
            patience: float | None = 0.0
        else:
            patience = None if deadline is None else max(0.0, deadline - self._clock())
        arrivals = self._transport.poll(patience)
        self._awake = True
        self._is_chatty = self._log.isEnabledFor(logging.DEBUG)
        for arrival in arrivals:
            event = self._event(arrival)
            if event is not None and (ended := self._handle(event)):
                return ended
        if self._posted and (ended := self.settle()):
            return ended
        # Asked again only if the old one has come: a new one that is sooner is seen in the next turn.
        if deadline is not None and self._clock() >= deadline:
            deadline = self.machine.next_deadline()
            if deadline is not None and self._clock() >= deadline:
                return self._handle(Tick())
        return None

    def settle(self) -> Ended | None:
        """Handle what was posted until now."""
        for _ in range(len(self._posted)):
            if ended := self._handle(self._posted.popleft()):
                return ended
        return None

    def has_posts(self) -> bool:
        """Whether something is posted that nobody has taken."""
        return bool(self._posted)

    def expect_posts(self) -> None:
        """What is posted before the next turn needs no wake-up: whoever makes that turn looks first."""
        self._awake = True

    def wake(self) -> None:
        """End the wait of the turn that is being made."""
        self._transport.wake()

    def _event(self, arrival: Arrival) -> Event | None:
        if not isinstance(arrival, tuple):
            if isinstance(arrival, PeerLost):
                self._warned.discard(arrival.peer)
            elif isinstance(arrival, (Connected, Disconnected)):
                self._log.debug("%s: %s.", arrival.hop, type(arrival).__name__.lower())
            return arrival
        peer, frames = arrival
        try:
            envelope = self._decode(frames, allowed_on(peer))
        except WireError as error:
            self._drop(peer, error)
            return None
        if self._is_chatty:
            self._tell("received", peer, envelope.body)
        return Received(peer, envelope)

    def _tell(self, what: str, peer: Peer, body: Message) -> None:
        spans = getattr(body, "spans", None)
        items = "" if spans is None else f" ({size(spans)} items)"
        self._log.debug("%s: %s %s%s.", peer[0], what, type(body).__name__, items)

    def _drop(self, peer: Peer, error: WireError) -> None:
        self.malformed += 1
        if peer not in self._warned and self._may_warn():
            self._warned.add(peer)
            self._log.warning(
                "Dropped a message on %s that is none of this protocol: %s. Further ones of this peer are dropped "
                "silently; see what else connects to this address.",
                peer[0],
                error,
            )

    def _may_warn(self) -> bool:
        """Whether few enough lines were written lately: who comes again and again shall not fill the log, nor this."""
        now = self._clock()
        if len(self._warnings) == WARNINGS and now - self._warnings[0] < WARNING_SECONDS:
            return False
        self._warnings.append(now)
        return True

    def _handle(self, event: Event) -> Ended | None:
        actions = self._actions
        for command in self.machine.handle(event, self._clock()):
            action = actions.get(type(command))
            if action is None:
                if isinstance(command, Ended):
                    return command
                raise KeyError(f"Nobody carries out {type(command).__name__}. Add it to the actions of this loop.")
            action(command)
        return None

    def _send(self, command: Send) -> None:
        peer, envelope = command.peer, command.envelope
        if self._is_chatty:
            self._tell("sent", peer, envelope.body)
        try:
            frames = self._encode(envelope)
        except WireError as error:
            # the run goes on without it; whoever waits for it asks again
            if self._may_warn():
                self._log.error("A message on %s is not sent: %s. This is a bug of zmqpipeline.", peer[0], error)
            return
        self._transport.send(peer, frames)

    def _write(self, command: Log) -> None:
        self._log.log(command.level, "%s", command.text, extra={"about": command.about})
