"""User values to bytes and back: msgpack, with extension types for what msgpack does not know. Never pickle.

Arrives as it was sent: None, bool, int of any size, float, str (lone surrogates too), bytes, list, dict (its keys may
be of any of these types that is hashable), tuple, set, frozenset, datetime, date, timedelta, Decimal, UUID, and numpy
arrays and scalars without objects in them. Subclasses arrive as their plain base: a named tuple as a tuple, an IntEnum
member as an int; a bytearray arrives as bytes, an array is read-only. A datetime keeps its zone if that is a zoneinfo
one, else its offset.

How it is written:

- A tuple or set is an array whose first element is an empty extension that says which. So its elements are packed in
  place by the same packer, and the depth limit of msgpack holds for everything.
- The other types are extensions that hold text or bytes (`types`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import msgpack

from zmqpipeline.errors import SerializeError
from zmqpipeline.serialization.arrays import LARGE, extension_header, is_plain, split
from zmqpipeline.serialization.records import encoder_of, plain
from zmqpipeline.serialization.traced import TRACED, TRIED, parted, with_parent
from zmqpipeline.serialization.types import (
    CONTAINERS,
    LOADERS,
    MARK_OF_TUPLE,
    RAW_ARRAY,
    Mark,
    dump_numpy,
    find_dumper,
)
from zmqpipeline.serialization.untrusted import UNBELIEVED, open_bounded

MAX_DEPTH = 1000
"""How deeply containers may be nested; msgpack itself gives up a little later."""

_EMPTY = b"\x80"
_MOST_PIECES = 16
"""So deeply large arrays are looked for; deeper ones are packed as all else."""
_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))
_LARGE = 1 << 20
_HELP = (
    "Send None, bool, int, float, str, bytes, list, tuple, set, dict, datetime, date, timedelta, Decimal or UUID, "
    "and convert everything else first"
)
_HINTS = {
    "generator": "list() makes a list of it",
    "map": "list() makes a list of it",
    "filter": "list() makes a list of it",
    "range": "list() makes a list of it",
    "dict_keys": "list() makes a list of it",
    "dict_values": "list() makes a list of it",
    "mappingproxy": "dict() makes a dict of it",
    "PosixPath": "str() makes a str of it",
    "WindowsPath": "str() makes a str of it",
    "coroutine": "it was not awaited",
}

# What msgpack, numpy and the extension types raise for a bad value; anything else is a bug and goes on.
_PACK_ERRORS = (TypeError, ValueError, OverflowError, RuntimeError)
_UNPACK_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError, EOFError, RuntimeError, msgpack.UnpackException)


def _default(value: Any) -> Any:
    """Called by msgpack for each value that is of none of its own types exactly."""
    dump = find_dumper(type(value))
    if dump is not None:
        return dump(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return dump_numpy(numpy, value)
    raise TypeError(f"a value of type {type(value).__name__}")


class _LargeArray(ValueError):
    """There is one in the value: it is put together by `_pack_large`, which copies it only once."""


def _default_of_small(value: Any) -> Any:
    """The same, where a large array is left to `_pack_large`."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray and value.nbytes > LARGE and is_plain(numpy, value):
        raise _LargeArray
    return _default(value)


def _new_packer(default: Callable[[Any], Any] = _default) -> msgpack.Packer:
    return msgpack.Packer(default=default, strict_types=True, unicode_errors="surrogatepass")


def _quick() -> Callable[[Any], bytes]:
    """What packs nearly all values."""
    pack: Callable[[Any], bytes] = _new_packer(_default_of_small).pack
    return pack


class _Local(threading.local):
    """One packer a thread. Making one costs as much as packing a small dict twice."""

    def __init__(self) -> None:
        self.pack = _quick()


_local = _Local()

METADATA_BYTES = 2 * 1024 * 1024
"""The most that metadata may have, packed: they are told to every worker, and kept by the collector."""

ACK_DATA_BYTES = 256 * 1024
"""The same for what the collector attaches to an ACK, and for what its `finished` function returns."""


