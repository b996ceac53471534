"""Bytes for the decoder, led by its coverage: an optional, longer look, for which atheris must be installed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from zmqpipeline.errors import WireError


def look(seconds: int, seed: int) -> int:
    """Feed the decoder for so long; the exit status. What it stumbles over is raised, and written to a file here."""
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed. Install it (pip install atheris), or leave --atheris out.", file=sys.stderr)
        return 2
    with atheris.instrument_imports():
        from zmqpipeline.protocol import codec

    def feed(data: bytes) -> None:
        # a byte says where the first frame ends
        cut = data[0] if data else 0
        frames = [bytes([codec.VERSION]) + data[1 : 1 + cut], *([data[1 + cut :]] if len(data) > 1 + cut else [])]
        try:
            envelope = codec.decode(frames)
        except WireError:
            return
        codec.encode(envelope)

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-seed={seed}"], feed)
    atheris.Fuzz()
    return 0
