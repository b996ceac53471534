"""Arrays of numpy as they travel: a small header and the raw memory. Nothing here ever runs what came with the bytes.

The extension holds a byte that says how long the header is, in units of `UNIT` bytes; the header, a msgpack array of
the type, as ``<f8``, the shape, and whether the memory is in the order of Fortran, with zeros behind it; the memory.
It is opened as a read-only array over the bytes that came, which are not copied, with aligned memory.

Arrays that have fields, or no bytes, travel in numpy's own file format.
"""

from __future__ import annotations

import importlib
import io
import math
from tokenize import TokenError
from typing import Any

import msgpack

from zmqpipeline.errors import SerializeError

LARGE = 64 * 1024
"""Arrays of so many bytes are copied only once on their way into the packed value."""

UNIT = 16
MAX_HEADER = 255 * UNIT

_OBJECTS = (
    "it holds objects, which are never sent. Make an array of numbers or of text of it (array.astype(float)), or a "
    "list (array.tolist())"
)


def is_plain(numpy: Any, value: Any) -> bool:
    """Whether this is an array that travels as header and memory."""
    return type(value) is numpy.ndarray and not value.dtype.hasobject and not value.dtype.fields and value.nbytes > 0


def split(numpy: Any, array: Any) -> tuple[bytes, memoryview]:
    """Header and memory of a plain array; the memory is copied only if it is in no order of its own."""
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = numpy.ravel(array, order="F" if is_fortran else "C").view(numpy.uint8)
    header = msgpack.packb([array.dtype.str, list(array.shape), is_fortran])
    units = -(-(1 + len(header)) // UNIT)
    return bytes((units,)) + header.ljust(units * UNIT - 1, b"\0"), memoryview(flat)


def in_file_format(numpy: Any, value: Any) -> bytes:
    """A scalar, or an array with fields or without bytes. Raises for what holds objects, or is more than an array."""
    if type(value) is not numpy.ndarray and not isinstance(value, numpy.generic):
        raise TypeError(f"numpy.asarray() makes a plain array of {type(value).__name__}, without what it adds")
    if value.dtype.hasobject:
        raise ValueError(_OBJECTS)
    buffer = io.BytesIO()
    numpy.lib.format.write_array(buffer, numpy.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise SerializeError(
            "The value holds a numpy array, and numpy is not installed here, where it is unpacked: "
            'pip install "zmqpipeline[numpy]".'
        ) from error


def load(data: bytes) -> Any:
    """An array over these bytes."""
    numpy = _numpy()
    start = UNIT * data[0]
    header = msgpack.Unpacker(max_buffer_size=MAX_HEADER)
    header.feed(data[1:start])
    kind, shape, is_fortran = header.unpack()
    if type(kind) is not str or type(shape) is not list or not all(type(one) is int and one >= 0 for one in shape):
        raise ValueError("not the header of an array")
    dtype = numpy.dtype(kind)
    if dtype.hasobject or dtype.fields or dtype.str != kind:
        raise ValueError(f"an array of {kind!r}")
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of the shape {shape} with {len(data) - start} bytes")
    return numpy.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")


def load_file_format(data: bytes) -> Any:
    """What `in_file_format` wrote; read-only, as all arrays that arrive."""
    numpy = _numpy()
    try:
        array = numpy.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (SyntaxError, TokenError, MemoryError) as error:
        raise ValueError(f"not a numpy array: {error}") from error
    array.flags.writeable = False
    return array


def extension_header(code: int, size: int) -> bytes:
    """What msgpack writes before an extension of so many bytes, more than 64 KiB."""
    return b"\xc9" + size.to_bytes(4, "big") + bytes((code,))
