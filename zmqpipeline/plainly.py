"""What the user can mend is told in one line, also where nobody is left to catch it.

``python -m app run`` runs the decorators before `app.main()` could catch anything, and a program of the class API has
nobody who would. So a ConfigurationError that ends a program is shown as one line, with the place in the user's file,
a RunFailed as one line, too, and the exit status is the error's. `sys.excepthook` is ours only for as long as such an
error exists: a program that raises none, or has let go of those that it caught, has the hook that it had. Another hook
that is set already, and interactive sessions, are left alone.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path
from types import TracebackType
from typing import ClassVar

_OURS = os.fspath(Path(__file__).parent)

_alive: set[int] = set()
"""The ids of the errors that exist."""


class Plain(Exception):
    """Base of the errors that are told so; its `exit_status` is that of a program which one of them ends."""

    exit_status: ClassVar[int] = 2

    says_place: ClassVar[bool] = True
    """Whether the line names the place in the user's file."""

    def __init__(self, *args: object) -> None:
        """Set the hook, unless somebody else has set one, or a person is typing."""
        super().__init__(*args)
        if sys.excepthook is sys.__excepthook__ and not hasattr(sys, "ps1") and not sys.flags.interactive:
            sys.excepthook = _tell
        _alive.add(id(self))
        weakref.finalize(self, _gone, id(self)).atexit = False


def _gone(number: int) -> None:
    _alive.discard(number)
    if not _alive and sys.excepthook is _tell:
        sys.excepthook = sys.__excepthook__


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, Plain):
        sys.__excepthook__(kind, error, trace)
        return
    place = _place(trace) if error.says_place else ""
    print(f"Error: {place}{' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(error.exit_status)


def _place(trace: TracebackType | None) -> str:
    """File and line of the last call that is not ours."""
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, "<")):
            place = f"{Path(file).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place
