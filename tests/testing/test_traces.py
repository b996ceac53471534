"""Traces within one process: which spans there are, and below which others they are."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from zmqpipeline import Options, Pipeline, Retry
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.runtime.traces import LINK, Tracing
from zmqpipeline.serialization.pack import item_packer, pack, unpack
from zmqpipeline.serialization.traced import OVERHEAD, SpanId, TracedDict, attempted, keep_parents, traced, tried

_exporter = InMemorySpanExporter()
_provider: list[TracerProvider] = []

PARENT = SpanId(bytes(range(16)), bytes(range(8)), 1, 12.5)
BEFORE = SpanId(bytes(range(16)), bytes(range(1, 9)), 1, 0.0)


class Spans:
    """Those that were made since the beginning of a test."""

    def all(self) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return list(_exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of this name."""
        return [one for one in self.all() if one.name == name]

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        """The one that it is below; there is none, or it is there."""
        if span.parent is None:
            return None
        (found,) = [one for one in self.all() if one.context.span_id == span.parent.span_id]
        assert found.context.trace_id == span.context.trace_id
        return found

    def attempts(self, found: list[ReadableSpan]) -> list[object]:
        """For each of these attempts, the number of that which it is linked to."""
        of_id = {one.context.span_id: one for one in self.all()}
        linked: list[object] = []
        for span in found:
            links = [link for link in span.links if (link.attributes or {}).get(LINK) == "attempt"]
            assert len(links) <= 1
            linked += [of_id[link.context.span_id].attributes["zmqpipeline.attempt"] for link in links] or [None]
        return linked

    def path(self, span: ReadableSpan) -> list[str]:
        """Its name, and those above it."""
        above = self.parent(span)
        return [span.name] if above is None else [span.name, *self.path(above)]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """A provider for the process, which can be set once, that remembers what ends."""
    if not _provider:
        _provider.append(TracerProvider())
        _provider[0].add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(_provider[0])
    _exporter.clear()
    yield Spans()
    _exporter.clear()


def traced_app() -> Pipeline:
    """One that makes spans."""
    return Pipeline("traced", options=Options(traces=True))


def test_an_item_is_one_trace(spans: Spans) -> None:
    """Produced, waited for, executed, collected: each below the one before; what a function makes is below its own."""
    app, tracer, seen = traced_app(), trace.get_tracer("mine"), []

    @app.task("A")
    def numbers() -> Iterator[dict[str, Any]]:
        for n in range(5):
            yield {"n": n}

    @app.worker("A", threads=2)
    def work(data: dict[str, Any]) -> dict[str, Any]:
        assert type(data) is dict
        with tracer.start_as_current_span("inside"):
            return {"n": data["n"]}

    @app.collector
    def collect(data: dict[str, Any]) -> None:
        assert type(data) is dict
        with tracer.start_as_current_span("kept"):
            seen.append(data["n"])

    app.test_run()
    assert sorted(seen) == list(range(5))
    names = ["produce A", "wait A", "execute A", "collect A", "inside", "kept"]
    assert Counter(one.name for one in spans.all()) == Counter(names * 5)
    for kept in spans.named("kept"):
        assert spans.path(kept) == ["kept", "collect A", "execute A", "produce A"]
    for inside in spans.named("inside"):
        assert spans.path(inside) == ["inside", "execute A", "produce A"]
    for waited in spans.named("wait A"):
        assert spans.path(waited) == ["wait A", "produce A"]
        assert waited.start_time <= waited.end_time
    assert len({one.context.trace_id for one in spans.all()}) == 5
    items = [one.attributes["zmqpipeline.item"] for one in spans.named("execute A")]
    assert sorted(items) == list(range(5))


def test_attempts_are_beside_each_other(spans: Spans) -> None:
    """In one trace, with their numbers; what raised is said, and waiting is told once."""
    app = traced_app()
    app.add_task("A", lambda: iter([{"n": 1}]), retries=2, backoff=0.01)

    @app.worker("A")
    def work(data: dict[str, Any], attempt: int) -> dict[str, Any]:
        if attempt < 3:
            raise OSError("no answer")
        return data

    app.add_collector(lambda data: None)
    app.test_run()
    found = spans.named("execute A")
    assert spans.attempts(found) == [None, 1, 2]
    assert [one.attributes["zmqpipeline.attempt"] for one in found] == [1, 2, 3]
    assert [one.status.is_ok for one in found] == [False, False, True]
    assert "no answer" in str(found[0].events[0].attributes)
    assert {tuple(spans.path(one)) for one in found} == {("execute A", "produce A")}
    assert len(spans.named("wait A")) == 1
    assert [spans.parent(one) for one in spans.named("collect A")] == found[2:]


