"""EndpointAddress: a string that is known to be an address, and the addresses derived from one base address.

====================  ====================================================================================
``tcp://HOST:PORT``   HOST is a name, an IPv4 address, an IPv6 address in brackets, or ``*`` (to bind);
                      PORT is 0 to 65535 or ``*`` (0 and ``*``: any free one, to bind)
``ipc://PATH``        a socket file, relative to the working folder or absolute
``inproc://NAME``     threads of one process
====================  ====================================================================================

Where the roles of a pipeline meet: from its base address, its tasks' own ones, and the folders behind them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zmqpipeline.errors import ConfigurationError, EndpointError

PROTOCOLS = ("tcp", "ipc", "inproc")
"""The protocols that an address may begin with."""

ROLE_OFFSETS = {
    "workers": 0,
    "results": 1,
    "acks": 2,
    "metadata": 3,
    "status": 4,
    "service-clients": 5,
    "service-workers": 6,
    "engine": 7,
}
"""What a base address is split into: the roles' hops, each with what it adds to a tcp port."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_EXAMPLES = "Write tcp://HOST:PORT, ipc://PATH or inproc://NAME"


class EndpointAddress(str):
    """An address to bind or to connect to: a str that was checked.

    Raises EndpointError, which is a TypeError, for anything else; the message says what is wrong with it.
    """

    __slots__ = ()

    def __new__(cls, address: str) -> EndpointAddress:
        """Check `address` and return it as an EndpointAddress."""
        if not isinstance(address, str):
            raise EndpointError(f"An address is a string, not {type(address).__name__} ({address!r}). {_EXAMPLES}.")
        _check(address)
        return super().__new__(cls, address)

    @property
    def protocol(self) -> str:
        """``tcp``, ``ipc`` or ``inproc``."""
        return self.partition("://")[0]

    @property
    def path(self) -> str:
        """What follows the ``://``: a file's path for ipc, a name for inproc, HOST:PORT for tcp."""
        return self.partition("://")[2]

    @property
    def host(self) -> str | None:
        """The host of a tcp address, an IPv6 one without its brackets; None for the others."""
        return self.path.rpartition(":")[0].strip("[]") if self.protocol == "tcp" else None

    @property
    def port(self) -> int | None:
        """The port of a tcp address, 0 if it is ``*``; None for the others."""
        if self.protocol != "tcp":
            return None
        text = self.path.rpartition(":")[2]
        return 0 if text == "*" else int(text)


class WorkerAddress(EndpointAddress):
    """Which worker an item is for: ``HOST/PID``, what the log and `status` call it. It is no address to connect to."""

    __slots__ = ()

    def __new__(cls, name: str) -> WorkerAddress:
        """Take what the distributor knows the worker by."""
        return str.__new__(cls, name)

    @property
    def protocol(self) -> str:
        """An empty string: workers connect, and are not connected to."""
        return ""

    @property
    def path(self) -> str:
        """All of it."""
        return str(self)

    @property
    def host(self) -> str:
        """The name of the worker's host."""
        return self.rpartition("/")[0]

    @property
    def port(self) -> None:
        """There is none."""
        return None

    @property
    def process(self) -> int | None:
        """The worker's process id on its host; None if it did not tell."""
        text = self.rpartition("/")[2]
        return int(text) if "/" in self and text.isdecimal() else None


def derive(base: str, role: str) -> EndpointAddress:
    """Return the address of one role's hop (a key of ROLE_OFFSETS) under a base address.

    ``tcp://h:5550`` gives ``tcp://h:5551`` for results, ``ipc://run`` gives ``ipc://run/results.ipc``, and
    ``inproc://run`` gives ``inproc://run-results``. Raises EndpointError if the port would be over 65535.
    """
    address = EndpointAddress(base)
    if role not in ROLE_OFFSETS:
        raise EndpointError(f"No address is derived for {role!r}. Known: {', '.join(ROLE_OFFSETS)}.")
    if address.protocol == "ipc":
        return EndpointAddress(f"{address.rstrip('/')}/{role}.ipc")
    if address.protocol == "inproc":
        return EndpointAddress(f"{address}-{role}")
    return EndpointAddress(f"{address.rpartition(':')[0]}:{_derived_port(address, role)}")


