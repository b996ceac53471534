"""Time for what a busy machine may do late: a pytest plugin. What hangs is found all the same, only later.

Hypothesis gives an example no deadline, and does not mind that it takes long to make one: either may be because the
process stood still. And `test_run` waits longer than it does by itself where a test does not say how long.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PATIENCE = 60.0
"""Seconds that a test waits for an event before it says that there is none."""

settings.register_profile("zmqpipeline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zmqpipeline")


def await_threads(before: set[threading.Thread]) -> None:
    """All threads that began since then have ended, or do so soon; whoever asks them to end may not have waited."""
    for thread in set(threading.enumerate()) - before:
        # pyzmq keeps one for the life of the process, which lets go of what was sent without a copy
        if type(thread).__module__ != "zmq.utils.garbage":
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} is left"


def patient(run_in_threads: Callable[..., Any]) -> Callable[..., Any]:
    """The same; it waits longer than for its default."""
    default = inspect.signature(run_in_threads).parameters["timeout"].default

    @wraps(run_in_threads)
    def waits(*given: Any, timeout: float = default, **more: Any) -> Any:
        __tracebackhide__ = True
        return run_in_threads(*given, timeout=PATIENCE if timeout == default else timeout, **more)

    return waits


@pytest.fixture(autouse=True, scope="session")
def _patient_test_runs() -> Iterator[None]:
    from zmqpipeline.testing import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_in_threads", patient(run.run_in_threads))
        yield
