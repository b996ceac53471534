"""The dataclass of messages: as the standard one, but compiled when first used, and frozen in the development mode."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import zmqpipeline
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dataclass import dataclass

CHANGE = """
from zmqpipeline.protocol import messages as m
said = m.RunEnded("run")
said.run = "another"
"""


def test_messages_are_equal_and_hashed_by_their_fields() -> None:
    """Two that say the same are one in a set; two that differ, or are of different kinds, are not."""
    assert m.Bye("a") == m.Bye("a") != m.Bye("b")
    assert {m.Bye("a"), m.Bye("a"), m.Bye("b"), m.Recall("a", "A", 1)} == {
        m.Bye("a"),
        m.Bye("b"),
        m.Recall("a", "A", 1),
    }


@pytest.mark.processes
def test_the_development_mode_refuses_changes() -> None:
    """With -X dev a message is truly frozen; without, it is as cheap to make as any object."""
    strict = subprocess.run([sys.executable, "-X", "dev", "-c", CHANGE], capture_output=True, text=True, timeout=60)
    assert "FrozenInstanceError" in strict.stderr
    assert subprocess.run([sys.executable, "-c", CHANGE], capture_output=True, timeout=60).returncode == 0


def _kinds(make: Callable[..., Any]) -> tuple[type[Any], type[Any], type[Any]]:
    """Three classes with all that fields may say, made by this decorator."""

    @make
    class Counter:
        name: str
        step: int = 1
        seen: list[int] = dataclasses.field(default_factory=list)
        total: int = dataclasses.field(default=0, init=False)
        secret: str = dataclasses.field(default="", repr=False, kw_only=True)

        def __post_init__(self) -> None:
            self.total += self.step

    @make(frozen=True, slots=True)
    class Place:
        x: int
        y: int = 0
        rest: dict[str, int] = dataclasses.field(default_factory=dict, init=False)

    @make(eq=False, kw_only=True)
    class Door:
        number: int
        is_open: bool = False

    return Counter, Place, Door


@pytest.fixture
def both() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The classes as the package makes them, and as the standard library does; a type checker knows only that one."""
    return _kinds(dataclass), _kinds(dataclasses.dataclass)


CALLS = (
    (0, ("a",), {}),
    (0, ("a", 2, [3]), {"secret": "s"}),
    (0, ("a", 2, [3], "s"), {}),
    (0, (), {"step": 2}),
    (0, ("a",), {"total": 4}),
    (1, (1,), {}),
    (1, (), {"y": 2, "x": 1}),
    (1, (1, 2, {}), {}),
    (2, (1,), {}),
    (2, (), {"number": 1}),
)


@pytest.mark.parametrize("call", CALLS)
def test_instances_are_made_as_by_the_standard_library(
    both: tuple[tuple[Any, ...], tuple[Any, ...]], call: tuple[int, tuple[Any, ...], dict[str, Any]]
) -> None:
    """Fields, defaults and errors are the same: of the first instance, which compiles, and of the next one."""
    which, values, named = call

    def tried(cls: Any) -> object:
        try:
            one = cls(*values, **named)
        except TypeError as error:
            return str(error)
        return repr(one), {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}

    ours, theirs = both[0][which], both[1][which]
    assert tried(ours) == tried(ours) == tried(theirs)
    assert [(one.name, one.kind) for one in inspect.signature(ours.__init__).parameters.values()] == [
        (one.name, one.kind) for one in inspect.signature(theirs.__init__).parameters.values()
    ]


def test_each_kind_compares_hashes_and_copies_as_by_the_standard_library(
    both: tuple[tuple[Any, ...], tuple[Any, ...]],
) -> None:
    """Those that change have no hash; those without eq are equal to themselves only; defaults are no one's own."""
    for counter, place, door in both:
        assert counter("a") == counter("a") != counter("b")
        assert counter("a").seen is not counter("a").seen
        with pytest.raises(TypeError, match="unhashable"):
            hash(counter("a"))
        assert place(1) == place(1) != place(1, 1)
        assert door(number=1) != door(number=1)
        assert len({door(number=1), door(number=1)}) == 2
        assert dataclasses.replace(counter("a"), step=3).total == 3
        assert copy.deepcopy(counter("a", 2)) == counter("a", 2)
        assert not hasattr(place(1), "__dict__")


def test_a_class_below_one_that_has_had_no_instance_is_made_by_the_same_init() -> None:
    """Be it a plain class or has it fields of its own."""

    @dataclass
    class Base:
        a: int
        b: list[int] = dataclasses.field(default_factory=list)

    class Plain(Base):
        pass

    @dataclass
    class Wider(Base):
        c: int = 3

    assert (Wider(1).c, Wider(1, [2], 4).b, Plain(1).a, Base(5).a) == (3, [2], 1, 5)
    assert Plain.__init__ is Base.__init__


def test_threads_that_make_the_first_instances_at_once_all_get_them() -> None:
    """Each of them may compile, and none sees half of it."""
    for _ in range(50):

        @dataclass(frozen=True, slots=True)
        class One:
            a: int
            b: int = 2

        start, made = threading.Barrier(8), []

        def first(number: int, one: Any = One, start: threading.Barrier = start, made: list[Any] = made) -> None:
            start.wait()
            made.append(one(number))

        threads = [threading.Thread(target=first, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted((one.a, one.b) for one in made) == [(number, 2) for number in range(8)]


def test_no_class_has_fields_that_are_not_known_here() -> None:
    """Which compare or hash otherwise, or have a name that the compiled `__init__` uses itself."""
    found = 0
    for module in pkgutil.walk_packages(zmqpipeline.__path__, "zmqpipeline."):
        if module.name.endswith("__main__"):
            continue
        for one in vars(importlib.import_module(module.name)).values():
            if isinstance(one, type) and one.__module__ == module.name and dataclasses.is_dataclass(one):
                found += 1
                for field in dataclasses.fields(one):
                    assert (field.compare, field.hash) == (True, None), f"{one}: {field.name}"
                    assert not field.name.startswith(("_new", "_make_", "_default_")), f"{one}: {field.name}"
                    assert field.name != "self"
    assert found > 150
