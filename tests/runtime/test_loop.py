"""Loop and signals: events to a machine, its commands to the sockets and the actions."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.transports import QUICK, arrivals_until, messages, new_address, new_transport
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.commands import Command, Ended, LoadMetadata, Log, Send, SetMetadata, TakeBack
from zmqpipeline.protocol.events import Connected, Drain, Event, Received, TakenBack, Tick
from zmqpipeline.protocol.messages import Envelope, Kept, RunEnded, Settled
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.signals import draining
from zmqpipeline.runtime.transport.transport import Transport

LOG = logging.getLogger("zmqpipeline.test")


@dataclass
class Scripted:
    """A machine that does what the test says: `react(event)` returns the commands. It keeps what it was told."""

    react: Callable[[Event], list[Command]]
    deadline: float | None = None
    told: list[Event] = field(default_factory=list)

    def handle(self, event: Event, now: float) -> list[Command]:
        self.told.append(event)
        return self.react(event)

    def next_deadline(self) -> float | None:
        return self.deadline

    def check(self) -> None:
        assert self.told


def end_on(kind: type) -> Callable[[Event], list[Command]]:
    """A reaction that ends with the first event of this kind."""
    return lambda event: [Ended(0, "done")] if isinstance(event, kind) else []


def test_messages_pass_through_two_loops(tmp_path: Path) -> None:
    """A machine's Send on one side is Received on the other, as the same envelope, and the answer comes back."""
    address = new_address("ipc", tmp_path)
    question, answer = Envelope(b"a", b"", 1, 0, RunEnded("?")), Envelope(b"b", b"a", 1, 1, RunEnded("!"))

    def client_reacts(event: Event) -> list[Command]:
        return [Send(("hop", b""), question)] if isinstance(event, Connected) else [Ended(0)]

    def server_reacts(event: Event) -> list[Command]:
        return [Send(event.peer, answer), Ended(7, "answered")] if isinstance(event, Received) else []

    client, server = Scripted(client_reacts), Scripted(server_reacts)
    with new_transport(address) as one, new_transport(address) as other:
        one.connect("hop", address)
        other.bind("hop", address)
        ended: list[Ended] = []
        thread = threading.Thread(target=lambda: ended.append(Loop(server, other, {}, log=LOG).run()))
        thread.start()
        assert Loop(client, one, {}, log=LOG).run() == Ended(0)
        thread.join()
    assert ended == [Ended(7, "answered")]
    assert [event.envelope for event in server.told if isinstance(event, Received)] == [question]
    assert client.told == [Connected("hop"), Received(("hop", b""), answer)]


def test_commands_are_carried_out_in_order_and_ended_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """Actions get their commands in the order of the list; what stands behind Ended is not done; Log writes a line."""
    done: list[Command] = []
    commands = [LoadMetadata(), Log(logging.WARNING, "100 % told"), TakeBack(1), LoadMetadata(), Ended(3), TakeBack(2)]
    with Transport(QUICK) as transport, caplog.at_level(logging.INFO, logger=LOG.name):
        loop = Loop(
            Scripted(lambda event: commands), transport, {LoadMetadata: done.append, TakeBack: done.append}, log=LOG
        )
        loop.post(Drain(1.0))
        assert loop.run() == Ended(3)
    assert done == [LoadMetadata(), TakeBack(1), LoadMetadata()]
    assert caplog.messages == ["100 % told"]


def test_an_unknown_command_is_an_error_by_name() -> None:
    """A command that nobody carries out is a mistake of ours and comes out as a KeyError that names it."""
    with Transport(QUICK) as transport:
        loop = Loop(Scripted(lambda event: [SetMetadata(b"")]), transport, {}, log=LOG)
        loop.post(Drain(1.0))
        with pytest.raises(KeyError, match="SetMetadata"):
            loop.run()


