"""Values arrive as they were sent, or are refused with the place in them that cannot be sent."""

from __future__ import annotations

import collections
import enum
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.values import Foo, same
from zmqpipeline.errors import PipelineError, SerializeError
from zmqpipeline.protocol.delivery.failures import in_a_line
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.serialization.pack import (
    MAX_DEPTH,
    METADATA_BYTES,
    check_depth,
    is_dict,
    opener,
    pack,
    pack_identity,
    pack_item,
    unpack,
    within_depth,
)

ZONES = [timezone.utc, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(seconds=1, microseconds=5))]

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(1 << 300), max_value=1 << 300),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.datetimes(timezones=st.one_of(st.none(), st.sampled_from(ZONES))),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
hashables = st.recursive(
    atoms, lambda inner: st.one_of(st.lists(inner).map(tuple), st.frozensets(inner, max_size=3)), max_leaves=5
)
values = st.recursive(
    st.one_of(atoms, st.sets(hashables, max_size=3), hashables),
    lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(hashables, inner)),
    max_leaves=20,
)


@pytest.mark.slow
@given(values)
def test_any_value_arrives_as_it_was_sent(value: Any) -> None:
    """Whatever is built of the listed types comes back equal, and of the same types."""
    assert same(unpack(pack(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        *(sign * (1 << bits) + delta for sign in (1, -1) for bits in (7, 31, 63, 64, 200) for delta in (-1, 0, 1)),
        Decimal("1E+3"),
        Decimal("-0"),
        Decimal("Infinity"),
        timedelta.max,
        timedelta.min,
        datetime.max,
        datetime.min,
        date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 0, 0, 1),
        datetime(2024, 2, 29, 12, tzinfo=timezone.utc),
        UUID(int=5),
        "\udcff\ud800",
        {"\udcff": "\U0001f600"},
        {1: "a", -1: "b", 1 << 70: "c", None: 1, 1.5: 2, b"x": 3, (1, (2,)): 4, frozenset({1}): 5},
        [(), [], set(), frozenset(), {}, "", b""],
        ((1, [2, (3, {4, (5,)})]),),
    ],
    ids=repr,
)
def test_values_at_the_edges(value: Any) -> None:
    """The values at which an encoding changes, and the oddest ones, arrive."""
    assert same(unpack(pack(value)), value)


def test_a_decimal_that_is_no_number_arrives() -> None:
    """The kinds of NaN are kept apart."""
    assert [str(each) for each in unpack(pack([Decimal("NaN"), Decimal("sNaN12"), float("nan")]))] == [
        "NaN",
        "sNaN12",
        "nan",
    ]


