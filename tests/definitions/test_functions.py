"""Functions as the class API: parameters by name, the forms of a task function, keys, gates and resources."""

from __future__ import annotations

import timeit
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions import signatures
from zmqpipeline.definitions.entries import task_entry, worker_entry
from zmqpipeline.definitions.functions.collector import FunctionResults
from zmqpipeline.definitions.functions.task import FunctionSource
from zmqpipeline.definitions.functions.worker import FunctionWorker
from zmqpipeline.definitions.signatures import plan
from zmqpipeline.errors import RegistrationError
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.roles.collecting import ResultCalls
from zmqpipeline.roles.results import Failure
from zmqpipeline.roles.worker import WorkerRunner
from zmqpipeline.runtime.journal import MEMORY, Journal
from zmqpipeline.runtime.threads.source import Exhausted, Gated
from zmqpipeline.serialization.pack import pack, unpack
from zmqpipeline.utils.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END

ADDRESS = EndpointAddress("inproc://adapters")


def produce(ack_id: int = 0, **ack: Any) -> Produce:
    """One Produce with a last ACK."""
    return Produce("C", 1, "host:1", "C" if ack_id else "", ack_id, pack(ack) if ack else b"")


def opened(step: bytes | tuple[bytes, bytes]) -> Any:
    """An item, or an item and its digest."""
    return unpack(step) if isinstance(step, bytes) else (unpack(step[0]), step[1])


def items_of(function: Callable[..., Any], metadata: dict[str, Any] | None = None, **options: Any) -> list[Any]:
    """Every item of a task function, and the digests if it has a key."""
    step = FunctionSource(task_entry("C", function, **options), ADDRESS).start(metadata or {})
    found: list[Any] = []
    while True:
        try:
            found.append(opened(step(produce())))
        except Exhausted as end:
            return found if end.last is None else [*found, opened(end.last)]


# parameters by name -----------------------------------------------------------------------------------------------


def test_the_first_parameter_goes_by_place_and_the_others_by_name() -> None:
    """The names may come in any order, as keywords, and may have a default."""

    def square(anything: Any, attempt: int, *, metadata: Any, number: int = 7, own: int = 1, **rest: Any) -> None:
        return None

    assert plan(square, signatures.WORKER).names == ("attempt", "metadata", "number")


def test_a_first_parameter_with_a_known_name_is_the_item_all_the_same() -> None:
    """Only its place counts."""
    assert plan(lambda metadata: None, signatures.WORKER).names == ()


@pytest.mark.parametrize(
    ("function", "place", "expected"),
    [
        (lambda data, colour: None, signatures.WORKER, r"'colour', which nobody provides.*thread_index.*resource"),
        (lambda data, address: None, signatures.WORKER, r"'address', which nobody provides"),
        (lambda data, resource: None, signatures.COLLECTOR, r"metadata, task_type, number, attempt, msgtype, journal"),
        (lambda data, journal: None, signatures.WORKER, r"'journal', which nobody provides"),
        (lambda journal: None, signatures.ACK_DATA, r"'journal', which nobody provides"),
        (lambda number: None, signatures.TASK, r"'number', which nobody provides"),
        (lambda data: None, signatures.FINISHED, r"'data', which nobody provides"),
        (lambda name: None, signatures.METADATA, r"have a meaning there: none"),
        (lambda: None, signatures.WORKER, r"takes no parameter. Its first one is the item"),
        (lambda *, data: None, signatures.WORKER, r"takes no parameter. Its first one is the item"),
    ],
)
def test_a_name_without_a_meaning_is_refused_with_those_that_have_one(
    function: Callable[..., Any], place: signatures.HandlerKind, expected: str
) -> None:
    """The list is that of the place."""
    with pytest.raises(RegistrationError, match=expected):
        plan(function, place)


def test_a_name_by_position_only_cannot_be_given() -> None:
    """The error says what to change."""

    def square(data: Any, metadata: Any, /) -> None:
        return None

    with pytest.raises(RegistrationError, match="Take the '/' out"):
        plan(square, signatures.WORKER)


def test_what_is_no_plain_function_is_refused() -> None:
    """Async functions where none is awaited, generators where one value is meant, and things that cannot be called."""

    async def later(data: Any) -> None:
        return None

    def many(data: Any) -> Iterator[int]:
        yield 1

    class Later:
        async def __call__(self, data: Any) -> None:
            return None

    async def later_many(data: Any) -> AsyncIterator[int]:
        yield 1

    for bad, expected in (
        (later, "async"),
        (Later(), "async"),
        (many, "yield"),
        (later_many, "async"),
        (5, "needs a function"),
    ):
        with pytest.raises(RegistrationError, match=expected):
            plan(bad, signatures.AVAILABLE)  # type: ignore[arg-type]
    assert plan(later, signatures.WORKER).is_async
    assert plan(Later(), signatures.SERVICE).is_async
    assert plan(later, signatures.COLLECTOR).is_async
    for bad, expected in ((many, "yield"), (later_many, "yield")):
        with pytest.raises(RegistrationError, match=expected):
            plan(bad, signatures.WORKER)


