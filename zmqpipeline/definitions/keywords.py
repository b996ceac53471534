"""The keywords of `@app.task`, `@app.worker` and `@app.service`, and of their method twins, each declared once.

One line of a class below is all that a keyword is: its type, for type checkers; its default; what it must be; what it
means. Signatures, `help` and the pages are made of it, and so is what refuses a wrong value or an unknown keyword. What
a keyword does stands where its entry is made, in `entries.py`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from typing import Annotated, Any, Literal, TypedDict, TypeVar, cast, get_args, get_type_hints

from zmqpipeline.errors import RegistrationError, did_you_mean
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.roles.attributes import COUNT_LIMIT, MEMORY_LIMIT, RATE, TIME_LIMIT, AttributeSpec

OnFailed = Literal["abort", "continue"]
First = Iterable[Mapping[Any, Any]] | Callable[..., Any]
Key = str | Callable[[dict[str, Any]], Any]

MARK = "**keywords: "
"""Begins the line of a docstring that gives way to one for each keyword."""

WIDTH = 120
"""Columns of a docstring."""


@dataclass(frozen=True)
class Keyword:
    """One keyword: its default, what it must be, what it means; `convert` puts what is given into one form first."""

    default: Any
    kind: AttributeSpec
    meaning: str
    convert: Callable[[Any], Any] = lambda value: value


def _whole(least: int, optional: bool = False) -> AttributeSpec:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return AttributeSpec(fits, f"a whole number, {least} or more", str(least), optional)


def _seconds(optional: bool = False) -> AttributeSpec:
    def fits(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")

    return AttributeSpec(fits, "a number of seconds, 0 or more", "1.0", optional)


def _names(given: Any) -> Any:
    """One name stands for a list of one, and each counts once; what is no list of names stays as it is."""
    if isinstance(given, str):
        return (str.__str__(given),)
    names = tuple(given) if isinstance(given, Iterable) else given
    return tuple(dict.fromkeys(map(str.__str__, names))) if _are_names(names) else names


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)


def _is_first(value: Any) -> bool:
    """An iterator is read once, and these are read again by whoever is started again."""
    is_readable = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping, Iterator))
    return callable(value) or is_readable


FIRST = AttributeSpec(
    _is_first,
    "a list, or a function that gives items (an iterator could be read only once)",
    "[{'url': 'https://a.b'}]",
    True,
)
NAME = AttributeSpec(lambda value: isinstance(value, str) and bool(value), "the name of a task", "'A'", True)
NAMES = AttributeSpec(_are_names, "a list of names of tasks", "['A']")
KEY = AttributeSpec(
    lambda value: isinstance(value, str) or callable(value), "a field's name or a callable", "'id'", True
)
FIELD = AttributeSpec(lambda value: isinstance(value, str) and value != "", "the name of a field", "'host'", True)
ON_FAILED = AttributeSpec(lambda value: value in get_args(OnFailed), "'abort' or 'continue'", "'continue'")
ADDRESS = AttributeSpec(lambda value: isinstance(value, str), "an address, a string", "'tcp://10.0.0.7:5560'", True)


FLAG = AttributeSpec(lambda value: isinstance(value, bool), "True or False", "True")


class TaskKeywords(TypedDict, total=False):
    """The keywords of `@app.task` and `add_task`."""

    depends_on: Annotated[
        Iterable[str],
        Keyword((), NAMES, "tasks of which every item must be acknowledged before the first of this one.", _names),
    ]
    for_each: Annotated[
        Iterable[str],
        Keyword(
            (),
            NAMES,
            "tasks whose results become items of this one: the function is called once for each of them, with the "
            "result as its first parameter, and gives items.",
            _names,
        ),
    ]
    gather: Annotated[
        str | None,
        Keyword(
            None,
            NAME,
            "with `for_each`: a task further up. The function is called once for each collected result of that one, "
            "when all that came of it is collected or has failed: with that result, and the list of those of "
            "`for_each` that came of it.",
        ),
    ]
    first: Annotated[
        First | None,
        Keyword(
            None,
            FIRST,
            "with `for_each`: the task's own first items, a list or a function that gives them; a task that feeds "
            "itself, directly or by others, begins with these.",
        ),
    ]
    times: Annotated[int | None, Keyword(None, _whole(0, True), "call the function so often, one item a call.")]
    total: Annotated[int | None, Keyword(None, _whole(0, True), "how many items there will be, for the progress line.")]
    key: Annotated[
        Key | None,
        Keyword(
            None,
            KEY,
            "a field's name, or a callable on the item: an item with a key that waits, is with a worker or is "
            "collected is skipped, however often the run is started again; a failed one may come again.",
        ),
    ]
    retries: Annotated[
        int, Keyword(0, _whole(0), "how often an item is tried again when the worker's function raises.")
    ]
    backoff: Annotated[
        float, Keyword(1.0, _seconds(), "seconds before the first retry; twice as long before each further one.")
    ]
    timeout: Annotated[
        float | None,
        Keyword(None, _seconds(True), "seconds that one execution may take; None for as long as it likes."),
    ]
    crash_limit: Annotated[int, Keyword(3, _whole(1), "an item that so many workers died of is failed.")]
    rate: Annotated[
        str | None,
        Keyword(
            None,
            RATE,
            'so many items are handed out at most, in the whole run: "20/s", "1500/m" (a minute), "90000/h".',
        ),
    ]
    rate_by: Annotated[
        str | None,
        Keyword(
            None,
            FIELD,
            "with `for_each` and `rate`: a field of the items; the rate is that of each of its values, such as of each "
            "host, and not of all together.",
        ),
    ]
    limit: Annotated[
        int | None,
        Keyword(None, _whole(1, True), "so many items are with workers at once at most, in the whole run."),
    ]
    on_failed: Annotated[
        OnFailed,
        Keyword("abort", ON_FAILED, 'what to do when an item of `depends_on` failed: "abort", or "continue".'),
    ]
    endpoint: Annotated[str | None, Keyword(None, ADDRESS, "an address of its own for this task.")]


Concurrency = Annotated[
    int,
    Keyword(100, _whole(1), "of an `async def` function: so many calls of it go on at a time in each worker process."),
]


class WorkerKeywords(TypedDict, total=False):
    """The keywords of `@app.worker` and `add_worker`."""

    threads: Annotated[int, Keyword(1, _whole(1), "so many threads of each worker process call it at once.")]
    concurrency: Concurrency
    batch: Annotated[
        int | None,
        Keyword(
            None,
            _whole(1, True),
            "the function takes a list of up to so many items, those that are at hand, and returns a list with a "
            "result for each; an exception in the place of a result fails that item.",
        ),
    ]
    init_timeout: Annotated[
        float | None,
        Keyword(
            60.0,
            TIME_LIMIT,
            "seconds that `worker_init` and `thread_init` may take together; a worker that takes longer ends, and has "
            "failed to start. None for as long as they like.",
        ),
    ]
    max_items: Annotated[
        int | None,
        Keyword(
            None,
            COUNT_LIMIT,
            "a process ends its work in good order after so many items, and another one takes its place.",
        ),
    ]
    max_memory: Annotated[
        int | str | None,
        Keyword(
            None,
            MEMORY_LIMIT,
            'the same when the process has so much memory after an item: bytes, or a text such as "2GiB".',
        ),
    ]


class CollectorKeywords(TypedDict, total=False):
    """The keywords of `@app.collector` and `add_collector`."""

    batch: Annotated[
        int | None,
        Keyword(
            None,
            _whole(1, True),
            "the function takes a list of up to so many results, those that are at hand; by name numbers, not number.",
        ),
    ]


class ServiceKeywords(TypedDict, total=False):
    """The keywords of `@app.service` and `add_service`."""

    threads: Annotated[int, Keyword(1, _whole(1), "so many threads of each worker process call it at once.")]
    concurrency: Concurrency
    idempotent: Annotated[
        bool,
        Keyword(False, FLAG, "a request whose worker was lost may be given to another one, and so be executed twice."),
    ]
    init_timeout: Annotated[
        float | None,
        Keyword(
            60.0,
            TIME_LIMIT,
            "seconds that `worker_init` and `thread_init` may take together, as of `@app.worker`.",
        ),
    ]


Keywords = TypeVar("Keywords", bound=Mapping[str, Any])
Method = TypeVar("Method", bound=Callable[..., Any])


@cache
def declared(kind: type) -> dict[str, tuple[Any, Keyword]]:
    """Each keyword of one of the classes above: its type, and what is declared of it."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: cast("tuple[Any, Keyword]", get_args(hint)) for name, hint in hints.items()}


