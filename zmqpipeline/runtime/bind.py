"""Binding and connecting by address: what libzmq makes of it, and what its errors mean for the user."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket as sockets
from collections.abc import Iterator
from pathlib import Path

import zmq

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, EndpointError, EndpointInUse
from zmqpipeline.options import Options
from zmqpipeline.runtime.locks import PathLock, without_file

Socket = zmq.Socket[bytes]
"""A socket that receives bytes."""

CONNECT_TIMEOUT = 5.0
"""Seconds until an attempt to connect over tcp is given up, to be tried again."""

BACKLOG = 1024
"""Connections to an address that may wait to be accepted: a thousand workers may come back at the same moment."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that the other side has for its part of the handshake."""


RECONNECT_NEAR = (20, 80)
RECONNECT_FAR = (50, 1000)
"""Milliseconds between two attempts to connect: at first, and at most. On this machine an attempt costs little."""


def is_near(address: EndpointAddress) -> bool:
    """Whether whoever is bound to this address is on this machine: ipc, or tcp over the loopback."""
    host = (address.host or "").partition("%")[0]
    if address.protocol != "tcp" or host in ("*", "0.0.0.0", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


EARLY_STAY_SECONDS = 1.0

STAY_FACTOR = 1.25
"""So many times the longest wait between two attempts a role stays for who waits, since an attempt takes time, too."""


def early_stay(stay: float) -> float:
    """For so many seconds from its start a role is there that its user ends at once: who waits for it hears of that.

    A machine that starts several roles is busy, so that an attempt takes longer than it should; nobody ends a role
    that soon without having begun others. `stay` is the time for one attempt; 0.0 if nobody tries.
    """
    return max(stay, EARLY_STAY_SECONDS) if stay else 0.0


def longest_wait(address: EndpointAddress) -> float:
    """How many seconds may pass until somebody who waits for this address to be bound tries again."""
    if address.protocol == "inproc":
        return 0.0
    return (RECONNECT_NEAR if is_near(address) else RECONNECT_FAR)[1] / 1000


def configure(socket: Socket, address: EndpointAddress, options: Options) -> None:
    """Set what all sockets share: no limits of the queues, heartbeats, linger."""
    # A full receive queue keeps libzmq from answering heartbeats, and 4.3.5 then aborts the process: it sends the next
    # heartbeat on a connection that has broken while nothing was read from it ("!_io_error"). A socket that was closed
    # reads nothing either, for as long as it lingers with something unsent: who closes should have sent what matters.
    socket.rcvhwm = socket.sndhwm = 0
    socket.linger = round(options.linger * 1000)
    if address.protocol != "inproc":
        socket.heartbeat_ivl = round(options.heartbeat_interval * 1000)
        socket.heartbeat_timeout = socket.heartbeat_ttl = round(options.heartbeat_timeout * 1000)
        socket.handshake_ivl = round(HANDSHAKE_TIMEOUT * 1000)
    if address.protocol == "tcp":
        socket.connect_timeout = round(CONNECT_TIMEOUT * 1000)
        socket.backlog = BACKLOG
        socket.ipv6 = ":" in (address.host or "")


def check_path(address: EndpointAddress) -> None:
    """Raise EndpointError if an ipc path is longer than the system can bind."""
    length, limit = len(os.fsencode(address.path)), zmq.IPC_PATH_MAX_LEN
    if address.protocol == "ipc" and length > limit:
        raise EndpointError(
            f"The path of {address} has {length} bytes; this system allows {limit}. Choose a shorter path, or tcp."
        )


def bind(socket: Socket, address: EndpointAddress) -> PathLock | None:
    """Bind, for ipc under a lock, which is returned and kept for as long as the socket is bound.

    The file of an ipc address has mode 0600 from its first moment on: nobody else can connect to it.

    Raises:
        EndpointInUse: somebody else is bound to it.
        EndpointError: it cannot be bound on this machine; the message says why.
    """
    check_path(address)
    lock = _locked(address)
    try:
        if lock is not None:
            _listen(socket, address)
        socket.bind(bindable(address))
    except (zmq.ZMQError, OSError) as error:
        if lock is not None:
            lock.release()
        raise _explained(error.errno, address) from error
    return lock


def _listen(socket: Socket, address: EndpointAddress) -> None:
    """Make the file of an ipc address, for its owner alone, and hand libzmq the listening descriptor."""
    with contextlib.suppress(FileNotFoundError):
        # of a process that was killed: the lock is ours
        Path(address.path).unlink()
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    with _closed_if_it_fails(listener):
        with contextlib.suppress(OSError):
            # Linux gives the file these rights, without a moment in which it has others
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(address.path)
        Path(address.path).chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        socket.setsockopt(zmq.USE_FD, listener.fileno())
    # libzmq closes it with the socket
    listener.detach()


@contextlib.contextmanager
def _closed_if_it_fails(listener: sockets.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listener.close()
        raise


def connect(socket: Socket, address: EndpointAddress) -> None:
    """Connect; libzmq does it in the background and goes on trying. Raises EndpointError if it cannot even try."""
    check_path(address)
    try:
        socket.connect(connectable(address))
    except zmq.ZMQError as error:
        raise EndpointError(f"Cannot connect to {address}: {os.strerror(error.errno or 0)}.") from error


def is_to_itself(descriptor: int) -> bool:
    """Whether this tcp connection has the same address at both ends.

    The system may choose the very port for a connection that it is to go to, if nobody is bound there: then tcp joins
    the socket to itself, and whoever wants to bind the port cannot.
    """
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as one:
            return one.family != sockets.AF_UNIX and one.getsockname() == one.getpeername()
    except OSError:
        return False  # it is gone already


def bindable(address: EndpointAddress) -> str:
    """The address as libzmq binds it: it takes no names, so ``localhost`` is the loopback interface."""
    if address.protocol == "tcp" and address.host == "localhost":
        return address.replace("//localhost:", "//127.0.0.1:", 1)
    return str(address)


def connectable(address: EndpointAddress) -> str:
    """The address as it is connected to: "all interfaces" means this machine, over the loopback."""
    if address.protocol == "tcp" and address.host in ("*", "0.0.0.0", "localhost"):
        return f"tcp://127.0.0.1:{address.port}"
    return str(address)


def _locked(address: EndpointAddress) -> PathLock | None:
    # An abstract socket ("@name") has no file, and the system itself refuses a second one.
    if address.protocol != "ipc" or address.path.startswith("@"):
        return None
    try:
        return PathLock(address.path)
    except BlockingIOError as error:
        raise _explained(errno.EADDRINUSE, address) from error
    except OSError as error:
        raise _explained(error.errno, address) from error


def _explained(number: int | None, address: EndpointAddress) -> ConfigurationError:
    """What this errno of a bind means, as a sentence."""
    if number == errno.EADDRINUSE:
        return EndpointInUse(
            f"{address} is in use: another process, or another role of this one, is bound to it. "
            "End that one, or choose another address."
        )
    return EndpointError(f"Cannot bind {address}: {_reason(number, address)}")


def _reason(number: int | None, address: EndpointAddress) -> str:
    if address.protocol == "ipc" and number in (errno.ENOENT, errno.ENOTDIR):
        return without_file(address.path)
    if number in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return f"no interface of this machine has the address {address.host!r}. Use one that it has, or '*' for all."
    if number in (errno.EACCES, errno.EPERM):
        where = "the folder" if address.protocol == "ipc" else "a port below 1024"
        return f"the system does not permit it. Choose another address, or get the right to use {where}."
    return f"{os.strerror(number or 0)} (errno {number}). Choose another address."
