"""Imports of many modules at once, without the looks for cycles that Python takes meanwhile.

A process imports two hundred of our modules and as many others before its role runs, which makes a hundred thousand
objects and no garbage; the looks that Python takes as objects get more are a twentieth of that time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many_imports() -> Iterator[None]:
    """Nothing is looked for in this block, which should import and do nothing else; then it is as it was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
