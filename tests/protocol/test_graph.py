"""Dependencies: the order of tasks, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.errors import DependencyError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec, order


def specs(**needs: str) -> list[TaskSpec]:
    """Tasks of one letter each, with the letters they depend on."""
    return [TaskSpec(name, depends_on=tuple(letters)) for name, letters in needs.items()]


def test_independent_tasks_keep_the_order_given() -> None:
    """Where nothing depends on anything, the order is the one of the declarations."""
    assert order(specs(C="", A="", B="")) == ["C", "A", "B"]


def test_a_diamond_is_ordered_from_its_root() -> None:
    """Each task comes after all that it depends on, over several levels."""
    found = order(specs(D="BC", B="A", C="A", A=""))
    assert found.index("A") < min(found.index("B"), found.index("C")) < found.index("D")
    assert found[-1] == "D"


def test_a_circle_is_refused_with_its_path() -> None:
    """The error shows the way around, and leaves out what only leads to it."""
    with pytest.raises(DependencyError, match="'A' -> 'B' -> 'C' -> 'A'") as caught:
        order(specs(X="A", A="B", B="C", C="A"))
    assert "'X'" not in str(caught.value)


def test_a_task_that_depends_on_itself_is_a_circle() -> None:
    """The shortest circle is one."""
    with pytest.raises(DependencyError, match="circle: 'A' -> 'A'"):
        order(specs(A="A"))


def test_an_unknown_dependency_is_refused_with_the_likely_spelling() -> None:
    """The error names who depends on what, lists the known tasks, and guesses."""
    tasks = [TaskSpec("resize"), TaskSpec("upload", depends_on=("rezise",))]
    with pytest.raises(DependencyError) as caught:
        order(tasks)
    text = str(caught.value)
    assert "'upload' depends on 'rezise'" in text
    assert "Known: 'resize', 'upload'" in text
    assert "Did you mean 'resize'?" in text


@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_graph_without_circles_is_ordered(needs: list[set[int]], rng: object) -> None:
    """However the tasks are declared, each comes once, after what it depends on."""
    tasks = [TaskSpec(str(i), depends_on=tuple(str(j) for j in sorted(ones) if j < i)) for i, ones in enumerate(needs)]
    rng.shuffle(tasks)  # type: ignore[attr-defined]
    found = order(tasks)
    assert sorted(found) == sorted(one.task_type for one in tasks)
    for task in tasks:
        assert all(found.index(name) < found.index(task.task_type) for name in task.depends_on)
