"""Asks the distributor of a run of this process now and then how it stands, once for all who want to know.

Those are the supervisor, with `--workers MIN:MAX`, and the record of `run --report`. That is the question of `status`:
the distributor answers it in less than a millisecond if it has a few workers. With thousands of them an answer takes
longer, and for the record alone it is asked less often: never for more than a fiftieth of the time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import PipelineError
from zmqpipeline.options import Options
from zmqpipeline.processes.autoscale import LOOK
from zmqpipeline.processes.restarts import Looked
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.status_client import Pacing, StatusClient

log = logging.getLogger("zmqpipeline.run")

INTERVAL = 0.25
"""Seconds between two questions for the record at the least."""

MAX_PART = 0.02
"""So much of the time the distributor may be busy with answers for the record, about."""

MAX_INTERVAL = 2.0
"""Seconds between two questions at the most: where all cores compute, an answer takes long that costs little."""

CLOSE_SECONDS = 5.0
"""So long the end of a run waits for an answer that is on its way, at the most."""


@contextmanager
def asking(
    place: EndpointAddress,
    options: Options,
    *,
    record: Callable[[Status], object] | None = None,
    unasked: Callable[[str], object] = str,
    post: Callable[[Looked], object] | None = None,
) -> Iterator[None]:
    """Ask at this address meanwhile, and tell the record, and the supervisor by `post`, whichever there is.

    If that cannot be, the record is told why by `unasked`, and the run goes on. Raises KeysError for a supervisor.
    """
    try:
        client = StatusClient([place], options)
    except (PipelineError, OSError) as error:
        if post is not None:
            raise
        _give_up(error, unasked)
        yield
        return
    over = threading.Event()

    def heard(status: Status) -> None:
        if record is not None:
            record(status)
        if post is not None:
            post(Looked(status))

    def ask() -> None:
        try:
            with client:
                _ask(client, heard, over, is_scaled=post is not None)
        except (PipelineError, OSError) as error:
            _give_up(error, unasked)

    thread = threading.Thread(target=ask, name="questions of the run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(CLOSE_SECONDS)


def _ask(client: StatusClient, heard: Callable[[Status], object], over: threading.Event, *, is_scaled: bool) -> None:
    pacing = Pacing(MAX_PART, MAX_INTERVAL)
    while not over.is_set():
        began = time.monotonic()
        answers = client.ask(over.is_set)
        for status in answers.values():
            heard(status)
        taken = time.monotonic() - began if answers else 0.0
        over.wait(LOOK if is_scaled else pacing.rest(taken, INTERVAL))


def _give_up(error: Exception, unasked: Callable[[str], object]) -> None:
    unasked(str(error))
    log.warning("The distributor is not asked how the run stands: %s", error)
