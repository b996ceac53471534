"""The `dataclass` of messages, events and commands: frozen for whoever checks, and as cheap as any other to make.

A frozen dataclass sets each field by a call, and so costs four times what another one does to make; a single item makes
two dozen of them on its way. Nothing changes one after it is made: mypy reads ``frozen=True`` and refuses it, and in
Python's development mode (``python -X dev``), in which the simulation is run, too, they refuse it themselves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TypeVar

Kind = TypeVar("Kind")


def dataclass(*, frozen: bool, slots: bool) -> Callable[[type[Kind]], type[Kind]]:
    """Like that of the standard library; whatever is `frozen` compares and hashes by its fields."""
    is_strict = frozen and sys.flags.dev_mode
    return dataclasses.dataclass(frozen=is_strict, slots=slots, unsafe_hash=frozen and not is_strict)
