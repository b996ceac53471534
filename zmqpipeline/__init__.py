"""Hand out work, execute it on many processes and machines, and collect each result once, over ZeroMQ."""

from __future__ import annotations

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
from zmqpipeline.summary import Summary, TaskSummary
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
