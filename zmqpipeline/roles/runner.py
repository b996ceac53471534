"""What opens, runs and closes a role: its machine, sockets, loop and threads; user classes keep what users declare.

`role.run()` and `role.shutdown()` go to the runner of that role. Whoever compiles a role makes its runner, with the
options, addresses and functions of the app; a role that a program makes by itself gets one at its first use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zmqpipeline.addresses import EndpointAddress, RoleAddresses
from zmqpipeline.errors import ConfigurationError, RunFailed
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Ended
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.events import Drain, Event
from zmqpipeline.runtime import child_report, signals
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.leader import Leadership
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.security.issued import NO_RUN_KEYS
from zmqpipeline.runtime.transport import transport as sockets
from zmqpipeline.runtime.tuning import short_turns

if TYPE_CHECKING:
    # who has no observers does not pay for them, not even when a process starts
    from zmqpipeline.events import Event as ObservedEvent
    from zmqpipeline.events import Observer
    from zmqpipeline.runtime.observing import ObserverThread
    from zmqpipeline.runtime.traces import Tracing

Actions = dict[type, Callable[[Any], None]]
"""What the loop does with each sort of command."""

CLOSE_SECONDS = 1.0
"""How long a role that is over waits for its threads; all are daemons, so that a stuck one keeps nothing alive."""


@dataclass(frozen=True)
class RunnerSettings:
    """What a role is given beside what its class declares; the default is what a program that runs a class has."""

    options: Options | None = None
    """All settings; None: those of the environment."""

    addresses: RoleAddresses | None = None
    """Of the app; None: those that the class declares."""

    pipeline: str = ""
    """The name of the app."""

    command: str = ""
    """What starts roles of the pipeline, for messages; empty if that is not known."""

    observers: tuple[tuple[type[ObservedEvent], Observer], ...] = ()
    """The app's observers, beside those of the options."""


def _nobody(word: str) -> bool:
    return False


@dataclass(frozen=True)
class HostProcess:
    """What a role must know of the process that it runs in; the default is a program of its own."""

    ignore_sigint: bool = False
    """Whoever started it ends it, and gets the Ctrl-C, too."""

    tell_parent: Callable[[str], bool] = _nobody
    """Tells whoever started it how far it is; see `runtime.child_report`. False: nobody would hear."""

    age: float = 0.0
    """For how many seconds it had been starting when the role was run; see `protocol.early_end`."""


AnyRunner = TypeVar("AnyRunner", bound="RoleRunner")


