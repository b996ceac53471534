"""The user code of a distributor: the sources of its items, and the run's metadata; how they are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, RunFailed
from zmqpipeline.protocol.commands import Produce, StartTasks
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.failure_kinds import said
from zmqpipeline.protocol.events import MetadataLoaded
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import named, trouble_of, users_part
from zmqpipeline.runtime.log import about_thread
from zmqpipeline.runtime.threads.source import Exhausted, Gated, Keep, Take, steps
from zmqpipeline.serialization.pack import METADATA_BYTES, pack_aside, pack_identity, unpack

Step: TypeAlias = Callable[[Produce], bytes | tuple[bytes, bytes]]
"""Makes the next item of a source: packed, or packed with the digest of its key."""

MetadataSource: TypeAlias = Callable[[], "dict[str, Any] | None"]

MAX_VALUE_LENGTH = 200
"""So many characters of a metadata value are shown in an error."""


class ItemSource(ABC):
    """A source of items: what a distributor calls, be it a class of the user or a decorated function."""

    @property
    @abstractmethod
    def endpoint(self) -> EndpointAddress:
        """Where its items are given out."""

    @abstractmethod
    def spec(self) -> TaskSpec:
        """What the distributor's machine must know of the task."""

    @abstractmethod
    def start(self, metadata: dict[str, Any], start: int = 0) -> Step:
        """The task begins; what is returned is then called for each item, always on the same thread.

        So many items from the first on are done: `start` is for who can begin after them.
        """

    def close(self, timeout: float) -> None:  # noqa: B027 - most have nothing to end
        """No more is asked of it: what it has under way is ended within so many seconds."""


class SourceCalls:
    """Calls the sources of a run and its metadata function; what they raise is kept for the end of `run()`."""

    def __init__(
        self, sources: Sequence[ItemSource], metadata: MetadataSource | None, given: Mapping[str, Any] | None
    ) -> None:
        """`given` must be among the metadata of a run that goes on."""
        self.sources = list(sources)
        self.names = [source.spec().task_type for source in self.sources]
        self._metadata_source, self._given = metadata, given or {}
        self._metadata: dict[str, Any] = {}
        self._raised: dict[str, BaseException] = {}
        self._is_closed = False

    def close(self, timeout: float) -> None:
        """No more is asked of the sources; what one raises since it is ended is not its fault."""
        self._is_closed = True
        for source in self.sources:
            source.close(timeout)

    @property
    def has_metadata(self) -> bool:
        """Whether there is a function for them."""
        return self._metadata_source is not None

    def load_metadata(self) -> MetadataLoaded:
        """Call the function."""
        try:
            source = self._metadata_source
            metadata = None if source is None else source()
            forks.end_child()
            return MetadataLoaded(pack_aside(metadata, named("The metadata function", source), METADATA_BYTES))
        except BaseException as error:
            self._raised.setdefault("", error)
            return MetadataLoaded(b"", trouble_of(error))

    def start_tasks(self, command: StartTasks) -> None:
        """The sources get the metadata."""
        self._metadata = unpack(command.metadata) if command.metadata else {}
        refuse_other_metadata(self._given, self._metadata, ConfigurationError)

    def steps_of(self, source: ItemSource) -> Take:
        """The source's own steps, which begin with the first, on its own thread."""
        inner: Take | None = None
        name = source.spec().task_type

        def take(command: Produce, count: int, keep: Keep) -> None:
            nonlocal inner
            try:
                about_thread(task=name)
                if inner is None:
                    inner = steps(source.start(dict(self._metadata), command.over))
                inner(command, count, keep)
            except (Exhausted, Gated):
                forks.end_child()
                raise
            except BaseException as error:
                forks.end_child(error)
                if not self._is_closed:
                    self._raised.setdefault(name, error)
                raise
            finally:
                # the thread may run the loop between two calls, whose lines are about no task
                about_thread()

        return take

    def raise_first(self, troubles: Mapping[str, ErrorInfo]) -> None:
        """Raise what a function raised here, or what `troubles` say of one that raised elsewhere."""
        for name, error in self._raised.items():
            if not isinstance(error, Exception):
                # a function of the user does not end the process that calls it, nor cancel what runs the distributor
                raise RunFailed(f"Not everything was sent: {_ended(name, error)}", troubles) from error
            # its own frames, and not ours on the way to them
            raise error.with_traceback(users_part(error.__traceback__))
        names = {*self.names, "metadata"}
        ours = {name: trouble for name, trouble in troubles.items() if name in names}
        if ours:
            lines = "; ".join(f"task {name!r}: {said(one)}" for name, one in ours.items())
            raise RunFailed(f"Not everything was sent: {lines}", ours)


def refuse_other_metadata(
    given: Mapping[str, Any],
    held: Mapping[str, Any],
    error: type[ConfigurationError],
    which: str = "The unfinished run",
) -> None:
    """Raise `error` if metadata that was given is not that of the unfinished run that goes on.

    `held` may say more than `given`: what the metadata function returned when the run began. Values are the same when
    they pack to the same bytes. The text begins with `which`.
    """
    for key, value in given.items():
        if key not in held or pack_identity(held[key]) != pack_identity(value):
            seen = f"{key}={shown_value(held[key])}" if key in held else f"no {key!r}"
            raise error(
                f"{which} has the metadata {seen}, but {key}={shown_value(value)} was given. "
                "Leave --meta out to go on with the run, or --fresh to start again."
            )


def shown_value(value: object) -> str:
    """A metadata value as messages show it."""
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."


def _ended(name: str, error: BaseException) -> str:
    who = f"the function of task {name!r}" if name else "the metadata function"
    return f"{who} raised {error!r}. Return, or raise another exception."
