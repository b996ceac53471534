"""How long ago a process that carries out a command began: when it first imported zmqpipeline.

It may have been a process for longer, and have been another program: one that was replaced by `exec` keeps its number
and the system's time of its start. So what it did before that import is not counted; a role of it then learns less
often that its run ended while it was starting (`protocol.early_end`), and never what is not so.
"""

from __future__ import annotations

import threading
import time

_IMPORTED = time.monotonic()


def age_of_command() -> float:
    """For how many seconds this process has been starting; of one that does nothing else than to carry out a command.

    A program that runs a role may have done anything before, and may have seen another run: its roles have no age.
    """
    return time.monotonic() - _IMPORTED


_carries_out_a_command = threading.Event()


def mark_command() -> None:
    """This process does nothing else than to carry out a command with a role, and ends with that."""
    _carries_out_a_command.set()


def is_command() -> bool:
    """Whether that was said."""
    return _carries_out_a_command.is_set()
