"""Arrays of numpy arrive as they were sent, and numpy is imported by nobody else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

from tests.support.values import Foo, same
from zmqpipeline.errors import SerializeError
from zmqpipeline.serialization.arrays import LARGE
from zmqpipeline.serialization.pack import pack, unpack, unpack_all
from zmqpipeline.serialization.types import RAW_ARRAY


def alike(found: Any, sent: Any) -> bool:
    """Whether these are the same, with equal arrays in the same places."""
    import numpy

    if isinstance(sent, numpy.ndarray):
        return found.dtype == sent.dtype and found.shape == sent.shape and numpy.array_equal(found, sent)
    if isinstance(sent, dict):
        return list(found) == list(sent) and all(alike(found[key], sent[key]) for key in sent)
    if isinstance(sent, (list, tuple)):
        return type(found) is type(sent) and len(found) == len(sent) and all(map(alike, found, sent))
    return same(found, sent)


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
        assert not found.flags.writeable
        assert found.flags.aligned
    for scalar in (numpy.int64(5), numpy.float32(1.5), numpy.bool_(True), numpy.datetime64("2024-01-01")):
        assert same(unpack(pack(scalar)), scalar)
    assert same(unpack(pack(numpy.float64(1.5))), 1.5)
    for bad in (numpy.array([Foo()]), numpy.ma.masked_array([1], mask=[True])):
        with pytest.raises(SerializeError, match=r"`\$\.x` is an? "):
            pack({"x": bad})


def test_damaged_numpy_arrays_are_refused() -> None:
    """An array whose header is cut, no Python literal, or wants more memory than there is, is a SerializeError."""
    import numpy

    frame = pack(numpy.zeros(4, dtype=[("x", "f8")]))
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


@pytest.mark.parametrize("size", [10, LARGE // 8, LARGE, 300_000])
@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed"])
def test_arrays_of_any_size_and_order_arrive(size: int, order: str) -> None:
    """Alone, in dicts, lists, tuples and records, several at once, beside other values."""
    import numpy

    array = numpy.arange(2 * size, dtype=numpy.float64).reshape(2, size)
    array = {"C": array, "F": numpy.asfortranarray(array), "strided": array[:, ::2], "reversed": array[::-1, ::-1]}[
        order
    ]

    @dataclass
    class Frame:
        name: str
        data: Any

    for value in (array, {"a": array}, [array, 1], (array, [array]), {"deep": {"er": ({"a": array}, "x")}, "n": 5}):
        assert alike(unpack(pack(value)), value)
    found = unpack(pack({"frame": Frame("f", array), "set": {1, 2}}))
    assert found["set"] == {1, 2}
    assert numpy.array_equal(found["frame"]["data"], array)
    assert unpack_all(pack(array) + pack(1), 2)[1] == 1


def test_an_array_is_not_copied_when_it_arrives() -> None:
    """It is a view of the bytes that came; what is packed is what msgpack would write."""
    import numpy

    array = numpy.arange(100_000, dtype=numpy.int32)
    packed = pack(array)
    assert msgpack.unpackb(packed) == msgpack.ExtType(RAW_ARRAY, packed[6:])
    found = unpack(packed)
    assert found.base is not None
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize("shape", [(3,), (300_000,)])
def test_objects_are_refused_with_what_to_do(shape: tuple[int, ...]) -> None:
    """Also within a structured type, and beside a large array: nothing of pickle is ever asked."""
    import numpy

    for dtype in (object, [("n", "i4"), ("o", object)]):
        with pytest.raises(SerializeError, match=r"`\$\.deep\[1\]` is a ndarray \(it holds objects.*astype\(float\)"):
            pack({"large": numpy.zeros(100_000), "deep": [1, numpy.zeros(shape, dtype=dtype)]})


RAW = [
    b"",
    b"\x00",
    b"\x01" + bytes(15),
    b"\x02" + bytes(15),
    *(
        b"\x02" + msgpack.packb(header).ljust(31, b"\0") + bytes(32)
        for header in (
            ["|O", [4], False],
            ["f8,O", [2], False],
            ["<f8", [5], False],
            ["<f8", [-4], False],
            ["<f8", [2**62, 2**62], False],
            ["<f8", [4.0], False],
            ["float64", [4], False],
            ["nonsense", [4], False],
            [8, [4], False],
            ["<f8", 4, False],
            ["<f8", [4]],
            {"a": 1},
            5,
        )
    ),
]


@pytest.mark.parametrize("data", RAW)
def test_headers_that_lie_are_refused(data: bytes) -> None:
    """None makes more than there is, or an array of objects."""
    with pytest.raises(SerializeError):
        unpack(msgpack.packb(msgpack.ExtType(RAW_ARRAY, data)))


def test_a_side_without_numpy_says_what_to_install() -> None:
    """In a process in which it cannot be imported."""
    import numpy

    source = f"""
import sys
sys.modules["numpy"] = None
from zmqpipeline.serialization.pack import unpack
try:
    unpack({pack(numpy.zeros(2))!r})
except TypeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert 'pip install "zmqpipeline[numpy]"' in done.stdout