def test_an_item_that_is_to_come_again_has_not_failed(spans: Spans) -> None:
    """`Retry` is no error; its span says for when."""
    app = traced_app()
    app.add_task("A", lambda: iter([{"n": 1}]))

    @app.worker("A")
    def work(data: dict[str, Any], attempt: int) -> dict[str, Any]:
        if attempt == 1:
            raise Retry(after=0.01)
        return data

    app.add_collector(lambda data: None)
    app.test_run()
    first, second = spans.named("execute A")
    assert spans.attempts([first, second]) == [None, 1]
    assert [one.status.status_code.name for one in (first, second)] == ["UNSET", "UNSET"]
    assert [(one.name, dict(one.attributes or {})) for one in first.events] == [
        ("retry", {"zmqpipeline.retry.after": 0.01, "zmqpipeline.retry.pause": False})
    ]


class Speechless(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        """Raise."""
        raise TypeError("no words")


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_raised_is_that_also_where_its_text_cannot_be_had(is_async: bool, spans: Spans) -> None:
    """Traces do not change why an item failed; SystemExit is an error like others."""
    app, failed = traced_app(), []
    app.add_task("A", lambda: iter([{"n": 0}, {"n": 1}]))

    def raised(n: int) -> BaseException:
        return SystemExit(3) if n else Speechless()

    def work(data: dict[str, Any]) -> None:
        raise raised(data["n"])

    async def work_async(data: dict[str, Any]) -> None:
        raise raised(data["n"])

    app.add_worker("A", work_async if is_async else work)
    app.add_collector(lambda data: None)
    app.failed(lambda failure: failed.append(failure.error))
    app.test_run(raise_failures=False)
    assert sorted(failed) == ["SystemExit", f"{__name__}.Speechless"]
    told = [one.events[0].attributes["exception.type"] for one in spans.named("execute A")]
    assert sorted(told) == sorted(failed)
    assert [one.status.status_code.name for one in spans.named("execute A")] == ["ERROR"] * 2


def test_an_attempt_whose_result_cannot_be_packed_is_linked_to(spans: Spans) -> None:
    """It has a span, which ended well, and the item comes again all the same."""
    app = traced_app()
    app.add_task("A", lambda: iter([{"n": 1}]), retries=1, backoff=0.01)
    app.add_worker("A", lambda data, attempt: {"n": object() if attempt == 1 else 1})
    app.add_collector(lambda data: None)
    app.test_run()
    assert spans.attempts(spans.named("execute A")) == [None, 1]


@pytest.mark.parametrize("is_async", [False, True])
def test_attempts_of_calls_with_a_list_are_linked(is_async: bool, spans: Spans) -> None:
    """To the call that raised, in another trace, beside the links to the items."""
    app = traced_app()
    app.add_task("A", lambda: ({"n": n} for n in range(2)), retries=1, backoff=0.01)

    def outcomes(items: list[dict[str, Any]], attempt: int) -> list[dict[str, Any]]:
        if attempt == 1:
            raise OSError("no answer")
        return items

    async def outcomes_async(items: list[dict[str, Any]], attempt: int) -> list[dict[str, Any]]:
        return outcomes(items, attempt)

    app.add_worker("A", outcomes_async if is_async else outcomes, batch=2)
    app.add_collector(lambda data: None)
    app.test_run()
    first = {one.context.span_id for one in spans.named("execute A") if one.attributes["zmqpipeline.attempt"] == 1}
    second = [one for one in spans.named("execute A") if one.attributes["zmqpipeline.attempt"] == 2]
    assert second
    for one in second:
        links = {
            what: {link.context.span_id for link in one.links if (link.attributes or {}).get(LINK) == what}
            for what in ("attempt", None)
        }
        assert links["attempt"]
        assert links["attempt"] <= first
        assert links[None] <= {made.context.span_id for made in spans.named("produce A")}


def test_some_items_of_a_call_come_without_a_span(spans: Spans) -> None:
    """Each waiting is told of its own item."""
    call = Tracing().executing("A", lambda *_: None, is_async=False, batch=True)
    # only a process that makes spans keeps what an item carries
    items = [{"n": 0}, unpack(traced(pack({"n": 1}), PARENT, 1 << 20))]
    call(items, 0, [7, 8], 1)
    assert [one.attributes["zmqpipeline.item"] for one in spans.named("wait A")] == [8]
    assert [len(one.links) for one in spans.named("execute A")] == [1]


def test_a_span_around_a_source_is_above_all(spans: Spans) -> None:
    """What is current when an item is yielded."""
    app, tracer = traced_app(), trace.get_tracer("mine")

    @app.task("A")
    def numbers() -> Iterator[dict[str, Any]]:
        with tracer.start_as_current_span("reading"):
            yield {}
            yield {}

    app.add_worker("A", lambda data: data)
    app.add_collector(lambda data: None)
    app.test_run()
    assert [spans.path(one) for one in spans.named("produce A")] == [["produce A", "reading"]] * 2
    assert len({one.context.trace_id for one in spans.all()}) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_each_item_of_a_task_that_is_called_so_often_is_produced(times: int, spans: Spans) -> None:
    """The last one, too, which comes with the end."""
    app = traced_app()
    app.add_task("A", lambda: {"n": 1}, times=times)
    app.add_worker("A", lambda data: data)
    app.add_collector(lambda data: None)
    app.test_run()
    assert [spans.path(one) for one in spans.named("collect A")] == [["collect A", "execute A", "produce A"]] * times


def test_stages_are_one_trace(spans: Spans) -> None:
    """Through a fork, and a task that gathers what came of each."""
    app = traced_app()
    app.add_task("A", lambda: ({"n": n} for n in range(2)))
    app.add_task("B", lambda result: ({"m": m} for m in range(3)), for_each="A", key="m")
    app.add_task("C", lambda parent, results: {"count": len(results)}, for_each="B", gather="A")
    for task in "ABC":
        app.add_worker(task, lambda data: data)
    app.add_collector(lambda data: None)
    app.test_run()
    above_a = ["execute A", "produce A"]
    assert {tuple(spans.path(one)) for one in spans.named("collect B")} == {
        ("collect B", "execute B", "produce B", *above_a)
    }
    assert {tuple(spans.path(one)) for one in spans.named("collect C")} == {
        ("collect C", "execute C", "produce C", *above_a)
    }
    assert len({one.context.trace_id for one in spans.all()}) == 2
    # what is gathered is linked to what it was gathered of; what one result gives is below it
    assert [len(one.links) for one in spans.named("produce B")] == [0] * 6
    executed = {one.context.span_id for one in spans.named("execute B")}
    gathered = [[link.context.span_id for link in one.links] for one in spans.named("produce C")]
    assert sorted(len(one) for one in gathered) == [0, 3], "the keys of the second one were done"
    assert {span for some in gathered for span in some} == executed


def test_results_that_are_items_as_they_are(spans: Spans) -> None:
    """A task without a function of its own; and first items of one that feeds itself."""
    app = traced_app()

    @app.task("page", first=lambda: iter([{"n": 1}]), for_each="page", key="n")
    def links(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if result["n"] < 3:
            yield {"n": result["n"] + 1}

    app.add_worker("page", lambda data: data)
    app.add_collector(lambda data: None)
    app.test_run()
    assert [len(spans.path(one)) for one in spans.named("collect page")] == [3, 5, 7]


@pytest.mark.parametrize("items", [1, 10])
def test_a_call_with_a_list_has_links(spans: Spans, items: int) -> None:
    """One span for the call, to each of its items, however many there are; results, too."""
    app = traced_app()
    app.add_task("A", lambda: ({"n": n} for n in range(items)))

    @app.worker("A", batch=4)
    def work(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert {type(one) for one in items} == {dict}
        return items

    @app.collector("A", batch=5)
    def collect(results: list[dict[str, Any]]) -> None:
        assert {type(one) for one in results} == {dict}

    app.test_run()
    produced = {one.context.span_id for one in spans.named("produce A")}
    linked = [link.context.span_id for one in spans.named("execute A") for link in one.links]
    # on a busy machine an item may be executed twice
    assert set(linked) == produced
    assert all(one.parent is None for one in spans.named("execute A"))
    executed = {one.context.span_id for one in spans.named("execute A")}
    collected = {link.context.span_id for one in spans.named("collect A") for link in one.links}
    assert collected
    assert collected <= executed


def test_async_calls_do_not_mix_their_spans(spans: Spans) -> None:
    """Ten at a time, which end in another order; each result is below its own call."""
    app, tracer = traced_app(), trace.get_tracer("mine")
    app.add_task("A", lambda: ({"n": n} for n in range(20)))

    @app.worker("A", concurrency=10)
    async def work(data: dict[str, Any]) -> dict[str, Any]:
        with tracer.start_as_current_span("inside") as span:
            await asyncio.sleep(0.01 * (10 - data["n"] % 10))
            span.set_attribute("n", data["n"])
            return {"n": data["n"]}

    app.add_collector(lambda data, number: None)
    app.test_run()
    for collected in spans.named("collect A"):
        executed = spans.parent(collected)
        assert executed is not None
        assert executed.attributes["zmqpipeline.item"] == collected.attributes["zmqpipeline.item"]
    for inside in spans.named("inside"):
        above = spans.parent(inside)
        assert above is not None
        assert above.attributes["zmqpipeline.item"] == inside.attributes["n"]


def test_without_the_option_there_is_no_span(spans: Spans) -> None:
    """And no result carries one."""
    app = Pipeline("plain")
    app.add_task("A", lambda: iter([{"n": 1}]))
    app.add_worker("A", lambda data: data)
    app.add_collector(lambda data: None)
    app.test_run()
    assert spans.all() == []


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the role opens anything."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    app = traced_app()
    app.add_task("A", lambda: iter([{}]))
    app.add_worker("A", lambda data: data)
    app.add_collector(lambda data: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'zmqpipeline\[otel\]'"):
        app.test_run()


# what an item carries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 200, 300, 70_000])
def test_what_is_traced_arrives_as_it_was(size: int) -> None:
    """Equal, of a type that is a dict, with its span; packed again it is what it was before."""
    keep_parents()
    value = {"text": "x" * size, "set": {1, 2}}
    packed = traced(pack(value), PARENT, 1 << 20)
    assert len(packed) - len(pack(value)) <= OVERHEAD
    found = unpack(packed)
    assert (found, type(found), found.parent) == (value, TracedDict, PARENT)
    assert unpack(pack(found)) == unpack(item_packer("it")(found)) == value
    again = packed
    for span in (BEFORE._replace(flags=0), BEFORE):
        again = tried(again, attempted(span))
        assert len(again) - len(pack(value)) <= OVERHEAD
    found = unpack(again)
    assert (found, type(found), found.parent, found.before) == (value, TracedDict, PARENT, BEFORE)


@pytest.mark.parametrize("packed", [b"", pack({}), pack({"n": 1}), pack(2**70), traced(pack({}), PARENT, 10)])
def test_what_comes_without_a_span_stays_as_it_is(packed: bytes) -> None:
    """Though its attempt had one; and what is no span is put nowhere."""
    assert tried(packed, attempted(BEFORE)) == packed
    item = traced(pack({}), PARENT, 1 << 20)
    assert tried(item, b"short") == item


def test_what_has_no_room_goes_without() -> None:
    """An item that could be sent untraced still can."""
    packed = pack({"a": "x" * 100})
    assert traced(packed, PARENT, len(packed) + OVERHEAD - 1) == packed
    assert len(traced(packed, PARENT, len(packed) + OVERHEAD)) <= len(packed) + OVERHEAD


def test_what_is_no_dict_is_itself() -> None:
    """A request may be anything."""
    assert unpack(traced(pack([1, "a"]), PARENT, 1 << 20)) == [1, "a"]


@pytest.mark.parametrize("inner", [b"", b"\xc1", pack({})[:-1] + b"\x81", traced(pack({}), PARENT, 1 << 20)])
def test_what_is_malformed_is_refused(inner: bytes) -> None:
    """Cut off, foreign, or one inside of another: that may go on for ever."""
    from zmqpipeline.errors import SerializeError

    with pytest.raises(SerializeError):
        unpack(traced(inner, PARENT, 1 << 20))