@pytest.mark.parametrize("function", [print, [].append, dict, max])
def test_builtins_and_methods_are_called_with_the_item_alone(function: Callable[..., Any]) -> None:
    """A list's append is a fine collector."""
    assert plan(function, signatures.COLLECTOR).names == ()


def test_constants_are_filled_in_once_and_the_rest_at_each_call() -> None:
    """A function that takes nothing extra is bound as it is: a call of it costs nothing more."""

    def plain(data: Any) -> Any:
        return data

    def wants(data: Any, metadata: Any, number: int) -> Any:
        return data, metadata, number

    assert plan(plain, signatures.WORKER).bind({"metadata": 1}).function is plain
    bound = plan(wants, signatures.WORKER).bind({"metadata": 1, "task_type": "C"})
    assert bound.rest == ("number",)
    assert bound("x", number=3, attempt=9) == ("x", 1, 3)


# tasks ------------------------------------------------------------------------------------------------------------


def generator() -> Iterator[dict[str, Any] | None]:
    """Two items, one of them empty."""
    yield {"n": 1}
    yield None


@pytest.mark.parametrize(
    ("function", "items"),
    [
        (generator, [{"n": 1}, {}]),
        (lambda: [{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 2}]),
        (lambda: ({"n": n} for n in range(2)), [{"n": 0}, {"n": 1}]),
        (list, []),
        (lambda: {"n": 1}, [{"n": 1}]),
        (lambda: None, [{}]),
    ],
)
def test_a_task_function_may_yield_or_return_its_items(function: Callable[..., Any], items: list[Any]) -> None:
    """A generator, an iterable, one dict, or None for one empty item."""
    assert items_of(function) == items


@pytest.mark.parametrize("value", ["text", b"bytes", 5])
def test_a_task_function_that_returns_something_else_is_named(value: object) -> None:
    """A string is no iterable of items."""
    with pytest.raises(TypeError, match=r"task function .* returned a (str|bytes|int)"):
        items_of(lambda: value)


def test_an_item_that_is_no_dict_is_named() -> None:
    """The function that yielded it is in the message."""
    with pytest.raises(TypeError, match=r"task function .*returned a list"):
        items_of(lambda: [["a"]])


def test_times_calls_the_function_so_often_with_the_number() -> None:
    """One item a call; the number counts from 0; no call more than asked for."""
    calls: list[int] = []

    def once(number: int, task_type: str) -> dict[str, Any] | None:
        calls.append(number)
        return {"number": number, "of": task_type} if number else None

    assert items_of(once, times=3) == [{}, {"number": 1, "of": "C"}, {"number": 2, "of": "C"}]
    assert calls == [0, 1, 2]
    assert items_of(once, times=0) == []
    with pytest.raises(RegistrationError, match="yield"):
        task_entry("C", generator, times=3)


def test_metadata_address_and_ack_data_are_given_to_a_task_function() -> None:
    """A generator gets them when it starts."""

    def begins(metadata: Any, address: str, ack_data: Any) -> Iterator[dict[str, Any]]:
        yield {"metadata": metadata, "address": address, "ack": ack_data}

    expected = {"metadata": {"a": 1}, "address": "host:1", "ack": {"_task_type": "", "_id": 0}}
    assert items_of(begins, {"a": 1}) == [expected]


def test_a_key_is_a_field_or_a_callable_and_becomes_a_digest_of_16_bytes() -> None:
    """Equal keys have equal digests, others have others; a missing field is named."""
    rows = [{"id": 1, "x": 1}, {"id": 2, "x": 2}, {"id": 1, "x": 3}]
    digests = [digest for _, digest in items_of(lambda: rows, key="id")]
    assert digests[0] == digests[2] != digests[1]
    assert {len(digest) for digest in digests} == {16}
    by_call = [digest for _, digest in items_of(lambda: rows, key=lambda item: (item["id"], item["x"]))]
    assert len(set(by_call)) == 3
    assert [digest for _, digest in items_of(lambda number: {"id": number + 1}, key="id", times=2)] == digests[:2]
    with pytest.raises(LookupError, match=r"no field 'name'.*It has: 'id', 'x'"):
        items_of(lambda: rows, key="name")


