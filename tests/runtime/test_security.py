"""Who is let in: real sockets with and without keys, what strangers get to see, and what is said on both sides."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support import transports
from tests.support.patience import PATIENCE
from tests.support.transports import arrivals_until, new_address
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import KeysError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.events import Connected
from zmqpipeline.protocol.messages import Envelope, Probe
from zmqpipeline.runtime.security import keyfiles
from zmqpipeline.runtime.security.curve import CONNECTED_BY, is_open
from zmqpipeline.runtime.transport.transport import Transport, shared_context

HOPS = tuple(CONNECTED_BY)
SECRET = b"for authorized eyes"
PROBE = codec.encode(Envelope(b"", b"", 0, 0, Probe()))
SOON = PATIENCE
"""Seconds within which both sides say what is wrong, and within which a mended key works: 3 on an idle machine."""


class Yard:
    """A folder of keys, and the sockets of one test; all are closed on the way out."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.stack = stack
        keyfiles.make_all(self.keys)

    def transport(self, folder: Path | None = None, **options: Any) -> Transport:
        """One with these keys (by default the yard's)."""
        # a process that stands still for some seconds must not lose its connections
        made = Options(keys=str(folder or self.keys), linger=0.0, heartbeat_timeout=PATIENCE, **options)
        return self.stack.enter_context(Transport(made))

    def bare(self, kind: int) -> Any:
        """A plain pyzmq socket of a context of its own."""
        context = self.stack.enter_context(zmq.Context())
        made = self.stack.enter_context(context.socket(kind))
        made.linger = 0
        return made

    def stranger(self, who: str) -> Any:
        """A plain pyzmq DEALER: no_keys, wrong_server, unlisted, or the name of a role whose key it has."""
        dealer = self.bare(zmq.DEALER)
        if who == "no_keys":
            return dealer
        public, secret = zmq.curve_keypair()
        server = keyfiles.server_public(self.keys)
        if who == "wrong_server":
            server, pair = public, keyfiles.role_pair(self.keys, "worker")
            public, secret = pair.public, pair.secret
        elif who != "unlisted":
            pair = keyfiles.role_pair(self.keys, who)
            public, secret = pair.public, pair.secret
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = server, public, secret
        return dealer


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """A yard; afterwards no descriptor is left open."""
    with ExitStack() as stack:
        yield Yard(tmp_path, stack)


def poll_for(seconds: float, *transports: Transport, until: Callable[[list[Any]], object] = bool) -> list[Any]:
    """What arrives at these transports, until it is enough or the time is over."""
    arrivals: list[Any] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until(arrivals):
        for transport in transports:
            arrivals += transport.poll(0.01)
    return arrivals


def messages(arrivals: list[Any]) -> list[list[bytes]]:
    """What was said; a bound side asks its peers whether they are there when somebody else's connection broke."""
    return [one for one in transports.messages(arrivals) if one != PROBE]


def never(arrivals: list[Any]) -> bool:
    """Poll for all of the time."""
    return False


