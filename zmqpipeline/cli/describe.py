"""What an app is made of, as text: its roles with their addresses, and its tasks as a graph for Mermaid or Graphviz."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import making
from zmqpipeline.definitions.registry import ServiceEntry, TaskEntry, WorkerEntry
from zmqpipeline.options import Options
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.stages import inner_stages


def describe(app: Pipeline, options: Options) -> list[str]:
    """The roles with their addresses, and the order of the tasks, as lines for people. Each role is compiled first.

    Raises:
        ConfigurationError: the app does not fit together.
    """
    order = app.check()
    _compile_all(app, options)
    places = app.places(options)
    ways = [_way(app.registry.tasks[task].spec) for task in order]
    services = [f"service worker {name}  {places.service_workers}" for name in app.service_names]
    if services:
        services.insert(0, f"service  {places.clients}, {places.service_workers}")
    if not app.task_types:
        return [f"Pipeline {app.name!r} at {places.base}", *services]
    return [
        f"Pipeline {app.name!r} at {places.base}",
        f"distributor  {', '.join(dict.fromkeys(places.tasks.values()))}, {places.status} (status)",
        *(f"worker {task}  {places.tasks[task]}, {places.results}" for task in app.worker_types),
        f"collector  {places.results}, {places.acks}",
        *services,
        f"tasks in order: {'; '.join(ways)}",
    ]


def _way(spec: TaskSpec) -> str:
    """``C for each B after A``, of what that is; ``C for each B gathered by A`` of one that gathers."""
    fed = f" for each {', '.join(spec.for_each)}" if spec.for_each else ""
    after = f" after {', '.join(spec.depends_on)}" if spec.depends_on else ""
    by = f" gathered by {spec.gather}" if spec.gather else ""
    return f"{spec.task_type}{fed}{by}{after}"


def _compile_all(app: Pipeline, options: Options) -> None:
    """Make each role once, as its command would: what is wrong with one is found here."""
    if app.task_types:
        with making("distributor"):
            app.compile("distributor", options=options)
        with making("collector"):
            app.compile("collector", options=options)
    for task in app.worker_types:
        with making(f"worker of {task!r}"):
            app.compile("worker", task, options=options)
    for name in app.service_names:
        app.compile("service-worker", name, options=options)


# the graph ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A box of the drawing: a task with its worker, the collector, or a service. `lines` are its text."""

    name: str
    shape: str
    lines: tuple[str, ...]


def _nodes(app: Pipeline) -> Iterator[Node]:
    for index, (task, entry) in enumerate(app.registry.tasks.items()):
        yield Node(f"task{index}", "task", (task, *_about(entry, app.registry.workers.get(task))))
    if app.task_types:
        yield Node("collector", "collector", ("collector",))
    for index, (name, service) in enumerate(app.registry.services.items()):
        yield Node(f"service{index}", "service", (f"service {name}", _at_once(service)))


def _about(task: TaskEntry, worker: WorkerEntry | None) -> Iterator[str]:
    if task.first is not None:
        yield "has first items"
    if task.spec.total is not None:
        yield f"{task.spec.total} item{'' if task.spec.total == 1 else 's'}"
    if worker is not None:
        yield _at_once(worker)


def _at_once(entry: WorkerEntry | ServiceEntry) -> str:
    """How many calls of a worker's function go on at a time."""
    if isinstance(entry, WorkerEntry) and entry.cls is not None:
        cls = entry.cls
        if inspect.iscoroutinefunction(cls.handle_execution):
            return _calls(cls.concurrency or 100)
        return _threads(getattr(cls, "n_threads", 1))
    if entry.plan is not None and entry.plan.is_async:
        return _calls(entry.keywords["concurrency"])
    return _threads(entry.keywords["threads"])


def _calls(number: int) -> str:
    return f"{number} call{'' if number == 1 else 's'} at a time a worker"


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'} a worker"


def _arrows(app: Pipeline) -> Iterator[tuple[str, str, str]]:
    """From, to, and what that means.

    "then": the second waits; "each": a result becomes items; "gather": with others, by their "parent"; "": results go
    there.
    """
    names = {task: f"task{index}" for index, task in enumerate(app.registry.tasks)}
    for task, entry in app.registry.tasks.items():
        for needed in entry.spec.depends_on:
            yield names[needed], names[task], "then"
        for feeder in entry.spec.for_each:
            yield names[feeder], names[task], "gather" if entry.spec.gather else "each"
        if entry.spec.gather:
            yield names[entry.spec.gather], names[task], "parent"
    inner = inner_stages(entry.spec for entry in app.registry.tasks.values())
    for task, name in names.items():
        if task not in inner or task in app.registry.collectors or app.registry.collector_class is not None:
            yield name, "collector", ""


def graph_of(app: Pipeline) -> tuple[list[dict[str, str | list[str]]], list[tuple[str, str, str]]]:
    """What `mermaid` draws, as data: the boxes (id, task, shape, lines), and the arrows (from, to, how)."""
    boxes: list[dict[str, str | list[str]]] = []
    tasks = {f"task{index}": name for index, name in enumerate(app.registry.tasks)}
    for node in _nodes(app):
        name = tasks.get(node.name, "")
        lines = [*node.lines, *(["has a gate"] if name in app.registry.gates else [])]
        boxes.append({"id": node.name, "task": name, "shape": node.shape, "lines": lines})
    return boxes, list(_arrows(app))


_MERMAID = {
    "then": "==>|then|",
    "each": "-->|each|",
    "gather": "-->|gather|",
    "parent": "-.->|parent|",
    "": "-->",
}
_DOT = {
    "then": " [style=bold, label=then]",
    "each": " [label=each]",
    "gather": " [label=gather]",
    "parent": " [style=dashed, label=parent]",
    "": "",
}


def mermaid(app: Pipeline) -> list[str]:
    """The tasks, how they depend on each other and feed each other, the collector and the services, as a flowchart."""
    shapes = {"task": ("[", "]"), "collector": ("([", "])"), "service": ("{{", "}}")}
    lines = ["---", f"title: {json.dumps(app.name)}", "---", "flowchart LR"]
    for node in _nodes(app):
        begin, end = shapes[node.shape]
        lines.append(f'    {node.name}{begin}"{"<br/>".join(map(_for_mermaid, node.lines))}"{end}')
    lines += [f"    {one} {_MERMAID[how]} {other}" for one, other, how in _arrows(app)]
    return lines


def _for_mermaid(text: str) -> str:
    plain = " ".join(text.split())
    return "".join(one if one.isalnum() or one in " ._-/:()" else f"#{ord(one)};" for one in plain)


def dot(app: Pipeline) -> list[str]:
    """The same as `mermaid`, in the language of Graphviz."""
    shapes = {"task": "box", "collector": "ellipse", "service": "hexagon"}
    lines = [f"digraph {_for_dot(app.name)} {{", "    rankdir=LR;"]
    lines += [f"    {one.name} [shape={shapes[one.shape]}, label={_for_dot(*one.lines)}];" for one in _nodes(app)]
    for one, other, how in _arrows(app):
        lines.append(f"    {one} -> {other}{_DOT[how]};")
    return [*lines, "}"]


def _for_dot(*lines: str) -> str:
    """A string of Graphviz, in which only the quote and the backslash mean something."""
    text = "\\n".join(" ".join(line.split()).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{text}"'
