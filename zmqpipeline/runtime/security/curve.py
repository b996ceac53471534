"""What protects the sockets of one role: CURVE on each, and a refusal to bind in the open without it.

Each bound socket has the server's pair and a ZAP domain of its own, the name of its hop; each connecting one has the
pair of its role and the server's public half; a worker that a run has placed elsewhere has those that it was handed,
and is let in by the folder of the keys that the run has issued (`issued`). Threads of one process (``inproc://``) need
none of it.

====================  =======================  ====================================
hop                   connected with a key of  let in by
====================  =======================  ====================================
workers, results      a worker                 ``authorized/workers``
acks                  a distributor            ``authorized/distributors``
metadata              a metadata worker        ``authorized/metadata``
clients, status       a client                 ``authorized/clients``
====================  =======================  ====================================
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

import zmq

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import KeysError
from zmqpipeline.options import Options
from zmqpipeline.runtime.bind import Socket
from zmqpipeline.runtime.security.handshakes import Words
from zmqpipeline.runtime.security.issued import HandedKeys, RunKeys
from zmqpipeline.runtime.security.keyfiles import ROLES, Pair, require_curve, role_pair, server_pair, server_public
from zmqpipeline.runtime.security.warnings import RateLimitedWarnings, warn
from zmqpipeline.runtime.security.zap import Domain, ZapHandler

CONNECTED_BY = {
    "workers": "worker",
    "results": "worker",
    "acks": "distributor",
    "metadata": "metadata",
    "clients": "client",
    "status": "client",
}
"""By hop: the role of whoever connects, and so of the keys that are let in."""


class Security:
    """The protection of one transport's sockets, by its options."""

    def __init__(self, options: Options, open_gate: Callable[[], ZapHandler], run_keys: RunKeys) -> None:
        """Read nothing yet. `open_gate` gives the gate of the context in which protected sockets are made."""
        self._options, self._run_keys = options, run_keys
        self._open_gate = open_gate
        self._warned = False

    def bound(self, hop: str, address: EndpointAddress) -> SocketSecurity:
        """What a socket gets that is bound to this address.

        Raises:
            KeysError: keys are missing or wrong, or the address is open to other machines and nothing protects it.
        """
        folder = keys_for(address, self._options)
        if folder is None:
            self._warned = self._warned or warn_if_open(address, self._options)
            return PlainServer(address)
        role = role_of(hop)
        issued = self._run_keys.admitted if role == "worker" else None
        return CurveServer(hop, Domain(address, folder, role, issued), server_pair(folder), self._open_gate())

    def connected(self, hop: str, address: EndpointAddress) -> SocketSecurity:
        """What a socket gets that connects to this address. Raises KeysError: keys are missing or wrong."""
        handed = self._run_keys.handed
        if handed is not None and role_of(hop) == "worker" and address.protocol != "inproc":
            return HandedClient(address, handed)
        folder = keys_for(address, self._options)
        return PlainClient(address) if folder is None else CurveClient(address, folder, role_of(hop))


def role_of(hop: str) -> str:
    """The role of whoever connects on this hop (which may be one of several, as in ``workers/1``).

    One that nobody knows has the most common role, which can do the least: a worker.
    """
    return CONNECTED_BY.get(hop.partition("/")[0], "worker")


def keys_for(address: EndpointAddress, options: Options) -> Path | None:
    """The folder of keys by which connections at this address are protected; None if they are not.

    Raises KeysError if they must be, and there are no keys.
    """
    if address.protocol == "inproc" or options.encryption == "off":
        return None
    if options.keys:
        return Path(options.keys)
    if options.encryption == "required":
        raise KeysError(
            f"Encryption is required, but there are no keys for {address}. "
            "Make some with the command `keygen DIR`, and name them: --keys DIR, or ZMQPIPELINE_KEYS=DIR."
        )
    return None


def is_open(address: EndpointAddress) -> bool:
    """Whether other machines can reach what is bound to this address."""
    if address.protocol != "tcp":
        return False
    host = (address.host or "").partition("%")[0]
    if host in ("localhost", "lo"):
        return False
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        # a name, which libzmq takes for that of an interface, or all of them
        return True
    mapped = getattr(ip, "ipv4_mapped", None)
    return not (mapped or ip).is_loopback


def warn_if_open(address: EndpointAddress, options: Options, *, quiet: bool = False) -> bool:
    """Refuse to bind to an address that other machines can reach, or, if the options say so, warn of it.

    For one that nothing protects. Returns whether it warned; if `quiet`, it never does.

    Raises:
        KeysError: `insecure` is not set.
    """
    if not is_open(address):
        return False
    if not options.insecure:
        off = " (encryption is off, so keys are not used)" if options.encryption == "off" and options.keys else ""
        raise KeysError(
            f"{address} can be reached from other machines, and nothing would be encrypted or checked{off}: whoever "
            "reaches it could read items, and make some up. Make keys with the command `keygen DIR` and name them "
            "(--keys DIR, or ZMQPIPELINE_KEYS=DIR), or, if everybody there is trusted, say --insecure "
            "(ZMQPIPELINE_INSECURE=1)."
        )
    if not quiet:
        warn(
            f"{address} is open to other machines, and nothing is encrypted or checked, as --insecure says: whoever "
            "reaches it can read items, and make some up. Keys close it: `keygen DIR`, then --keys DIR."
        )
    return not quiet


