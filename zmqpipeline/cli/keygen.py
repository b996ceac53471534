"""The command `keygen`: makes a folder of keys, or one more key to hand out."""

from __future__ import annotations

from pathlib import Path

import click

from zmqpipeline.cli.output import tell
from zmqpipeline.errors import KeysError
from zmqpipeline.runtime.security import flat_keys, keyfiles


@click.command("keygen", epilog="Example: python -m app keygen keys --worker worker-3")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--worker", "workers", multiple=True, metavar="NAME", help="Only a key of this name, for a worker.")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Only a key of this name, for a client.")
@click.option(
    "--copy",
    "source",
    type=click.Path(path_type=Path),
    metavar="FROM",
    help="Make no key: copy those of this folder, the volume of a Secret that `manifests` wrote.",
)
def keygen(folder: Path, workers: tuple[str, ...], clients: tuple[str, ...], source: Path | None) -> int:
    """Make keys for --keys DIR: all that the roles need, or one more to hand out. None is ever overwritten."""
    if source is not None:
        if workers or clients:
            raise click.UsageError("--copy makes no key. Leave out --worker and --client, or --copy.")
        for path in flat_keys.copied(source, folder):
            tell(path)
        return 0
    wanted = [("worker", name) for name in workers] + [("client", name) for name in clients]
    if not wanted:
        for path in keyfiles.make_all(folder):
            tell(path)
        tell(f"Start every role with --keys {folder}, or with ZMQPIPELINE_KEYS={folder}.", err=True)
    for role, name in wanted:
        for path in keyfiles.make_one(folder, role, name):
            tell(path)
        tell(_handing_out(folder, role, name), err=True)
    return 0


def _handing_out(folder: Path, role: str, name: str) -> str:
    secret, where = folder / f"{name}.secret", keyfiles.authorized(folder, role)
    try:
        keyfiles.server_public(folder)
    except KeysError:
        return (
            f"To use it here, copy server.pub of the server's folder of keys to {folder}. "
            f"To have it let in, copy {folder / f'{name}.pub'} to authorized/{where.name} in that folder."
        )
    return (
        f"To hand it out, copy {folder / 'server.pub'} and {secret} to a folder of mode 0700 there, "
        f"and start the {role} with --keys and that folder. It is let in from now on; to end that, remove "
        f"{where / f'{name}.pub'}."
    )
