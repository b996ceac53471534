"""Which results are gathered by what, what is refused, and how a group counts: the rules and the machine."""

from __future__ import annotations

import pytest

from tests.support.staged import Groups
from zmqpipeline.errors import DependencyError
from zmqpipeline.protocol.collection.gathering import Gathering, Parent, Span
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gathers import Gather, gathers


def specs_of(**tasks: tuple[str, ...]) -> dict[str, TaskSpec]:
    """Tasks with what feeds them; ``by=A`` among these says by which is gathered."""
    found = {}
    for name, feeders in tasks.items():
        by = [one.removeprefix("by=") for one in feeders if one.startswith("by=")]
        found[name] = TaskSpec(
            name, for_each=tuple(one for one in feeders if not one.startswith("by=")), gather=by[0] if by else ""
        )
    return found


@pytest.mark.parametrize(
    ("tasks", "members", "levels"),
    [
        ({"A": (), "B": ("A",), "C": ("B", "by=A")}, "B", 2),
        ({"A": (), "M": ("A",), "B": ("M",), "X": ("A",), "C": ("B", "by=A")}, "BM", 3),
        ({"A": (), "M": ("A",), "B": ("M", "A"), "C": ("B", "M", "by=A")}, "BM", 3),
        ({"A": ("A",), "B": ("A",), "C": ("B", "by=A")}, "B", 2),
        ({"A": (), "B": ("A",), "G": ("B", "by=A"), "D": ("G",), "C": ("D", "by=A")}, "GD", 4),
        ({"A": (), "L": ("L",), "B": ("A", "L"), "C": ("B", "by=A")}, "B", 2),
    ],
    ids=["two", "over two", "two ways", "by one in a circle", "what was gathered", "beside a circle"],
)
def test_members_are_on_the_ways(tasks: dict[str, tuple[str, ...]], members: str, levels: int) -> None:
    """Of what was gathered, the way leads to what began its groups."""
    gather = gathers(specs_of(**tasks))[-1]
    assert gather.members == frozenset(members)
    assert gather.levels == levels


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            {"A": (), "B": ("A",), "C": ("B", "by=AA")},
            "'AA', which is no task. Known: 'A', 'B', 'C'. Did you mean 'A'?",
        ),
        ({"A": (), "C": ("A", "by=A")}, "each group would be one result"),
        (
            {"A": (), "B": (), "X": ("A",), "C": ("B", "by=A")},
            "no item of 'B' comes of a result of 'A'. What is made of ",
        ),
        (
            {"A": (), "B": ("A",), "G": ("B", "by=A"), "C": ("G", "by=B")},
            "no item of 'G' comes of a result of 'B'. ('G' gathers: its items came of 'A'.)",
        ),
        ({"A": (), "B": ("A", "B"), "C": ("B", "by=A")}, "inside of a circle: 'B' -> 'B'."),
        ({"A": (), "M": ("A", "B"), "B": ("M",), "C": ("B", "by=A")}, "inside of a circle: 'B' -> 'M' -> 'B'."),
        ({"A": ("C",), "B": ("A",), "C": ("B", "by=A")}, "inside of a circle: 'C' -> 'A' -> 'B' -> 'C'."),
    ],
    ids=["unknown", "of itself", "unrelated", "of one within", "a loop between", "a circle between", "its own circle"],
)
def test_what_cannot_be_gathered_is_refused(tasks: dict[str, tuple[str, ...]], said: str) -> None:
    """With the path of a circle."""
    with pytest.raises(DependencyError) as caught:
        gathers(specs_of(**tasks))
    assert said in str(caught.value)


class Scene:
    """The machine over a store in memory; each group that is given makes so many items."""

    def __init__(self, makes: int = 1, **tasks: tuple[str, ...]) -> None:
        self.groups, self.makes = Groups(), makes
        self.given: list[tuple[str, int, list[tuple[str, int, bool]]]] = []
        self.counts: dict[str, int] = {}
        self.machine = Gathering(gathers(specs_of(**tasks)), self.groups, self.give)

    def give(self, gather: Gather, group: int) -> Span:
        """Note what it had."""
        self.given.append((gather.task, group, sorted(self.groups.kept[gather.task, group])))
        start = self.counts.get(gather.task, 0)
        self.counts[gather.task] = start + self.makes
        return start, start + self.makes

    def collect(self, task: str, number: int, **given: Span) -> None:
        """One more item, and what its result gave."""
        self.machine.collected(task, number, Parent(b"r"), given)


SIMPLE: dict[str, tuple[str, ...]] = {"A": (), "B": ("A",), "C": ("B", "by=A")}


def test_a_group_is_given_when_its_last_item_has_left() -> None:
    """Collected or failed; then nothing is kept of it."""
    scene = Scene(**SIMPLE)
    scene.collect("A", 0, B=(0, 3))
    scene.collect("A", 1, B=(3, 4))
    scene.collect("B", 2)
    scene.machine.failed("B", 0)
    assert scene.given == []
    scene.collect("B", 1)
    assert scene.given == [("C", 0, [("B", 0, False), ("B", 1, True), ("B", 2, True)])]
    assert scene.groups.open == {("C", 1): 1}
    scene.machine.failed("B", 3)
    assert scene.given[1:] == [("C", 1, [("B", 3, False)])]
    assert not scene.groups.open
    assert not scene.groups.kept


def test_a_parent_without_children_is_its_own_last() -> None:
    """Its group is empty; that of a failed one is none."""
    scene = Scene(**SIMPLE)
    scene.machine.failed("A", 0)
    scene.collect("A", 1, B=(0, 0))
    assert scene.given == [("C", 1, [])]


def test_an_item_that_comes_late_is_nobodys() -> None:
    """Its group was given, or it never had a parent here: nothing is given a second time."""
    scene = Scene(**SIMPLE)
    scene.collect("A", 0, B=(0, 1))
    scene.machine.failed("B", 0)
    scene.collect("B", 0)
    scene.collect("B", 7)
    assert [(task, group) for task, group, _ in scene.given] == [("C", 0)]


def test_a_group_waits_for_what_is_gathered_within_it() -> None:
    """G may still be made when nothing else is left: its items belong to the outer group."""
    scene = Scene(2, A=(), B=("A",), G=("B", "by=A"), D=("G",), C=("D", "by=A"))
    scene.collect("A", 0, B=(0, 1))
    scene.collect("B", 0)
    assert [task for task, *_ in scene.given] == ["G"]
    scene.collect("G", 0, D=(0, 0))
    assert len(scene.given) == 1
    scene.collect("G", 1, D=(0, 1))
    scene.collect("D", 0)
    assert scene.given[1] == ("C", 0, [("D", 0, True)])


def test_groups_within_that_give_nothing_complete_the_outer_one() -> None:
    """In the same step."""
    scene = Scene(0, A=(), B=("A",), G=("B", "by=A"), D=("G",), C=("D", "by=A"))
    scene.collect("A", 5, B=(0, 0))
    assert scene.given == [("G", 5, []), ("C", 5, [])]
    assert not scene.groups.open
