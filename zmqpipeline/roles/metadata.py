"""MetaDataWorker: a program that hands the run's metadata to the distributor, and ends."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.protocol.commands import LookForEnd
from zmqpipeline.protocol.events import EndFound
from zmqpipeline.protocol.metadata import MetadataMachine
from zmqpipeline.roles.attributes import ENDPOINT, AttributeSpec
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.runner import Actions, RoleRunner, new_incarnation
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.ended_runs import find_early_note
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import METADATA_BYTES, pack_aside


class MetaDataWorker(Role):
    """Subclass it, declare `endpoint`, write `get_metadata`; the distributor waits for it if told so."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {"endpoint": ENDPOINT}

    endpoint: EndpointAddress | str
    """The distributor's `metadata_endpoint`; the distributor binds it."""

    @abstractmethod
    def get_metadata(self) -> dict[str, Any]:
        """The metadata of the run: for tasks, workers and the collector. Called once."""

    def _make_runner(self) -> MetadataRunner:
        return MetadataRunner(self)


class MetadataRunner(RoleRunner):
    """Runs a metadata worker: `get_metadata` is called before anything is opened."""

    role: MetaDataWorker
    log_name = "zmqpipeline.metadataworker"

    def prepare(self) -> None:
        """Call the user's method."""
        method = self.role.get_metadata
        what = named(f"{type(self.role).__name__}.get_metadata", method)
        forks.calls_user_code()
        try:
            made = method()
            forks.end_child()
        except BaseException as error:
            forks.end_child(error)
            raise
        self._payload = pack_aside(made, what, METADATA_BYTES)

    def places(self) -> Iterable[EndpointAddress]:
        """The distributor's address for it."""
        return (EndpointAddress(self.role.endpoint),)

    def _open(self, transport: Transport) -> None:
        transport.connect("metadata", EndpointAddress(self.role.endpoint))

    def _make_machine(self) -> MetadataMachine:
        patience, age = self.options.exit_when_idle, self.process.age
        return MetadataMachine(self._payload, incarnation=new_incarnation(), exit_when_idle=patience, age=age)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        return {LookForEnd: lambda command: self._look_for_end(post)}

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        if early := find_early_note(connected=self.places()):
            post(EndFound("", early[1], early[0]))

    def _close(self) -> None:
        """There are no threads to end."""
