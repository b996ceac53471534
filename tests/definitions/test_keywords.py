"""Keywords of decorators and their twins that do not exist."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.definitions.keywords import CollectorKeywords, ServiceKeywords, TaskKeywords, WorkerKeywords, declared
from zmqpipeline.errors import RegistrationError

MISSPELT: dict[str, tuple[Callable[[Pipeline], Any], str]] = {
    "task": (lambda app: app.task("C", retires=3), "`app.task` takes no 'retires'. Did you mean 'retries'?"),  # type: ignore[arg-type, call-arg]
    "add_task": (lambda app: app.add_task("C", list, depend_on=["A"]), "Did you mean 'depends_on'?"),  # type: ignore[call-arg]
    "worker": (lambda app: app.worker("C", thread=2), "Did you mean 'threads'?"),  # type: ignore[call-arg]
    "add_worker": (lambda app: app.add_worker("C", dict, Threads=2), "Did you mean 'threads'?"),  # type: ignore[call-arg]
    "service": (lambda app: app.service("C", idempotant=True), "Did you mean 'idempotent'?"),  # type: ignore[call-arg]
    "add_service": (lambda app: app.add_service("C", dict, colour=1), "takes no 'colour'. It takes name, function, "),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("method", MISSPELT)
def test_a_misspelt_keyword_is_answered_with_the_right_one(method: str) -> None:
    """It is a configuration error, and a TypeError as Python's own; nothing is registered."""
    app = Pipeline("misspelt")
    call, said = MISSPELT[method]
    with pytest.raises(RegistrationError) as caught:
        call(app)
    assert said in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert not {*app.task_types, *app.registry.workers, *app.service_names}


def test_the_twins_take_the_same_keywords_with_the_same_defaults() -> None:
    """Also for whoever asks for the signature."""

    def keywords(method: Callable[..., Any]) -> list[inspect.Parameter]:
        parameters = inspect.signature(method).parameters.values()
        return [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]

    app = Pipeline("twins")
    for method, twin in ((app.task, app.add_task), (app.worker, app.add_worker), (app.service, app.add_service)):
        assert keywords(method) == keywords(twin)
        assert keywords(method)


WRONG: dict[type, dict[str, list[Any]]] = {
    TaskKeywords: {
        "depends_on": [3, [""], [None], None, [["A"]], b"A"],
        "for_each": [3, [""], [None], None, b"A"],
        "gather": [3, "", ["A"], b"A"],
        "first": [3, "seeds", b"seeds", {"url": "a"}],
        "times": [-1, "3", True, 1.5],
        "total": [-1, "3"],
        "key": [3, ["id"]],
        "retries": [-1, None, False],
        "backoff": [-0.1, "1", None, float("inf")],
        "timeout": [-1, "1", float("nan")],
        "crash_limit": [0, None],
        "rate": [5, "5", "5/d", "-1/s", "0/s", "x/s", "inf/s"],
        "rate_by": [3, "", ["host"], len],
        "limit": [0, "3", True],
        "on_failed": ["abrot", None],
        "endpoint": [5],
    },
    WorkerKeywords: {
        "threads": [0, "2", None],
        "concurrency": [0, "2", None],
        "batch": [0, "32", True],
        "init_timeout": [0, "60"],
        "max_items": [0, "7"],
        "max_memory": [0, "much"],
    },
    CollectorKeywords: {"batch": [0, "1000", True]},
    ServiceKeywords: {"threads": [0, None], "concurrency": [0], "idempotent": ["no", None], "init_timeout": [0]},
}
METHODS: dict[type, tuple[str, str]] = {
    TaskKeywords: ("task", "Task 'C'"),
    WorkerKeywords: ("worker", "The worker of task 'C'"),
    CollectorKeywords: ("collector", "The collector of task 'C'"),
    ServiceKeywords: ("service", "The service 'C'"),
}
CASES = [
    pytest.param(kind, name, value, id=f"{METHODS[kind][0]}-{name}-{value!r}")
    for kind, names in WRONG.items()
    for name, values in names.items()
    for value in values
]


@pytest.mark.parametrize("kind", METHODS)
def test_every_keyword_is_shown_with_its_type_its_default_and_its_meaning(kind: type) -> None:
    """By `help` and whatever else reads the signature, the types and the docstring of the decorator."""
    method = getattr(Pipeline, METHODS[kind][0])
    parameters, text = inspect.signature(method).parameters, inspect.getdoc(method) or ""
    assert list(declared(kind)) == list(WRONG[kind])
    for name, (hint, keyword) in declared(kind).items():
        assert parameters[name].default == keyword.default
        assert parameters[name].annotation == hint == get_type_hints(method)[name]
        assert f"    {name}: {keyword.meaning}" in " ".join(text.split()).replace(f" {name}: ", f"    {name}: ")
    assert "**" not in text
    assert max(map(len, text.splitlines())) <= 112


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_a_wrong_value_is_refused_by_the_name_of_its_keyword(kind: type, name: str, value: Any) -> None:
    """The text says whose it is, what it must be, and what was seen; nothing is registered."""
    app = Pipeline("wrong")
    method, whose = METHODS[kind]
    function: Any = lambda data=None: data  # noqa: E731
    given = (function, "C") if method == "collector" else ("C", function)
    with pytest.raises(RegistrationError) as caught:
        getattr(app, f"add_{method}")(*given, **{name: value})
    expected = declared(kind)[name][1].kind.expected
    assert str(caught.value) == f"{whose}: {name} must be {expected}, not {value!r}."
    assert not {*app.task_types, *app.registry.workers, *app.service_names}


def test_a_registered_function_has_all_of_its_keywords() -> None:
    """Those that were given, and the defaults of the others; one name of a task stands for a list of one."""
    app = Pipeline("all")
    app.add_task("A", list)
    app.add_task("B", list, depends_on="A")
    assert app.registry.tasks["B"].keywords["depends_on"] == ("A",)
    app.add_task("C", list, depends_on=(name for name in "AA"), retries=2)
    entry = app.registry.tasks["C"]
    assert set(entry.keywords) == set(declared(TaskKeywords))
    assert (entry.keywords["depends_on"], entry.keywords["retries"], entry.keywords["crash_limit"]) == (("A",), 2, 3)
    assert app.registry.tasks["A"].keywords["depends_on"] == ()
