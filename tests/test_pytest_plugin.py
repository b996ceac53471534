"""The pytest plugin: its fixtures run apps and services, and tell in good words what went wrong with them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from zmqpipeline import Options, Pipeline, ServiceClient
from zmqpipeline.errors import ConfigurationError, ServiceError, WorkerInitError
from zmqpipeline.pytest_plugin import RunPipeline, ServiceClientOf
from zmqpipeline.testing import Leftovers, serving

APP = """
import threading
from zmqpipeline import Options, Pipeline, ServiceClient

app = Pipeline("squares")
release = threading.Event()

@app.task("C")
def numbers():
    for n in range(10):
        yield {"n": n}

@app.worker("C", threads=2)
def square(data):
    if data["n"] == BAD:
        BREAK
    return {"n": data["n"], "square": data["n"] ** 2}

@app.task("D", depends_on=["C"])
def after():
    yield {}

@app.worker("D")
def work(data):
    return data

@app.service("upper")
def upper(data):
    return {"text": data["text"].upper()}
"""


@pytest.fixture
def write_app(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes `squares.py` for a session of its own, in which the item 3 does what is said."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def write(what: str, test: str) -> pytest.RunResult:
        pytester.makepyfile(squares=APP.replace("BAD", "3").replace("BREAK", what), test_it=test)
        return pytester.runpytest_subprocess("-p", "zmqpipeline.pytest_plugin", "-p", "no:cacheprovider", timeout=100)

    return write


def squares(count: int = 10) -> Pipeline:
    """A pipeline that squares so many numbers."""
    app = Pipeline("squares")
    app.add_task("C", lambda: [{"n": n} for n in range(count)])
    app.add_worker("C", lambda data: {"square": data["n"] ** 2})
    return app


def prices() -> Pipeline:
    """A pipeline that is nothing but a service."""
    app = Pipeline("prices")
    table = {"bread": 250}
    app.add_service("price", lambda data: {"cents": table[data["item"]]})
    return app


def test_run_pipeline_runs_an_app(run_pipeline: RunPipeline) -> None:
    """As often as a test likes, with the keywords of `test_run`."""
    app = squares()
    assert sorted(data["square"] for _, data in run_pipeline(app, workers=2).results) == [n * n for n in range(10)]
    assert run_pipeline(app, workers={"C": 1}, metadata={"a": 1}, timeout=60, raise_failures=False).summary.ok


def test_service_client_asks_a_service(service_client: ServiceClientOf) -> None:
    """Two of them at once; what the function raises comes as it does over a network."""
    client = service_client(prices(), "price", workers=2)
    assert client.request([{"item": "bread"}] * 3) == [{"cents": 250}] * 3
    assert service_client(prices()).request({"item": "bread"}) == {"cents": 250}
    with pytest.raises(ServiceError, match="KeyError: 'gold'"):
        client.request({"item": "gold"})


def test_a_service_that_does_not_exist_is_refused(service_client: ServiceClientOf) -> None:
    """With the names there are; nothing is left behind, as the fixture checks."""
    with pytest.raises(ConfigurationError, match=r"no service 'prize'.*Did you mean 'price'"):
        service_client(prices(), "prize")
    with pytest.raises(ConfigurationError, match="asks for 0 workers"):
        service_client(prices(), "price", workers=0)


def test_a_service_whose_init_raises_is_told_at_the_end() -> None:
    """The request gets no answer; then the cause is raised."""
    app = prices()
    app.add_worker_init("price", lambda: 1 / 0)
    with pytest.raises(WorkerInitError, match="ZeroDivisionError"), serving(app) as client:
        ask_and_await_the_end_of_the_worker(client)


def ask_and_await_the_end_of_the_worker(client: ServiceClient) -> None:
    """Send a request, of which the worker dies."""
    (worker,) = (one for one in threading.enumerate() if one.name == "worker of service 'price'")
    client.submit({"item": "bread"})
    worker.join(60)
    assert not worker.is_alive()


def test_a_failed_item_fails_the_test_with_the_users_own_traceback(write_app: Any) -> None:
    """The line of the user's function is shown, with the item; of the library's frames none."""
    result = write_app(
        "raise ValueError('three is bad')",
        "from squares import app\n\ndef test_it(run_pipeline):\n    run_pipeline(app)\n",
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*ItemFailed: An item of task 'C' failed (worker, 1 attempt): ValueError: three is bad",
            "*The item: {'n': 3}",
            "*def square(data):*",
            ">*raise ValueError('three is bad')",
            "*squares.py:*: ValueError",
        ]
    )
    assert "zmqpipeline/" not in text.split("FAILURES")[1]


@pytest.mark.parametrize("where", ["source", "init"])
def test_what_a_source_or_an_init_raises_is_shown_likewise(write_app: Any, where: str) -> None:
    """The line of the user's function is shown."""
    decorator = "@app.task('E')" if where == "source" else "@app.worker_init('C')"
    result = write_app(
        "pass",
        f"from squares import app\n\n{decorator}\ndef broken():\n    raise LookupError('here it is')\n"
        + ("app.add_worker('E', lambda data: data)\n" if where == "source" else "")
        + "def test_it(run_pipeline):\n    run_pipeline(app)\n",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*raise LookupError('here it is')", "*test_it.py:*: LookupError"])


@pytest.mark.slow
def test_a_hang_ends_with_what_every_role_waits_for(write_app: Any) -> None:
    """In time: the task that waits, the worker that executes, and the line of the function that hangs."""
    result = write_app(
        "release.wait(60)",
        "from squares import app, release\n\ndef test_it(run_pipeline):\n"
        "    try:\n        run_pipeline(app, timeout=5.0)\n    finally:\n        release.set()\n",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*PipelineTimeout: The test run was not over within 5 s. What each role waits for:",
            "*collector of a test run: waits for results",
            "*distributor of a test run: waits for its tasks",
            "*task 'C': 9 items done, 1 with workers, 0 to be handed out; its source has no more",
            "*task 'D' waits for 'C': 1 of 10 left",
            "*worker of 'C' of a test run: executes: 1 items begun or queued, 9 executed",
            "*worker of 'D' of a test run: waits for items; 0 executed",
            "*squares.py*in square",
            "*release.wait(60)",
        ]
    )


