"""What user code raised, as text: for the wire, for the log, for people.

It becomes an ErrorInfo, SystemExit and KeyboardInterrupt included: a function does not end the process that calls it.
"""

from __future__ import annotations

import inspect
import os
import reprlib
import traceback
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime import forks

TEXT_LIMIT = 65536
"""The most characters of a message or a traceback that travel with a failure."""

PLACE_LIMIT = 1000
"""The most characters of where it was raised."""

SPAN = "_zmqpipeline_span"
"""The attribute of an exception that says in which span it was raised, if traces are on."""

SHOWN = 300
"""So much of an item is shown."""

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARY = str(Path(inspect.__file__).parent) + os.sep
_ASYNCIO = f"{_LIBRARY}asyncio{os.sep}"
_INSTALLED = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))


def trouble_of(error: BaseException) -> ErrorInfo:
    """What was raised, as text that can be sent: type, message, the traceback without our own frames, and the place."""
    forks.end_child(error)
    if isinstance(error, MemoryError):
        # the frames that it came through hold what there was no more room beside, and so would all of this find none
        traceback.clear_frames(error.__traceback__)
    place = place_of(error.__traceback__)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message cannot be shown: str() raised {type(second).__name__})"
    shown = _sendable(_traceback(error))[-TEXT_LIMIT:]
    return ErrorInfo(name[:TEXT_LIMIT], _sendable(message)[:TEXT_LIMIT], shown, place, span_of(error))


def raised_in(error: BaseException, span: bytes) -> None:
    """Say in which span this was raised, whatever its class makes of attributes."""
    BaseException.__setattr__(error, SPAN, span)


def span_of(error: BaseException) -> bytes:
    """In which span this was raised; empty if nobody has said so."""
    found = BaseException.__getattribute__(error, "__dict__").get(SPAN, b"")
    return found if type(found) is bytes else b""


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, users_part(error.__traceback__)))
    except Exception as second:
        return f"(its traceback cannot be shown: {type(second).__name__})"


def users_part(frames: TracebackType | None) -> TracebackType | None:
    """A traceback without our own frames, and those of an event loop, that come before the first one of user code."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((_PACKAGE, _ASYNCIO)):
        frames = frames.tb_next
    return frames


def place_of(frames: TracebackType | None) -> str:
    """Where it was raised: ``boom.py:14 collect``; empty if no code of a user was at work.

    That is the last line of the user's own code; what it called in a library is in the traceback. Of code that is
    installed as a library itself it is the first line, that of the function which we called.
    """
    where = _last_of_users(frames) or _first_not_ours(frames)
    if where is None:
        return ""
    frame, line = where
    return _sendable(f"{_line(frame.f_code, line)} {frame.f_code.co_name}")[-PLACE_LIMIT:]


def users_line(frames: TracebackType | None) -> str:
    """The last line of the user's own code: ``boom.py:14``; empty if it was not at work."""
    where = _last_of_users(frames)
    return "" if where is None else _sendable(_line(where[0].f_code, where[1]))


def users_frame(frame: FrameType | None) -> str:
    """Where a thread is now, by its newest frame of a user's own code: ``boom.py:14 collect``; or empty."""
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return _sendable(f"{_line(frame.f_code, frame.f_lineno)} {frame.f_code.co_name}")[-PLACE_LIMIT:]
        frame = frame.f_back
    return ""


def _is_users(file: str) -> bool:
    return not file.startswith(("<frozen ", _PACKAGE, _LIBRARY)) and not any(one in file for one in _INSTALLED)


def _last_of_users(frames: TracebackType | None) -> tuple[FrameType, int] | None:
    found = None
    while frames is not None:
        if _is_users(frames.tb_frame.f_code.co_filename):
            found = frames.tb_frame, frames.tb_lineno
        frames = frames.tb_next
    return found


def _first_not_ours(frames: TracebackType | None) -> tuple[FrameType, int] | None:
    frames = users_part(frames)
    return None if frames is None else (frames.tb_frame, frames.tb_lineno)


def named(what: str, function: Any) -> str:
    """A function of the user for a message, with where it is written: ``Numbers.handle (tasks.py:12)``.

    For what it returned, which no traceback leads to. A decorated function begins with its first decorator.
    """
    code = _code_of(function)
    return what if code is None else f"{what} ({_sendable(_line(code, code.co_firstlineno))})"


def made_at(cls: type) -> str:
    """Where a user's class says how it is made: ``boom.py:14 __init__``; the name of one that does not say it."""
    for function in (inspect.getattr_static(cls, name) for name in ("__init__", "__new__")):
        code = _code_of(function)
        if code is not None and not code.co_filename.startswith(_PACKAGE):
            return _sendable(f"{_line(code, code.co_firstlineno)} {code.co_name}")[-PLACE_LIMIT:]
    return f"{cls.__module__}.{cls.__qualname__}"


def _code_of(function: Any) -> CodeType | None:
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _line(code: CodeType, line: int) -> str:
    file = code.co_filename
    try:
        here = os.getcwd() + os.sep  # noqa: PTH109 - text is compared with text
    except OSError:
        here = os.sep
    return f"{file.removeprefix(here) if here != os.sep else file}:{line}"


def _sendable(text: str) -> str:
    # A message may quote a file name with lone surrogates, which UTF-8 has no bytes for.
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str, *, lines: bool = False) -> str:
    """Text of users, which may hold what would change the terminal or cannot be written to it."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


class _Shown(reprlib.Repr):
    """A repr of bounded length and cost, whatever it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 12
        self.maxstring = self.maxother = 120
        self.maxlevel = 4

    def repr_bytes(self, value: bytes, level: int) -> str:
        most = self.maxstring
        return repr(value) if len(value) <= most else f"{value[:most]!r}... ({len(value):,} bytes)"

    repr_bytearray = repr_memoryview = repr_bytes

    def repr_ndarray(self, value: Any, level: int) -> str:
        return f"array of shape {value.shape}, {value.dtype}"


def shown(value: object) -> str:
    """An item for a line of the log: at most `SHOWN` characters."""
    try:
        text = _Shown().repr(value)
    except Exception as error:
        text = f"(it cannot be shown: {type(error).__name__})"
    text = _sendable(text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
