"""Every error that the library raises, as one tree.

::

    PipelineError
    ├── ConfigurationError            what the user can mend before anything runs; exit status 2
    │   ├── EndpointError             (TypeError)  a malformed or unusable address
    │   ├── EndpointInUse             another process is bound to the address
    │   ├── TaskTypeError             (TypeError)  an empty or unregistered task type
    │   ├── DefinitionError           (TypeError)  a class with wrong or missing attributes
    │   ├── DependencyError           a dependency on an unknown task, or a circle of them
    │   ├── RegistrationError         (TypeError)  a decorator used twice, too late, or with an unknown parameter
    │   ├── KeysError                 keys that are missing, wrong, or open to others; an address that needs some
    │   │   └── KeysUnavailable       keys that cannot be written now: the disk is full; status 75
    │   ├── JournalError              a journal that cannot be opened, belongs to another run, or cannot be written
    │   │   └── JournalUnavailable    one that may be usable later: another process has it, its disk is full; status 75
    │   └── ImportFailed              the app's module cannot be imported by a child process or the command line
    ├── SerializeError                (TypeError)  a value that cannot be packed, or bytes that cannot be unpacked
    ├── FieldError                    (TypeError)  a value does not fit what a function is annotated with; never retried
    ├── Retry                         raised by a worker's function: the item is to come again, and has not failed
    ├── BatchError                    (TypeError)  a function with batch= returned no list of one result for each item
    ├── WireError                     frames of a peer that are no message of this protocol
    ├── RunFailed                     not everything was collected, or the run was ended early; see `troubles`
    ├── PipelineTimeout               (TimeoutError)  a run took longer than allowed
    ├── WorkerInitError               `init_worker` or `init_thread` raised
    ├── RoleDied                      a process that the run needs kept dying; exit status 3
    ├── ItemFailed                    a failed item, raised again by a test run; see `failure`
    └── RequestFailed                 a service request without a reply
        ├── ServiceTimeout            (TimeoutError)  no reply came in time
        ├── ServiceUnavailable        nobody serves that name, too many requests wait, or the broker or client ended
        ├── ServiceError              the handler raised; see `error`, `message`, `traceback`
        └── WorkerLost                the worker died; the request may have been executed

The types in brackets are further bases, so that code which catches the builtin error goes on working. A message is a
short letter: what happened, what was seen, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: `` Did you mean 'x'?`` if one of the known ones is close, else empty."""
    import difflib  # at the first mistake only

    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


class PipelineError(Exception):
    """The root of the tree: catch it to catch everything that the library raises on purpose."""

    exit_status: ClassVar[int] = 1
    """What a command exits with if this error ends it."""


class ConfigurationError(PipelineError):
    """Something was set up wrongly; nothing has run. Commands show it as one line and exit with status 2.

    A program that does not catch it ends as with any exception: a traceback, whose last line is the message, status 1.
    """

    exit_status: ClassVar[int] = 2


class EndpointError(ConfigurationError, TypeError):
    """An address that is malformed, or that cannot be bound on this machine."""


class EndpointInUse(ConfigurationError):
    """The address is bound by another process, or by another role of this one."""


class TaskTypeError(ConfigurationError, TypeError):
    """A task type that is no string, is empty, or was never registered."""


class DefinitionError(ConfigurationError, TypeError):
    """A subclass of the class API whose attributes are missing or of the wrong type."""


class DependencyError(ConfigurationError):
    """A task depends on one that is unknown, or on itself by a way round; the message shows the path."""


class RegistrationError(ConfigurationError, TypeError):
    """A function or class that cannot be registered: a second one, too late, an unknown parameter or keyword."""


class KeysError(ConfigurationError):
    """Keys that are missing, wrong or open to other users, or an address that is not to be used without any."""


class KeysUnavailable(KeysError):
    """Keys that cannot be written now, for a reason that may pass: the disk is full.

    The exit status is that of `JournalUnavailable`: the same command may succeed later.
    """

    exit_status: ClassVar[int] = 75


class JournalError(ConfigurationError):
    """A journal that cannot be opened, is no journal, belongs to another pipeline or run, or cannot be written."""


