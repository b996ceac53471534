"""Tasks of the class API: declared attributes, the arguments of handlers, and the end of a task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.roles import Rig, run_to_the_end
from zmqpipeline.addresses import EndpointAddress, WorkerAddress
from zmqpipeline.errors import DefinitionError, PipelineError
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.roles.task import ClassSource, LastAck, Task
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime.threads.source import Exhausted, Gated
from zmqpipeline.serialization.pack import pack, unpack
from zmqpipeline.utils.messages import MESSAGE_TYPE_READY

TaskType.register_type("T")
ADDRESS = EndpointAddress("inproc://task")


class Base(Task):
    """Whole but for `handle`."""

    task_type = TaskType("T")
    endpoint = ADDRESS
    dependencies = ()


def produce(ack_id: int = 0, **ack: Any) -> Produce:
    """One Produce with a last ACK."""
    return Produce("T", 1, "host:1", "T" if ack_id else "", ack_id, pack(ack) if ack else b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_type", "T"),
        ("task_type", 5),
        ("endpoint", 5),
        ("endpoint", lambda self: ADDRESS),
        ("dependencies", TaskType("T")),
        ("dependencies", ["T"]),
        ("dependencies", {"T": 1}),
    ],
)
def test_a_wrong_attribute_is_found_when_the_class_is_defined(name: str, value: object) -> None:
    """The error is a TypeError and a PipelineError, and names class and attribute."""
    with pytest.raises(DefinitionError, match=rf"Wrong\.{name} must be") as caught:
        type("Wrong", (Task,), {name: value})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, PipelineError)


def test_a_missing_attribute_is_found_when_the_task_is_made() -> None:
    """A class may leave an attribute open, but no instance may."""

    class Open(Base):
        dependencies = None

        def handle(self) -> None:
            return None

    with pytest.raises(TypeError, match=r"Open has no dependencies"):
        Open()

    class Closed(Open):
        dependencies = ()

    assert Closed().dependencies == ()


def test_properties_and_attributes_of_the_instance_count() -> None:
    """An attribute may be a property, or be set by ``__init__``; both are checked when the task is made."""

    class Computed(Base):
        def __init__(self, number: int) -> None:
            self.dependencies = []
            self.number = number

        @property
        def endpoint(self) -> Any:
            return EndpointAddress(f"inproc://computed-{self.number}") if self.number else "nowhere"

        def handle(self) -> None:
            return None

    assert Computed(3).endpoint == "inproc://computed-3"
    with pytest.raises(DefinitionError, match=r"Computed\.endpoint: 'nowhere' is no address"):
        Computed(0)


def test_a_task_without_handle_cannot_be_made() -> None:
    """`handle` is abstract."""
    with pytest.raises(TypeError, match="handle"):
        Base()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_handle_is_called_with_as_many_arguments_as_it_takes(count: int) -> None:
    """The documented arguments are data, address, msgtype, ack_data; a handler may take the first few."""
    names = ", ".join(["self", "data", "address", "msgtype", "ack_data"][: count + 1])
    space: dict[str, Any] = {}
    exec(f"def handle({names}):\n    return {{'got': [{names}][1:]}}", space)
    task = type("Takes", (Base,), {"handle": space["handle"]})()
    item = unpack(ClassSource(task).start({"m": 1})(produce(3, x=1)))
    ack = {"x": 1, "_task_type": "T", "_id": 3}
    assert item == {"got": [{"m": 1}, "host:1", MESSAGE_TYPE_READY, ack][:count]}


def test_handle_with_star_args_gets_all_and_too_many_needed_is_refused() -> None:
    """``*args`` has room for everything; a fifth argument that is needed is named in the error."""

    class Star(Base):
        def handle(self, *args: Any) -> dict[str, Any]:
            return {"count": len(args)}

    class Greedy(Base):
        def handle(self, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
            return None

    assert unpack(ClassSource(Star()).start({})(produce())) == {"count": 4}
    with pytest.raises(TypeError, match="needs 5 arguments"):
        ClassSource(Greedy()).start({})


def test_metadata_reaches_initialize_and_handle_and_is_not_shared() -> None:
    """`initialize` keeps the metadata; what `handle` does to its `data` does not reach the next call."""

    class Keeps(Base):
        def handle(self, data: dict[str, Any]) -> dict[str, Any]:
            data["calls"] = data.get("calls", 0) + 1
            return {**data, **self.metadata}

    step = ClassSource(Keeps()).start({"path": "/usr"})
    assert [unpack(step(produce())) for _ in range(2)] == [{"path": "/usr", "calls": 1}] * 2


def test_an_initialize_that_keeps_nothing_leaves_handle_its_data() -> None:
    """`initialize` may be overridden with or without its argument."""

    class Own(Base):
        def initialize(self) -> None:
            self.ready = True

        def handle(self, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "ready": self.ready, "kept": self.metadata}

    assert unpack(ClassSource(Own()).start({"a": 1})(produce())) == {"a": 1, "ready": True, "kept": {}}


@pytest.mark.parametrize(("returned", "last"), [({"n": 1}, {"n": 1}), (None, None)])
def test_completing_in_handle_makes_its_item_the_last(returned: Any, last: Any) -> None:
    """The item of the call that sets is_complete is sent; with None there is none."""

    class Once(Base):
        def handle(self) -> Any:
            self.is_complete = True
            return returned

    step = ClassSource(Once()).start({})
    with pytest.raises(Exhausted) as caught:
        step(produce())
    assert (caught.value.last and unpack(caught.value.last)) == last
    with pytest.raises(Exhausted) as again:
        step(produce())
    assert again.value.last is None


@pytest.mark.parametrize("value", [["a"], "text", 5])
def test_handle_may_return_only_a_dict_or_none(value: object) -> None:
    """Anything else is a TypeError that names the class; None is an item with nothing in it."""
    returned: list[object] = [None, value]

    class Gives(Base):
        def handle(self) -> Any:
            return returned.pop(0)

    step = ClassSource(Gives()).start({})
    assert unpack(step(produce())) == {}
    with pytest.raises(TypeError, match=r"Gives\.handle \(\S+:\d+\) returned"):
        step(produce())


def test_the_gate_is_asked_before_each_item_with_the_last_ack() -> None:
    """False means "not now"; the ack has the user's data under the library's two names."""
    seen: list[dict[str, Any]] = []

    class Gate(Base):
        def is_available_for_handling(self, last_ack_data: dict[str, Any]) -> bool:
            seen.append(last_ack_data)
            return last_ack_data["_id"] == 2

        def handle(self) -> dict[str, Any]:
            return {}

    step = ClassSource(Gate()).start({})
    with pytest.raises(Gated):
        step(produce())
    step(produce(2, _id="mine", color="red"))
    assert seen == [{"_task_type": "", "_id": 0}, {"color": "red", "_task_type": "T", "_id": 2}]


def test_a_gate_that_is_not_overridden_is_not_called() -> None:
    """Tasks without a gate pay nothing for it."""

    class Free(Base):
        def handle(self) -> None:
            return None

    assert not ClassSource(Free()).spec().has_gate


def test_each_call_gets_its_own_copy_of_the_ack() -> None:
    """A handler that changes its ack data changes nothing for the next one."""
    acks, command = LastAck(), produce(1, a=1)
    acks.of(command)["a"] = 2
    assert acks.of(command)["a"] == 1


def test_is_complete_set_by_initialize_means_no_items() -> None:
    """A task may find at its start that there is nothing to do; the run ends well."""
    rig = Rig()

    class Nothing(rig.task):  # type: ignore[name-defined,misc]
        def initialize(self, metadata: dict[str, Any]) -> None:
            self.is_complete = True

    collector = rig.collector()
    run_to_the_end(rig.distributor(Nothing), rig.worker(), collector)
    assert rig.collected == []
    assert collector.ok is True


def test_the_address_of_a_worker_names_its_host_and_process() -> None:
    """It is an EndpointAddress, and a str, of its own kind."""
    seen: list[Any] = []

    class Looks(Base):
        def handle(self, data: Any, address: Any) -> None:
            seen.append(address)

    ClassSource(Looks()).start({})(Produce("T", 1, "box/4711", "", 0, b""))
    (address,) = seen
    assert isinstance(address, EndpointAddress)
    assert (address, address.host, address.process) == ("box/4711", "box", 4711)
    assert (address.protocol, address.path, address.port) == ("", "box/4711", None)
    assert WorkerAddress("a1b2c3").process is None


@pytest.mark.parametrize("key", ["url", lambda self, item: item["url"]])
def test_a_task_may_have_a_key(key: Any) -> None:
    """A field's name, or a method that takes the item: each item goes with the digest of its key."""

    class Pages(Base):
        def handle(self) -> dict[str, Any]:
            return {"url": "a", "more": object.__name__}

    Pages.key = key
    task = Pages()
    assert ClassSource(task).spec().keyed
    first, second = (ClassSource(task).start({})(produce()) for _ in range(2))
    assert isinstance(first, tuple)
    assert (len(first[1]), first) == (16, second)
    assert not ClassSource(Pages()).spec().has_gate


def test_a_key_that_is_none_is_an_error() -> None:
    """A number is no key; an item without the field is named."""

    class Wrong(Base):
        key = 7

        def handle(self) -> dict[str, Any]:
            return {"a": 1}

    with pytest.raises(TypeError, match=r"Wrong\.key must be the name of a field or a method"):
        ClassSource(Wrong()).spec()
    Wrong.key = "url"
    with pytest.raises(LookupError, match="has no field 'url'"):
        ClassSource(Wrong()).start({})(produce())
