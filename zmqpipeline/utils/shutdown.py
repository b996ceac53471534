"""The way out of a process that does not wait for its threads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn


def kill_current_process() -> NoReturn:
    """End this process at once, with status 0.

    What was printed or logged is flushed first. Other threads, `atexit` functions, `finally` blocks and files that are
    still open are not waited for.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A reader that is gone, or a stream that is closed, must not keep the process from ending.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(0)
