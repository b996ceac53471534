"""Observers of an app: what `@app.on` takes, and what they are told of a test run."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import pytest

from zmqpipeline import Options, Pipeline, events
from zmqpipeline.errors import RegistrationError
from zmqpipeline.testing import serving

KINDS = [one for one in vars(events).values() if isinstance(one, type) and issubclass(one, events.Event)]
COUNT = 60


def make(**options: Any) -> Pipeline:
    """Sixty items: five raise once, two always."""
    app = Pipeline("observed", options=Options(**options))

    @app.task("C", retries=1, backoff=0.01)
    def numbers() -> Any:
        return ({"n": n} for n in range(COUNT))

    @app.worker("C", threads=2)
    def work(data: dict[str, int], attempt: int) -> dict[str, int]:
        if data["n"] < 2 or (data["n"] < 7 and attempt == 1):
            raise ValueError(f"no {data['n']}")
        return data

    @app.task("D", depends_on=["C"], on_failed="continue")
    def after() -> Any:
        return [{"n": 1}]

    app.add_worker("D", lambda data: data)

    @app.collector
    def collect(data: dict[str, int]) -> None:
        pass

    return app


def test_a_test_run_is_told_in_full() -> None:
    """The sums of the events are the numbers of the summary; each item is collected or failed once."""
    app, seen = make(), []

    @app.on(events.Event)
    def note(event: events.Event) -> None:
        seen.append(event)

    summary = app.test_run(raise_failures=False).summary
    totals: Counter[tuple[str, str]] = Counter()
    items: dict[str, list[int]] = {}
    for event in seen:
        if isinstance(event, events.ItemEvent):
            kind = type(event).__name__
            totals[kind, event.task] += event.count
            if event.task == "C":
                items.setdefault(kind, []).extend(n for one in event.items for n in range(*one))
    assert sorted(items["ItemCollected"]) == list(range(2, COUNT))
    assert sorted(items["ItemFailed"]) == [0, 1]
    assert sorted(items["ItemAcknowledged"]) == list(range(COUNT))
    assert sorted(items["ItemRetried"]) == list(range(7))
    assert totals["ItemSent", "C"] == totals["ItemExecuted", "C"] == COUNT + 7
    assert {kind: count for (kind, task), count in totals.items() if task == "D"} == dict.fromkeys(
        ("ItemSent", "ItemExecuted", "ItemCollected", "ItemAcknowledged"), 1
    )
    assert summary.tasks["C"].collected == COUNT - 2
    told = Counter(type(one).__name__ for one in seen)
    assert (told["RoleUp"], told["RoleDown"]) == (4, 4)
    assert (told["WorkerJoined"], told["WorkerLeft"]) == (2, 2)
    assert not any(one.is_lost for one in seen if isinstance(one, events.WorkerLeft))
    over = {one.task: one for one in seen if isinstance(one, events.TaskOver)}
    assert (over["C"].state, over["C"].sent, over["C"].collected, over["C"].failed) == ("complete", COUNT, COUNT - 2, 2)
    assert [one.task for one in seen if isinstance(one, events.TaskStarted)] == ["C", "D"]
    (end,) = [one for one in seen if isinstance(one, events.RunOver)]
    assert (end.ok, end.collected, end.failed) == (False, COUNT - 1, 2)
    failed = [one for one in seen if isinstance(one, events.ItemFailed)]
    assert {(one.stage, one.error) for one in failed} == {("worker", "ValueError")}
    assert failed[-1].message.startswith("no ")
    executed = [one for one in seen if isinstance(one, events.ItemExecuted)]
    assert sum(one.failed for one in executed) == 9
    assert all(one.seconds > 0 for one in executed)
    assert {one.role for one in seen} == {"distributor", "worker", "collector"}


def test_a_function_is_called_with_what_it_asked_for() -> None:
    """By its type; the function stays what it was, and several may ask for one type."""
    app, seen = make(), []

    def note(event: events.ItemCollected) -> None:
        seen.append(type(event))

    assert app.on(events.ItemCollected)(note) is note
    app.add_on(events.ItemCollected, lambda event: seen.append("twin"))
    app.test_run(raise_failures=False)
    assert set(seen) == {events.ItemCollected, "twin"}
    assert seen.count("twin") == len(seen) / 2


def test_an_observer_that_raises_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once a role and kind, with where it is written."""
    app = make()

    @app.on(events.ItemEvent)
    def broken(event: events.ItemEvent) -> None:
        raise LookupError("no such counter")

    summary = app.test_run(raise_failures=False).summary
    assert summary.tasks["C"].collected == COUNT - 2
    said = [record.getMessage() for record in caplog.records if "raised LookupError" in record.getMessage()]
    assert 1 <= len(said) <= 4
    assert all(text.startswith("observer test_an_") and ".broken (tests/test_observe.py:" in text for text in said)