def test_a_datetime_keeps_its_zone_and_its_fold() -> None:
    """The second of two equal hours in autumn arrives as the second, in the same zone."""
    sent = datetime(2024, 10, 27, 2, 30, 0, 123456, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    found = unpack(pack(sent))
    assert (found, found.tzinfo, found.fold, found.utcoffset()) == (sent, sent.tzinfo, 1, timedelta(hours=1))
    assert unpack(pack(datetime(2024, 10, 27, 2, 30, fold=1))).fold == 1


def test_a_zone_that_is_unknown_here_becomes_its_offset() -> None:
    """A datetime of a zone that this machine does not know is still the same moment."""
    frame = pack(datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")))
    found = unpack(frame.replace(b"Europe/Berlin", b"Europe/Nowher"))
    assert found == datetime(2024, 7, 1, 10, tzinfo=timezone.utc)
    assert found.utcoffset() == timedelta(hours=2)


class Named(collections.namedtuple("Named", "x y")):
    """A named tuple."""


class Level(enum.IntEnum):
    """An int with a name."""

    HIGH = 3


class Colour(str, enum.Enum):
    """A str with a name."""

    RED = "red"


class Loud(str):
    """A str that shows itself otherwise."""

    def __str__(self) -> str:
        """Show something else."""
        return "LOUD"


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (collections.OrderedDict([("b", 1), ("a", 2)]), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (Named(1, [2]), (1, [2])),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (Loud("quiet"), "quiet"),
        (type("Big", (int,), {})(1 << 80), 1 << 80),
        (type("F", (float,), {})(1.5), 1.5),
        (type("B", (bytes,), {})(b"x"), b"x"),
        (type("L", (list,), {})([1]), [1]),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        ({Level.HIGH: Colour.RED}, {3: "red"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_arrives_as_its_plain_base(sent: Any, found: Any) -> None:
    """What only adds behaviour to a listed type is sent as that type."""
    assert same(unpack(pack(sent)), found)


def circle() -> list[Any]:
    """A list that contains a dict that contains the list."""
    value: list[Any] = [0]
    value.append({"back": value})
    return value


def nested(depth: int, kind: type = list) -> Any:
    """A container within a container, and so on."""
    value: Any = 0
    for _ in range(depth):
        value = kind([value])
    return value


@pytest.mark.parametrize(
    ("value", "hints"),
    [
        ({"result": {"when": Foo()}}, ["`$.result.when` is a Foo", "convert"]),
        (Foo(), ["`$` is a Foo"]),
        ({"a": [1, (2, Foo())]}, ["`$.a[1][1]` is a Foo"]),
        ({"odd key": {3: Foo()}}, ["`$['odd key'][3]` is a Foo"]),
        ({10**9000: {"": Foo()}}, ["`$[a int]['']` is a Foo"]),
        ({"a": {Foo(): 1}}, ["a key of `$.a` is a Foo"]),
        ({"a": {Foo()}}, ["`$.a{}` is a Foo"]),
        ({"a": (n for n in [])}, ["`$.a` is a generator", "list()"]),
        ({"a": 1j}, ["`$.a` is a complex"]),
        ({"a": len}, ["`$.a` is a builtin_function_or_method"]),
        ({"a": circle()}, ["`$.a[1].back` is `$.a` again", "circle"]),
        ({"a": nested(1100)}, [f"more than {MAX_DEPTH} levels"]),
        ({"a": nested(1100, tuple)}, [f"more than {MAX_DEPTH} levels"]),
        ({"a": nested(100_000)}, [f"more than {MAX_DEPTH} levels"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, hints: list[str]) -> None:
    """The error is a TypeError that names the key path, the type, and what to do, on one line that is not long."""
    with pytest.raises(SerializeError) as caught:
        pack(value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, PipelineError)
    for hint in hints:
        assert hint in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_what_is_nested_deeply_but_not_too_deeply_arrives(kind: type) -> None:
    """The allowed depth can be sent and read, whatever the containers."""
    depth = MAX_DEPTH if kind is list else MAX_DEPTH // 2
    frame = pack(nested(depth, kind))
    assert pack(unpack(frame)) == frame


def test_a_failure_leaves_nothing_behind() -> None:
    """After a value that was refused half-way the next one is packed as if nothing had been."""
    clean = pack({"a": 1})
    for bad in ({"a": "x" * 100, "b": Foo()}, nested(1100), circle()):
        with pytest.raises(SerializeError):
            pack(bad)
        assert pack({"a": 1}) == clean


def test_a_dict_that_another_thread_changes_is_named_as_such() -> None:
    """A value that changes while it is packed is an error that says so."""
    value: dict[Any, Any] = {}

    class Growing(list[int]):
        """A list that adds to the dict that holds it, whenever it is looked at."""

        def __iter__(self) -> Any:
            value[len(value)] = None
            return iter([1])

    value["a"] = Growing([1])
    with pytest.raises(SerializeError, match="changed while it was packed"):
        pack(value)


def test_threads_do_not_disturb_each_other() -> None:
    """Each thread has a packer of its own: many at once all read what they wrote."""
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait(60)
        value = {"n": number, "text": str(number) * 500, "pair": (number, {number})}
        wrong.extend(number for _ in range(500) if unpack(pack(value)) != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_large_values_arrive_and_their_buffer_is_let_go() -> None:
    """A value of some megabytes arrives, and small ones after it."""
    assert unpack(pack({"a": b"x" * 5_000_000})) == {"a": b"x" * 5_000_000}
    assert unpack(pack({"a": 1})) == {"a": 1}


good = pack({"a": (1, {2}), "t": datetime(2024, 1, 1), "d": Decimal(1), "u": UUID(int=1), "i": 1 << 80})


@pytest.mark.parametrize("length", range(len(good)))
def test_bytes_that_were_cut_off_are_refused(length: int) -> None:
    """No beginning of a packed value is taken for a value."""
    with pytest.raises(SerializeError):
        unpack(good[:length])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        good + b"\0",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xd9\x02\xff\xfe",
        b"\x81\x90\xc0",
        "text",
        None,
        *(msgpack.packb(msgpack.ExtType(code, b"x")) for code in range(4, 100)),
        msgpack.packb([msgpack.ExtType(2, b""), {}]),
        msgpack.packb(msgpack.ExtType(5, b"2024-01-01T00:00:00|1|../../etc/passwd\0")),
    ],
    ids=lambda frame: repr(frame)[:20],
)
def test_foreign_bytes_are_refused(frame: Any) -> None:
    """Bytes that `pack` did not make are a SerializeError and nothing else, or a value at worst."""
    if isinstance(frame, bytes) and frame[:2] == b"\xd4\x04":
        assert unpack(frame) == ord("x")
        return
    with pytest.raises(SerializeError):
        unpack(frame)


@given(st.binary())
def test_random_bytes_are_a_value_or_refused(frame: bytes) -> None:
    """Whatever the bytes, nothing but a SerializeError is raised."""
    try:
        unpack(frame)
    except SerializeError:
        return


@given(st.data())
def test_damaged_bytes_are_a_value_or_refused(data: st.DataObject) -> None:
    """One flipped byte in a value of many types raises nothing but a SerializeError."""
    frame = bytearray(good)
    frame[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpack(bytes(frame))
    except SerializeError:
        return


def test_items_are_dicts() -> None:
    """An item is a dict or a subclass of one; None is an empty one."""
    assert unpack(pack_item({"a": 1}, "f")) == {"a": 1}
    assert unpack(pack_item(collections.OrderedDict(a=1), "f")) == {"a": 1}
    assert unpack(pack_item(None, "f")) == {}


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([1], "worker function 'f' returned a list, which is no dict. Return a dict, or None"),
        ("text", "returned a str"),
        (7, "returned an int"),
        ({"result": {"when": Foo()}}, "worker function 'f' returned a dict that cannot be packed: `$.result.when` is"),
    ],
)
def test_what_is_no_item_is_refused_with_the_functions_name(value: Any, hint: str) -> None:
    """The error for an item says which function returned what, and where in it the trouble is."""
    with pytest.raises(SerializeError) as caught:
        pack_item(value, "worker function 'f'")
    assert hint in str(caught.value)


def loop_below(depth: int) -> dict[str, Any]:
    """A dict that holds itself, and that is so deep in others."""
    value: dict[str, Any] = {}
    value["itself"] = value
    for _ in range(depth):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (nested(100_000), "is nested more than 1000 levels deep"),
        ({"a": {"k" * 30: {"l" * 30: {"m" * 30: Foo()}}}}, "is a Foo. "),
        (loop_below(100), " again, a circle"),
    ],
)
def test_a_log_line_has_room_for_the_reason_behind_a_long_path(value: Any, reason: str) -> None:
    """The path is shown without its middle."""
    with pytest.raises(SerializeError, match=re.escape(reason)) as caught:
        pack_item({"value": value}, "The worker function 'compute' of task 'a' (deep.py:8)")
    assert reason in in_a_line(ErrorInfo("SerializeError", str(caught.value)))


IDENTITIES = """
from zmqpipeline.serialization.pack import pack_identity
words = ["w%d" % n for n in range(50)]
values = [set(words), frozenset(words), {"a": [{"b": set(words)}, (frozenset(words), 1)]}, dict.fromkeys(words), 7]
print([pack_identity(one).hex() for one in values])
"""


def test_an_identity_is_the_same_in_every_process() -> None:
    """Sets come in the order of hashes, which each process chooses anew; the sequence of a dict counts no more."""
    told = {
        subprocess.run(
            [sys.executable, "-c", IDENTITIES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    assert pack_identity({"a": 1, "b": {3, 2, 1}}) == pack_identity({"b": {1, 2, 3}, "a": 1})


def test_different_values_have_different_identities() -> None:
    """Types count, too, and so does the order of lists; plain values are as they are packed."""
    values: list[Any] = [
        1,
        "1",
        b"1",
        True,
        1.5,
        None,
        [1, 2],
        [2, 1],
        (1, 2),
        {1, 2},
        {1},
        {(1, 2)},
        {"a": 1},
        {"a": {1}},
    ]
    values += [[], (), {}, set(), {"set": []}, {"dict": []}, [{"a": 1}], {"a": [1]}]
    assert len({pack_identity(one) for one in values}) == len(values)
    assert pack_identity("key") == pack("key")


DEPTHS = [(1, 0), ("x", 0), ([], 1), ([1], 1), ({"a": [1]}, 2), ({(1, 2): 3}, 2), (([frozenset({(1,)})], {}), 4)]


@pytest.mark.parametrize(("value", "depth"), DEPTHS, ids=repr)
def test_the_depth_of_a_value_is_counted_by_its_containers(value: Any, depth: int) -> None:
    """Keys and members of sets count, too; one level less than it has is refused, and the limit is named."""
    assert check_depth(value, depth) is value
    if depth:
        with pytest.raises(SerializeError, match="max_depth"):
            check_depth(value, depth - 1)


def test_a_smaller_depth_is_asked_of_the_right_argument() -> None:
    """With the limit that packing has anyway the function is untouched."""
    assert within_depth(len, 1000) is len
    assert within_depth(lambda number, value: value, 2, at=1)(1, [[]]) == [[]]
    with pytest.raises(SerializeError, match="2 levels"):
        within_depth(lambda number, value: value, 2, at=1)(1, [[[]]])
    assert opener(1000) is unpack
    assert opener(1)(pack([1])) == [1]
    with pytest.raises(SerializeError, match="1 levels"):
        opener(1)(pack([[1]]))


def test_announced_lengths_take_no_room() -> None:
    """Arrays in arrays, each announcing as many elements as there are bytes, are refused without being built."""
    size = 1 << 20
    bomb = (b"\xdd" + size.to_bytes(4, "big")) * (size // 5)
    tracemalloc.start()
    try:
        with pytest.raises(SerializeError):
            unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < 20 * size
    finally:
        tracemalloc.stop()
    assert unpack(pack(list(range(100_000)))) == list(range(100_000))


def test_metadata_are_a_packed_dict_of_a_bounded_size() -> None:
    """Larger ones are refused where they are made, so that nobody opens what is larger."""
    assert is_dict(pack({"a": b"x" * 1000}))
    assert not is_dict(pack({"a": b"x" * METADATA_BYTES}))
    assert not is_dict(pack([1]))
    assert not is_dict(b"\xc1")


def test_a_coroutine_that_was_not_awaited_is_said_to_be_one() -> None:
    """It is closed, so that Python does not warn of it as well."""

    async def later() -> None:
        return None

    with pytest.raises(SerializeError, match="returned a coroutine, which was not awaited: write `return await"):
        pack_item(later(), "The worker function 'f'")
