"""The text of `check` and `graph`: roles with addresses, tasks with arrows, and names that break no drawing."""

from __future__ import annotations

import pytest

from zmqpipeline import Options, Pipeline, SingleThreadedWorker, TaskType
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.cli.describe import describe, dot, mermaid
from zmqpipeline.errors import ConfigurationError

PLACE = "tcp://127.0.0.1:5550"


@pytest.fixture
def app() -> Pipeline:
    """Two tasks in a row, one beside them, and a service."""
    app = Pipeline("draw")
    app.add_task("A", lambda: None, total=90)
    app.add_task("B", lambda: None, depends_on=["A"])
    app.add_task('C "x" <b>', lambda: None, times=1)
    for name, threads in (("A", 10), ("B", 1), ('C "x" <b>', 1)):
        app.add_worker(name, lambda data: data, threads=threads)
    app.add_service("upper", lambda data: data, threads=2)
    return app


def test_a_mermaid_flowchart(app: Pipeline) -> None:
    """Each task with its items and threads; bold arrows for the order, thin ones for results."""
    assert mermaid(app) == [
        "---",
        'title: "draw"',
        "---",
        "flowchart LR",
        '    task0["A<br/>90 items<br/>10 threads a worker"]',
        '    task1["B<br/>1 thread a worker"]',
        '    task2["C #34;x#34; #60;b#62;<br/>1 item<br/>1 thread a worker"]',
        '    collector(["collector"])',
        '    service0{{"service upper<br/>2 threads a worker"}}',
        "    task0 ==>|then| task1",
        "    task0 --> collector",
        "    task1 --> collector",
        "    task2 --> collector",
    ]


def test_a_graphviz_drawing(app: Pipeline) -> None:
    """The same boxes and arrows, with what means something to Graphviz escaped."""
    lines = dot(app)
    assert lines[:2] == ['digraph "draw" {', "    rankdir=LR;"]
    assert r'    task2 [shape=box, label="C \"x\" <b>\n1 item\n1 thread a worker"];' in lines
    assert "    task0 -> task1 [style=bold, label=then];" in lines
    assert lines[-1] == "}"


def test_check_tells_all_roles(app: Pipeline) -> None:
    """Where each role binds or connects, and in which order the tasks come."""
    lines = describe(app, Options(endpoint=PLACE))
    assert lines == [
        f"Pipeline 'draw' at {PLACE}",
        f"distributor  {PLACE}, tcp://127.0.0.1:5554 (status)",
        *(f"worker {name}  {PLACE}, tcp://127.0.0.1:5551" for name in ("A", "B", 'C "x" <b>')),
        "collector  tcp://127.0.0.1:5551, tcp://127.0.0.1:5552",
        "service  tcp://127.0.0.1:5555, tcp://127.0.0.1:5556",
        "service worker upper  tcp://127.0.0.1:5556",
        'tasks in order: A; B after A; C "x" <b>',
    ]


def test_check_makes_each_role() -> None:
    """A worker class that cannot be made is found before anything runs."""
    TaskType.register_type("Nap")

    class Sleeper(SingleThreadedWorker):
        task_type = TaskType("Nap")
        endpoint = EndpointAddress(PLACE)
        collector_endpoint = EndpointAddress("tcp://127.0.0.1:5551")

        def __init__(self) -> None:
            raise ConfigurationError("no bed")

        def handle_execution(self, data: dict[str, object], *args: object) -> dict[str, object]:
            """Never called."""
            return data

    app = Pipeline("naps")
    app.add_task("Nap", lambda: None)
    app.register(Sleeper)
    app.add_collector(lambda data: None)
    with pytest.raises(ConfigurationError, match="no bed"):
        describe(app, Options())


def test_stages_have_arrows_of_their_own() -> None:
    """What feeds a task, what it waits for, and which results go to a collector's function."""
    app = Pipeline("stages")
    app.add_task("A", lambda: None)
    app.add_task("B", for_each=["A", "B"], key="n", first=[{"n": 1}])
    app.add_task("C", for_each="B", depends_on=["A"])
    for name in "ABC":
        app.add_worker(name, dict)
    assert mermaid(app)[4:] == [
        '    task0["A<br/>1 thread a worker"]',
        '    task1["B<br/>has first items<br/>1 thread a worker"]',
        '    task2["C<br/>1 thread a worker"]',
        '    collector(["collector"])',
        "    task0 -->|each| task1",
        "    task1 -->|each| task1",
        "    task0 ==>|then| task2",
        "    task1 -->|each| task2",
        "    task2 --> collector",
    ]
    assert "    task1 -> task2 [label=each];" in dot(app)
    assert describe(app, Options(endpoint=PLACE))[-1] == "tasks in order: A; B for each A, B; C for each B after A"
    app = Pipeline("gathered")
    app.add_task("A", lambda: None)
    app.add_task("B", for_each="A")
    app.add_task("C", lambda parent, results: None, for_each="B", gather="A")
    for name in "ABC":
        app.add_worker(name, dict)
    assert mermaid(app)[-4:] == [
        "    task0 -->|each| task1",
        "    task1 -->|gather| task2",
        "    task0 -.->|parent| task2",
        "    task2 --> collector",
    ]
    assert "    task0 -> task2 [style=dashed, label=parent];" in dot(app)
    assert describe(app, Options(endpoint=PLACE))[-1] == "tasks in order: A; B for each A; C for each B gathered by A"
    app = Pipeline("collected")
    app.add_task("A", lambda: None)
    app.add_task("B", for_each="A")
    app.add_collector(print, "A")
    for name in "AB":
        app.add_worker(name, dict)
    assert mermaid(app)[-2:] == ["    task0 --> collector", "    task1 --> collector"]