@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
@pytest.mark.parametrize("hop", HOPS)
def test_the_right_key_opens_its_own_door_and_no_other(protocol: str, hop: str, yard: Yard) -> None:
    """Messages pass both ways on each hop with the key of its role; with that of any other role none does."""
    server = yard.transport()
    address = new_address(protocol, yard.folder)
    server.bind(hop, address)
    client = yard.transport()
    client.connect(hop, address)
    client.send((hop, b""), [b"hello"])
    (found,) = [one for one in poll_for(SOON, server, client, until=messages) if isinstance(one, tuple)]
    server.send(found[0], [b"welcome"])
    assert messages(poll_for(SOON, server, client, until=messages)) == [[b"welcome"]]

    others = [yard.stranger(role) for role in keyfiles.ROLES if role != CONNECTED_BY[hop]]
    for one in others:
        one.connect(str(address))
        one.send(SECRET)
    assert messages(poll_for(0.5, server, until=never)) == []
    assert [one.poll(0) for one in others] == [0, 0, 0]


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("no_keys", "CURVE"),
        ("wrong_server", "took it for another server"),
        ("unlisted", "refused the key"),
        ("client", "that of the client client, and only a worker"),
    ],
)
def test_a_stranger_gets_nothing_in_and_nothing_out(
    who: str, words: str, yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """What it sends never arrives, it receives nothing, although the server says something, and the log says why."""
    server, friend = yard.transport(), yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    address = server.address("workers")
    stranger = yard.stranger(who)
    stranger.connect(str(address))
    stranger.send(b"forged")
    friend.connect("workers", address)
    friend.send(("workers", b""), [b"hello"])
    arrivals = poll_for(SOON, server, friend, until=lambda found: messages(found) and words in caplog.text)
    assert messages(arrivals) == [[b"hello"]]
    for peer in {one[0] for one in arrivals if isinstance(one, tuple)}:
        server.send(peer, [SECRET])
    heard = poll_for(SOON, server, friend, until=messages)
    assert messages(heard + poll_for(0.5, server, friend, until=never)) == [[SECRET]]
    assert stranger.poll(0) == 0
    assert words in caplog.text
    assert str(server.address("workers").port) in caplog.text or "127.0.0.1:0" in caplog.text


@pytest.mark.parametrize("who", ["plain", "another server"])
def test_a_role_with_keys_tells_a_false_server_nothing(who: str, yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A raw ROUTER at the address receives not one frame of it, and the role says what is wrong."""
    router = yard.bare(zmq.ROUTER)
    if who == "another server":
        router.curve_server, router.curve_secretkey = 1, zmq.curve_keypair()[1]
    port = router.bind_to_random_port("tcp://127.0.0.1")
    client = yard.transport()
    client.connect("results", EndpointAddress(f"tcp://127.0.0.1:{port}"))
    client.send(("results", b""), [SECRET])
    arrivals = poll_for(SOON, client, until=lambda found: "does not speak CURVE" in caplog.text)
    assert [one for one in arrivals if isinstance(one, Connected)] == []
    assert router.poll(200) == 0
    assert f"tcp://127.0.0.1:{port}" in caplog.text
    assert "does not speak CURVE" in caplog.text


def test_a_role_without_keys_says_that_one_is_asked_for(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """And the server says that somebody does not speak CURVE."""
    server = yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    client = yard.transport(encryption="off")
    client.connect("workers", server.address("workers"))

    def said() -> bool:
        return "asks for a key" in caplog.text and "turned a peer away" in caplog.text

    arrivals = poll_for(SOON, server, client, until=lambda found: said())
    assert said(), caplog.text
    assert [one for one in arrivals if isinstance(one, Connected)] == []


GREETINGS = {"ZMTP 1": b"\x01\x00", "ZMTP 2": b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\x00\x00"}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_an_old_protocol_is_no_way_round(greeting: bytes, yard: Yard) -> None:
    """A peer of a version that knows no security is hung up on; what it sends does not arrive."""
    server = yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    port = server.address("workers").port
    with socket.create_connection(("127.0.0.1", port or 0)) as old:
        old.sendall(greeting + b"\x00\x06forged")
        assert messages(poll_for(0.5, server, until=never)) == []
        old.settimeout(SOON)
        received = b""
        with suppress(ConnectionResetError):
            while more := old.recv(100):
                received += more
    assert b"READY" not in received


def hand_out(yard: Yard, name: str) -> Path:
    """A folder as a worker elsewhere has it: the server's public half, and a key of its own that is not authorized."""
    folder = yard.folder / name
    keyfiles.make_one(folder, "worker", name)
    shutil.copy(yard.keys / "server.pub", folder)
    return folder


@pytest.mark.slow
def test_a_key_that_is_authorized_while_its_worker_waits_is_used(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """Both sides say what is missing, and when that is mended the worker is in."""
    folder = hand_out(yard, "worker-3")
    server, client = yard.transport(), yard.transport(folder)
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    address = server.address("workers")
    client.connect("workers", address)

    def said() -> bool:
        mine = f"{address} refused this key; add worker-3.pub to its authorized/workers" in caplog.text
        return mine and "refused the key" in caplog.text and "127.0.0.1" in caplog.text

    poll_for(SOON, server, client, until=lambda found: said())
    assert said(), caplog.text
    # long enough for the attempts to have become as rare as they ever get
    assert poll_for(4.0, server, client) == []
    assert len([one for one in caplog.records if "refused this key" in one.getMessage()]) == 1

    shutil.copy(folder / "worker-3.pub", keyfiles.authorized(yard.keys, "worker"))
    assert poll_for(SOON, server, client) == [Connected("workers")]


def test_a_removed_key_is_out_at_its_next_connection(yard: Yard) -> None:
    """The folder is read again when it changes: removed it is refused, put back it is let in."""
    server = yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    file = keyfiles.authorized(yard.keys, "worker") / "worker.pub"
    text = file.read_text()
    for _ in range(5):
        for there in (True, False):
            if there:
                file.write_text(text)
            else:
                file.unlink()
            with Transport(Options(keys=str(yard.keys), linger=0.0)) as client:
                client.connect("workers", server.address("workers"))
                arrivals = poll_for(SOON if there else 0.3, server, client)
                assert (Connected("workers") in arrivals) is there


def test_a_broken_file_lets_nobody_in_and_the_others_still_are(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A file that holds no key, or that others may write, is told and skipped."""
    allowed = keyfiles.authorized(yard.keys, "worker")
    (allowed / "broken.pub").write_text("public = nothing\n")
    keyfiles.make_one(yard.keys, "worker", "shared")
    (allowed / "shared.pub").chmod(0o666)
    server, client = yard.transport(), yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    client.connect("workers", server.address("workers"))
    assert poll_for(SOON, server, client) == [Connected("workers")]
    assert "broken.pub' holds no public key" in caplog.text
    assert "shared.pub' is open to other users (mode 666)" in caplog.text
    shared = yard.bare(zmq.DEALER)
    pair = keyfiles._pair(yard.keys / "shared.secret")
    shared.curve_serverkey, shared.curve_publickey = keyfiles.server_public(yard.keys), pair.public
    shared.curve_secretkey = pair.secret
    shared.connect(str(server.address("workers")))
    shared.send(b"forged")
    assert messages(poll_for(0.5, server, until=never)) == []


def test_a_list_that_others_may_write_lets_nobody_in(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """Its folder's mode is looked at, too, each time."""
    keyfiles.authorized(yard.keys, "worker").chmod(0o777)
    server, client = yard.transport(), yard.transport()
    server.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
    client.connect("workers", server.address("workers"))
    assert poll_for(1.0, server, client) == []
    assert poll_for(SOON, server, client, until=lambda found: found or "(mode 777)" in caplog.text) == []
    assert "open to other users (mode 777)" in caplog.text
    keyfiles.authorized(yard.keys, "worker").chmod(0o700)
    assert poll_for(SOON, server, client) == [Connected("workers")]


def test_inproc_needs_no_keys_and_mixes_with_sockets_that_have_some(yard: Yard) -> None:
    """A role with hops of both kinds has both; the shared context never gets a gate, which it could have but one of."""
    options = Options(keys=str(yard.keys), linger=0.0, encryption="required")
    inside = new_address("inproc", yard.folder)
    with ExitStack() as stack:
        server, client, other = (stack.enter_context(Transport(options, context=shared_context())) for _ in range(3))
        for one, hop in ((server, "workers"), (other, "results")):
            one.bind(hop, EndpointAddress("tcp://127.0.0.1:0"))
            client.connect(hop, one.address(hop))
        server.bind("metadata", inside)
        client.connect("metadata", inside)
        for hop in ("workers", "results", "metadata"):
            client.send((hop, b""), [hop.encode()])
        arrivals = poll_for(SOON, server, client, other, until=lambda found: len(messages(found)) == 3)
        assert sorted(messages(arrivals)) == [[b"metadata"], [b"results"], [b"workers"]]


# where it binds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "open_"),
    [
        ("tcp://localhost:1", False),
        ("tcp://127.0.0.1:1", False),
        ("tcp://127.8.9.1:1", False),
        ("tcp://[::1]:1", False),
        ("tcp://[::ffff:127.0.0.1]:1", False),
        ("tcp://lo:1", False),
        ("ipc://x", False),
        ("inproc://x", False),
        ("tcp://*:1", True),
        ("tcp://0.0.0.0:1", True),
        ("tcp://[::]:1", True),
        ("tcp://eth0:1", True),
        ("tcp://10.0.0.5:1", True),
        ("tcp://localhost.example:1", True),
    ],
)
def test_what_other_machines_can_reach(address: str, open_: bool) -> None:
    """The loopback in all its forms, ipc and inproc are this machine's; whatever else tcp takes is not."""
    assert is_open(EndpointAddress(address)) is open_


@pytest.mark.parametrize("options", [{}, {"encryption": "off", "keys": "anywhere"}])
def test_an_open_address_is_refused_without_keys(options: dict[str, Any]) -> None:
    """With both ways out; nothing is bound."""
    with Transport(Options(**options)) as transport, pytest.raises(KeysError) as caught:
        transport.bind("workers", EndpointAddress("tcp://*:0"))
    for part in ("tcp://*:0", "keygen", "--keys", "ZMQPIPELINE_KEYS", "--insecure", "ZMQPIPELINE_INSECURE=1"):
        assert part in str(caught.value)


def test_insecure_binds_and_warns_at_each_start(caplog: pytest.LogCaptureFixture) -> None:
    """Once a role, however many sockets it binds."""
    for count in (1, 2):
        with Transport(Options(insecure=True, linger=0.0)) as transport:
            for hop in ("workers", "results"):
                transport.bind(hop, EndpointAddress("tcp://*:0"))
        assert sum("is open to other machines" in one.getMessage() for one in caplog.records) == count
    assert {one.levelno for one in caplog.records} == {logging.WARNING}


def test_keys_open_every_address_without_a_warning(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """With keys all interfaces may be bound, and nobody is warned."""
    server, client = yard.transport(), yard.transport()
    server.bind("workers", EndpointAddress("tcp://*:0"))
    client.connect("workers", server.address("workers"))
    assert poll_for(SOON, server, client) == [Connected("workers")]
    assert caplog.records == []


def test_required_without_keys_is_refused_on_ipc_too(tmp_path: Path) -> None:
    """On each side, before anything is opened."""
    address = new_address("ipc", tmp_path)
    with Transport(Options(encryption="required")) as transport:
        for open_it in (transport.bind, transport.connect):
            with pytest.raises(KeysError, match=r"required.*--keys DIR, or ZMQPIPELINE_KEYS"):
                open_it("workers", address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_keys", [False, True])
def test_an_ipc_file_is_its_owners_alone(with_keys: bool, yard: Yard) -> None:
    """Mode 0600, whatever the mask, and a connection works."""
    address = new_address("ipc", yard.folder)
    encryption = "auto" if with_keys else "off"
    server, client = yard.transport(encryption=encryption), yard.transport(encryption=encryption)
    server.bind("workers", address)
    assert Path(address.path).stat().st_mode & 0o777 == 0o600
    client.connect("workers", address)
    assert poll_for(SOON, server, client) == [Connected("workers")]
    assert arrivals_until(client, lambda found: True) == []


@pytest.mark.parametrize(("role", "folder"), [("worker", "authorized/workers"), ("client", "authorized/clients")])
def test_who_has_no_key_of_a_role_is_told_where_it_comes_from(yard: Yard, role: str, folder: str) -> None:
    """The command, and where its two halves belong: a key that was only made would still be refused."""
    handed = yard.folder / "handed"
    handed.mkdir(mode=0o700)
    with pytest.raises(KeysError, match=rf"no key of a {role} .* `keygen {handed} --{role} NAME`, .* {folder} "):
        keyfiles.role_pair(handed, role)


# every door -----------------------------------------------------------------------------------------------------------


def folder_of(yard: Yard, hop: str, who: str) -> Path:
    """The keys of one who shall not get in by this hop."""
    role = CONNECTED_BY[hop]
    folder = yard.folder / who.replace(" ", "-")
    if who == "a wrong server key":
        keyfiles.make_all(folder)
        for half in ("pub", "secret"):
            shutil.copy2(yard.keys / f"{role}.{half}", folder)
        return folder
    if who == "an unlisted key":
        keyfiles.make_one(folder, role, "unlisted")
    else:
        other = "client" if role == "worker" else "worker"
        folder.mkdir(mode=0o700)
        for half in ("pub", "secret"):
            shutil.copy2(yard.keys / f"{other}.{half}", folder / f"{role}.{half}")
    shutil.copy2(yard.keys / "server.pub", folder)
    return folder


TOLD = {
    "no key": ("asks for a key", "does not speak CURVE"),
    "a wrong server key": ("is not the server of", "took it for another server"),
    "an unlisted key": ("refused this key; add unlisted.pub", "it is not in"),
    "the key of another role": ("refused this key; add", "it is that of the"),
}
"""Who shall not get in: what it is told, and what the bound side says."""


@pytest.mark.parametrize("who", TOLD)
@pytest.mark.parametrize("hop", HOPS)
def test_behind_every_door_nobody_else_gets_anything(
    hop: str, who: str, yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """A role whose keys do not fit says nothing that arrives, receives nothing, and is told why, as is the server."""
    server = yard.transport()
    server.bind(hop, EndpointAddress("tcp://127.0.0.1:0"))
    address = server.address(hop)
    friend = yard.transport()
    if who == "no key":
        stranger = yard.stack.enter_context(Transport(Options(linger=0.0)))
    else:
        stranger = yard.transport(folder_of(yard, hop, who))
    for one, text in ((stranger, b"forged"), (friend, b"hello")):
        one.connect(hop, address)
        one.send((hop, b""), [text])
    its: list[Any] = []

    def is_done(found: list[Any]) -> bool:
        its.extend(stranger.poll(0.01))
        return bool(messages(found)) and all(words in caplog.text for words in TOLD[who])

    arrivals = poll_for(SOON, server, friend, until=is_done)
    assert messages(arrivals) == [[b"hello"]]
    for peer in {one[0] for one in arrivals if isinstance(one, tuple)}:
        server.send(peer, [SECRET])
    assert messages(poll_for(SOON, server, friend, until=messages)) == [[SECRET]]
    its += poll_for(0.1, stranger, until=never)
    assert not [one for one in its if isinstance(one, Connected | tuple)]
    assert [words for words in TOLD[who] if words not in caplog.text] == []


def test_a_libzmq_without_curve_is_told_what_to_install(yard: Yard) -> None:
    """It cannot keep anybody out, so that nothing is opened; with CURVE nothing is said."""
    with pytest.raises(KeysError, match="built without CURVE") as caught:
        keyfiles.require_curve(False)
    assert "pip install --only-binary" in str(caught.value)
    keyfiles.require_curve(True)
    assert zmq.has("curve")
    keyfiles.require_curve()
