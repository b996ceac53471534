"""Spans of OpenTelemetry around the calls of user code: `produce`, `wait`, `execute`, `collect`.

What makes them stands around user's functions and around what packs their answers. Where traces are off nothing of it
is there. How spans of different processes find each other: an item carries the span that produced it, its result the
one that executed it (`serialization.traced`).

An attempt that raises tells its span with what it raised (`ErrorInfo.span`), the ledger puts it beside the item, and
the next attempt is linked to it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zmqpipeline.errors import ConfigurationError, Retry
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.runtime.error_text import raised_in, trouble_of
from zmqpipeline.runtime.process_start import is_command
from zmqpipeline.runtime.threads.source import Exhausted, Keep, PassOver, Step, Take
from zmqpipeline.serialization.traced import SpanId, TracedDict, attempted, keep_parents, traced

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from zmqpipeline.runtime.threads.feeding import Feeds

log = logging.getLogger("zmqpipeline")

INSTALL = "pip install 'zmqpipeline[otel]'"

FLUSH_SECONDS = 5.0
"""So long the end of a role waits for spans to be exported."""

MAX_LINKS = 128
"""The span of a call with several items has at most so many links, as the SDK keeps."""

LINK = "zmqpipeline.link"
"""The attribute of a link that says what it leads to: an `attempt` of the same item, or a `result` that it was gathered
of. One without it is to an item of the call."""


class Tracing:
    """Makes the spans of one role; its threads may use it together."""

    def __init__(self) -> None:
        """Raise ConfigurationError if the package is missing."""
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise ConfigurationError(
                f"The option traces needs the package opentelemetry-api, which cannot be imported ({error}). "
                f"Install it: {INSTALL}"
            ) from error
        keep_parents()
        self._trace = trace
        self._tracer = trace.get_tracer("zmqpipeline")
        self._local = threading.local()
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            log.warning(
                "The option traces is on, and this process has no TracerProvider: its spans go nowhere. Set one in the "
                "module of the app (`trace.set_tracer_provider`), or start it by `opentelemetry-instrument`."
            )

    def flush(self) -> None:
        """Have what is there exported: a process may end without telling the exporter."""
        provider = self._trace.get_tracer_provider()
        flush = getattr(provider, "force_flush", None)
        if flush is None:
            return
        # the SDK tries to send each batch, for longer than it is told
        sending = threading.Thread(target=flush, args=(int(FLUSH_SECONDS * 1000),), name="last spans", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
        if sending.is_alive():
            log.warning(
                "Not all spans were exported within %g s of the end; the rest is given up. Look whether their receiver "
                "answers.",
                FLUSH_SECONDS,
            )
            if is_command() and (shutdown := getattr(provider, "shutdown", None)) is not None:
                # else the SDK waits for the rest once more when the process exits: its second call returns at once
                threading.Thread(target=shutdown, name="end of spans", daemon=True).start()

    # what is carried --------------------------------------------------------------------------------------------------

    def _context(self, parent: SpanId) -> Any:
        trace = self._trace
        return trace.set_span_in_context(trace.NonRecordingSpan(self._span_context(parent)))

    def _span_context(self, parent: SpanId) -> Any:
        trace = self._trace
        ids = int.from_bytes(parent.trace, "big"), int.from_bytes(parent.span, "big")
        return trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(parent.flags))

    # producing --------------------------------------------------------------------------------------------------------

    def requesting(self, packed: bytes, most: int) -> bytes:
        """A packed request: it carries the span that is current where it is made, if there is one."""
        parent = _id_of(self._trace.get_current_span())
        return packed if parent is None else traced(packed, parent, most)

    def producing(self, task: str, take: Take, most: int) -> Take:
        """The steps of a source: each item carries a span of its own, below the one that is current meanwhile."""

        def traced_take(command: Produce, count: int, keep: Keep) -> None:
            if isinstance(keep, PassOver):
                take(command, count, keep)
                return
            before = time.time_ns()

            def made(step: Step) -> Step:
                nonlocal before
                packed, *more = step if isinstance(step, tuple) else (step,)
                wrapped = self._produced(task, packed, most, None, before)
                before = time.time_ns()
                return (wrapped, *more) if more else wrapped  # type: ignore[return-value]

            try:
                take(command, count, lambda step: keep(made(step)))
            except Exhausted as over:
                raise Exhausted(None if over.last is None else made(over.last)) from None

        return traced_take

    def feeds(self, feeds: Feeds, most: int) -> Feeds:
        """What makes items of results: these belong to the span that gave the result, and have spans of their own."""

        def of_result(one: Any, task: str) -> Any:
            function, pack = self._feeding(task, one.function, one.pack, most)
            return replace(one, function=function, pack=pack)

        def of_root(task: str, begin: Callable[[int], Take]) -> Callable[[int], Take]:
            return lambda start: self.producing(task, begin(start), most)

        return replace(
            feeds,
            by_feeder={name: [of_result(one, one.task) for one in some] for name, some in feeds.by_feeder.items()},
            gathered={task: of_result(one, task) for task, one in feeds.gathered.items()},
            roots={task: of_root(task, begin) for task, begin in feeds.roots.items()},
        )

    def _produced(
        self,
        task: str,
        packed: bytes,
        most: int,
        parent: SpanId | None,
        began: int | None,
        gathered: Sequence[SpanId] = (),
    ) -> bytes:
        span = self._tracer.start_span(
            f"produce {task}",
            None if parent is None else self._context(parent),
            self._trace.SpanKind.PRODUCER,
            _about(task),
            [self._link(one, "result") for one in gathered[:MAX_LINKS]],
            start_time=began,
        )
        span.end()
        made = _id_of(span)
        return packed if made is None else traced(packed, made, most)

    def _feeding(
        self, task: str, function: Callable[..., Any] | None, pack: Callable[[Any], bytes], most: int
    ) -> tuple[Callable[..., Any] | None, Callable[[Any], bytes]]:
        """A function, and what packs what it gives.

        Both are called on one thread, and the items of a result are packed before the next one is made into others.
        """
        parent: SpanId | None = None
        gathered: list[SpanId] = []

        def packed(item: Any) -> bytes:
            return self._produced(task, pack(item), most, parent, None, gathered)

        if function is None:
            # a result that is an item as it is carries its span already
            return None, pack

        def called(result: Any, *more: Any, **named: Any) -> Any:
            nonlocal parent, gathered
            parent = getattr(result, "parent", None)
            gathered = [one.parent for some in more if type(some) is list for one in some if type(one) is TracedDict]
            return function(_plain(result), *(_plain(one) for one in more), **named)

        return called, packed

    # executing --------------------------------------------------------------------------------------------------------

    def executing(self, task: str, call: Callable[..., Any], *, is_async: bool, batch: bool) -> Callable[..., Any]:
        """A call that is told its place, in a span that is current meanwhile: spans of the function are below it."""

        def one(item: Any, index: int, number: int, attempt: int) -> Any:
            with self._executed(task, [item], [number], attempt, alone=True):
                return call(_plain(item), index, number, attempt)

        def several(items: list[Any], index: int, numbers: Sequence[int], attempt: int) -> Any:
            with self._executed(task, items, numbers, attempt, alone=False):
                return call([_plain(item) for item in items], index, numbers, attempt)

        async def one_async(item: Any, index: int, number: int, attempt: int) -> Any:
            with self._executed(task, [item], [number], attempt, alone=True):
                return await call(_plain(item), index, number, attempt)

        async def several_async(items: list[Any], index: int, numbers: Sequence[int], attempt: int) -> Any:
            with self._executed(task, items, numbers, attempt, alone=False):
                return await call([_plain(item) for item in items], index, numbers, attempt)

        if is_async:
            return several_async if batch else one_async
        return several if batch else one

    @contextmanager
    def _executed(
        self, task: str, items: Sequence[Any], numbers: Sequence[int], attempt: int, *, alone: bool
    ) -> Iterator[None]:
        # some may have come without: from a role without traces, or since they had no room for it
        known = [(one.parent, number) for one, number in zip(items, numbers, strict=True) if type(one) is TracedDict]
        parents = [parent for parent, _ in known]
        if attempt == 1:
            for parent, number in known:
                self._waited(task, parent, number)
        about = {**_about(task, numbers), "zmqpipeline.attempt": attempt}
        before = {one.before: None for one in items if type(one) is TracedDict and one.before is not None}
        # whatever the call is: its answer is packed on this thread before anything else is executed
        self._local.executed = None
        with self._span(f"execute {task}", parents, about, alone=alone, before=list(before)) as span:
            executed = _id_of(span)
            try:
                yield
            except BaseException as error:
                self._raised(error, executed)
                raise
        self._local.executed = executed

    def _raised(self, error: BaseException, executed: SpanId | None) -> None:
        """The next attempt is to be linked to this one."""
        if executed is not None:
            raised_in(error, attempted(executed))

    def _link(self, to: SpanId, what: str) -> Any:
        return self._trace.Link(self._span_context(to), {LINK: what})

    def _waited(self, task: str, parent: SpanId, number: int) -> None:
        now, since = time.time_ns(), int(parent.at * 1e9)
        span = self._tracer.start_span(
            f"wait {task}", self._context(parent), attributes=_about(task, [number]), start_time=min(since, now)
        )
        span.end(now)

    def packing(self, pack: Callable[[Any], bytes], most: int) -> Callable[[Any], bytes]:
        """What packs the answer of a call: it carries the span that executed it."""

        def packed(result: Any) -> bytes:
            executed: SpanId | None = getattr(self._local, "executed", None)
            try:
                made = pack(result)
            except BaseException as error:
                self._raised(error, executed)
                raise
            return made if executed is None else traced(made, SpanId(*executed[:3], time.time()), most)

        return packed

    # collecting -------------------------------------------------------------------------------------------------------

    def collecting(
        self, task: str, attempt: int, call: Callable[..., Any], *, takes_number: bool, batch: bool
    ) -> Callable[..., Any]:
        """The call for a result, which is told its number, in a span below that which executed it."""

        def one(number: int, data: Any) -> Any:
            parents = [data.parent] if type(data) is TracedDict else []
            about = {**_about(task, [number]), "zmqpipeline.attempt": attempt}
            with self._span(f"collect {task}", parents, about, alone=True):
                return call(number, _plain(data)) if takes_number else call(_plain(data))

        def several(numbers: Any, values: Any) -> Any:
            each = [values] if isinstance(numbers, int) else values
            parents = [value.parent for value in each if type(value) is TracedDict]
            about = _about(task, [numbers] if isinstance(numbers, int) else numbers)
            with self._span(f"collect {task}", parents, about, alone=isinstance(numbers, int)):
                plain = _plain(values) if isinstance(numbers, int) else [_plain(value) for value in values]
                return call(numbers, plain)

        return several if batch else one

    @contextmanager
    def _span(
        self,
        name: str,
        parents: Sequence[SpanId],
        about: dict[str, AttributeValue],
        *,
        alone: bool,
        before: Sequence[SpanId] = (),
    ) -> Iterator[Span]:
        """A current span: of one item below its parent, of several with links to all of them.

        With links to the attempts `before`, of which few are there, first.
        """
        trace = self._trace
        links = [self._link(one, "attempt") for one in before[: MAX_LINKS // 2]]
        links += [] if alone else [trace.Link(self._span_context(one)) for one in parents[: MAX_LINKS - len(links)]]
        context = self._context(parents[0]) if alone and parents else trace.set_span_in_context(trace.INVALID_SPAN)
        with self._tracer.start_as_current_span(
            name, context, trace.SpanKind.CONSUMER, about, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Retry as again:
                span.add_event(
                    "retry", {"zmqpipeline.retry.after": again.after, "zmqpipeline.retry.pause": again.pause}
                )
                raise
            except BaseException as error:
                self._failed(span, error)
                raise

    def _failed(self, span: Span, error: BaseException) -> None:
        """Say what was raised. Not by the SDK: that calls `str`, and what a user's exception raises there hides it."""
        told = trouble_of(error)
        span.add_event(
            "exception",
            {
                "exception.type": told.error,
                "exception.message": told.message,
                "exception.stacktrace": told.traceback,
                "exception.escaped": "True",
            },
        )
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, f"{told.error}: {told.message}"))


def _id_of(span: Span) -> SpanId | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    ids = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    return SpanId(*ids, int(context.trace_flags) & 0xFF, time.time())


def _about(task: str, numbers: Sequence[int] = ()) -> dict[str, AttributeValue]:
    """The attributes of a span, as those of messaging are called where there is such a name."""
    found: dict[str, AttributeValue] = {"messaging.system": "zmqpipeline", "messaging.destination.name": task}
    if len(numbers) == 1:
        found["zmqpipeline.item"] = numbers[0]
    elif numbers:
        found["messaging.batch.message_count"] = len(numbers)
    return found


def _plain(value: Any) -> Any:
    """A value as it was before it was traced; of a list, each of its values."""
    if type(value) is list:
        return [_plain(one) for one in value] if any(type(one) is TracedDict for one in value) else value
    return dict(value) if type(value) is TracedDict else value
