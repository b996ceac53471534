"""Addresses: what is accepted, what is refused and how, and what is derived from a base address."""

from __future__ import annotations

import pickle

import pytest

from zmqpipeline.addresses import ROLE_OFFSETS, EndpointAddress, derive
from zmqpipeline.errors import ConfigurationError, EndpointError, PipelineError

GOOD = [
    ("tcp://localhost:5558", "tcp", "localhost", 5558),
    ("tcp://*:5558", "tcp", "*", 5558),
    ("tcp://0.0.0.0:1", "tcp", "0.0.0.0", 1),
    ("tcp://127.0.0.1:0", "tcp", "127.0.0.1", 0),
    ("tcp://127.0.0.1:*", "tcp", "127.0.0.1", 0),
    ("tcp://some-host_1.example.org:65535", "tcp", "some-host_1.example.org", 65535),
    ("tcp://[::1]:5550", "tcp", "::1", 5550),
    ("tcp://[fe80::1%eth0]:5550", "tcp", "fe80::1%eth0", 5550),
    ("ipc://worker.ipc", "ipc", None, None),
    ("ipc:///run/user/worker.ipc", "ipc", None, None),
    ("ipc://with space/ä.ipc", "ipc", None, None),
    ("inproc://name", "inproc", None, None),
]

BAD = [
    ("tpc://x:1", "did you mean tcp://x:1?"),
    ("TCP://x:1", "did you mean tcp://x:1?"),
    ("tcp:/x:1", "did you mean tcp://x:1?"),
    ("tcp//x:1", "did you mean tcp://x:1?"),
    ("icp://worker.ipc", "did you mean ipc://worker.ipc?"),
    ("inprc://worker", "did you mean inproc://worker?"),
    ("localhost:5558", "did you mean tcp://localhost:5558?"),
    ("/tmp/worker.ipc", "did you mean ipc:///tmp/worker.ipc?"),
    ("http://x:1", "its protocol is 'http'"),
    ("worker", "tcp://HOST:PORT"),
    ("", "tcp://HOST:PORT"),
    ("tcp://host", "no port"),
    ("tcp://[::1]", "no port"),
    ("tcp://", "no port"),
    ("tcp://:5558", "no host"),
    ("tcp://host:", "whole number from 0 to 65535"),
    ("tcp://host:65536", "whole number from 0 to 65535"),
    ("tcp://host:-1", "whole number from 0 to 65535"),
    ("tcp://host:٣", "whole number from 0 to 65535"),
    ("tcp://host:5558/path", "whole number from 0 to 65535"),
    ("tcp://host:" + "9" * 5000, "whole number from 0 to 65535"),
    ("tcp://::1:5558", "tcp://[::1]:5558"),
    ("tcp://[::x]:5558", "no IPv6 address"),
    ("tcp://300.1.1.1:5558", "no IPv4 address"),
    ("tcp://two words:5558", "neither a name nor an address"),
    ("tcp://a;b:5558", "neither a name nor an address"),
    ("ipc://", "nothing after ipc://"),
    ("inproc://", "nothing after inproc://"),
    ("ipc://*", "ipc://worker.ipc"),
    (" tcp://host:1", "white space"),
    ("ipc://a\0b", "control characters"),
]


@pytest.mark.parametrize(("text", "protocol", "host", "port"), GOOD)
def test_a_good_address_is_itself_and_knows_its_parts(
    text: str, protocol: str, host: str | None, port: int | None
) -> None:
    """A good address is equal to the string that it was made from and tells its parts."""
    address = EndpointAddress(text)
    assert isinstance(address, str)
    assert address == text
    assert (address.protocol, address.host, address.port) == (protocol, host, port)
    assert address.path == text.partition("://")[2]


@pytest.mark.parametrize(("text", "hint"), BAD)
def test_a_bad_address_is_refused_with_a_hint(text: str, hint: str) -> None:
    """A bad address is a TypeError and a PipelineError that says on one line what to write instead."""
    with pytest.raises(EndpointError) as caught:
        EndpointAddress(text)
    for kind in (TypeError, PipelineError, ConfigurationError):
        assert isinstance(caught.value, kind)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 5558, b"tcp://host:1", ("host", 1)])
def test_an_address_that_is_no_string_is_refused(value: object) -> None:
    """Something else than a string is a TypeError that names its type."""
    with pytest.raises(TypeError, match=type(value).__name__):
        EndpointAddress(value)  # type: ignore[arg-type]


def test_an_address_survives_pickling() -> None:
    """An address may be an argument of a spawned process."""
    address = EndpointAddress("tcp://localhost:5558")
    again = pickle.loads(pickle.dumps(address))
    assert again == address
    assert type(again) is EndpointAddress


def test_tcp_ports_are_counted_from_the_base() -> None:
    """The roles of a tcp base have eight ports in a row, in the documented order."""
    found = [derive("tcp://server:5550", role) for role in ROLE_OFFSETS]
    assert found == [f"tcp://server:{port}" for port in range(5550, 5558)]
    assert list(ROLE_OFFSETS)[:4] == ["workers", "results", "acks", "metadata"]
    assert derive("tcp://[::1]:5550", "acks") == "tcp://[::1]:5552"


@pytest.mark.parametrize("base", ["ipc:///run/me", "ipc:///run/me/"])
def test_ipc_addresses_are_files_in_the_base_folder(base: str) -> None:
    """An ipc base is a folder, and a role's socket a file in it."""
    assert derive(base, "workers") == "ipc:///run/me/workers.ipc"


def test_inproc_names_begin_with_the_base() -> None:
    """An inproc base is the beginning of the roles' names."""
    assert derive("inproc://squares", "service-clients") == "inproc://squares-service-clients"


@pytest.mark.parametrize(
    ("base", "role", "hint"),
    [
        ("tcp://h:65535", "results", "1 to 65528"),
        ("tcp://h:0", "workers", "no port to count from"),
        ("tcp://h:*", "workers", "no port to count from"),
        ("tcp://h:5550", "wrokers", "workers"),
        ("tpc://h:5550", "workers", "did you mean"),
    ],
)
def test_what_cannot_be_derived_is_refused(base: str, role: str, hint: str) -> None:
    """A port that would be too large or is not fixed, and an unknown role, are errors that say what to do."""
    with pytest.raises(EndpointError, match=hint):
        derive(base, role)
