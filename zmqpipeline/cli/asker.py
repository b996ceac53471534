"""Asking how a run stands, for a server that is asked itself, by many and for long: runs come and go."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import ENDPOINT_VARIABLE
from zmqpipeline.options import Options
from zmqpipeline.processes import launch
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.status_client import StatusClient

log = logging.getLogger("zmqpipeline.status")


def asker_of(app: Pipeline, options: Options, given: Any) -> Asker:
    """One that asks at the base address that was given, or wherever a run of this app is when it is asked.

    Raises EndpointError or KeysError for what is wrong with the address or the keys.
    """
    base = given or os.environ.get(ENDPOINT_VARIABLE)
    if base:
        refuse_inproc(EndpointAddress(base))
    roles = ("status", "service-clients") if app.service_names else ("status",)
    asker = Asker((lambda: [base]) if base else (lambda: launch.status_bases(app, options)), roles, options)
    # that is said now, and not to the first who asks
    asker.connect()
    return asker


class Asker:
    """Asks for a run wherever one may be; may be called from any thread. Close it, or use it with `with`."""

    def __init__(self, find: Callable[[], list[str]], roles: Sequence[str], options: Options) -> None:
        """`find` gives the base addresses, `roles` who answers there."""
        self._find = find
        self._roles = roles
        self._options = options
        self._lock = threading.Lock()
        self._bases: list[str] = []
        self._client: StatusClient | None = None
        self._warned: set[EndpointAddress] = set()
        self._began = 0.0
        self._answers: Sequence[Status] = ()

    def __enter__(self) -> Asker:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        with self._lock:
            self._close()

    def connect(self) -> None:
        """Look where runs are, and connect. Raises EndpointError or KeysError."""
        bases = self._find()
        if bases != self._bases or self._client is None:
            self._close()
            self._bases = bases
            self._client = StatusClient([derive(base, role) for base in bases for role in self._roles], self._options)

    def ask(self, max_age: float = 0.0) -> Sequence[Status]:
        """The answers of the first run that answers, its distributor's first; none if nobody does.

        Who comes while somebody else asks waits for that. All get the answers of a question that was asked since they
        came, or up to `max_age` seconds before.
        """
        came = time.monotonic() - max_age
        with self._lock:
            if self._began <= came:
                self._began, self._answers = time.monotonic(), ()
                self._answers = self._ask()
            return self._answers

    def _ask(self) -> Sequence[Status]:
        self.connect()
        assert self._client is not None
        found = self._client.ask() if self._bases else {}
        for place, text in self._client.strange.items():
            if place not in self._warned:
                self._warned.add(place)
                log.warning("What answers at %s is none of this version: %s", place, text)
        for base in self._bases:
            places = (derive(base, role) for role in self._roles)
            if answers := [found[place] for place in places if place in found]:
                return answers
        return ()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
