"""Keys in the hands of somebody who has seen what a worker was handed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def steal(keys: Mapping[str, str], folder: Path) -> Path:
    """Make a folder of keys in this one, for who has seen these; its name is "stolen"."""
    stolen = folder / "stolen"
    stolen.mkdir(mode=0o700)
    (stolen / "server.pub").write_text(f"role = server\npublic = {keys['server']}\n")
    (stolen / "worker.secret").write_text(f"role = worker\npublic = {keys['public']}\nsecret = {keys['secret']}\n")
    for file in stolen.iterdir():
        file.chmod(0o600)
    return stolen
