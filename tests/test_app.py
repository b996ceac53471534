"""Pipeline: decorators and their twins, what they refuse, addresses, and compile."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.roles import Rig
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, DependencyError, EndpointError, RegistrationError
from zmqpipeline.options import Options
from zmqpipeline.roles.collector import Collector
from zmqpipeline.roles.distributor import Distributor
from zmqpipeline.roles.metadata import MetaDataWorker
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import Worker, WorkerRunner


def one() -> Iterator[dict[str, Any]]:
    """A task function with one item."""
    yield {"n": 1}


def same(data: dict[str, Any]) -> dict[str, Any]:
    """A worker function."""
    return data


@pytest.fixture
def app() -> Pipeline:
    """A pipeline with one whole task, C, on inproc addresses."""
    made = Pipeline("test-app", endpoint="inproc://test-app")
    made.add_task("C", one)
    made.add_worker("C", same)
    return made


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine reaches a test; private folders are made in a folder of the test."""
    monkeypatch.delenv("ZMQPIPELINE_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_every_decorator_returns_the_function_as_it_was() -> None:
    """So it can be called in a unit test."""
    app = Pipeline("x")

    def nothing() -> None:
        return None

    def takes(data: Any) -> None:
        return None

    for decorator in (app.task("C"), app.worker_init("C"), app.thread_init("C"), app.finished, app.ack_data):
        assert decorator(nothing) is nothing
    for decorator in (app.worker("C", threads=2), app.available("C"), app.collector("C"), app.collector, app.failed):
        assert decorator(takes) is takes
    assert app.metadata(nothing) is nothing
    assert app.check() == ["C"]


def test_collector_may_be_called_without_a_task() -> None:
    """``@app.collector()`` is ``@app.collector``."""
    app = Pipeline("x")
    assert app.collector()(same) is same
    assert list(app.registry.collectors) == [""]


def test_twins_do_what_decorators_do() -> None:
    """Both ways make the same entries."""
    first, second = Pipeline("x"), Pipeline("x")
    first.task("C", retries=2, depends_on="B", times=4)(same_item)
    second.add_task("C", same_item, retries=2, depends_on=["B"], times=4)
    first.worker("C", threads=3)(same)
    second.add_worker("C", same, threads=3)
    for name, function in (("finished", same_item), ("metadata", same_item), ("ack_data", same_item), ("failed", same)):
        getattr(first, name)(function)
        getattr(second, f"add_{name}")(function)
    for name, function in (("worker_init", same_item), ("thread_init", same_item), ("available", same)):
        getattr(first, name)("C")(function)
        getattr(second, f"add_{name}")("C", function)
    first.collector("C")(same)
    second.add_collector(same, "C")
    assert first.registry == second.registry
    assert first.registry.tasks["C"].spec.total == 4


def same_item() -> dict[str, Any]:
    """A function without parameters."""
    return {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more"),
        ({"retries": 1.5}, "retries must be"),
        ({"times": -1}, "times must be"),
        ({"total": "10"}, "total must be"),
        ({"backoff": -0.1}, "backoff must be a number of seconds"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"crash_limit": 0}, "crash_limit must be a whole number, 1 or more"),
        ({"on_failed": "ignore"}, "on_failed must be 'abort' or 'continue'"),
        ({"key": 5}, "key must be a field's name or a callable"),
        ({"depends_on": [5]}, "depends_on must be a list of names"),
        ({"depends_on": None}, "depends_on must be a list of names"),
    ],
)
def test_a_wrong_option_of_a_task_is_named(options: dict[str, Any], expected: str) -> None:
    """With the task, what is allowed, and what was seen."""
    with pytest.raises(RegistrationError, match=f"Task 'C': {expected}"):
        Pipeline("x").task("C", **options)(same_item)


@pytest.mark.parametrize("name", ["", 5, None])
def test_a_task_needs_a_name(name: Any) -> None:
    """An empty name, none, or a function in its place (the decorator without brackets)."""
    with pytest.raises(RegistrationError, match="needs the name of a task"):
        Pipeline("x").task(name)


@pytest.mark.parametrize("decorator", ["task", "worker", "worker_init", "thread_init", "available"])
def test_a_decorator_without_brackets_says_what_to_write(decorator: str) -> None:
    """``@app.task`` alone would take the function for the name."""
    with pytest.raises(RegistrationError, match=rf"write `@app\.{decorator}\('NAME'\)`"):
        getattr(Pipeline("x"), decorator)(same)


def test_two_functions_in_one_place_are_refused_by_name(app: Pipeline) -> None:
    """For a task, a worker, the collector, and those of which there is one."""
    app.add_collector(same)
    app.add_finished(same_item)
    app.add_worker_init("C", same_item)
    other = lambda *args: None  # noqa: E731
    for add in (
        lambda: app.add_task("C", other),
        lambda: app.add_worker("C", other),
        lambda: app.add_collector(other),
        lambda: app.add_finished(other),
        lambda: app.add_worker_init("C", other),
    ):
        with pytest.raises(RegistrationError, match=r"has two functions: '\w+' and '.*lambda"):
            add()


