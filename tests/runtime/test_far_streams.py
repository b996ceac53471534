"""Streams of a worker elsewhere: what passes, who is let in, and who ends when the other side is gone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.support.ports import free_ports
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.runtime import far_streams
from zmqpipeline.runtime.far_streams import CUT, ERR, IN, KILL, LOST, OUT, FarCommand, FarEnd, FarStreams, run_far

pytestmark = pytest.mark.processes

ECHO = """
import sys
for line in sys.stdin:
    sys.stderr.write("heard " + line)
    sys.stderr.flush()
    print("out", flush=True)
sys.exit(7)
"""


class Ears(FarEnd):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.texts = {ERR: b"", OUT: b""}
        self.statuses: list[int] = []

    def greeting(self) -> bytes:
        """As `FarEnd`."""
        self.came.set()
        return b"greeting\n"

    def heard(self, stream: bytes, data: bytes) -> None:
        """As `FarEnd`."""
        self.texts[stream] += data

    def ended(self, status: int, *, is_over: bool = False) -> None:
        """As `FarEnd`."""
        self.statuses.append(status)


class Far(threading.Thread):
    """Somebody who executes `run_far`."""

    def __init__(self, command: FarCommand) -> None:
        super().__init__(daemon=True)
        self.command, self.result, self.is_wanted = command, (None, ""), True
        self.start()

    def run(self) -> None:
        """As `Thread`."""
        self.result = run_far(self.command, lambda: self.is_wanted)  # type: ignore[assignment]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until this holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(params=["ipc", "tcp"])
def streams(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FarStreams]:
    """The side of `run`, by both transports."""
    where = f"ipc://{tmp_path}/engine" if request.param == "ipc" else f"tcp://127.0.0.1:{free_ports(1)[0]}"
    made = FarStreams(EndpointAddress(where))
    yield made
    made.close()


def command(streams: FarStreams, program: str = ECHO, token: bytes = b"t1") -> FarCommand:
    """A program as a worker."""
    return FarCommand(["-c", program], str(streams.address), token, streams.key)


def test_both_ways(streams: FarStreams) -> None:
    """Lines in, both outputs back, and the status at the end of the input."""
    ears = Ears()
    streams.expect(b"t1", ears)
    far = Far(command(streams))
    assert ears.came.wait(60)
    until(lambda: streams.send(b"t1", IN, b"a line\n"))
    until(lambda: ears.texts[ERR] == b"heard greeting\nheard a line\n")
    until(lambda: ears.texts[OUT] == b"out\nout\n")
    streams.send(b"t1", CUT)
    until(lambda: ears.statuses == [7])
    far.join(60)
    assert far.result == (7, "")
    assert not streams.send(b"t1", IN, b"x\n")
    assert bool(streams.key) == (streams.address.protocol == "tcp" and zmq.has("curve"))


def test_a_token_lets_in_once(streams: FarStreams) -> None:
    """Who comes second is told to leave, and the first is lost; a stranger is told to leave, too."""
    ears = Ears()
    streams.expect(b"t1", ears)
    first = Far(command(streams))
    until(lambda: ears.texts[ERR])
    stranger = Far(command(streams, token=b"t2"))
    stranger.join(60)
    assert (stranger.result[0], ears.statuses) == (LOST, [])
    second = Far(command(streams))
    second.join(60)
    assert second.result[0] == LOST
    assert ears.statuses == [LOST]
    first.join(60)
    assert first.result[0] == -9


def test_it_is_killed(streams: FarStreams) -> None:
    """Though it does nothing but sleep, at once; likewise when nobody wants it where it runs."""
    for number in range(2):
        ears = Ears()
        streams.expect(b"t1", ears)
        far = Far(command(streams, "import time; time.sleep(60)"))
        assert ears.came.wait(60)
        if number:
            far.is_wanted = False
        else:
            until(lambda: streams.send(b"t1", KILL))
        until(lambda: ears.statuses == [-9])  # noqa: B023
        far.join(60)
        assert far.result == (-9, "")


@pytest.mark.slow
def test_run_is_gone(streams: FarStreams) -> None:
    """The worker is ended when the connection is, though nobody has said so."""
    ears = Ears()
    streams.expect(b"t1", ears)
    far = Far(command(streams, "import time; time.sleep(60)"))
    assert ears.came.wait(60)
    # as a kill of `run` does it: without a last word
    with streams._guard:
        streams._peers.clear()
    streams.close()
    far.join(far_streams.RECONNECT + 60)
    assert far.result[0] == -9


def test_much_output(streams: FarStreams) -> None:
    """Ten megabytes arrive, each byte."""
    ears = Ears()
    streams.expect(b"t1", ears)
    far = Far(command(streams, "import sys; sys.stderr.write('x' * 10_000_000)"))
    until(lambda: ears.statuses == [0], 60)
    far.join(60)
    assert len(ears.texts[ERR]) == 10_000_000


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not here is said at once; an address where nobody answers, after a while."""
    gone = FarCommand(["-c", ""], f"ipc://{tmp_path}/gone/engine", b"t", b"")
    assert run_far(gone)[1].endswith("which this one does not see")
    monkeypatch.setattr(far_streams, "FIRST", 0.5)
    silent = FarCommand(["-c", ""], f"tcp://127.0.0.1:{free_ports(1)[0]}", b"t", b"")
    assert run_far(silent)[1].startswith("nobody answers at tcp://127.0.0.1")


def test_an_interpreter_that_is_not_there(streams: FarStreams) -> None:
    """Is said, and nothing is raised; the token stands in no text that somebody might log."""
    ears = Ears()
    streams.expect(b"t1", ears)
    given = FarCommand(["-c", ""], str(streams.address), b"t1", streams.key, "/no/such/python")
    assert run_far(given)[1].startswith("/no/such/python cannot be started: ")
    assert "t1" not in repr(given)


def test_settings_are_added(streams: FarStreams, tmp_path: Path) -> None:
    """The environment, the folder and the interpreter are those that were asked for."""
    ears = Ears()
    streams.expect(b"t1", ears)
    program = "import os, sys; print(os.environ['A'], os.getcwd(), sys.executable)"
    given = FarCommand(
        ["-c", program], str(streams.address), b"t1", streams.key, sys.executable, {"A": "b"}, os.fspath(tmp_path)
    )
    far = Far(given)
    far.join(60)
    until(lambda: ears.statuses == [0])
    assert ears.texts[OUT].decode().split() == ["b", os.path.realpath(tmp_path), sys.executable]