def test_what_an_action_raises_comes_out_of_run() -> None:
    """An exception of an action ends the loop and reaches the caller; the transport can still be closed."""
    with Transport(QUICK) as transport:
        loop = Loop(
            Scripted(lambda event: [LoadMetadata()]), transport, {LoadMetadata: lambda command: 1 // 0}, log=LOG
        )
        loop.post(Drain(1.0))
        with pytest.raises(ZeroDivisionError):
            loop.run()


@pytest.mark.alone
def test_ticks_come_at_the_deadline() -> None:
    """The machine gets a Tick not before its deadline and soon after; without messages nothing else is told."""
    machine = Scripted(end_on(Tick), deadline=time.monotonic() + 0.1)
    with Transport(QUICK) as transport:
        Loop(machine, transport, {}, log=LOG).run()
    late = time.monotonic() - (machine.deadline or 0)
    assert 0 <= late < 30
    assert machine.told == [Tick()]


@pytest.mark.alone
def test_a_deadline_is_met_while_posts_pour_in() -> None:
    """Events posted without end do not keep the Tick away."""
    machine = Scripted(end_on(Tick), deadline=time.monotonic() + 0.1)
    with Transport(QUICK) as transport:
        loop = Loop(machine, transport, {}, log=LOG)
        over = threading.Event()

        def pour() -> None:
            while not over.is_set():
                loop.post(TakenBack([]))

        thread = threading.Thread(target=pour)
        thread.start()
        loop.run()
        over.set()
        thread.join()
    # that it came is what counts; on a machine with other work the two threads may wait for each other
    assert machine.told[-1] == Tick()


def test_every_post_arrives_from_many_threads_in_order() -> None:
    """Four threads post while the loop sleeps and wakes: nothing is lost, each thread's events keep their order."""
    counts = [0] * 4

    def react(event: Event) -> list[Command]:
        assert isinstance(event, TakenBack)
        thread, number = event.numbers
        assert counts[thread] == number
        counts[thread] += 1
        return [Ended(0)] if sum(counts) == 8000 else []

    with Transport(QUICK) as transport:
        loop = Loop(Scripted(react), transport, {}, log=LOG)

        def post(thread: int) -> None:
            for number in range(2000):
                loop.post(TakenBack([thread, number]))
                if number % 50 == 0:
                    time.sleep(0.0002)

        threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        loop.run()
        for thread in threads:
            thread.join()
    loop.post(TakenBack([0, 0]))
    assert counts == [2000] * 4


def test_garbage_is_counted_and_logged_once_a_peer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frames that are no message are dropped with one warning, a raw stranger on the port harms nobody."""
    address = new_address("tcp", tmp_path)
    machine = Scripted(end_on(Received))
    with new_transport(address) as server, new_transport(address) as client:
        server.bind("hop", address)
        with socket.create_connection(("127.0.0.1", address.port or 0)) as stranger:
            stranger.sendall(b"\x01\x00" + b"\x05\x00junk" * 20)
        client.connect("hop", address)
        arrivals_until(client, lambda found: Connected("hop") in found)
        for junk in ([b""], [b"\x01junk", b"more"], [b"\xff"], []):
            client.send(("hop", b""), [b"\x01", *junk])
        client.send(("hop", b""), codec.encode(Envelope(b"a", b"", 1, 0)))
        loop = Loop(machine, server, {}, log=LOG)
        with caplog.at_level(logging.WARNING, logger=LOG.name):
            loop.run()
    assert loop.malformed >= 4
    assert 1 <= len(caplog.messages) <= 2
    assert isinstance(machine.told[-1], Received)


@pytest.mark.alone
def test_a_loop_passes_more_than_20000_messages_in_a_second_of_its_thread(tmp_path: Path) -> None:
    """Small messages, one by one, through the sockets, decode and the machine; what else runs here is not counted."""
    count = 10000
    assert max(_messages_a_second(new_address("ipc", tmp_path), count) for _ in range(3)) > 20000


def _messages_a_second(address: EndpointAddress, count: int) -> float:
    counted = [0]

    def react(event: Event) -> list[Command]:
        counted[0] += isinstance(event, Received)
        return [Ended(0)] if counted[0] == count else []

    with new_transport(address) as server, new_transport(address) as client:
        server.bind("hop", address)
        client.connect("hop", address)
        arrivals_until(client, lambda found: Connected("hop") in found)
        for number in range(1, count + 1):
            client.send(("hop", b""), codec.encode(Envelope(b"a", b"", number, 0)))
        loop = Loop(Scripted(react), server, {}, log=LOG)
        began = time.thread_time()
        loop.run()
        return count / (time.thread_time() - began)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(signum: signal.Signals) -> None:
    """A signal is one Drain to the machine; which it was is remembered; the handlers are put back afterwards."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Transport(QUICK) as transport:
        machine = Scripted(end_on(Drain))
        loop = Loop(machine, transport, {}, log=LOG)
        with draining(12.5) as watch:
            watch.attach(loop)
            threading.Timer(0.05, os.kill, (os.getpid(), signum)).start()
            loop.run()
    assert machine.told == [Drain(12.5, final=signum == signal.SIGINT)]
    assert watch.signum == signum
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_before_the_loop_drains_it(signum: signal.Signals) -> None:
    """It is kept until there is one, and cuts nothing short meanwhile."""
    with draining(12.5) as watch:
        signal.raise_signal(signum)
        with Transport(QUICK) as transport:
            machine = Scripted(end_on(Drain))
            loop = Loop(machine, transport, {}, log=LOG)
            watch.attach(loop)
            loop.run()
    assert machine.told == [Drain(12.5, final=signum == signal.SIGINT)]
    assert watch.signum == signum


def test_in_another_thread_signals_are_left_alone() -> None:
    """Where Python takes no signals, draining does nothing."""
    handlers: list[Any] = []

    def enter() -> None:
        with Transport(QUICK) as transport:
            loop = Loop(Scripted(end_on(Drain)), transport, {}, log=LOG)
            with draining(1.0) as watch:
                watch.attach(loop)
                handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]