@pytest.mark.parametrize(
    "use",
    [
        lambda app: app.task("D")(one),
        lambda app: app.worker("D")(same),
        lambda app: app.collector(same),
        lambda app: app.finished(same_item),
        lambda app: app.available("C")(same),
        lambda app: app.register(Rig().task),
    ],
)
def test_a_decorator_after_the_start_says_so(app: Pipeline, use: Any) -> None:
    """Compiling a role ends the set-up."""
    app.compile("collector")
    with pytest.raises(
        RegistrationError, match=r"can no longer be used: pipeline 'test-app' is already running\. Move it above"
    ):
        use(app)


def test_what_does_not_fit_together_is_found_by_check() -> None:
    """No task; no worker; a worker, a collector or a gate for no task; unknown and circular dependencies."""
    app = Pipeline("x")
    with pytest.raises(RegistrationError, match="Pipeline 'x' has no tasks"):
        app.check()
    app.add_task("Colour", one)
    with pytest.raises(RegistrationError, match=r"No worker for task 'Colour' .*\. Known: none\. Add .*@app\.worker"):
        app.check()
    app.add_worker("Color", same)
    with pytest.raises(RegistrationError, match=r"`@app\.worker\('Color'\)` .* Did you mean 'Colour'\?"):
        app.check()
    for add in ("add_available", "add_worker_init"):
        other = Pipeline("x")
        other.add_task("A", one)
        other.add_worker("A", same)
        getattr(other, add)("B", same if add == "add_available" else same_item)
        with pytest.raises(RegistrationError, match=r"'B'.*does not exist\. Known: 'A'"):
            other.check()
    unknown = Pipeline("x")
    unknown.add_task("A", one, depends_on=["Z"])
    with pytest.raises(DependencyError, match="'Z'"):
        unknown.check()
    unknown.add_task("Z", one, depends_on=["A"])
    with pytest.raises(DependencyError, match="'A' -> 'Z' -> 'A'"):
        unknown.check()


def test_check_gives_the_order_and_leaves_the_set_up_open(app: Pipeline) -> None:
    """Each task comes after what it depends on."""
    app.add_task("E", one, depends_on=["F"])
    app.add_task("F", one, depends_on="C")
    app.add_worker("E", same)
    app.add_worker("F", same)
    assert app.check() == ["C", "F", "E"]
    app.add_finished(same_item)
    assert app.task_types == ["C", "E", "F"]


@pytest.mark.parametrize("name", ["", "  ", 5])
def test_a_pipeline_needs_a_name(name: Any) -> None:
    """It names the folder and stands in messages."""
    with pytest.raises(ConfigurationError, match="name is a string"):
        Pipeline(name)


def test_a_bad_base_address_is_refused_at_once() -> None:
    """Not only when a role is compiled."""
    with pytest.raises(EndpointError):
        Pipeline("x", endpoint="tpc://x:1")


def test_the_module_of_the_app_is_remembered(app: Pipeline) -> None:
    """Child processes import it from there."""
    assert app.import_name == __name__


# addresses --------------------------------------------------------------------------------------------------------


def test_the_default_address_is_a_private_folder(tmp_path: Path) -> None:
    """In the user's runtime folder, named after the pipeline, for the owner alone."""
    places = Pipeline("squares").places()
    folder = tmp_path / "zmqpipeline" / "squares"
    assert places.results == f"ipc://{folder}/results.ipc"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_runtime_folder_it_is_in_the_temporary_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Named after the user, too, since others use that folder."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = Pipeline("squares").places().base
    assert base.startswith(f"ipc://{tmp_path}/zmqpipeline-")
    assert base.endswith("/squares")


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    """The error says which, and how to mend it."""
    folder = tmp_path / "zmqpipeline"
    folder.mkdir(mode=0o700)
    folder.chmod(0o755)
    with pytest.raises(EndpointError, match=rf"{folder}.*open to other users.*chmod 700"):
        Pipeline("squares").places()


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """Somebody else could have put it there."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "zmqpipeline").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EndpointError, match="not a folder of this user"):
        Pipeline("squares").places()


def test_two_names_never_share_a_folder() -> None:
    """Names that cannot be a folder's get a digest; a plain one stays plain."""
    names = ["a/b", "a_b", "a b", "..", "." * 40, "x" * 50, "x" * 51]
    folders = {Pipeline(name).places().base for name in names}
    assert len(folders) == len(names)
    assert all(Path(one.removeprefix("ipc://")).parent.name == "zmqpipeline" for one in folders)