def check_bindable(address: EndpointAddress, options: Options) -> None:
    """Raise KeysError now for what a role that binds here would raise later."""
    folder = keys_for(address, options)
    if folder is None:
        warn_if_open(address, options, quiet=True)
    else:
        server_pair(folder)


# what sockets get -----------------------------------------------------------------------------------------------------


class SocketSecurity:
    """What a new socket is given before it binds or connects, and what is said when its handshakes fail."""

    protects = False
    """Whether it is CURVE."""

    words: Words

    def apply(self, socket: Socket) -> None:
        """Set the socket's options; called for each new one, and at once before it binds or connects."""


class PlainServer(SocketSecurity):
    """Nothing, at a bound socket."""

    def __init__(self, address: EndpointAddress) -> None:
        self.words = Words(
            mechanism=f"{address} turned a peer away that has a key: this side does not speak CURVE. "
            "Start this role with --keys DIR, too, or that one without."
        )


class PlainClient(SocketSecurity):
    """Nothing, at a connecting socket."""

    def __init__(self, address: EndpointAddress) -> None:
        todo = "Start this role with --keys DIR (ZMQPIPELINE_KEYS)"
        self.words = Words(
            refused=f"{address} refused this peer, which has no key. {todo}.",
            mechanism=f"{address} asks for a key, and this role has none: it does not speak CURVE. {todo}.",
            cut=f"{address} breaks off every handshake: it asks for a key, or something else than a role of this "
            f"pipeline listens there. {todo}, or correct the address.",
        )


class CurveServer(SocketSecurity):
    """The server's pair; whoever connects must have a key that the gate knows."""

    protects = True

    def __init__(self, hop: str, domain: Domain, pair: Pair, gate: ZapHandler) -> None:
        address = domain.address
        self._hop, self._pair = hop, pair
        gate.admit(hop, domain)
        self.words = Words(
            mechanism=f"{address} turned a peer away that does not speak CURVE. Start it with --keys DIR: "
            f"its own pair and {domain.folder / 'server.pub'}.",
            wrong_key=f"{address} turned a peer away that took it for another server. "
            f"Copy {domain.folder / 'server.pub'} to that peer's folder of keys.",
            cut=f"{address} turned a peer away in its handshake, which broke off: perhaps it does not speak CURVE. "
            "If it is a role, start it with --keys DIR. This is said once.",
        )

    def apply(self, socket: Socket) -> None:
        """See `SocketSecurity.apply`."""
        require_curve()
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, self._hop.encode())
        # without it libzmq lets everybody in when nobody answers its questions
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class CurveClient(SocketSecurity):
    """The pair of a role, and the server's public half, read again for each socket: files may be mended meanwhile."""

    protects = True

    def __init__(self, address: EndpointAddress, folder: Path, role: str) -> None:
        self._address, self._folder, self._role = address, folder, role
        self._limited = RateLimitedWarnings()
        self._load()

    def _load(self) -> None:
        require_curve()
        self._pair, self._server = role_pair(self._folder, self._role), server_public(self._folder)
        name, address = self._pair.name, self._address
        self.words = Words(
            refused=f"{address} refused this key; add {name}.pub to its authorized/{ROLES[self._role]}. "
            "It is tried again all the time.",
            mechanism=f"{address} does not speak CURVE, and this role has keys. "
            "Start that side with --keys DIR (ZMQPIPELINE_KEYS), or this one with --encryption off.",
            cut=f"{address} breaks off every handshake: it is not the server of {self._folder / 'server.pub'}, or it "
            "does not speak CURVE. Copy that server's server.pub here, or start it with --keys DIR.",
        )

    def apply(self, socket: Socket) -> None:
        """See `SocketSecurity.apply`."""
        try:
            self._load()
        except KeysError as error:
            self._limited.tell("load", f"The keys that were read before are used on: {error}")
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)


class HandedClient(SocketSecurity):
    """The pair that the run has handed to this worker, and no file."""

    protects = True

    def __init__(self, address: EndpointAddress, keys: HandedKeys) -> None:
        require_curve()
        self._keys = keys
        self.words = Words(
            refused=f"{address} refused the key that `run` has handed to this worker: another run is there now, or "
            "`run` takes this worker for gone. It is tried again until `run` ends it.",
            mechanism=f"{address} does not speak CURVE, and `run` has keys. Is it the address of another pipeline?",
            cut=f"{address} breaks off every handshake: it is not the server of this run, or does not speak CURVE. Is "
            "it the address of another pipeline?",
        )

    def apply(self, socket: Socket) -> None:
        """See `SocketSecurity.apply`."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
