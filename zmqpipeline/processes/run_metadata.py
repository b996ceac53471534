"""The metadata of a run on its way to the distributor of that run: a file in the run's folder.

A file, since metadata may be of any type that items may have, and longer than a command line. The distributor reads it
as it starts, so this module imports nothing of what starts processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from zmqpipeline.errors import ConfigurationError, SerializeError
from zmqpipeline.serialization import pack

_NAME = "metadata"


def metadata_arguments(metadata: Mapping[str, Any] | None, folder: Path) -> list[str]:
    """Write the file, and return the arguments that name it; none without metadata.

    Raises:
        SerializeError: a value is of no type that items may have.
    """
    if not metadata:
        return []
    file = folder / _NAME
    file.write_bytes(pack.pack_aside(dict(metadata), "the metadata argument", pack.METADATA_BYTES))
    return ["--meta-file", str(file)]


def read_metadata(file: Path) -> dict[str, Any]:
    """What `metadata_arguments` wrote. Raises ConfigurationError if it is not there, or is something else."""
    try:
        found = pack.unpack(file.read_bytes())
    except (OSError, SerializeError) as error:
        raise ConfigurationError(f"--meta-file {str(file)!r} cannot be read: {error}") from error
    return cast("dict[str, Any]", found)