def pack(value: Any, what: str = "This value", returned: str = "") -> bytes:
    """Return the bytes of a value; ``{what}{returned} cannot be packed`` begins the error, put together only then.

    Raises SerializeError, which is a TypeError, for what cannot be packed; it names where in the value, as in
    ``$.result.when``, the type found there, and what to do.
    """
    try:
        data = _local.pack(value)
    except _LargeArray:
        _local.pack = _quick()
        return _pack_large(value, what, returned)
    except _PACK_ERRORS as error:
        _local.pack = _quick()
        if (data := _pack_plain(value)) is None:  # type: ignore[assignment]
            raise SerializeError(f"{what}{returned} cannot be packed: {_explain(value, error)}") from error
    if len(data) > _LARGE:
        # A packer keeps the buffer of the largest value it ever packed.
        _local.pack = _quick()
    return data


def _pack_large(value: Any, what: str, returned: str) -> bytes:
    """As `pack`, of a value that has large arrays in it: what is around them is packed, then all is put together."""
    pieces: list[bytes | memoryview] = []
    try:
        _add_pieces(pieces, value, _new_packer(), 0)
    except _PACK_ERRORS as error:
        if (data := _pack_plain(value)) is None:
            raise SerializeError(f"{what}{returned} cannot be packed: {_explain(value, error)}") from error
        return data
    return b"".join(pieces)


