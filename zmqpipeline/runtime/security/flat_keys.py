"""A folder of keys as a list of files without folders, and back: what a Secret of Kubernetes holds.

The volume of a Secret has no folders, and rights that are not its reader's to choose: its files belong to root, and
those of a group may read them. So ``authorized/workers/NAME.pub`` is called ``_authorized_workers_NAME.pub`` there (the
name of a key begins with a letter or a digit), and the roles get a copy that is closed to others.
"""

from __future__ import annotations

import os
from pathlib import Path

from zmqpipeline.errors import KeysError
from zmqpipeline.runtime.security import keyfiles

_PREFIX = "_authorized_"


def of_server(folder: Path) -> dict[str, str]:
    """What the machine of distributor, collector and broker needs: all but the secrets of workers.

    Raises:
        KeysError: the server's pair is missing, or a file is open to others.
    """
    keyfiles.server_pair(folder)
    secrets = [path for path in sorted(folder.glob("*.secret")) if keyfiles.role_of(path) != "worker"]
    found = {path.name: keyfiles.text_of(path) for path in [folder / "server.pub", *secrets]}
    for role, name in keyfiles.ROLES.items():
        for path in sorted(keyfiles.authorized(folder, role).glob("*.pub")):
            found[f"{_PREFIX}{name}_{path.name}"] = keyfiles.text_of(path)
    return found


def of_role(folder: Path, role: str) -> dict[str, str]:
    """What a machine needs that has roles of this kind only. Raises KeysError if there is no such key, or several."""
    pair = keyfiles.role_pair(folder, role)
    paths = {"server.pub": folder / "server.pub", f"{role}.secret": folder / f"{pair.name}.secret"}
    return {name: keyfiles.text_of(path) for name, path in paths.items()}


def copied(source: Path, target: Path) -> list[Path]:
    """Make of such a list of files a folder of keys, closed to others; the files that were made.

    A file that is there already is replaced: the container that this is done in may be started again.

    Raises:
        KeysError: there is no key in `source`, or a file that holds none, or `target` is open to others, or cannot be
            written.
    """
    try:
        names = sorted(one.name for one in source.iterdir() if one.suffix in (".pub", ".secret") and one.is_file())
        if not names:
            raise KeysError(f"There is no key in {str(source)!r}: no file ends with .pub or .secret. Name another.")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyfiles.check_private(target, folder=True)
        return [_copy(source / name, target / _nested(name)) for name in names]
    except OSError as error:
        raise KeysError(
            f"The keys in {str(source)!r} cannot be copied to {str(target)!r}: {error.strerror}. Name other folders, "
            "or give this user the right to."
        ) from error


def _nested(name: str) -> Path:
    kind, _, rest = name.removeprefix(_PREFIX).partition("_")
    if not name.startswith(_PREFIX) or kind not in keyfiles.ROLES.values():
        return Path(name)
    return Path("authorized", kind, rest)


def _copy(source: Path, target: Path) -> Path:
    for level in (target.parent.parent, target.parent):
        level.mkdir(mode=0o700, exist_ok=True)
    new = target.with_name(f"new-{target.name}")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(source.read_bytes())
    keyfiles.check_key(new)
    new.replace(target)
    return target