@pytest.mark.slow
def test_what_a_run_leaves_behind_is_an_error_of_the_test(write_app: Any) -> None:
    """A function that never returns keeps its thread: the fixture says which one, and where it is."""
    result = write_app(
        "release.wait(60)",
        "import pytest\nfrom squares import app\n\ndef test_it(run_pipeline):\n"
        "    with pytest.raises(TimeoutError):\n        run_pipeline(app, timeout=5.0)\n",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*The pipelines of this test have left something behind:",
            "*thread zmqpipeline-worker-*",
            "*release.wait(60)*",
        ]
    )


def test_leftovers_finds_sockets_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is open, and a file in the pipeline's private folder; nothing once they are gone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    leftovers = Leftovers()
    leftovers.watch_app("prices")
    app = prices()
    with app.client("price", options=Options(endpoint="inproc://left-behind")):
        found = leftovers.found(0.0)
    assert any(line == "the sockets of 1 role or client" for line in found), found
    app.places()
    (tmp_path / "zmqpipeline" / "prices" / "left.ipc").touch()
    (line,) = leftovers.found(1.0)
    assert line.endswith("zmqpipeline/prices/left.ipc")
    (tmp_path / "zmqpipeline" / "prices" / "left.ipc").unlink()
    assert leftovers.found() == []


def test_the_plugin_imports_nothing_heavy() -> None:
    """A session that uses no fixture of it pays next to nothing."""
    code = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport zmqpipeline.pytest_plugin\n"
        "print(sorted(one for one in set(sys.modules) - before if one.split('.')[0] != 'pytest'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    light = ["zmqpipeline", "zmqpipeline.pytest_plugin", "zmqpipeline.runtime"]
    assert done.stdout == f"{[*light, 'zmqpipeline.runtime.imports', 'zmqpipeline.runtime.process_start']}\n"


def test_the_entry_point_is_declared() -> None:
    """It has the name of the module, so that `-p` and `pytest_plugins` mean the same plugin."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert "[project.entry-points.pytest11]" in text
    assert '"zmqpipeline.pytest_plugin" = "zmqpipeline.pytest_plugin"' in text