def _add_pieces(pieces: list[bytes | memoryview], value: Any, packer: msgpack.Packer, depth: int) -> None:
    kind, numpy = type(value), sys.modules["numpy"]
    if kind is numpy.ndarray and is_plain(numpy, value):
        header, memory = split(numpy, value)
        pieces += (extension_header(RAW_ARRAY, len(header) + memory.nbytes), header, memory)
        return
    if kind not in (dict, list, tuple) or depth > _MOST_PIECES:
        pieces.append(packer.pack(value))
        return
    if kind is dict:
        inside = [one for pair in value.items() for one in pair]
        pieces.append(packer.pack_map_header(len(inside) // 2))
    else:
        inside = [*((MARK_OF_TUPLE,) if kind is tuple else ()), *value]
        pieces.append(packer.pack_array_header(len(inside)))
    pack_small = _quick()
    for one in inside:
        try:
            pieces.append(pack_small(one))
        except _LargeArray:
            pack_small = _quick()
            _add_pieces(pieces, one, packer, depth + 1)


def _pack_plain(value: Any) -> bytes | None:
    """Return the bytes of a value in which there are records, enums or paths; None for one that holds other things."""
    try:
        data: bytes = _new_packer().pack(plain(value))
    except SerializeError:
        # it says what it is already
        raise
    except _PACK_ERRORS:
        return None
    return data


def pack_identity(value: Any) -> bytes:
    """Bytes that are the same for equal values in every process. They are for comparing; nothing unpacks them.

    `pack` writes the members of a set in the order of their hashes, which differs from process to process, and those
    of a dict as they came.
    """
    return pack(_ordered(value))


def _ordered(value: Any) -> Any:
    """The value with its sets and dicts, at any depth, as sorted lists that are taken for nothing else."""
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(pack_identity(one) for one in value)}
    if isinstance(value, dict):
        return {"dict": sorted((pack_identity(key), pack_identity(one)) for key, one in value.items())}
    if isinstance(value, (list, tuple)):
        ordered = [_ordered(one) for one in value]
        return tuple(ordered) if isinstance(value, tuple) else ordered
    return value


def item_packer(what: str, most: int = 1 << 62) -> Callable[[Any], bytes]:
    """Make the `pack_item` of one function, which is called for each of its items; `most` bytes are allowed.

    For a larger one it raises SerializeError, too: sent, it would be refused for ever. What is made belongs to one
    thread: it keeps a packer.
    """
    common = min(most, _LARGE)
    pack_dict = _quick()

    def pack_one(value: Any) -> bytes:
        nonlocal pack_dict
        # what happens a million times is decided here, and all else left to the long way
        if type(value) is dict:
            try:
                data: bytes = pack_dict(value)
            except _PACK_ERRORS:
                pack_dict = _quick()
            else:
                if len(data) <= common:
                    return data
                pack_dict = _quick()
        elif (encode := encoder_of(type(value))) is not None:
            return pack_one(encode(value))
        return bounded(pack_item(value, what), what, most)

    return pack_one


def bounded(packed: bytes, what: str, most: int) -> bytes:
    """This packed answer of `what`, if it has at most `most` bytes.

    Raises:
        SerializeError: it is larger; sent, it would be refused for ever.
    """
    if len(packed) > most:
        raise SerializeError(
            f"{what} returned {len(packed)} bytes, more than max_message_bytes ({most}). "
            "Return less, or a path to a file, or raise the limit with ZMQPIPELINE_MAX_MESSAGE_BYTES."
        )
    return packed


def pack_item(value: Any, what: str) -> bytes:
    """Return the bytes of an item or a result: a dict, or None for an empty one.

    `what` names the user's function for the error, as in ``worker function 'square'``. Raises SerializeError for
    anything but a dict, and for a dict that cannot be packed.
    """
    if not isinstance(value, dict):
        if value is None:
            return _EMPTY
        if (encode := encoder_of(type(value))) is not None:
            return pack_item(encode(value), what)
        kind = type(value).__name__
        if kind == "coroutine":
            value.close()
            raise SerializeError(
                f"{what} returned a coroutine, which was not awaited: write `return await ...` in an `async def`."
            )
        raise SerializeError(
            f"{what} returned {_article(kind)} {kind}, which is no dict. Return a dict, or None for an empty one."
        )
    return pack(value, what, " returned a dict that")


def pack_aside(value: Any, what: str, most: int) -> bytes:
    """Return the bytes of a dict that travels beside the items, in the header of messages: at most `most` of them.

    Raises SerializeError, as `pack_item` does, and for a larger one: the other side would drop such a message.
    """
    packed = pack_item(value, what)
    if len(packed) > most:
        raise SerializeError(
            f"{what} returned {len(packed):,} bytes; at most {most:,} can be sent. "
            "Return less: the path of a file, or a key to look the rest up by."
        )
    return packed


def _rebuild(items: list[Any]) -> Any:
    """Called by msgpack for each array: a marked one becomes a tuple or a set again."""
    if items and type(items[0]) is Mark:
        return items[0].build(items[1:])
    return items


def _load_ext(code: int, data: bytes) -> Any:
    if code not in (TRACED, TRIED):
        return _load_inner(code, data)
    parent, before, packed = parted(data, code)
    return with_parent(_open(packed, UNBELIEVED, _load_inner), parent, before)


def _load_inner(code: int, data: bytes) -> Any:
    try:
        load = LOADERS[code]
    except KeyError:
        raise SerializeError(f"The bytes hold an unknown extension type, {code}: a newer version wrote it.") from None
    return load(data)


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Undo `pack`. Raises SerializeError if the bytes are no packed value, or one that is unknown here."""
    return _open(data, UNBELIEVED)


def _open(
    data: bytes | bytearray | memoryview, believed: int, load_ext: Callable[[int, bytes], Any] = _load_ext
) -> Any:
    try:
        return open_bounded(
            data,
            believed=believed,
            list_hook=_rebuild,
            ext_hook=load_ext,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )
    except SerializeError:
        raise
    except _UNPACK_ERRORS as error:
        seen = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise SerializeError(f"These bytes are no packed value ({seen}). They were cut off, or are foreign.") from error


def check_depth(value: Any, most: int) -> Any:
    """The same value, if its containers are nested at most `most` levels deep.

    Raises:
        SerializeError: they are nested more deeply; functions that call themselves may not come to their end.
    """
    depth = 0
    level: list[Any] = [value] if isinstance(value, CONTAINERS) else []
    while level:
        depth += 1
        if depth > most:
            raise SerializeError(
                f"This value is nested more than {most} levels deep (max_depth). Send a flatter one, or raise the "
                "limit with ZMQPIPELINE_MAX_DEPTH."
            )
        level = [child for one in level for child in _inside(one) if isinstance(child, CONTAINERS)]
    return value


def _inside(container: Any) -> Iterator[Any]:
    return chain(container, container.values()) if isinstance(container, dict) else iter(container)


def within_depth(call: Callable[..., Any], most: int, at: int = 0) -> Callable[..., Any]:
    """The same function, which is called with a value as argument `at`; one nested too deeply raises SerializeError.

    Nothing that is deeper than MAX_DEPTH is packed, and little more can be opened: with that limit nothing is asked.
    """
    if most >= MAX_DEPTH:
        return call

    def checked(*given: Any) -> Any:
        check_depth(given[at], most)
        return call(*given)

    return checked


def is_dict(packed: bytes) -> bool:
    """Whether these bytes are a packed dict, as metadata are, and no larger than these may be."""
    try:
        return len(packed) <= METADATA_BYTES and isinstance(unpack(packed), dict)
    except SerializeError:
        return False


def opener(most_depth: int) -> Callable[[bytes], Any]:
    """An `unpack` that raises SerializeError also for what is nested more than `most_depth` levels deep."""
    if most_depth >= MAX_DEPTH:
        return unpack
    return lambda data: check_depth(unpack(data), most_depth)


def unpack_all(data: bytes | bytearray | memoryview, count: int) -> list[Any]:
    """Undo `pack` for `count` values that stand end to end, in one call.

    Raises SerializeError if one of them cannot be opened, or if there are fewer or more.
    """
    # with its header before them they are an array: nothing has to look for the places where one ends
    values = _open(b"".join((b"\xdd", count.to_bytes(4, "big"), data)), max(count, UNBELIEVED))
    if type(values) is not list or len(values) != count:
        raise SerializeError(f"These bytes are no {count} packed values.")
    return values


# The rest runs only after packing failed: it walks the value to say where. -------------------------------------------


def _explain(value: Any, error: Exception) -> str:
    changed = "it changed while it was packed. Send a copy of what other threads may change."
    try:
        return _find(value) or (changed if isinstance(error, RuntimeError) else f"{error}. {_HELP}.")
    except RuntimeError:
        return changed


_MOST_OF_PATH, _MOST_OF_TWO = 60, 40
"""So many characters of a path are shown, so that a log line has room for the reason behind it; and of each of two."""


def _find(value: Any) -> str | None:
    """Say where the first value is that cannot be packed; None if there is none (then it changed meanwhile)."""
    complaint = _complain("$", value)
    if complaint:
        return complaint
    levels: list[tuple[int, str, Iterator[tuple[str, Any]]]] = [(id(value), "$", _children("$", value))]
    while levels:
        path, child = next(levels[-1][2], ("", None))
        if not path:
            levels.pop()
            continue
        complaint = _complain(path, child)
        if complaint:
            return complaint
        if not isinstance(child, CONTAINERS):
            continue
        for identity, above, _ in levels:
            if identity == id(child):
                both = f"`{_shorten(path, _MOST_OF_TWO)}` is `{_shorten(above, _MOST_OF_TWO)}`"
                return f"{both} again, a circle. Send a value without circles."
        if len(levels) >= MAX_DEPTH:
            return f"`{_shorten(path)}` is nested more than {MAX_DEPTH} levels deep. Send a flatter value."
        levels.append((id(child), path, _children(path, child)))
    return None


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in dict.items(value):
            yield f"a key of {path}", key
            yield f"{path}{_step(key)}", child
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield f"{path}[{index}]", child
    elif isinstance(value, (set, frozenset)):
        for child in value:
            yield f"{path}{{}}", child


def _step(key: Any) -> str:
    if type(key) is str:
        return f".{key}" if key.isidentifier() else f"[{key[:40]!r}]"
    # The repr of other keys may be long, or raise.
    return f"[{key}]" if type(key) is int and key.bit_length() < 100 else f"[a {type(key).__name__}]"


def _complain(path: str, value: Any) -> str | None:
    """Say what is wrong with this value itself, whatever it contains."""
    if isinstance(value, CONTAINERS) or type(value) in _SIMPLE:
        return None
    try:
        _new_packer().pack(value)
    except _PACK_ERRORS as error:
        kind = type(value).__name__
        where, mark, rest = path.rpartition("a key of ")
        place = f"{where}{mark}`{_shorten(rest)}`"
        reason = f" ({error})" if find_dumper(type(value)) or not isinstance(error, TypeError) else ""
        return f"{place} is {_article(kind)} {kind}{reason}. {_HINTS.get(kind, _HELP)}."
    return None


def _shorten(path: str, most: int = _MOST_OF_PATH) -> str:
    """Without its middle, if it is long."""
    half = most // 2 - 2
    return path if len(path) <= most else f"{path[:half]} ... {path[-half:]}"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"
