"""Well-formed lies: every message that the wire lets in, and every event, made from the classes themselves.

A class that is new in `messages.py` or `events.py` is covered by being there: its values come from the types of its
fields. The pools are small, so that a lie often hits something that is really there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.serialization.packed import Packed

MESSAGES: tuple[type, ...] = typing.get_args(m.Message)
EVENTS: tuple[type, ...] = typing.get_args(e.Event)

US = b"us"
"""The incarnation of the machine that is lied to."""

RUN = US.hex()
"""The id of its run, whichever machine it is: a broker's run is its incarnation."""


def _travels(number: int) -> bool:
    try:
        return codec.decode(codec.encode(m.Envelope(b"p", US, number, 0))).number == number
    except WireError:
        return False


MOST = next(2**bits - less for bits, less in ((64, 1), (63, 1), (62, 0), (53, 0), (32, 0)) if _travels(2**bits - less))
"""The largest number that the wire lets in."""

NUMBERS = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 8, 20, 1000, MOST))
SECONDS = st.sampled_from((0.0, 0.5, 1.0, 1e300))
SPANS = st.sampled_from(
    (
        (), (0, 1), (0, 4), (1, 2), (2, 5), (0, 1, 2, 3), (3, 4, 6, 8), (0, 9), (5, 9), (4, 5, 40, 41), (0, 64),
        (MOST - 2, MOST), (0, MOST), (3, MOST), (1, 2, 6, MOST),
    )
)  # fmt: skip
BLOBS = st.sampled_from((b"", b"x", b"y" * 200))
_WORDS = {
    "run": (RUN, RUN, RUN, "other", ""),
    "task": ("A", "B", "A", "B", "C", "nobody"),
    "service": ("A", "A", "B", "nobody"),
    "pipeline": ("pipe", "pipe", "", "foreign"),
    "stage": ("worker", "worker", "collector", "distributor", "crash"),
    "kind": m.DECLINED_KINDS,
    "host": ("box", "{0}"),
    "state": ("open", "complete", "failed"),
}
_ANY_WORD = ("", "A", "ValueError")


def digest(which: int) -> bytes:
    """The digest of one of the keys that there are."""
    return hashlib.blake2b(bytes([which % 256]), digest_size=m.KEY_BYTES).digest()


DIGESTS = st.integers(0, 5).map(digest)


def values(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Values of a type, as the field `name` may hold them."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([st.none() if one is types.NoneType else values(one, name) for one in inner])
    if origin is tuple and inner[1:] == (...,):
        return SPANS
    if origin is tuple:
        return st.tuples(*(values(one) for one in inner))
    if kind == m.Blobs:
        joined = st.builds(lambda parts: Packed(len(parts), b"".join(parts)), st.lists(BLOBS, max_size=2))
        return st.one_of(st.lists(BLOBS, max_size=2), joined)
    if origin in (list, Sequence):
        return st.lists(NUMBERS if inner[0] is int else values(inner[0], name), max_size=2)
    if origin is set:
        return st.sets(DIGESTS, max_size=2)
    if origin is dict:
        return st.dictionaries(values(inner[0], "task"), values(inner[1]), max_size=2)
    if dataclasses.is_dataclass(kind):
        return made(typing.cast(type, kind))
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.sampled_from(_WORDS.get(name, _ANY_WORD)),
        int: NUMBERS,
        float: SECONDS,
        bool: st.booleans(),
        bytes: st.one_of(st.just(b""), DIGESTS) if name.endswith(("key", "keys")) else BLOBS,
    }
    return simple[kind]


def made(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a dataclass of the vocabulary, with whatever its fields may hold."""
    hints = typing.get_type_hints(cls)
    fields = {one.name: values(hints[one.name], one.name) for one in dataclasses.fields(cls)}
    return st.fixed_dictionaries(fields).map(lambda given: cls(**_fitted(given)))


def _fitted(given: dict[str, Any]) -> dict[str, Any]:
    """Bring the lengths of the fields that stand beside one another into line, as the wire demands it."""
    for name, beside in (("spans", "payloads"), ("failed", "failed_keys")):
        # there is something beside each number: nobody has that for all that there are
        if isinstance(given.get(beside), list | Packed | bytes) and size(given.get(name, ())) > 1000:
            given[name] = (0, 4)
    if "payloads" in given and "spans" in given:
        count = size(given["spans"])
        blobs = given["payloads"] or [b"z"]
        given["payloads"] = [blobs[index % len(blobs)] for index in range(count)]
        if given.get("keys"):
            # each its own, or all the same
            first, step = given["keys"][0], given["keys"][1] % 2
            given["keys"] = b"".join(digest(first + index * step) for index in range(count))
    if "failed_keys" in given and "failed" in given and isinstance(given["failed_keys"], bytes):
        given["failed_keys"] = b"".join(digest(index) for index in range(size(given["failed"])))
    return given


def bodies(cls: type) -> st.SearchStrategy[Any]:
    """Messages of this class that the wire lets in."""
    return made(cls).filter(is_well_formed)


def is_well_formed(body: Any) -> bool:
    """Whether a peer could really send this."""
    try:
        return arrives(m.Envelope(b"p", US, 1, 0, body)).body == body
    except WireError:
        return False


def arrives(envelope: m.Envelope) -> m.Envelope:
    """This envelope, after its way over the wire. WireError: the far side would drop it as garbage."""
    return codec.decode(codec.encode(envelope))