class RoleRunner(ABC):
    """Opens, runs and closes one role; a subclass for each sort says what it binds, calls and concludes."""

    log_name: ClassVar[str]
    end_to_end: ClassVar[bool] = False
    """Whether the items or results that it sends were packed by its own process."""

    def __init__(self, role: Any, settings: RunnerSettings | None = None) -> None:
        """From here on `role.run()` runs this one."""
        self.role = role
        self.settings = settings or RunnerSettings()
        self.process = HostProcess()
        self.listener: Observer | None = None
        """Told of each event before the observers are, whatever they do elsewhere: of a test run. It must be brief."""
        self.run_keys = NO_RUN_KEYS
        """The keys of its run that it has, beside those of its options."""
        self._options = self.settings.options
        # re-entrant: a signal handler that calls `shutdown` may come while its own thread is inside
        self._guard = threading.RLock()
        self._loop: Loop | None = None
        self._leadership: Leadership | None = None
        self._asked: list[Event] = []
        """What the machine was to be told while there was no loop to take it, such as a Drain."""
        self._began: float | None = None
        self._over: float | None = None
        self._observer_thread: ObserverThread | None = None
        """None: there is nobody to tell anything."""
        self._tracing: Tracing | None = None
        """Makes spans around the calls of user code, if the options want it."""
        role._runner = self

    @classmethod
    def of(cls: type[AnyRunner], role: Any) -> AnyRunner:
        """The runner of this role; one that nobody has given a runner gets one by what its class declares."""
        runner = vars(role).get("_runner")
        if runner is None:
            with _making:
                runner = vars(role).get("_runner") or role._make_runner()
        assert isinstance(runner, cls)
        return runner

    @property
    def options(self) -> Options:
        """The settings that it was given, or those of the environment."""
        if self._options is None:
            self._options = Options.from_environ(None, os.environ)
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        self._options = options

    def run(self, process: HostProcess | None = None, *, raise_failed_run: bool = True) -> None:
        """See `Role.run`; whoever reads `status` afterwards need not have a failed run raised."""
        role = self.role
        role.status = role.signum = role.machine = None
        self.process = process or HostProcess()
        self._began, self._over = time.monotonic(), None
        self._tracing = tracing_of(self.options)
        self.prepare()
        with (
            signals.draining(self.options.drain_timeout, ignore_sigint=self.process.ignore_sigint) as caught,
            self._observed(),
        ):
            transport: sockets.Transport | None = None
            try:
                transport = sockets.Transport(self.options, context=self._context(), run_keys=self.run_keys)
                self._open(transport)
                self._log.debug("%s begins, with the addresses %s.", type(role).__name__, ", ".join(self.places()))
                self.process.tell_parent(child_report.READY)
                if self._observer_thread is not None:
                    self._observer_thread.role_is_up(str(getattr(role, "task_type", "")))
                ended = self._drive(transport, caught)
                if self._observer_thread is not None:
                    self._observer_thread.role_is_down(ended)
            finally:
                # user code first, then the sockets that its answers would have gone to
                self._close()
                if transport is not None:
                    transport.close()
                if self._tracing is not None:
                    self._tracing.flush()
        role.status, self._over = ended.status, time.monotonic()
        if role.signum == signal.SIGINT and ended.status != ConfigurationError.exit_status:
            self._log.info("%s", ended.reason)
            raise KeyboardInterrupt
        self.conclude(ended)
        failed = self._failed_run(ended) if raise_failed_run else None
        if failed is not None:
            raise failed

    def end(self, *, final: bool, seconds: float | None = None) -> None:
        """End in good order; `final`: and a run with it. Who ends all roles itself need not have them told.

        What still runs has so many `seconds`; None: its `drain_timeout`.
        """
        self._tell(Drain(self.options.drain_timeout if seconds is None else seconds, final))

    def _tell(self, event: Event) -> None:
        with self._guard:
            if self._loop is None:
                self._asked.append(event)
            else:
                self._loop.post(event)

    def seconds(self) -> float:
        """How long `run` took, or takes so far."""
        return 0.0 if self._began is None else (self._over or time.monotonic()) - self._began

    def _drive(self, transport: sockets.Transport, caught: signals.draining) -> Ended:
        """Run the loop. A signal that comes when it is over shall not cut the last messages short."""
        machine = self.role.machine = self._make_machine()

        def post(event: Event) -> None:
            loop.post(event)

        self._leadership = Leadership()
        actions = self._make_actions(post)
        loop = Loop(
            machine if self._observer_thread is None else self._observer_thread.front_of(machine),
            transport,
            actions,
            log=self._log,
            end_to_end=self.end_to_end,
            leadership=self._leadership,
        )
        self._attach(loop)
        caught.attach(loop)
        try:
            with short_turns(self.threads()):
                ended = loop.run(self._first_events())
        finally:
            caught.stop_waking()
            self._attach(None)
            # it knows the loop, and that one the sockets
            self._leadership = None
        self.role.signum = caught.signum
        return ended

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        """Observers, if there are any, are told of what happens meanwhile."""
        if not self.options.observers and not self.settings.observers and self.listener is None:
            yield
            return
        from zmqpipeline.events import Event as ObservedEvent
        from zmqpipeline.runtime.observing import ObserverThread, Subscription

        wanted = [*((ObservedEvent, one) for one in self.options.observers), *self.settings.observers]
        subscriptions = [Subscription(kind, one, _observer_name(one)) for kind, one in wanted]
        if self.listener is not None:
            subscriptions.insert(0, Subscription(ObservedEvent, self.listener, "listener", in_turn=False))
        self._observer_thread = ObserverThread(self.log_name.rpartition(".")[2], subscriptions, self._log)
        try:
            yield
        finally:
            self._observer_thread.close()
            self._observer_thread = None

    def _attach(self, loop: Loop | None) -> None:
        with self._guard:
            self._loop = loop
            if loop is not None:
                for event in self._asked:
                    loop.post(event)
            self._asked.clear()

    @property
    def _log(self) -> logging.Logger:
        return logging.getLogger(self.log_name)

    def _context(self) -> Any:
        # inproc addresses are known within one context only; all other roles have a context of their own
        return sockets.shared_context() if any(one.protocol == "inproc" for one in self.places()) else None

    def prepare(self) -> None:  # noqa: B027 - most have nothing to check
        """Check what can be checked before anything is opened."""

    @abstractmethod
    def places(self) -> Iterable[EndpointAddress]:
        """Every address that the role binds or connects to."""

    def threads(self) -> int:
        """How many threads execute user code at the same time."""
        return 1

    @abstractmethod
    def _open(self, transport: sockets.Transport) -> None:
        """Bind and connect."""

    @abstractmethod
    def _make_machine(self) -> Any:
        """A new protocol machine."""

    @abstractmethod
    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        """Start the threads for user code; return what to do with each sort of command."""

    def _first_events(self) -> Iterable[Event]:
        """What the machine is told before anything else."""
        return ()

    @abstractmethod
    def _close(self) -> None:
        """End the threads for user code."""

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        """What `run` raises of a run that failed; None if it did not, or there is none."""
        return None

    def close_functions(self) -> None:  # noqa: B027 - most have none
        """End what async functions have left behind."""

    def conclude(self, ended: Ended) -> None:
        """Raise what the role's end calls for."""
        if ended.status == ConfigurationError.exit_status:
            raise ConfigurationError(ended.reason)
        if ended.reason:
            self._log.log(logging.INFO if ended.status in (0, 1) else logging.ERROR, "%s", ended.reason)


_making = threading.RLock()
"""A role has one runner, though `run` and `shutdown` may ask for it at the same time."""


def _observer_name(function: Any) -> str:
    """What an observer is called in log lines."""
    name = getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
    return named(f"observer {name}", function)


def tracing_of(options: Options) -> Tracing | None:
    """What makes spans, if the options want them. Raises ConfigurationError if the package is missing."""
    if not options.traces:
        return None
    # who wants none does not pay for the module
    from zmqpipeline.runtime.traces import Tracing

    return Tracing()


def new_incarnation() -> bytes:
    """An id for one life of one process."""
    return os.urandom(8)
