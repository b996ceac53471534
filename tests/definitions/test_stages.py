"""Tasks whose items are made of results: what is refused, and by which letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.errors import DependencyError, RegistrationError


def passing(data: dict[str, Any]) -> dict[str, Any]:
    """A worker, or what makes an item of a result."""
    return data


def source() -> Iterator[dict[str, Any]]:
    """Items of their own."""
    yield {"n": 1}


def app_of(**tasks: dict[str, Any]) -> Pipeline:
    """An app of these tasks, each with its keywords; one without `for_each` has a source."""
    app = Pipeline("stages")
    for name, keywords in tasks.items():
        app.add_task(name, None if "for_each" in keywords else source, **keywords)
        app.add_worker(name, passing)
    return app


def refusal(app: Pipeline, kind: type[Exception] = DependencyError) -> str:
    """Why this app is refused."""
    with pytest.raises(kind) as caught:
        app.check()
    return str(caught.value)


def test_a_stage_comes_after_what_feeds_it() -> None:
    """In the order that `check` shows, whatever the order of registration."""
    app = app_of(C={"for_each": ["B"]}, B={"for_each": "A"}, A={})
    assert app.check() == ["A", "B", "C"]


def test_an_unknown_feeder_is_named() -> None:
    """With the tasks that there are."""
    said = refusal(app_of(A={}, B={"for_each": "AA"}))
    assert said == "Task 'B' is for each result of 'AA', which is no task. Known: 'A', 'B'. Did you mean 'A'?"


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        ({"P": {"for_each": "P", "first": [{}]}}, "'P' -> 'P'"),
        ({"P": {"for_each": "Q", "first": [{}]}, "Q": {"for_each": "P"}}, "'P' -> 'Q' -> 'P'"),
        (
            {
                "P": {"for_each": ["R", "P"], "first": [{}], "key": "n"},
                "Q": {"for_each": ["P", "R"]},
                "R": {"for_each": "Q"},
            },
            "'Q' -> 'R' -> 'Q'",
        ),
    ],
    ids=["itself", "two", "beside one with a key"],
)
def test_a_circle_without_a_key_is_refused(tasks: dict[str, dict[str, Any]], path: str) -> None:
    """With its path: nothing would end it. One key in each circle is enough."""
    said = refusal(app_of(**tasks))
    assert path in said
    assert "Write key= for one of these tasks" in said


def test_one_key_is_enough_for_a_circle() -> None:
    """All of it goes through that task."""
    app_of(P={"for_each": "Q", "first": [{}], "key": "n"}, Q={"for_each": "P"}).check()
    app_of(A={}, P={"for_each": ["P", "A"], "key": "n"}).check()


def test_a_circle_without_a_first_item_is_refused() -> None:
    """It would end before it began."""
    said = refusal(app_of(P={"for_each": "Q", "key": "n"}, Q={"for_each": "P"}))
    assert "has only the items that its own results give: 'P' -> 'Q' -> 'P'" in said
    assert "first=[...]" in said


def test_whoever_waits_for_what_it_feeds_is_refused() -> None:
    """Directly or by others: neither could begin."""
    said = refusal(app_of(A={"depends_on": ["C"]}, B={"for_each": "A"}, C={"for_each": "B"}))
    assert "'A' -> 'C' -> 'B' -> 'A'" in said


def test_a_stage_may_wait_for_what_feeds_it() -> None:
    """Its items are kept meanwhile."""
    assert app_of(A={}, B={"for_each": "A", "depends_on": ["A"]}).check() == ["A", "B"]


BAD: dict[str, tuple[Callable[[Pipeline], Any], str]] = {
    "no function": (lambda app: app.add_task("B"), "has no for_each=, and it has no function"),
    "first alone": (lambda app: app.add_task("B", source, first=[{}]), "has no for_each=, and it has first="),
    "times": (lambda app: app.add_task("B", passing, for_each="A", times=3), "has for_each= and times="),
    "a name that nobody provides": (
        lambda app: app.add_task("B", lambda data, colour: data, for_each="A"),
        "takes a parameter 'colour', which nobody provides. Its first parameter is the result.",
    ),
    "no parameter": (lambda app: app.add_task("B", source, for_each="A"), "Its first one is the result: give it one"),
    "an iterator": (
        lambda app: app.add_task("B", for_each="B", first=iter([{}]), key="n"),
        "first must be a list, or a function that gives items (an iterator could be read only once)",
    ),
    "gather alone": (
        lambda app: app.add_task("C", source, gather="A"),
        "has gather= and no for_each=. With for_each='B', gather='A' a function is called with a result of 'A' and",
    ),
    "gather without a function": (
        lambda app: app.add_task("C", for_each="B", gather="A"),
        "Task 'C' has gather= and no function.",
    ),
    "gather with one parameter": (
        lambda app: app.add_task("C", passing, for_each="B", gather="A"),
        "takes one parameter, the result of the parent. Its second one is the list of results that came of it: give it",
    ),
    "gather with a name that nobody provides": (
        lambda app: app.add_task("C", lambda parent, results, colour: None, for_each="B", gather="A"),
        "Its second one is the list of results that came of it. Names that have a meaning there: metadata, task_type, "
        "number, attempt, depth, failures.",
    ),
    "first with a parameter": (
        lambda app: app.add_task("B", for_each="B", first=passing, key="n"),
        "takes a parameter 'data', which nobody provides",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_makes_no_sense_is_refused_when_it_is_written(what: str) -> None:
    """Each by a letter that says what to write."""
    call, said = BAD[what]
    with pytest.raises(RegistrationError) as caught:
        call(Pipeline("bad"))
    assert said in str(caught.value)


def test_what_is_gathered_in_a_circle_is_refused_by_the_app() -> None:
    """With the path, before anything else is said of the circle."""
    app = app_of(A={}, B={"for_each": ["A", "B"], "key": "n"})
    app.add_task("C", lambda parent, results: None, for_each="B", gather="A")
    app.add_worker("C", passing)
    assert "inside of a circle: 'B' -> 'B'." in refusal(app)


def test_a_stage_has_no_gate() -> None:
    """It is asked before a source makes an item; these are made by results."""
    app = app_of(A={}, B={"for_each": "A"})
    app.add_available("B", lambda ack_data: True)
    assert "Take it out, or put it on that task" in refusal(app, RegistrationError)
