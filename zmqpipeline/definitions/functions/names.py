"""What functions are called in messages."""

from __future__ import annotations

from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.runtime.error_text import named


def name_of(bound: BoundHandler) -> str:
    """The function, with its file and line."""
    return named(bound.what, bound.function)


def init_names(unnamed: tuple[str, str], worker_init: Handler | None, thread_init: Handler | None) -> tuple[str, str]:
    """Those of the init functions of a worker and of its threads, or the `unnamed`."""
    worker, thread = unnamed
    return worker if worker_init is None else worker_init.what, thread if thread_init is None else thread_init.what
