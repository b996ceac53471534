"""A worker that a launch command has started looks whether the addresses of its run lead anywhere from where it is.

It would wait for ever at a folder that is on another machine. At the loopback it waits, too, but for tunnels.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.runtime.bind import is_near

log = logging.getLogger("zmqpipeline.worker")

_GIVE = "Give `run` an address that leads to its machine: --endpoint tcp://HOST:PORT."


def check_reach(app: Pipeline, options: Options, host: str) -> None:
    """Look at the addresses of the tasks and of the results; `host` is the machine of `run`.

    Raises:
        ConfigurationError: one is in a folder that is not here.
    """
    here = socket.gethostname()
    places = app.places(options)
    for place in dict.fromkeys((*places.tasks.values(), places.results)):
        refuse_missing(place, host, here)
    near = [one for one in (*places.tasks.values(), places.results) if one.protocol == "tcp" and is_near(one)]
    if near and host != here:
        log.warning(
            "The address %s leads to this machine (%s), and `run` is on another one (%s): this worker will wait for "
            "it, unless a tunnel leads there. %s",
            near[0],
            here,
            host,
            _GIVE,
        )


def refuse_missing(place: EndpointAddress, host: str, here: str) -> None:
    """Raise ConfigurationError if the folder of an ipc address is not here."""
    if place.protocol != "ipc" or place.path.startswith("@") or Path(place.path).parent.is_dir():
        return
    raise ConfigurationError(
        f"The address {place} is in a folder of the machine of `run` ({host}), which this one ({here}) does not see. "
        f"{_GIVE}"
    )
