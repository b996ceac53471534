"""What all roles share: a machine, a transport and a loop, put together by `run()` and taken apart in its `finally`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, RunFailed
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Ended
from zmqpipeline.protocol.events import Drain, Event
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.roles.attributes import Declarative
from zmqpipeline.runtime import child_report, signals
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.leader import Leadership
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.transport import transport as sockets
from zmqpipeline.runtime.tuning import short_turns

if TYPE_CHECKING:
    # who has no observers does not pay for them, not even when a process starts
    from zmqpipeline.events import Event as ObservedEvent
    from zmqpipeline.events import Observer
    from zmqpipeline.protocol.recorder import Recorder
    from zmqpipeline.runtime.observing import ObserverThread

Actions = dict[type, Callable[[Any], None]]
"""What the loop does with each sort of command."""

CLOSE_SECONDS = 1.0
"""How long a role that is over waits for its threads; all are daemons, so that a stuck one keeps nothing alive."""


AnyRole = TypeVar("AnyRole", bound="Role")


class Role(Declarative):
    """Base of Distributor, Worker, Collector and MetaDataWorker: everything but what the role is for."""

    _log_name: ClassVar[str] = "zmqpipeline"
    _end_to_end: ClassVar[bool] = False
    """Whether the items or results that it sends were packed by its own process."""

    status: int | None
    """The exit status once `run()` is over: 0 for success; see the command line's list. None before."""

    signum: int | None
    """The signal that ended the role, if one did."""

    machine: Any
    """The role's protocol machine while and after it runs, for progress and tests; None before."""

    def __new__(cls: type[AnyRole], *args: Any, **kwargs: Any) -> AnyRole:
        """Set up the private state here, so that a subclass need not call ``super().__init__()``."""
        role = super().__new__(cls)
        role.status = role.signum = role.machine = None
        role._options = None
        role._pipeline = role._command = ""
        role._addresses = {}
        role._ignore_sigint = False
        role._tell_parent = lambda word: False
        # re-entrant: a signal handler that calls `shutdown` may come while its own thread is inside
        role._guard = threading.RLock()
        role._loop = role._leadership = None
        role._asked = []
        role._raises_failed_runs = True
        role._began = role._over = None
        role._subscriptions = ()
        role._observer_thread = None
        role._age = 0.0
        return role

    _options: Options | None
    _pipeline: str
    _command: str
    """What starts roles of the pipeline, for messages; empty if that is not known."""
    _addresses: dict[str, EndpointAddress]
    _ignore_sigint: bool
    _tell_parent: Callable[[str], bool]
    """Tells whoever started this process how far it is; see `runtime.child_report`. False: nobody would hear."""
    _guard: Any
    _loop: Loop | None
    _leadership: Leadership | None
    _asked: list[Drain]
    """Drains that were asked for while there was no loop to take them."""
    _raises_failed_runs: bool
    """False for whoever runs the role and reads `status`, as the supervisor of `run` does."""
    _age: float
    """For how many seconds it had been starting when it was run, if that is known; see `protocol.early_end`."""
    _began: float | None
    _over: float | None
    _subscriptions: tuple[tuple[type[ObservedEvent], Observer], ...]
    """The app's observers, beside those of the options."""
    _observer_thread: ObserverThread | None
    """None: there is nobody to tell anything."""

    @property
    def options(self) -> Options:
        """The settings that the role was given, before `run()`, with those of the environment over them."""
        if self._options is None:
            self._options = Options.from_environ(None, os.environ)
        return self._options

    @options.setter
    def options(self, given: Options) -> None:
        self._options = Options.from_environ(given, os.environ)

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
        self.status = self.signum = self.machine = None
        self._began, self._over = time.monotonic(), None
        self._prepare()
        with (
            signals.draining(self.options.drain_timeout, ignore_sigint=self._ignore_sigint) as caught,
            self._observed(),
        ):
            transport: sockets.Transport | None = None
            try:
                transport = sockets.Transport(self.options, context=self._context())
                self._open(transport)
                self._log.debug("%s begins, with the addresses %s.", type(self).__name__, ", ".join(self._places()))
                self._tell_parent(child_report.READY)
                if self._observer_thread is not None:
                    self._observer_thread.role_is_up(str(getattr(self, "task_type", "")))
                ended = self._drive(transport, caught)
                if self._observer_thread is not None:
                    self._observer_thread.role_is_down(ended)
            finally:
                # user code first, then the sockets that its answers would have gone to
                self._close()
                if transport is not None:
                    transport.close()
        self.status, self._over = ended.status, time.monotonic()
        if self.signum == signal.SIGINT and ended.status != ConfigurationError.exit_status:
            self._log.info("%s", ended.reason)
            raise KeyboardInterrupt
        self._conclude(ended)
        failed = self._failed_run(ended) if self._raises_failed_runs else None
        if failed is not None:
            raise failed

    def shutdown(self) -> None:
        """End in good order; may be called from any thread, before, while and after the role runs. Returns at once.

        Of a distributor or a collector, the run ends with it: the others are told, and end, too.
        """
        self._end(final=True)

    def _end(self, *, final: bool) -> None:
        """End in good order; `final`: and a run with it. Who ends all roles itself need not have them told."""
        self._post(Drain(self.options.drain_timeout, final))

    def _post(self, drain: Drain) -> None:
        with self._guard:
            if self._loop is None:
                self._asked.append(drain)
            else:
                self._loop.post(drain)

    def _drive(self, transport: sockets.Transport, caught: signals.draining) -> Ended:
        """Run the loop. A signal that comes when it is over shall not cut the last messages short."""
        self.machine = self._make_machine()

        def post(event: Event) -> None:
            loop.post(event)

        self._leadership = Leadership()
        actions = self._make_actions(post)
        loop = Loop(
            self.machine
            if self._observer_thread is None
            else self._front(self.machine, self._observer_thread.recorder),
            transport,
            actions,
            log=self._log,
            end_to_end=self._end_to_end,
            leadership=self._leadership,
        )
        self._attach(loop)
        caught.attach(loop)
        try:
            with short_turns(self._user_threads()):
                ended = loop.run(self._first_events())
        finally:
            caught.stop_waking()
            self._attach(None)
            # it knows the loop, and that one the sockets
            self._leadership = None
        self.signum = caught.signum
        return ended

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        """Observers, if there are any, are told of what happens meanwhile."""
        if not self.options.observers and not self._subscriptions:
            yield
            return
        from zmqpipeline.events import Event as ObservedEvent
        from zmqpipeline.runtime.observing import ObserverThread, Subscription

        wanted = [*((ObservedEvent, one) for one in self.options.observers), *self._subscriptions]
        subscriptions = [Subscription(kind, one, _observer_name(one)) for kind, one in wanted]
        self._observer_thread = ObserverThread(self._log_name.rpartition(".")[2], subscriptions, self._log)
        try:
            yield
        finally:
            self._observer_thread.close()
            self._observer_thread = None

    def _front(self, machine: Any, recorder: Recorder) -> Machine:
        """What the loop of an observed role takes for the machine; the machine itself, if it tells nothing more."""
        front: Machine = machine
        return front

    def _attach(self, loop: Loop | None) -> None:
        with self._guard:
            self._loop = loop
            if loop is not None:
                for drain in self._asked:
                    loop.post(drain)
            self._asked.clear()

    @property
    def _log(self) -> logging.Logger:
        return logging.getLogger(self._log_name)

    def _address(self, hop: str, declared: EndpointAddress | str) -> EndpointAddress:
        # a property may give it as a str
        return self._addresses.get(hop) or EndpointAddress(declared)

    def _context(self) -> Any:
        # inproc addresses are known within one context only; all other roles have a context of their own
        return sockets.shared_context() if any(one.protocol == "inproc" for one in self._places()) else None

    def _prepare(self) -> None:
        """Check what can be checked before anything is opened."""

    @abstractmethod
    def _places(self) -> Iterable[EndpointAddress]:
        """Every address that the role binds or connects to."""

    @abstractmethod
    def _open(self, transport: sockets.Transport) -> None:
        """Bind and connect."""

    @abstractmethod
    def _make_machine(self) -> Any:
        """A new protocol machine."""

    @abstractmethod
    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        """Start the threads for user code; return what to do with each sort of command."""

    def _user_threads(self) -> int:
        """How many threads execute user code at the same time."""
        return 1

    def _first_events(self) -> Iterable[Event]:
        """What the machine is told before anything else."""
        return ()

    @abstractmethod
    def _close(self) -> None:
        """End the threads for user code."""

    def _seconds(self) -> float:
        """How long `run()` took, or takes so far."""
        return 0.0 if self._began is None else (self._over or time.monotonic()) - self._began

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        """What `run()` raises of a run that failed; None if it did not, or there is none."""
        return None

    def _conclude(self, ended: Ended) -> None:
        """Raise what the role's end calls for."""
        if ended.status == ConfigurationError.exit_status:
            raise ConfigurationError(ended.reason)
        if ended.reason:
            self._log.log(logging.INFO if ended.status in (0, 1) else logging.ERROR, "%s", ended.reason)


def _observer_name(function: Any) -> str:
    """What an observer is called in log lines."""
    name = getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
    return named(f"observer {name}", function)


def new_incarnation() -> bytes:
    """An id for one life of one process."""
    return os.urandom(8)
