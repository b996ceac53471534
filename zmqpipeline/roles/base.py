"""What all roles show to a program: `run`, `shutdown`, the options, and how it ended."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

from zmqpipeline.options import Options
from zmqpipeline.roles.attributes import Declarative
from zmqpipeline.roles.runner import RoleRunner


class Role(Declarative):
    """Base of Distributor, Worker, Collector and MetaDataWorker: what a program declares, calls and reads.

    What opens, runs and closes it is its `RoleRunner`, so a subclass need not call ``super().__init__()``.
    """

    status: int | None = None
    """The exit status once `run()` is over: 0 for success; see the command line's list. None before."""

    signum: int | None = None
    """The signal that ended the role, if one did."""

    machine: Any = None
    """The role's protocol machine while and after it runs, for progress and tests; None before."""

    @property
    def options(self) -> Options:
        """The settings that the role was given, before `run()`, with those of the environment over them."""
        return RoleRunner.of(self).options

    @options.setter
    def options(self, given: Options) -> None:
        RoleRunner.of(self).options = Options.from_environ(given, os.environ)

    def run(self) -> None:
        """Run the role and block until it is over.

        SIGTERM and SIGINT make it end in good order, if this is the main thread; a second one ends it at once. After
        SIGTERM it returns, and `signum` says so. A distributor or a collector that SIGINT or `shutdown` ends in the
        middle of a run ends that run: the others are told. After SIGTERM they wait for the next one, which goes on.

        Raises:
            ConfigurationError: an address is malformed or in use, or something needed is missing.
            KeyboardInterrupt: SIGINT (Ctrl-C) came, and all is in good order.
            RunFailed: of a distributor, a collector or a worker: the run ended in good order, but not everything was
                collected, or another role ended it early.
        """
        RoleRunner.of(self).run()

    def shutdown(self) -> None:
        """End in good order; may be called from any thread, before, while and after the role runs. Returns at once.

        Of a distributor or a collector, the run ends with it: the others are told, and end, too.
        """
        RoleRunner.of(self).end(final=True)

    @abstractmethod
    def _make_runner(self) -> RoleRunner:
        """What runs it by what its class declares."""
