"""Where the roles of a pipeline meet: from its base address, its tasks' own ones, and the folders behind them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zmqpipeline.address import EndpointAddress, derive
from zmqpipeline.errors import EndpointError


@dataclass(frozen=True)
class Places:
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


def places_under(base: str, own: Mapping[str, EndpointAddress | None]) -> Places:
    """The addresses under a base; `own` says for each task its own address, or None for the common one."""
    address = EndpointAddress(base)
    common = derive(address, "workers")
    tasks = {name: endpoint or common for name, endpoint in own.items()}
    roles = ("results", "acks", "metadata", "service-clients", "service-workers", "status")
    return Places(address, tasks, *(derive(address, role) for role in roles))


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
