"""Failed items on their way: in messages of a bounded size; and in words."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from zmqpipeline.protocol import credit
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem

_BESIDES = 200
"""What a failure takes besides its texts, of which a character may take four bytes."""

_TEXTS = attrgetter("task", "stage", "trouble.error", "trouble.message", "trouble.traceback")

_SHOWN = 200
"""So many characters of a message are in a line of the log; all of it is with the item."""


def in_messages(items: list[FailedItem]) -> Iterator[list[FailedItem]]:
    """These items, so many at a time as go into one message, at least one."""
    first = size = 0
    for index, item in enumerate(items):
        more = _BESIDES + 4 * sum(map(len, _TEXTS(item))) + len(item.payload)
        if index - first == credit.MAX_BATCH or (size + more > credit.MAX_BATCH_BYTES and index > first):
            yield items[first:index]
            first, size = index, 0
        size += more
    if items:
        yield items[first:]


def too_large(task: str, size: int, most: int) -> ErrorInfo:
    """Why an item of so many bytes is not sent."""
    return ErrorInfo(
        "MessageTooLarge",
        f"An item of task {task!r} has {size} bytes, more than max_message_bytes ({most}). "
        "Send a path to a file in its place, or raise the limit with ZMQPIPELINE_MAX_MESSAGE_BYTES.",
    )


def killer_of_workers(spec: TaskSpec, number: int, times: int) -> ErrorInfo:
    """Why an item that so many workers were lost with is not sent again."""
    return ErrorInfo(
        "WorkerLost",
        f"{times} workers were lost while they may have been running item {number} of task "
        f"{spec.task_type!r}; it is not sent again (crash_limit={spec.crash_limit}).",
    )


def gate_closed(task: str, last_ack: tuple[str, int], data: str) -> ErrorInfo:
    """Why a task whose gate says no fails: no ACK after the last one can come. `data` is what that one carried."""
    name, count = last_ack
    return ErrorInfo(
        "GateClosed",
        f"The gate of task {task!r} (available / is_available_for_handling) says no, and no ACK can come to open it: "
        "nothing waits or is with a worker. "
        f"The last ACK was {count} of {name!r}{f' and carried {data}' if data else ''}.",
    )


def in_a_line(trouble: ErrorInfo) -> str:
    """What was raised, short enough for a log that has a line for each failed item."""
    shown = printable(trouble.message.partition("\n")[0][:_SHOWN])
    return f"{printable(trouble.error[:_SHOWN])}: {shown}{'...' if shown != trouble.message else ''}"


def printable(text: str) -> str:
    """This text without what could end a line of the log, or change how a terminal shows it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
