"""What commands print: lines on stdout, which are what was asked for, and on stderr, which are about it."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

import click

from zmqpipeline.errors import ConfigurationError, JournalUnavailable
from zmqpipeline.runtime.standard_files import give_up_output

OF_A_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""It may pass: the same command may succeed later."""


class OutputError(Exception):
    """What was asked for cannot be written to stdout."""

    def __init__(self, error: OSError) -> None:
        """`error` is what the system said."""
        super().__init__(f"The output cannot be written: {error.strerror or error}.")
        may_pass = error.errno in OF_A_FULL_DISK
        self.exit_status = JournalUnavailable.exit_status if may_pass else ConfigurationError.exit_status


def tell(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print it, at once. A reader that is gone ends the command, as click has it.

    Raises:
        OutputError: stdout cannot be written.
    """
    if not err:
        with written():
            click.echo(text, nl=nl)
        return
    try:
        click.echo(text, err=True, nl=nl)
    except BrokenPipeError:
        raise
    except OSError:
        return  # there is nowhere to say it, and what the command does comes to the same end


def flush_output() -> None:
    """Write what user code has printed and Python has kept; of a reader that is gone Python tells at its end.

    Raises:
        OutputError: stdout cannot be written.
    """
    if sys.stdout is not None and not getattr(sys.stdout, "closed", False):
        with contextlib.suppress(BrokenPipeError), written():
            sys.stdout.flush()


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Raise OutputError if what is written to stdout in it cannot be, unless its reader is gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_output()
        raise OutputError(error) from error
