"""Notes of runs that have ended, and how soon who waits for an address is connected when somebody is bound there."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected
from zmqpipeline.runtime import bind, ended_runs
from zmqpipeline.runtime.bind import is_near, longest_wait
from zmqpipeline.runtime.transport.transport import Transport


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def address_of(protocol: str, folder: Path) -> EndpointAddress:
    """An address that is this test's."""
    return EndpointAddress(f"tcp://127.0.0.1:{free_ports(1)[0]}" if protocol == "tcp" else f"ipc://{folder}/w.ipc")


@pytest.mark.parametrize("protocol", ["ipc", "tcp"])
def test_a_note_is_found_at_its_address(protocol: str, tmp_path: Path) -> None:
    """With the run and how long ago it was over; the newest one counts, and another address has none."""
    address = address_of(protocol, tmp_path)
    assert ended_runs.find_note(address) is None
    began = time.monotonic()
    ended_runs.leave_note([address], "one")
    ended_runs.leave_note([address], "two")
    found = ended_runs.find_note(address)
    assert found is not None
    assert found[0] == "two"
    assert 0.0 <= found[1] <= time.monotonic() - began
    assert ended_runs.find_note(EndpointAddress("ipc://another.ipc")) is None


def test_an_ipc_path_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute, or by a symbolic link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    ended_runs.leave_note([EndpointAddress("ipc://w.ipc")], "run")
    for path in (f"{tmp_path}/w.ipc", "sub/../w.ipc", "link/w.ipc"):
        assert ended_runs.find_note(EndpointAddress(f"ipc://{path}")) is not None


def test_a_port_is_the_same_on_all_interfaces_but_not_on_another_machine() -> None:
    """A distributor that is bound to all of them is met over the loopback; who connects elsewhere learns nothing."""
    ended_runs.leave_note([EndpointAddress("tcp://*:5550")], "run")
    assert ended_runs.find_note(EndpointAddress("tcp://localhost:5550")) is not None
    assert ended_runs.find_note(EndpointAddress("tcp://[::1]:5550")) is not None
    assert ended_runs.find_note(EndpointAddress("tcp://192.0.2.1:5550")) is None
    assert ended_runs.find_note(EndpointAddress("tcp://somewhere:5550")) is None
    assert ended_runs.find_note(EndpointAddress("inproc://x")) is None


def test_old_and_broken_notes_are_none(tmp_path: Path) -> None:
    """What is older than five minutes goes when the next is left; what is no note, or of a clock before, is nothing."""
    address = EndpointAddress("ipc://w.ipc")
    ended_runs.leave_note([address], "run")
    (note,) = (tmp_path / "zmqpipeline" / "~ended").iterdir()
    for text in ("", "nonsense", f"{time.monotonic() + 100:f} run", f"{time.monotonic() - 1000:f} run"):
        note.write_text(text)
        assert ended_runs.find_note(address) is None
    long_ago = time.time() - 2 * ended_runs.KEPT_SECONDS
    os.utime(note, (long_ago, long_ago))
    ended_runs.leave_note([EndpointAddress("ipc://other.ipc")], "run")
    assert not note.exists()


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    """Nothing is left there, and nothing read."""
    address = EndpointAddress("ipc://w.ipc")
    ended_runs.leave_note([address], "run")
    (tmp_path / "zmqpipeline" / "~ended").chmod(0o777)
    assert ended_runs.find_note(address) is None
    with pytest.raises(PermissionError, match="open to others"):
        ended_runs.leave_note([address], "run")


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    """So is the one above it, in which the sockets of pipelines are made later."""
    ended_runs.leave_note([EndpointAddress("ipc://w.ipc")], "run")
    for folder in (tmp_path / "zmqpipeline", tmp_path / "zmqpipeline" / "~ended"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("address", "near", "seconds"),
    [
        ("ipc://w.ipc", True, 0.08),
        ("tcp://localhost:1", True, 0.08),
        ("tcp://0.0.0.0:1", True, 0.08),
        ("tcp://127.1.2.3:1", True, 0.08),
        ("tcp://[::1]:1", True, 0.08),
        ("tcp://192.0.2.1:1", False, 1.0),
        ("tcp://somewhere:1", False, 1.0),
        ("inproc://x", True, 0.0),
    ],
)
def test_how_long_who_waits_may_take(address: str, near: bool, seconds: float) -> None:
    """At most 0.1 s on this machine, 1 s to others, and threads of one process do not wait."""
    assert is_near(EndpointAddress(address)) is near
    assert longest_wait(EndpointAddress(address)) == seconds


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["ipc", "tcp"])
def test_who_has_waited_is_in_within_a_tenth_of_a_second(protocol: str, tmp_path: Path) -> None:
    """After two seconds of waiting, in the median of five times: the least of up to three such medians.

    What else the machine does makes it take longer, never shorter.
    """
    medians: list[float] = []
    while len(medians) < 3 and min(medians, default=1.0) >= 0.1:
        medians.append(sorted(_connected_after(address_of(protocol, tmp_path)) for _ in range(5))[2])
    assert min(medians) < 0.1, medians


def _connected_after(address: EndpointAddress) -> float:
    """In how many seconds who has waited for two of them is connected, once somebody is bound there."""
    with Transport(Options()) as client, Transport(Options()) as server:
        client.connect("workers", address)
        waited = time.monotonic() + 2.0
        while (left := waited - time.monotonic()) > 0:
            assert client.poll(left) == []
        server.bind("workers", address)
        bound = time.monotonic()
        while Connected("workers") not in client.poll(1.0):
            assert time.monotonic() < bound + 60.0
        return time.monotonic() - bound


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["ipc", "tcp"])
def test_waiting_costs_under_one_percent_of_a_core(protocol: str, tmp_path: Path) -> None:
    """A worker's two hops, libzmq's own thread included: the least of up to three times four seconds.

    What else the machine does makes the same work cost more, never less.
    """
    shares: list[float] = []
    with Transport(Options()) as client:
        for hop in ("workers", "results"):
            client.connect(hop, address_of(protocol, tmp_path))
        client.poll(0.2)
        while len(shares) < 3 and min(shares, default=1.0) >= 0.01:
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            while (left := began + 4.0 - time.monotonic()) > 0:
                client.poll(left)
            after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            shares.append(spent / seconds)
    assert min(shares) < 0.01, [f"{share:.2%} of a core" for share in shares]


def test_a_connection_to_itself_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tcp joins a socket to itself if the system chooses its own target as its port: nobody could bind that."""
    port = free_ports(1)[0]
    address = EndpointAddress(f"tcp://127.0.0.1:{port}")
    with Transport(Options()) as client, Transport(Options()) as server:
        with monkeypatch.context() as patched:
            # this libzmq syntax makes it choose that port
            patched.setattr(bind, "connectable", lambda given: f"tcp://127.0.0.1:{port};127.0.0.1:{port}")
            client.connect("workers", address)
        waited = time.monotonic() + 0.5
        while (left := waited - time.monotonic()) > 0:
            assert client.poll(left) == []
        server.bind("workers", address)
        deadline = time.monotonic() + 60.0
        while Connected("workers") not in client.poll(1.0):
            assert time.monotonic() < deadline