class JournalUnavailable(JournalError):
    """A journal that cannot be used now, for a reason that may pass: another process has it, or its disk is full.

    The exit status is that of EX_TEMPFAIL in sysexits.h: the same command may succeed later.
    """

    exit_status: ClassVar[int] = 75


class ImportFailed(ConfigurationError):
    """The module of an app cannot be imported by name, or holds no app."""


class SerializeError(PipelineError, TypeError):
    """A value cannot be packed (the message names the key path), or bytes are no packed value."""


class FieldError(PipelineError, TypeError):
    """A value does not fit the annotation of the function that it is for; such an item is not tried again."""


class Retry(PipelineError):
    """Raised by a worker's function: this item is to come again after a while. It counts as no failure and no retry.

    ::

        if answer.status == 429:
            raise Retry(after=float(answer.headers["Retry-After"]), pause=True)
    """

    def __init__(self, after: float = 1.0, pause: bool = False) -> None:
        """`after` so many seconds at the earliest; with `pause` no item of the task is handed out before.

        Raises:
            ValueError: `after` is no number of seconds.
        """
        seconds = float(after)
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"Retry(after=...) must be a number of seconds, 0 or more, not {after!r}.")
        self.after, self.pause = seconds, bool(pause)
        super().__init__(f"Again after {seconds!r} s{_PAUSE if self.pause else ''}")

    @staticmethod
    def read(text: str) -> tuple[float, bool]:
        """What the message of one says: after how many seconds, and whether the task pauses."""
        number = text.removeprefix("Again after ").partition(" ")[0]
        try:
            seconds = float(number)
        except ValueError:
            seconds = 0.0
        return seconds if 0 <= seconds < float("inf") else 0.0, text.endswith(_PAUSE)


_PAUSE = "; the task pauses as long"


class BatchError(PipelineError, TypeError):
    """A worker's function that takes batches returned something else than a list with one result for each item."""


class WireError(PipelineError):
    """The frames of a peer are no message of this protocol and version. Counted and dropped, never fatal."""


class RunFailed(PipelineError):
    """A run that came to its end in good order, and did not collect everything; or that was ended early.

    Raised out of `run()` of a distributor, a collector and a worker.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str = "", troubles: Mapping[str, object] | None = None) -> None:
        """`troubles` says what was raised, as text (`protocol.messages.ErrorInfo`), the first of each.

        It maps a task's name to what its source raised, or what the first of its failed items failed of; "metadata",
        "ack_data", "failed" and "finished" to what these functions raised.
        """
        super().__init__(message)
        self.troubles: dict[str, object] = dict(troubles or {})


class PipelineTimeout(PipelineError, TimeoutError):
    """A run, or a wait within it, took longer than its time limit."""


class WorkerInitError(PipelineError):
    """A worker's `init_worker` or `init_thread` raised: it can execute nothing."""


class RoleDied(PipelineError):
    """A process that the run needs died, and died again each time it was started anew."""

    exit_status: ClassVar[int] = 3


class ItemFailed(PipelineError):
    """An item was given up."""

    def __init__(self, message: str = "", failure: object = None) -> None:
        """`failure` is the record that `@app.failed` functions get."""
        super().__init__(message)
        self.failure = failure


class RequestFailed(PipelineError):
    """A service request got no reply. `error`, `message` and `traceback` are text, as the other side told it."""

    def __init__(self, message: str = "", *, error: str = "", traceback: str = "") -> None:
        """`error` is the name of the exception's type where the handler ran; `traceback` its text."""
        super().__init__(f"{error}: {message}" if error else message)
        self.error = error
        self.message = message
        self.traceback = traceback


class ServiceTimeout(RequestFailed, TimeoutError):
    """No reply came within the request's timeout. It may still be executed."""


class ServiceUnavailable(RequestFailed):
    """Nobody serves that name, too many requests wait for it, or the broker or the client has ended."""


class ServiceError(RequestFailed):
    """The service's function raised, or returned what cannot be packed."""


class WorkerLost(RequestFailed):
    """The worker that had the request died. It may have been executed: the service is not idempotent."""
