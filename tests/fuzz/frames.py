"""Hostile frames by seed: garbage, mutated recordings, recordings as they were, and well-formed lies.

The lies are made from the dataclasses of the vocabulary by their annotations, so that a new message is lied with by
being there.
"""

from __future__ import annotations

import dataclasses
import random
import typing
from collections.abc import Sequence
from typing import Any

import msgpack

from zmqpipeline.protocol import codec, fields
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import size

KINDS = ("garbage", "mutated", "replayed", "forged")
MESSAGES: tuple[type, ...] = typing.get_args(m.Message)
FORGED_RUN = "f" * 32
"""No run has this id."""

_NUMBERS = (0, 1, 2, 3, 7, 100, 5000, 1 << 32, fields.MAX_NUMBER - 1, fields.MAX_NUMBER)
_SPANS = (
    (),
    (0, 1),
    (0, 4),
    (2, 5, 9, 11),
    (0, 5000),
    (0, fields.MAX_NUMBER),
    (3, 4, 7, fields.MAX_NUMBER),
    tuple(range(3000)),
)
_WORDS = ("", "C", "double", "nobody", "x" * 3000, "\udcff", "a/b", "{0}", "%s")


class Forger:
    """Makes hostile messages, each a list of frames; `recorded` may grow meanwhile.

    `known` are words that only a peer with a key of some role knows, as the id of the run: half of its words are these.
    """

    def __init__(self, seed: int, recorded: Sequence[list[bytes]], known: Sequence[str] = ()) -> None:
        self.rng = random.Random(seed)
        self.recorded = recorded
        self._known = known
        self.sender = b""
        self.rename()

    def rename(self) -> None:
        """Be another process from now on."""
        self.sender = self.rng.randbytes(8)
        self._number = 0

    def make(self, kind: str) -> list[bytes]:
        """One message of this kind."""
        made: list[bytes] = getattr(self, kind)()
        return made

    def garbage(self) -> list[bytes]:
        """Bytes; half of them begin as a message does."""
        rng = self.rng
        frames = [rng.randbytes(rng.choice((0, 1, 5, 40, 300, 2000))) for _ in range(rng.randrange(1, 5))]
        if rng.random() < 0.5:
            frames[0] = bytes([codec.VERSION]) + frames[0]
        elif rng.random() < 0.1:
            size = rng.choice((5000, 60_000))
            frames[0] = bytes([codec.VERSION]) + (b"\xdd" + size.to_bytes(4, "big")) * (size // 5)
        return frames

    def replayed(self) -> list[bytes]:
        """What some process has said before."""
        return list(self.rng.choice(self.recorded)) if self.recorded else self.garbage()

    def mutated(self) -> list[bytes]:
        """The same with damage, in a name of our own: whose traffic can be read needs keys anyway."""
        rng, frames = self.rng, self.replayed()
        try:
            fields = msgpack.unpackb(frames[0][1:], unicode_errors="surrogatepass")
            fields[1] = self.sender
            if type(fields[5]) is str:
                # who has the run's id is a worker like any other where there are no keys: its results are taken
                fields[5] = FORGED_RUN
            frames[0] = frames[0][:1] + msgpack.packb(fields, unicode_errors="surrogatepass")
        except (ValueError, IndexError, TypeError):
            return frames if frames[0][:1] != bytes([codec.VERSION]) else self.garbage()
        keep = frames[0].find(self.sender) + len(self.sender)
        for _ in range(rng.randrange(1, 5)):
            which = rng.randrange(len(frames))
            frame = frames[which]
            low = keep if which == 0 else 0
            if len(frame) > low:
                at = rng.randrange(low, len(frame))
                frames[which] = frame[:at] + rng.randbytes(rng.choice((0, 1, 1, 2))) + frame[at + 1 :]
        if rng.random() < 0.1:
            frames.append(frames[-1])
        elif len(frames) > 1 and rng.random() < 0.1:
            del frames[-1]
        return frames

    def forged(self) -> list[bytes]:
        """A well-formed lie, at some place of the order."""
        rng = self.rng
        body = self.body(rng.choice(MESSAGES))
        self._number += rng.choice((1, 1, 1, 1, 0, 3, -1))
        number = rng.choice((max(0, self._number),) * 9 + (fields.MAX_NUMBER,))
        sender = self.sender if rng.random() < 0.9 else rng.randbytes(rng.randrange(17))
        envelope = m.Envelope(sender, rng.choice((b"", b"x", self.sender)), number, rng.choice(_NUMBERS), body)
        return codec.encode(envelope)

    def body(self, cls: type) -> Any:
        """A message of this class, or a part of one."""
        hints = typing.get_type_hints(cls)
        given = {one.name: self._value(hints[one.name], one.name) for one in dataclasses.fields(cls)}
        if "payloads" in given:
            if size(given["spans"]) > 5000:
                given["spans"] = (0, 3)
            blobs = given["payloads"] or [b"\xc0"]
            given["payloads"] = [blobs[at % len(blobs)] for at in range(size(given["spans"]))]
            if "keys" in given:
                given["keys"] = self.rng.choice((b"", bytes(m.KEY_BYTES * len(given["payloads"]))))
        elif cls is m.Keys:
            given["failed"] = self.rng.choice(_SPANS[:4])
            given["failed_keys"] = bytes(m.KEY_BYTES * size(given["failed"]))
            given["keys"] = bytes(m.KEY_BYTES)
        return cls(**given)

    def _value(self, kind: Any, name: str) -> Any:
        rng = self.rng
        if kind == m.Blobs:
            return [rng.randbytes(rng.choice((0, 1, 20, 300))) for _ in range(rng.randrange(3))]
        inner = typing.get_args(kind)
        if type(None) in inner:
            return None if rng.random() < 0.3 else self._value(inner[0], name)
        origin = typing.get_origin(kind)
        if origin is tuple:
            return rng.choice(_SPANS)
        if origin is list:
            return [self._value(inner[0], name) for _ in range(rng.choice((0, 1, 2, 20)))]
        if dataclasses.is_dataclass(kind):
            return self.body(typing.cast(type, kind))
        if kind is str and self._known and rng.random() < 0.5:
            return rng.choice(self._known)
        if kind is str:
            return FORGED_RUN if name == "run" and rng.random() < 0.8 else rng.choice(_WORDS)
        if kind is bytes:
            return rng.randbytes(rng.choice((0, 16, 100, 70_000) if rng.random() < 0.05 else (0, 16, 40)))
        simple: dict[Any, tuple[Any, ...]] = {int: _NUMBERS, float: (0.0, 0.5, 1e300), bool: (True, False)}
        return rng.choice(simple[kind])