def defaults(kind: type[Keywords]) -> Keywords:
    """What holds where nothing is given."""
    return cast("Keywords", {name: keyword.default for name, (_, keyword) in declared(kind).items()})


def checked(kind: type[Keywords], given: Mapping[str, Any], whose: str) -> Keywords:
    """All keywords, each as it was given or with its default.

    Raises:
        RegistrationError: one of them is not what it must be; the text begins with `whose`.
    """
    values = {}
    for name, (_, keyword) in declared(kind).items():
        value = given.get(name, keyword.default)
        values[name] = made = keyword.convert(value)
        if not (keyword.kind.fits(made) or (made is None and keyword.kind.optional)):
            raise RegistrationError(f"{whose}: {name} must be {keyword.kind.expected}, not {value!r}.")
    return cast("Keywords", values)


def takes(kind: type) -> Callable[[Method], Method]:
    """Decorator of a method with ``**keywords``: they are these, to callers, to `help`, and to what it refuses."""

    def made(method: Method) -> Method:
        before = list(inspect.signature(method).parameters.values())[:-1]
        known = [*(one.name for one in before[1:]), *declared(kind)]

        @wraps(method)
        def called(self: Any, *args: Any, **keywords: Any) -> Any:
            for name in keywords:
                if name not in known:
                    raise RegistrationError(_unknown(method.__name__, name, known))
            return method(self, *args, **keywords)

        _describe(called, before, kind)
        return cast("Method", called)

    return made


def _unknown(method: str, name: str, known: list[str]) -> str:
    return f"`app.{method}` takes no {name!r}.{did_you_mean(name, known)} It takes {', '.join(known)}."


def _describe(called: Any, before: list[inspect.Parameter], kind: type) -> None:
    """Give a method the signature, the types and the docstring that it would have with all keywords written out."""
    names = declared(kind)
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=keyword.default, annotation=hint)
        for name, (hint, keyword) in names.items()
    ]
    result = inspect.signature(called).return_annotation
    called.__signature__ = inspect.Signature([*before, *keywords], return_annotation=result)
    types = {name: hint for name, hint in called.__annotations__.items() if name != "keywords"}
    called.__annotations__ = {**types, **{name: hint for name, (hint, _) in names.items()}}
    # none under `python -OO`
    lines = (called.__doc__ or "").splitlines(keepends=True)
    called.__doc__ = "".join(_written_out(line, names) for line in lines) or None


def _written_out(line: str, names: Mapping[str, tuple[Any, Keyword]]) -> str:
    if not line.lstrip().startswith(MARK):
        return line
    margin = line[: len(line) - len(line.lstrip())]
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=margin, subsequent_indent=margin + "    ")
    return "".join(wrapper.fill(f"{name}: {keyword.meaning}") + "\n" for name, (_, keyword) in names.items())
