"""The metadata worker of the class API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.roles import Rig, run_to_the_end, running
from zmqpipeline.roles.metadata import MetaDataWorker


@pytest.fixture
def rig() -> Rig:
    """Class-API roles on addresses of their own."""
    return Rig()


def metadata_worker(rig: Rig, value: Any) -> MetaDataWorker:
    """A metadata worker for the rig's distributor, which returns this."""
    attributes = {"endpoint": rig.metadata_endpoint, "get_metadata": lambda self: value}
    made: MetaDataWorker = type("Meta", (MetaDataWorker,), attributes)()
    return made


def test_metadata_reaches_task_worker_and_collector(rig: Rig) -> None:
    """The metadata worker ends by itself with status 0 once the distributor has it."""
    seen: dict[str, Any] = {}

    class Forwards(rig.task):  # type: ignore[name-defined,misc]
        def handle(self, data: dict[str, Any]) -> dict[str, Any]:
            self.is_complete = True
            return data

    class Looks(rig.worker):  # type: ignore[name-defined,misc]
        def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            seen["worker"] = dict(self.metadata)
            return data

    collector, meta = rig.collector(), metadata_worker(rig, {"meta_variable": "my value"})
    distributor = rig.distributor(Forwards, receive_metadata=True, metadata_endpoint=rig.metadata_endpoint)
    run_to_the_end(distributor, Looks(), collector, meta)
    assert [data for data, _, _ in rig.collected] == [{"meta_variable": "my value"}]
    assert seen["worker"] == collector.metadata == {"meta_variable": "my value"}
    assert meta.status == 0


def test_without_metadata_there_is_an_empty_dict(rig: Rig) -> None:
    """`handle` and `initialize` get it, and it is on worker and collector."""
    seen: list[Any] = []

    class Looks(rig.task):  # type: ignore[name-defined,misc]
        def initialize(self, metadata: dict[str, Any]) -> None:
            seen.append(metadata)

        def handle(self, data: dict[str, Any], address: str, msgtype: str) -> None:
            seen.append(data)
            return super().handle(data, address, msgtype)  # type: ignore[no-any-return]

    collector, worker = rig.collector(), rig.worker()
    run_to_the_end(rig.distributor(Looks), worker, collector)
    assert [*seen, worker.metadata, collector.metadata] == [{}] * 13


def test_nothing_begins_before_the_metadata_is_there(rig: Rig) -> None:
    """A distributor told to receive metadata hands out nothing without it, and everything as soon as it comes."""
    collector, worker = rig.collector(), rig.worker()
    distributor = rig.distributor(receive_metadata=True, metadata_endpoint=rig.metadata_endpoint)
    with running(collector, worker, distributor) as threads:
        threads[2].join(0.3)
        assert threads[2].is_alive()
        assert rig.collected == []
        run_to_the_end(metadata_worker(rig, {}))
        threads[2].join(60)
        assert not threads[2].is_alive()
    assert len(rig.collected) == 10


def test_metadata_that_is_no_dict_is_refused_by_name(rig: Rig) -> None:
    """The error comes out of run(), before anything is sent."""
    with pytest.raises(TypeError, match=r"Meta\.get_metadata \(\S+:\d+\) returned a list"):
        metadata_worker(rig, ["a"]).run()


def test_shutdown_ends_a_metadata_worker_that_nobody_asks(rig: Rig) -> None:
    """Without a distributor it waits, until it is told to end."""
    meta = metadata_worker(rig, {})
    with running(meta) as threads:
        threads[0].join(0.1)
        assert threads[0].is_alive()
    assert meta.status == 0


def test_an_endpoint_is_needed() -> None:
    """A metadata worker without an endpoint cannot be made."""
    with pytest.raises(TypeError, match="has no endpoint"):
        type("Open", (MetaDataWorker,), {"get_metadata": lambda self: {}})()
