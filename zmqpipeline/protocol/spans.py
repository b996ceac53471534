"""How messages name items, and carry packed values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Spans: TypeAlias = tuple[int, ...]
"""Half-open ranges of item numbers, flattened: ``(0, 3, 7, 8)`` is 0, 1, 2 and 7."""

Blobs: TypeAlias = Sequence[bytes]
"""Packed user values, one an item, in the order of the spans beside them: a list, or a `Packed` that came in one piece.

A large one may be a memoryview of the message that it came in, which spares a copy; whoever needs bytes makes them.
"""

KEY_BYTES = 16
"""The size of the digest of a key."""
