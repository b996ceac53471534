"""One call of user code, whichever API it is written for.

It comes as a function of the value, or of the value and its place: of an item ``(item, thread, number, attempt)``, of a
result ``(number, data)``. Whoever makes it fits the user's function to that with at most one wrapper; what the options
ask for is a second one, `guarded`; a test run puts a third around both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from zmqpipeline.options import Options
from zmqpipeline.runtime.log import about_call, about_thread
from zmqpipeline.serialization.pack import MAX_DEPTH, check_depth, within_depth

Call: TypeAlias = Callable[..., Any]

FIRST, LAST = 0, -1
"""Where the value is among the arguments of a call that takes its place, too."""


def guarded(
    call: Call,
    options: Options,
    about: Callable[..., Mapping[str, str | int]],
    *,
    value: int,
    placed: bool,
    is_async: bool = False,
) -> tuple[Call, bool]:
    """The call as the options want it, and whether it takes the place, too.

    A value that is nested too deeply raises SerializeError. With JSON log lines, what is logged meanwhile is `about`
    this, which is asked with all arguments. What an `is_async` call returns is awaited.
    """
    most = options.max_depth
    if not options.log_json:
        return within_depth(call, most, value), placed
    taken = slice(None) if placed else slice(1) if value == FIRST else slice(LAST, None)
    checks = most < MAX_DEPTH

    def telling(*given: Any) -> Any:
        about_thread(**about(*given))
        try:
            if checks:
                check_depth(given[value], most)
            return call(*given[taken])
        finally:
            about_thread()

    async def telling_async(*given: Any) -> Any:
        with about_call(**about(*given)):
            if checks:
                check_depth(given[value], most)
            return await call(*given[taken])

    return telling_async if is_async else telling, True


def with_last(handler: Call, takes: int, *last: Any) -> Call:
    """A function of one value that calls the handler with it and with so many of these as it takes, `takes` in all."""
    match last[: max(0, takes - 1)]:
        case ():
            return handler if takes else lambda value: handler()
        case (one,):
            return lambda value: handler(value, one)
        case one, two:
            # by name: a call with `*` takes a third as long again
            return lambda value: handler(value, one, two)
    raise ValueError(last)