def test_a_task_may_have_an_address_of_its_own_and_an_outer_base_beats_it(
    app: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag and variable beat arguments."""
    app.add_task("D", one, endpoint="inproc://mine")
    app.add_worker("D", same)
    assert app.places().tasks == {"C": "inproc://test-app-workers", "D": "inproc://mine"}
    assert app.places(Options(endpoint="tcp://h:5550")).tasks == {"C": "tcp://h:5550", "D": "tcp://h:5550"}
    monkeypatch.setenv("ZMQPIPELINE_ENDPOINT", "inproc://variable")
    assert app.places().tasks["D"] == "inproc://variable-workers"
    assert app.places().acks == "inproc://variable-acks"


def test_the_folder_of_an_ipc_base_is_made(app: Pipeline, tmp_path: Path) -> None:
    """With mode 0700; one that exists and is open to others is refused, with what to do about it."""
    folder = tmp_path / "a" / "b"
    app.compile("collector", options=Options(endpoint=f"ipc://{folder}"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(EndpointError, match=r"open to other users \(mode 755\).*chmod 700"):
        app.compile("collector", options=Options(endpoint=f"ipc://{folder}"))


# compile ----------------------------------------------------------------------------------------------------------


def test_compile_makes_the_roles_of_the_class_api(app: Pipeline) -> None:
    """Each is ready to run, with the app's options."""
    options = Options(endpoint="inproc://x", drain_timeout=3)
    roles = [app.compile(role, options=options) for role in ("distributor", "worker", "collector")]
    assert [isinstance(role, cls) for role, cls in zip(roles, (Distributor, Worker, Collector), strict=True)] == [
        True
    ] * 3
    assert {role.options for role in roles} == {options}
    assert WorkerRunner.of(app.compile("worker", "C", threads=7)).slots() == 7


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("worker", "D"), r"The task 'D' does not exist\. Known: 'C'"),
        (("workers",), r"no role 'workers'.*Did you mean 'worker'\?"),
        (("collector", "C"), r"neither task_type nor threads"),
    ],
)
def test_compile_refuses_what_there_is_not(app: Pipeline, arguments: tuple[str, ...], expected: str) -> None:
    """By name, with what there is."""
    with pytest.raises(ConfigurationError, match=expected):
        app.compile(*arguments)


def test_compile_asks_for_the_task_when_there_are_several_workers(app: Pipeline) -> None:
    """With one it may be left out."""
    app.add_task("D", one)
    app.add_worker("D", same)
    with pytest.raises(ConfigurationError, match="several workers: 'C', 'D'"):
        app.compile("worker")


# classes ----------------------------------------------------------------------------------------------------------


def test_classes_and_functions_may_be_mixed() -> None:
    """A Task class with a worker function, and a task function with a Worker class, under one collector class."""
    rig, app = Rig(), Pipeline("mixed")
    assert app.register(rig.task) is rig.task
    app.add_worker("C", same, threads=2)
    app.add_task("D", one, depends_on="C")
    app.register(type("DWorker", (rig.threads,), {"task_type": TaskType("D")}))
    app.register(rig.collector)
    run = app.test_run()
    assert run.summary.ok
    assert [task for _, task, _ in rig.collected] == ["C"] * 10 + ["D"]
    assert rig.collected[-1][0]["index"] in range(4)


def test_a_registered_metadata_worker_gives_the_metadata() -> None:
    """It is called in the distributor."""
    app = Pipeline("meta")
    rig = Rig()
    app.register(
        type("Meta", (MetaDataWorker,), {"endpoint": rig.metadata_endpoint, "get_metadata": lambda s: {"a": 1}})
    )
    app.add_task("C", lambda metadata: metadata)
    app.add_worker("C", same)
    assert app.test_run(metadata={"b": 2}).results == [("C", {"a": 1, "b": 2})]


def test_registered_classes_keep_their_addresses_unless_an_outer_base_is_given() -> None:
    """So programs of the class API on other machines still find them."""
    rig, app = Rig(), Pipeline("kept")
    app.register(rig.task)
    app.register(rig.worker)
    app.register(rig.collector)
    places = app.places()
    assert (places.tasks["C"], places.results, places.acks) == (
        rig.task.endpoint,
        rig.results_endpoint,
        rig.acks_endpoint,
    )
    assert app.places(Options(endpoint="inproc://other")).results == "inproc://other-results"


def test_a_class_that_fits_nowhere_is_refused() -> None:
    """No class of the library, an open one, a second one, and functions for a class."""
    rig, app = Rig(), Pipeline("refuses")
    with pytest.raises(RegistrationError, match="takes a subclass of Task"):
        app.register(dict)
    with pytest.raises(TypeError, match="has no endpoint"):
        app.register(type("Open", (rig.task,), {"endpoint": None}))
    app.register(rig.task)
    with pytest.raises(RegistrationError, match="Task 'C' has two"):
        app.register(type("Second", (rig.task,), {}))
    app.register(rig.worker)
    app.register(rig.collector)
    app.add_collector(same)
    with pytest.raises(RegistrationError, match="collector class TheCollector, and functions"):
        app.check()
    single = Pipeline("single", endpoint="inproc://single")
    single.register(rig.task)
    single.register(rig.worker)
    with pytest.raises(ConfigurationError, match="one thread, not 3"):
        single.compile("worker", threads=3)
