"""The logger names of the library, and configureLogging, by which a program says where they write.

The library only writes to its loggers, and sets no handler. Unless the program configures logging, Python itself shows
warnings and errors on stderr (`logging.lastResort`); a program that wants silence adds a `logging.NullHandler` to the
logger ``zmqpipeline``.
"""

from __future__ import annotations

import logging
import logging.config
from typing import Any

LOGGERS = (
    "zmqpipeline.distributor",
    "zmqpipeline.collector",
    "zmqpipeline.task",
    "zmqpipeline.worker",
    "zmqpipeline.metadataworker",
    "zmqpipeline.service",
    "zmqpipeline.serviceworker",
    "zmqpipeline.serviceclient",
)
"""The loggers of the roles. Name your own below them, as in ``zmqpipeline.task.Resize``."""


def configureLogging(config: dict[str, Any]) -> None:
    """Configure logging by a dictionary, exactly as `logging.config.dictConfig` does, with its errors.

    Say ``'disable_existing_loggers': False`` in it: else the loggers that it does not name are switched off.
    """
    logging.config.dictConfig(config)
