"""Hand out work, execute it on many processes and machines, and collect each result once, over ZeroMQ.

Public names are imported at their first use: a program that defines an app pays for the roles only when it runs one.
"""

from __future__ import annotations

import importlib
import typing

# the first to be imported: it takes the time
from zmqpipeline.runtime import process_start as _process_start  # noqa: F401
from zmqpipeline.runtime.imports import many_imports as _many_imports

if typing.TYPE_CHECKING:
    from zmqpipeline import errors, events, messages, utils
    from zmqpipeline.addresses import EndpointAddress
    from zmqpipeline.app import Pipeline
    from zmqpipeline.errors import Retry
    from zmqpipeline.options import Options
    from zmqpipeline.roles.async_client import AsyncServiceClient
    from zmqpipeline.roles.client import ServiceClient
    from zmqpipeline.roles.collector import Collector
    from zmqpipeline.roles.distributor import Distributor
    from zmqpipeline.roles.metadata import MetaDataWorker
    from zmqpipeline.roles.results import Failure, Reason, Summary, TaskSummary
    from zmqpipeline.roles.service import Service, ServiceWorker
    from zmqpipeline.roles.task import Task
    from zmqpipeline.roles.task_type import TaskType
    from zmqpipeline.roles.worker import MultiThreadedWorker, SingleThreadedWorker, Worker
    from zmqpipeline.runtime.log import configureLogging

__version__ = "0.1.0"

__all__ = [
    "AsyncServiceClient",
    "Collector",
    "Distributor",
    "EndpointAddress",
    "Failure",
    "MetaDataWorker",
    "MultiThreadedWorker",
    "Options",
    "Pipeline",
    "Reason",
    "Retry",
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
    "events",
    "messages",
    "utils",
]

_HOMES = {
    "AsyncServiceClient": "roles.async_client",
    "Collector": "roles.collector",
    "Distributor": "roles.distributor",
    "EndpointAddress": "addresses",
    "Failure": "roles.results",
    "MetaDataWorker": "roles.metadata",
    "MultiThreadedWorker": "roles.worker",
    "Options": "options",
    "Pipeline": "app",
    "Reason": "roles.results",
    "Retry": "errors",
    "Service": "roles.service",
    "ServiceClient": "roles.client",
    "ServiceWorker": "roles.service",
    "SingleThreadedWorker": "roles.worker",
    "Summary": "roles.results",
    "Task": "roles.task",
    "TaskSummary": "roles.results",
    "TaskType": "roles.task_type",
    "Worker": "roles.worker",
    "configureLogging": "runtime.log",
}
_MODULES = ("errors", "events", "messages", "utils")


def __getattr__(name: str) -> typing.Any:
    """Import a public name from its home, at its first use."""
    if name in _HOMES:
        with _many_imports():
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