def _derived_port(address: EndpointAddress, role: str) -> int:
    port = address.port
    if not port:
        raise EndpointError(f"{address!s} names no port to count from, and the roles must find each other. Name one.")
    port += ROLE_OFFSETS[role]
    if port > 65535:
        room = 65535 - max(ROLE_OFFSETS.values())
        raise EndpointError(f"{address!s} leaves no port for {role}: it would be {port}. Choose one of 1 to {room}.")
    return port


def _check(address: str) -> None:
    if address != address.strip():
        raise EndpointError(f"There is white space around the address {address!r}. Remove it.")
    if not address.isprintable():
        raise EndpointError(f"There are control characters in the address {address!r}. Remove them.")
    protocol, separator, rest = address.partition("://")
    if not separator or protocol not in PROTOCOLS:
        raise EndpointError(_near_miss(address))
    if protocol == "tcp":
        _check_tcp(address, rest)
    elif not rest:
        raise EndpointError(f"{address!r} has nothing after {protocol}://. {_EXAMPLES}.")
    elif rest == "*":
        raise EndpointError(f"{address!r} would be another one in each process. Write a {_kind(protocol)}.")


def _kind(protocol: str) -> str:
    return "path, as in ipc://worker.ipc" if protocol == "ipc" else "name, as in inproc://worker"


def _near_miss(address: str) -> str:
    found = re.match(r"([A-Za-z0-9+.-]*):?/{0,2}(.*)", address, re.DOTALL)
    word, rest = (found[1], found[2]) if found else ("", address)
    marked = ":" in address[: len(word) + 1] or address[len(word) :].startswith("/")
    if marked and (close := _closest(word.lower())):
        return f"{address!r} is no address: did you mean {close}://{rest}?"
    if re.fullmatch(r"[\w.*-]+:\d+", address):
        return f"{address!r} is no address: did you mean tcp://{address}?"
    if address.startswith(("/", "./", "../")):
        return f"{address!r} is no address: did you mean ipc://{address}?"
    seen = f" (its protocol is {word!r})" if "://" in address else ""
    return f"{address!r} is no address{seen}. {_EXAMPLES}."


def _closest(word: str) -> str:
    import difflib  # at the first mistake only

    swapped = [each for each in PROTOCOLS if sorted(each) == sorted(word)]
    return (swapped or difflib.get_close_matches(word, PROTOCOLS, n=1) or [""])[0]


def _check_tcp(address: str, rest: str) -> None:
    host, separator, port = rest.rpartition(":")
    if not separator or (rest.startswith("[") and rest.endswith("]")):
        raise EndpointError(f"{address!r} has no port. Write it as in tcp://{rest or 'localhost'}:5550.")
    if not host:
        raise EndpointError(f"{address!r} has no host. Write tcp://*{rest} to bind, tcp://localhost{rest} to connect.")
    if port != "*" and not (port.isascii() and port.isdigit() and int(port[:9]) <= 65535):
        raise EndpointError(f"{address!r} has the port {port!r}. A port is a whole number from 0 to 65535.")
    _check_host(address, host, port)


def _check_host(address: str, host: str, port: str) -> None:
    if host.startswith("[") and host.endswith("]"):
        if not _is_ip(host[1:-1], 6):
            raise EndpointError(f"{address!r} has the host {host!r}, which is no IPv6 address.")
    elif ":" in host:
        raise EndpointError(f"{address!r} is ambiguous. Write an IPv6 address in brackets: tcp://[{host}]:{port}.")
    elif re.fullmatch(r"[\d.]+", host):
        if not _is_ip(host, 4):
            raise EndpointError(f"{address!r} has the host {host!r}, which is no IPv4 address.")
    elif host != "*" and not _HOST.fullmatch(host):
        raise EndpointError(f"{address!r} has the host {host!r}, which is neither a name nor an address.")


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


