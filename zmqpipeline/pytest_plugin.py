"""The pytest plugin: fixtures that run a whole app, or a service of one, as threads of the test.

pytest loads it by its entry point, in each session of whoever has the library installed; so nothing else of the library
is imported before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline
    from zmqpipeline.roles.client import ServiceClient
    from zmqpipeline.testing.leaks import Leftovers
    from zmqpipeline.testing.run import TestRun

__all__ = ["RunPipeline", "ServiceClientOf", "run_pipeline", "service_client"]


class RunPipeline(Protocol):
    """The type of the fixture ``run_pipeline``."""

    def __call__(
        self,
        app: Pipeline,
        *,
        workers: int | Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        raise_failures: bool = True,
    ) -> TestRun:
        """See `Pipeline.test_run`."""


class ServiceClientOf(Protocol):
    """The type of the fixture ``service_client``."""

    def __call__(self, app: Pipeline, name: str = "", *, workers: int = 1) -> ServiceClient:
        """See `zmqpipeline.testing.serving`; the service ends with the test."""


@pytest.fixture
def run_pipeline() -> Iterator[RunPipeline]:
    """Run an app as threads of this test: ``run_pipeline(app, workers=2).results``; takes what `app.test_run` takes.

    A failed item fails the test with the exception of the user's function; a run that hangs, with what every role waits
    for. A thread, a socket or a file that a run leaves behind is an error of the test.
    """
    leftovers = _look()

    def run(app: Pipeline, **keywords: Any) -> TestRun:
        __tracebackhide__ = True
        leftovers.watch_app(app.name, app.own_file)
        return app.test_run(**keywords)

    yield run
    _refuse(leftovers)


@pytest.fixture
def service_client() -> Iterator[ServiceClientOf]:
    """Have a service up for this test: ``service_client(app, "price").request({...})``.

    Broker, workers and client end with the test; what they leave behind is an error of the test.
    """
    from zmqpipeline.testing.services import serving

    leftovers = _look()
    with ExitStack() as stack:

        def client(app: Pipeline, name: str = "", *, workers: int = 1) -> ServiceClient:
            __tracebackhide__ = True
            leftovers.watch_app(app.name, app.own_file)
            return stack.enter_context(serving(app, name, workers=workers))

        yield client
    _refuse(leftovers)


def _look() -> Leftovers:
    from zmqpipeline.testing.leaks import Leftovers

    return Leftovers()


def _refuse(leftovers: Leftovers) -> None:
    left = leftovers.found()
    if left:
        lines = "\n".join(left)
        pytest.fail(f"The pipelines of this test have left something behind:\n{lines}", pytrace=False)
