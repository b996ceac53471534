"""What the user can mend is told in one line where an app is a program of its own, even while its module is loaded.

``python -m app run`` runs the decorators before `app.main()` could catch anything, and a program of the class API has
nobody who would. So a Pipeline that is made in ``__main__``, and every role that runs, sets a `sys.excepthook` that
shows a ConfigurationError as one line, with the place in the user's file, a RunFailed as one line, too, and exits with
its status. Every other exception, another hook that is set already, and interactive sessions are left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from zmqpipeline.errors import ConfigurationError, RunFailed

_OURS = os.fspath(Path(__file__).parent)


def tell_plainly() -> None:
    """Set the hook, unless somebody else has set one, or a person is typing."""
    if sys.excepthook is sys.__excepthook__ and not hasattr(sys, "ps1") and not sys.flags.interactive:
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (ConfigurationError, RunFailed)):
        sys.__excepthook__(kind, error, trace)
        return
    # where `run()` was called is no place of a failed run
    place = "" if isinstance(error, RunFailed) else _place(trace)
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
