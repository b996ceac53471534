"""The standard files of a process, which may be closed, as a shell's ``2>&-`` and some daemons have it.

The next file that is opened, a socket or a pipe, then gets the number of one, and is what child processes take for
their standard error; and Python has None for its stream, which few libraries expect.
"""

from __future__ import annotations

import contextlib
import os
import sys

_FILES = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def open_closed_files() -> None:
    """Have those of standard input, output and error that are closed be the null device, here and for children."""
    for number, name, mode in _FILES:
        if not _is_open(number):
            _open_as(number)
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            # with a file of its own: one that was opened since may have the number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


def give_up_output() -> None:
    """Have what is still to be written to standard output go nowhere, so that the end of Python does not meet it."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        # of one that a program has put in its place there may be no file
        number = sys.stdout.fileno()
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_as(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
        return
    os.dup2(opened, number)
    os.close(opened)