@dataclass(frozen=True)
class RoleAddresses:
    """The addresses of one pipeline; `tasks` by task type."""

    base: EndpointAddress
    tasks: Mapping[str, EndpointAddress]
    results: EndpointAddress
    acks: EndpointAddress
    metadata: EndpointAddress
    clients: EndpointAddress
    """Where the broker takes requests."""
    service_workers: EndpointAddress
    """Where the broker's workers connect to."""
    status: EndpointAddress
    """Where the distributor says how the run stands."""


def places_under(base: str, own: Mapping[str, EndpointAddress | None]) -> RoleAddresses:
    """The addresses under a base; `own` says for each task its own address, or None for the common one."""
    address = EndpointAddress(base)
    common = derive(address, "workers")
    tasks = {name: endpoint or common for name, endpoint in own.items()}
    roles = ("results", "acks", "metadata", "service-clients", "service-workers", "status")
    return RoleAddresses(address, tasks, *(derive(address, role) for role in roles))


def make_folder(base: EndpointAddress) -> None:
    """Make the folder of an `ipc://FOLDER` base, open to its owner alone.

    Raises:
        EndpointError: it cannot be made; or it is there, and belongs to somebody else, or is open to others.
    """
    if base.protocol == "ipc":
        _make(Path(base.path), base)
        _check_private(Path(base.path))


def default_base(name: str, file: str = "") -> EndpointAddress:
    """The base address of a pipeline that was given none: a private folder of this user, named after the pipeline.

    `file` tells pipelines apart that have the same name since their modules do.

    Raises:
        EndpointError: the folder belongs to somebody else, or is open to others.
    """
    folder = private_folder(name, file)
    base = EndpointAddress(f"ipc://{folder}")
    for one in (folder.parent, folder):
        _make(one, base)
        _check_private(one)
    return base


def private_folder(name: str, file: str = "") -> Path:
    """Where the sockets of a pipeline are that was given no address; nothing is made or looked at."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    root = Path(runtime, "zmqpipeline") if runtime else Path(tempfile.gettempdir(), f"zmqpipeline-{os.getuid()}")
    return root / (f"{_folder_name(name)[:32]}-{_digest(file)}" if file else _folder_name(name))


def _make(folder: Path, base: EndpointAddress) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EndpointError(
            f"The folder {str(folder)!r} of {str(base)!r} cannot be made: {error.strerror}. "
            "Choose another with --endpoint."
        ) from error


def _check_private(folder: Path) -> None:
    seen = folder.lstat()
    if seen.st_uid != os.getuid() or not stat.S_ISDIR(seen.st_mode):
        raise EndpointError(
            f"{str(folder)!r} is not a folder of this user. Remove it, or choose another with --endpoint."
        )
    if seen.st_mode & 0o077:
        mode = stat.S_IMODE(seen.st_mode)
        raise EndpointError(
            f"{str(folder)!r} is open to other users (mode {mode:o}). Run `chmod 700 {folder}`, "
            "or choose another with --endpoint."
        )


def _folder_name(name: str) -> str:
    """The pipeline's name, or what is left of it with a digest, so that two names never share a folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:32]
    if plain == name and plain.strip("."):
        return plain
    return f"{plain.strip('.')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()


def refuse_inproc(address: EndpointAddress) -> None:
    """Raise ConfigurationError for an address that processes cannot share: a role would wait at it for ever."""
    if address.protocol == "inproc":
        raise ConfigurationError(
            f"{str(address)!r} is for threads of one process; here each role is a process of its own. "
            "Give --endpoint ipc://FOLDER or tcp://HOST:PORT, or use app.test_run()."
        )