STUBBORN = """
import logging, sys
from tests.runtime.test_loop import LOG, QUICK, Loop, Scripted, Transport, draining
from zmqpipeline.protocol.commands import Log

with Transport(QUICK) as transport:
    loop = Loop(Scripted(lambda event: [Log(0, "x")]), transport, {Log: print}, log=LOG)
    loop.machine.react = lambda event: print("told", flush=True) or []
    with draining(60.0, ignore_sigint=len(sys.argv) > 1) as watch:
        watch.attach(loop)
        print("ready", flush=True)
        loop.run()
"""


@pytest.mark.processes
@pytest.mark.parametrize(("second", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(second: signal.Signals, status: int) -> None:
    """A second SIGTERM ends a role that does not drain; a second SIGINT cuts its drain short, one more ends it."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        process.send_signal(second)
        if second == signal.SIGINT:
            assert process.stdout.readline() == "told\n"
            process.send_signal(second)
        assert process.wait(60) in (status, 130 if second == signal.SIGINT else status)


@pytest.mark.processes
def test_a_child_ignores_the_terminals_interrupt() -> None:
    """With ignore_sigint, SIGINT does nothing; SIGTERM drains."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, "ignore"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        process.kill()


def test_addresses_of_a_loop_need_no_names() -> None:
    """The machines speak of hops; that one is bound to a real address is the transport's knowledge alone."""
    with Transport(QUICK) as transport:
        transport.bind("hop", EndpointAddress("tcp://127.0.0.1:0"))
        assert messages(transport.poll(0)) == []
        with pytest.raises(KeyError):
            transport.send(("other", b""), [b""])


def test_connections_and_messages_are_told_at_level_debug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who follows the logger sees the connection, and each message with its hop, its kind and its number of items."""
    address = new_address("ipc", tmp_path)
    work = Envelope(b"a", b"", 1, 0, Settled("run", "C", (0, 3)))
    results = Envelope(b"a", b"", 1, 0, Kept("run", "C", (0, 2, 5, 6)))

    def client_reacts(event: Event) -> list[Command]:
        return [Send(("hop", b""), results)] if isinstance(event, Connected) else [Ended(0)]

    def server_reacts(event: Event) -> list[Command]:
        return [Send(event.peer, work), Ended(0)] if isinstance(event, Received) else []

    with new_transport(address) as server, new_transport(address) as client:
        server.bind("bound", address)
        client.connect("hop", address)
        with caplog.at_level(logging.DEBUG, LOG.name):
            thread = threading.Thread(target=Loop(Scripted(server_reacts), server, {}, log=LOG).run)
            thread.start()
            Loop(Scripted(client_reacts), client, {}, log=LOG).run()
            thread.join(60)
    told = sorted(record.getMessage() for record in caplog.records)
    assert told == [
        "bound: received Kept (3 items).",
        "bound: sent Settled.",
        "hop: connected.",
        "hop: received Settled.",
        "hop: sent Kept (3 items).",
    ]
