"""Mistakes that a type checker must find: one in each line that says so, none elsewhere. Never run."""

from __future__ import annotations

from collections.abc import Iterator

from zmqpipeline import EndpointAddress, Pipeline, SingleThreadedWorker, TaskType, events
from zmqpipeline.pytest_plugin import RunPipeline
from zmqpipeline.testing import SimulatedPipeline

app = Pipeline("mistakes", endpont="ipc://folder")  # mistake: no such argument


@app.task("C", on_failed="abrot")  # mistake: neither abort nor continue
def numbers() -> Iterator[dict[str, int]]:
    """As it should be."""
    yield {"n": 1}


@app.task("D")  # mistake: items are dicts
def strings() -> Iterator[int]:
    """Not as it should be."""
    yield 1


@app.task("E")  # mistake: items are dicts
async def later() -> int:
    """Not as it should be."""
    return 1


@app.worker("C")
def square(data: dict[str, int]) -> dict[str, int]:
    """As it should be."""
    return {"square": data["n"] ** 2}


@app.worker("D")  # mistake: a result is a dict
def length(data: dict[str, int]) -> int:
    """Not as it should be."""
    return len(data)


@app.on(events.ItemSent)  # mistake: it is called with other events
def count(event: events.ItemFailed) -> None:
    """Not as it should be."""


app.on("ItemSent")  # mistake: a type
square("text")  # mistake: the decorated function takes a dict
square({"n": 1}).append(1)  # mistake: it returns one
app.run(workers=2.5)  # mistake: a number, a range, or a dict
app.task(5)  # mistake: a name
app.task("F", retires=3)  # mistake: it is retries
app.add_task("F", numbers, depend_on=["C"])  # mistake: it is depends_on
app.add_task("F", numbers, times="3")  # mistake: a number
app.add_worker("F", square, thread=2)  # mistake: it is threads
app.add_worker("G", square, concurrency="2")  # mistake: a number
app.task("G", backoff="1")  # mistake: seconds are a number
app.task("G", depends_on=[1])  # mistake: names of tasks
app.task("G", for_each="A", gather=["A"])  # mistake: one name
app.add_task("G", numbers, rate=5)  # mistake: a text with the unit
app.add_task("G", for_each="C", rate="1/s", rate_by=["host"])  # mistake: one field
app.worker("G", max_memory=2.5)  # mistake: bytes, or a text
app.service("upper", init_timeout="60")  # mistake: seconds are a number
app.add_service("upper", square, idempotent=True, treads=2)  # mistake: it is threads


class Worker(SingleThreadedWorker):
    """Its endpoint is no text."""

    task_type = TaskType("C")
    endpoint = 5550  # mistake: a str or an EndpointAddress
    collector_endpoint = EndpointAddress("ipc://collector.ipc")

    def handle_execution(self, data: dict[str, int]) -> dict[str, int]:
        """As it should be."""
        return data


Worker().handle_exection({})  # mistake: a letter is missing


def test_it(run_pipeline: RunPipeline) -> None:
    """The fixture knows what it takes."""
    run_pipeline(app, worker=2)  # mistake: it is workers
    run_pipeline(app).result  # mistake: it is results # noqa: B018
    SimulatedPipeline(app)  # mistake: no seed
