"""A function that takes a list of items, and gives as many results: one call of it, and what came of each item.

If it raises, or gives no list of that length, its halves are tried at once, then theirs, until the bad item stands
alone: one bad item costs one item. An exception in the place of a result fails that item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zmqpipeline.errors import BatchError, Retry
from zmqpipeline.runtime import forks

if TYPE_CHECKING:
    from zmqpipeline.runtime.threads.execution import Slot

Outcome = bytes | BaseException


def outcomes(results: Any, count: int, pack: Callable[[Any], bytes], what: str) -> list[Outcome]:
    """What a call with `count` items came to, by item: the packed result, or what fails the item.

    Raises:
        BatchError: it returned no list of that length.
    """
    if forks.in_child:
        forks.end_child()
    if not isinstance(results, (list, tuple)) or len(results) != count:
        seen = f"{len(results)} results" if isinstance(results, (list, tuple)) else f"a {type(results).__name__}"
        raise BatchError(
            f"{what} returned {seen} for {count} items. With batch= it takes a list, and returns a list with a result "
            "for each item, in their order; an exception in the place of a result fails that item."
        )
    return [one if isinstance(one, BaseException) else _packed(one, pack) for one in results]


def _packed(result: Any, pack: Callable[[Any], bytes]) -> Outcome:
    try:
        return pack(result)
    except BaseException as error:
        return error


def failed(error: BaseException, count: int) -> list[Outcome]:
    """What a call that raised came to: one outcome, if its halves are to be tried; of a Retry that of each item."""
    forks.end_child(error)
    return [error] * (count if isinstance(error, Retry) else 1)


def halves(count: int) -> list[int]:
    """In which sizes so many items are tried again: the second half, and the first, which comes off the end."""
    return [count // 2, count - count // 2]


def take(slot: Slot, most: int, more: Callable[[int], bool]) -> list[Any]:
    """Up to so many of the items that a thread has, or finds at hand: `more` loads a share of so many items."""
    values: list[Any] = []
    while len(values) < most:
        try:
            values.append(slot.todo.popleft())
        except IndexError:
            # the thread that takes them away again was faster, or there are no more
            if not more(most - len(values)):
                break
    return values


def placed(call: Callable[..., Any], slot: Slot, numbers: Sequence[int]) -> Callable[[list[Any]], Any]:
    """The call with the thread's index, the numbers and the attempt."""
    return partial(_with_place, call, slot.index, numbers, slot.job.attempt)


def _with_place(call: Callable[..., Any], index: int, numbers: Sequence[int], attempt: int, values: list[Any]) -> Any:
    return call(values, index, numbers, attempt)
