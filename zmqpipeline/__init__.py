"""Hand out work, execute it on many processes and machines, and collect each result once, over ZeroMQ.

Public names are imported at their first use: a program that defines an app pays for the roles only when it runs one.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from zmqpipeline import errors, messages, utils
    from zmqpipeline.address import EndpointAddress
    from zmqpipeline.app import Pipeline
    from zmqpipeline.client import ServiceClient
    from zmqpipeline.collector import Collector
    from zmqpipeline.distributor import Distributor
    from zmqpipeline.failure import Failure
    from zmqpipeline.logconfig import configureLogging
    from zmqpipeline.metadata import MetaDataWorker
    from zmqpipeline.options import Options
    from zmqpipeline.service import Service, ServiceWorker
    from zmqpipeline.summary import Reason, Summary, TaskSummary
    from zmqpipeline.task import Task
    from zmqpipeline.tasktype import TaskType
    from zmqpipeline.worker import MultiThreadedWorker, SingleThreadedWorker, Worker

__version__ = "0.1.0"

__all__ = [
    "Collector",
    "Distributor",
    "EndpointAddress",
    "Failure",
    "MetaDataWorker",
    "MultiThreadedWorker",
    "Options",
    "Pipeline",
    "Reason",
    "Service",
    "ServiceClient",
    "ServiceWorker",
    "SingleThreadedWorker",
    "Summary",
    "Task",
    "TaskSummary",
    "TaskType",
    "Worker",
    "__version__",
    "configureLogging",
    "errors",
    "messages",
    "utils",
]

_HOMES = {
    "Collector": "collector",
    "Distributor": "distributor",
    "EndpointAddress": "address",
    "Failure": "failure",
    "MetaDataWorker": "metadata",
    "MultiThreadedWorker": "worker",
    "Options": "options",
    "Pipeline": "app",
    "Reason": "summary",
    "Service": "service",
    "ServiceClient": "client",
    "ServiceWorker": "service",
    "SingleThreadedWorker": "worker",
    "Summary": "summary",
    "Task": "task",
    "TaskSummary": "summary",
    "TaskType": "tasktype",
    "Worker": "worker",
    "configureLogging": "logconfig",
}
_MODULES = ("errors", "messages", "utils")


def __getattr__(name: str) -> typing.Any:
    """Import a public name from its home, at its first use."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"zmqpipeline.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"zmqpipeline.{name}")
    else:
        raise AttributeError(f"module 'zmqpipeline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Also the names that nobody has used yet."""
    return sorted({*globals(), *__all__})