def test_a_gate_function_is_asked_before_each_item() -> None:
    """It gets the last ACK first, whatever the parameter is called; no item is lost when it says no."""
    gate = plan(lambda last, metadata: last["_id"] >= metadata["from"], signatures.AVAILABLE)
    step = FunctionSource(task_entry("C", generator), ADDRESS, gate).start({"from": 2})
    with pytest.raises(Gated):
        step(produce(1))
    assert unpack(step(produce(2, a=1))) == {"n": 1}  # type: ignore[arg-type]


# workers ----------------------------------------------------------------------------------------------------------


def make_worker(function: Callable[..., Any], init: Any = None, thread: Any = None) -> FunctionWorker:
    """A worker with its initializing functions."""
    return FunctionWorker(
        worker_entry("C", function, threads=2),
        ADDRESS,
        ADDRESS,
        init and plan(init, signatures.WORKER_INIT),
        thread and plan(thread, signatures.THREAD_INIT),
    )


def executed(worker: FunctionWorker, index: int, item: Any, number: int = 0, attempt: int = 1) -> Any:
    """What a thread of this worker makes of an item."""
    execution = worker.handler.execution(Options())
    place = (index, number, attempt) if execution.placed else ()
    return unpack(execution.packer()(execution.call(item, *place)))


def test_a_worker_function_gets_what_it_asks_for() -> None:
    """Every name that has a meaning, with its value."""

    def everything(
        data: Any, metadata: Any, task_type: str, thread_index: int, number: int, attempt: int, resource: Any
    ) -> dict[str, Any]:
        return {"got": [data, metadata, task_type, thread_index, number, attempt, resource]}

    worker = make_worker(everything, lambda metadata: f"opened {metadata['path']}")
    worker.metadata = {"path": "/x"}
    WorkerRunner(worker, handler=worker.handler).preparation().begin(1)
    result = executed(worker, 1, {"n": 1}, 5, 2)
    assert result == {"got": [{"n": 1}, {"path": "/x"}, "C", 1, 5, 2, "opened /x"]}


def test_a_threads_own_resource_goes_before_the_workers() -> None:
    """thread_init gets the worker's resource; where it returns None the worker's stays."""
    worker = make_worker(
        lambda data, resource: {"resource": resource},
        lambda: "pool",
        lambda thread_index, resource: f"{resource}-{thread_index}" if thread_index else None,
    )
    preparation = WorkerRunner(worker, handler=worker.handler).preparation()
    preparation.begin(0)
    preparation.begin(1)
    assert [executed(worker, index, {})["resource"] for index in (0, 1)] == ["pool", "pool-1"]


def test_a_bad_result_names_the_function() -> None:
    """The user sees which function returned what."""
    with pytest.raises(TypeError, match=r"worker function '.*' of task 'C' \(\S+:\d+\) returned a list"):
        executed(make_worker(lambda data: [1]), 0, {})


def test_a_plain_worker_function_costs_little_more_than_its_call() -> None:
    """Beside packing: well under 2 us an item, measured as the best of several rounds."""
    execution, item = make_worker(lambda data: data).handler.execution(Options()), {"n": 1}
    call, pack_result = execution.call, execution.packer()
    bare = whole = 1.0
    for tries in range(100):
        bare = min(bare, timeit.timeit(lambda: pack(item), number=2000))
        whole = min(whole, timeit.timeit(lambda: pack_result(call(item)), number=2000))
        if tries >= 7 and (whole - bare) / 2000 < 2e-6:
            return
    raise AssertionError(f"{(whole - bare) / 2000 * 1e6:.2f} us")


# collectors -------------------------------------------------------------------------------------------------------


def make_collector(single: dict[str, Any] | None = None, **collectors: Any) -> FunctionResults:
    """A collector of these functions; `every` is the one for all tasks."""
    plans = {name.replace("every", ""): plan(one, signatures.COLLECTOR) for name, one in collectors.items()}
    places = {"finished": signatures.FINISHED, "failed": signatures.FAILED, "ack_data": signatures.ACK_DATA}
    return FunctionResults(plans, {name: plan(one, places[name]) for name, one in (single or {}).items()}, dict)


def collected(collector: FunctionResults, task: str, number: int, data: dict[str, Any]) -> Any:
    """What the collector's function for this task returns for a result."""
    call, takes_number = collector.collection()(task, 1)
    return call(number, data) if takes_number else call(data)


def test_the_collector_of_a_task_wins_over_the_one_for_all() -> None:
    """And results of a task without any are acknowledged and dropped."""
    seen: list[Any] = []
    collector = make_collector(
        every=lambda data, task_type, msgtype, number: seen.append(("all", data, task_type, msgtype, number)),
        C=lambda data: seen.append(("C", data)),
    )
    collected(collector, "C", 0, {"n": 1})
    collected(collector, "D", 7, {"n": 2})
    assert seen == [("C", {"n": 1}), ("all", {"n": 2}, "D", MESSAGE_TYPE_DATA, 7)]
    assert collected(make_collector(C=print), "D", 0, {}) is None