@pytest.mark.slow
def test_an_observer_that_blocks_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The run is over as ever; each role says that it did not wait."""
    app, go_on = make(), threading.Event()
    app.add_on(events.RoleUp, lambda event: go_on.wait(60))
    try:
        summary = app.test_run(raise_failures=False, timeout=60.0).summary
    finally:
        go_on.set()
    assert summary.tasks["C"].collected == COUNT - 2
    assert "The observers are not done 2 s after the end of the role" in caplog.text


def test_options_observe_too() -> None:
    """Each of them is called with every event."""
    seen: list[events.Event] = []
    make(observers=[seen.append]).test_run(raise_failures=False)
    assert {events.RoleUp, events.ItemSent, events.ItemCollected, events.RunOver} <= set(map(type, seen))


def test_services_tell_of_their_roles_and_of_what_is_executed() -> None:
    """A broker has no items of a run."""
    app, seen = Pipeline("service"), []
    app.add_service("upper", lambda data: data["text"].upper())
    app.add_on(events.Event, seen.append)
    with serving(app, "upper") as client:
        assert client.request({"text": "a"}, timeout=60) == "A"
    executed = [one for one in seen if isinstance(one, events.ItemExecuted)]
    assert [(one.task, one.count, one.role) for one in executed] == [("upper", 1, "serviceworker")]
    assert {one.role for one in seen if isinstance(one, events.RoleDown)} == {"service", "serviceworker"}


@pytest.mark.parametrize("given", ["ItemCollected", None, int, events.Event(time=0.0, role="")])
def test_what_is_no_type_of_event_is_refused(given: Any) -> None:
    """By the decorator and by its twin, with the names that there are."""
    app = Pipeline("wrong")
    for call in (lambda: app.on(given), lambda: app.add_on(given, print)):
        with pytest.raises(RegistrationError, match=r"`@app.on` needs a type of event.*ItemCollected"):
            call()


@pytest.mark.parametrize("function", [lambda: None, lambda event, metadata: None, 3])
def test_a_function_that_cannot_take_an_event_is_refused(function: Any) -> None:
    """As those of the other decorators."""
    with pytest.raises(RegistrationError, match="on"):
        Pipeline("wrong").add_on(events.Event, function)


def test_observers_are_registered_before_the_pipeline_runs() -> None:
    """As everything else."""
    app = make()
    app.freeze()
    with pytest.raises(RegistrationError, match="can no longer be used"):
        app.add_on(events.Event, print)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_records(kind: type[events.Event]) -> None:
    """Frozen, compared by value, and sent to another process if need be; what each is is in the module's table."""
    assert is_dataclass(kind)
    assert inspect.getdoc(kind)
    event = kind(**{one.name: 0 for one in fields(kind)})
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(FrozenInstanceError):
        event.time = 1.0  # type: ignore[misc]
    if kind not in (events.Event, events.ItemEvent):
        assert kind.__name__ in (events.__doc__ or "")


def test_a_run_without_observers_has_nothing_of_them() -> None:
    """Not a module is imported for them, so that nothing of theirs can run."""
    program = """
import sys, threading
from zmqpipeline import Options, Pipeline
app = Pipeline("plain")
app.add_task("C", lambda: [{"n": 1}])
app.add_worker("C", lambda data: data)
options = Options(endpoint="inproc://plain")
roles = [app.compile(role, options=options) for role in ("collector", "distributor", "worker")]
threads = [threading.Thread(target=role.run) for role in roles]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert roles[0].ok
print([name for name in sys.modules if name.startswith("zmqpipeline.") and "observ" in name or "recorder" in name])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
