"""Keywords of decorators and their twins that do not exist."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from zmqpipeline import Pipeline
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