def test_a_returned_dict_and_ack_data_go_into_the_next_ack() -> None:
    """Merged, `ack_data` over what the functions returned; afterwards the slate is clean."""
    collector = make_collector({"ack_data": lambda task_type: {"last": task_type}}, every=lambda data: data)
    calls = ResultCalls(collector, Options())
    call, _ = calls.collecting("C", 1)
    calls.note(call({"n": 1, "last": "?"}))
    assert unpack(calls.take_ack_data()) == {"n": 1, "last": "C"}
    assert unpack(calls.take_ack_data()) == {"last": "C"}
    assert ResultCalls(make_collector(every=print), Options()).take_ack_data() == b""


def test_finished_and_failed_functions_are_called_with_what_they_ask_for() -> None:
    """The failure comes first; names go by name."""
    seen: list[Any] = []
    collector = make_collector(
        {
            "finished": lambda msgtype, metadata: seen.append((msgtype, metadata)),
            "failed": lambda what, task_type: seen.append((what, task_type)),
        }
    )
    failure = Failure("C", {}, "worker", "ValueError", "no", "", 1)
    collector.failed(failure)
    collector.finished(["C"])
    assert seen == [(failure, "C"), (MESSAGE_TYPE_END, {})]


# with a journal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A journal in memory with a table of the user's."""
    made = Journal(MEMORY, pipeline="adapters")
    with made.item() as transaction:
        transaction.execute("CREATE TABLE seen (what TEXT)")
    yield made
    made.close()


def seen_in(journal: Journal) -> list[str]:
    """What the user's functions wrote."""
    with journal.item() as transaction:
        return [row[0] for row in transaction.execute("SELECT what FROM seen")]


def test_a_collector_function_that_takes_the_journal_writes_into_its_transaction(journal: Journal) -> None:
    """With the other names, in any order; what a raising call wrote is undone, and what it raised is raised."""

    def keep(data: Any, journal: Any, task_type: str) -> dict[str, Any]:
        journal.execute("INSERT INTO seen VALUES (?)", (f"{task_type}{data['n']}",))
        if data["n"] == 2:
            raise LookupError("two")
        return {"kept": data["n"]}

    collector = make_collector(every=keep)
    collector.journal = journal
    assert collected(collector, "C", 0, {"n": 1}) == {"kept": 1}
    with pytest.raises(LookupError, match="two"):
        collected(collector, "C", 1, {"n": 2})
    assert collected(collector, "D", 0, {"n": 3}) == {"kept": 3}
    assert seen_in(journal) == ["C1", "D3"]


def test_a_failed_function_may_take_the_journal_too(journal: Journal) -> None:
    """What it wrote is undone alone, if it raises."""

    def keep(failure: Failure, journal: Any) -> None:
        journal.execute("INSERT INTO seen VALUES (?)", (failure.error,))
        if failure.error == "KeyError":
            raise OSError("no")

    collector = make_collector({"failed": keep})
    collector.journal = journal
    collector.failed(Failure("C", {}, "worker", "ValueError", "no", "", 1))
    with pytest.raises(OSError, match="no"):
        collector.failed(Failure("C", {}, "worker", "KeyError", "no", "", 1))
    assert seen_in(journal) == ["ValueError"]


def test_which_function_needs_a_journal_is_known_by_name(journal: Journal) -> None:
    """One with a default can do without: it is called without when there is none."""
    seen: list[Any] = []

    def can_do_without(data: Any, number: int, journal: Any = "none") -> None:
        seen.append((number, journal))

    def needs(data: Any, *, journal: Any) -> None:
        return None

    optional = make_collector(C=can_do_without)
    assert optional.journal_user() == ""
    collected(optional, "C", 7, {})
    optional.journal = journal
    collected(optional, "C", 8, {})
    assert seen == [(7, "none"), (8, journal.transaction)]
    assert "collector function 'test_which" in make_collector(C=can_do_without, D=needs).journal_user()
    assert "failed function" in make_collector({"failed": needs}).journal_user()


def test_start_and_a_key_do_not_go_together() -> None:
    """How many are done from the first on says nothing of items that are known by keys: refused when decorated."""
    with pytest.raises(RegistrationError, match="takes `start`, and has key="):
        task_entry("C", lambda start: [{"n": start}], key="n")
    with pytest.raises(RegistrationError, match="'start', which nobody provides"):
        task_entry("C", lambda start: {"n": start}, times=3)
