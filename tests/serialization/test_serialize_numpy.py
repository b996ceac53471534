"""Arrays of numpy arrive as they were sent, and numpy is imported by nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.values import Foo, same
from zmqpipeline.errors import SerializeError
from zmqpipeline.serialization.pack import (
    pack,
    unpack,
)


def test_numpy_arrives() -> None:
    """Arrays keep their type, shape and values; scalars keep their type; objects and masked arrays are refused."""
    import numpy

    arrays = [
        numpy.arange(6, dtype=">i4").reshape(2, 3),
        numpy.zeros((0, 3)),
        numpy.array(5.0),
        numpy.array(["a", "bc"]),
        numpy.array([(1, 2.0)], dtype=[("n", "i4"), ("x", "f8")]),
        numpy.asfortranarray(numpy.ones((2, 2), dtype=bool)),
        numpy.array(["2024-01-01"], dtype="datetime64[D]"),
    ]
    for sent in arrays:
        found = unpack(pack({"a": [sent]}))["a"][0]
        assert (type(found), found.dtype, found.shape) == (type(sent), sent.dtype, sent.shape)
        assert numpy.array_equal(found, sent)
        assert found.flags.writeable
    for scalar in (numpy.int64(5), numpy.float32(1.5), numpy.bool_(True), numpy.datetime64("2024-01-01")):
        assert same(unpack(pack(scalar)), scalar)
    assert same(unpack(pack(numpy.float64(1.5))), 1.5)
    for bad in (numpy.array([Foo()]), numpy.ma.masked_array([1], mask=[True])):
        with pytest.raises(SerializeError, match=r"`\$\.x` is an? "):
            pack({"x": bad})


def test_damaged_numpy_arrays_are_refused() -> None:
    """An array whose header is cut, no Python literal, or wants more memory than there is, is a SerializeError."""
    import numpy

    frame = pack(numpy.zeros(4))
    for old, new in ((b"(4,)", b"(4,("), (b"'descr'", b",descr'"), (b"<f8", b"|O8")):
        assert old in frame
        with pytest.raises(SerializeError):
            unpack(frame.replace(old, new))
    with pytest.raises(SerializeError):
        unpack(frame.replace(b"(4,), }            ", b"(999999999999999,)}"))


def test_numpy_is_not_imported_unasked() -> None:
    """Packing and unpacking plain values never imports numpy; seen in a process of its own."""
    source = """
import sys
from zmqpipeline.serialization.pack import pack, unpack
unpack(pack({"a": [1, (2,)]}))
try:
    pack(object())
except TypeError:
    print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
