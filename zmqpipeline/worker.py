"""The workers and MetaDataWorker, under the module name of the first edition of the library."""

from __future__ import annotations

from zmqpipeline.roles.metadata import MetaDataWorker
from zmqpipeline.roles.worker import MultiThreadedWorker, SingleThreadedWorker, Worker

__all__ = ["MetaDataWorker", "MultiThreadedWorker", "SingleThreadedWorker", "Worker"]
