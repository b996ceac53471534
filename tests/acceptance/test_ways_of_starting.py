"""One app, however it is started: one name, one folder, and one pipeline for all modules that import it."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.processes

APP = """
from zmqpipeline import Pipeline

app = Pipeline(__name__)
seen = []

@app.collector
def collect(data):
    seen.append(data["n"])

import tasks

@app.finished
def finish():
    print(sorted(seen))

if __name__ == "__main__":
    app.main()
"""
TASKS = """
from app import app

@app.task("C")
def numbers():
    for n in range(3):
        yield {"n": n}

@app.worker("C")
def work(data):
    return data
"""
WAYS = [("-m", "app"), ("app.py",), ("-m", "zmqpipeline", "-A", "app"), ("-m", "zmqpipeline", "-A", "app.py")]
PACKAGE_WAYS = [
    ("-m", "pkg"),
    ("-m", "zmqpipeline", "-A", "pkg:create_app"),
    ("-m", "zmqpipeline", "-A", "pkg:create_app()"),
    ("-m", "zmqpipeline", "-A", "pkg"),
]


def write_app(workshop: Any) -> None:
    """An app in two modules: the pipeline in one, which is started, the tasks in the other."""
    workshop.write("app.py", APP)
    workshop.write("tasks.py", TASKS)


def write_package(workshop: Any) -> None:
    """A package with a factory, as Flask's documentation has it."""
    (workshop.folder / "pkg").mkdir()
    workshop.write(
        "pkg/__init__.py",
        "from zmqpipeline import Pipeline\n"
        "def create_app(count=3):\n"
        "    from pkg import collectors, tasks\n"
        "    app = Pipeline(__name__)\n"
        "    tasks.register(app, count)\n"
        "    collectors.register(app)\n"
        "    return app\n",
    )
    workshop.write(
        "pkg/tasks.py",
        "def register(app, count):\n"
        "    app.add_task('C', lambda: ({'n': n} for n in range(count)))\n"
        "    app.add_worker('C', lambda data: data)\n",
    )
    workshop.write(
        "pkg/collectors.py",
        "def register(app):\n"
        "    seen = []\n"
        "    app.add_collector(lambda data: seen.append(data['n']))\n"
        "    app.add_finished(lambda: print(sorted(seen)))\n",
    )
    workshop.write("pkg/__main__.py", "from pkg import create_app\ncreate_app().main()\n")


def base_of(workshop: Any, *way: str) -> str:
    """The address that `check` names, started in this way, with the pipeline's name before it."""
    status, program = workshop.run(*way, "check")
    assert status == 0, program.err
    return str(program.out.splitlines()[0])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_pipeline_of_this_name_runs(workshop: Any, way: tuple[str, ...]) -> None:
    """``Pipeline(__name__)``, with tasks in a second module, runs whole; the name is that of the module."""
    write_app(workshop)
    status, program = workshop.run(*way, "run")
    assert (status, program.out) == (0, "[0, 1, 2]\n"), program.err
    assert "app: 3 items in " in program.err


@pytest.mark.slow
@pytest.mark.parametrize("way", PACKAGE_WAYS, ids=" ".join)
def test_a_factory_runs(workshop: Any, way: tuple[str, ...]) -> None:
    """A function that makes the app, from ``python -m pkg`` and by ``-A``."""
    write_package(workshop)
    status, program = workshop.run(*way, "run")
    assert (status, program.out) == (0, "[0, 1, 2]\n"), program.err
    assert "pkg: 3 items in " in program.err


@pytest.mark.slow
@pytest.mark.parametrize(("write", "ways"), [(write_app, WAYS), (write_package, PACKAGE_WAYS)], ids=["file", "package"])
def test_roles_meet_however_each_is_started(workshop: Any, write: Any, ways: list[tuple[str, ...]]) -> None:
    """All agree on name and folder: a collector, a worker and a distributor, each started differently, do one run."""
    write(workshop)
    assert len({base_of(workshop, *way) for way in ways}) == 1
    collector = workshop.start(*ways[0], "collector")
    worker = workshop.start(*ways[1], "worker")
    distributor = workshop.start(*ways[2], "distributor")
    assert distributor.wait() == 0, distributor.err
    assert (collector.wait(), collector.out) == (0, "[0, 1, 2]\n"), collector.err
    assert worker.wait() == 0, worker.err


@pytest.mark.slow
def test_two_scripts_of_one_name_do_not_share_a_folder(workshop: Any) -> None:
    """There are many an app.py: each file has its own."""
    for folder in ("one", "two"):
        (workshop.folder / folder).mkdir()
        workshop.write(
            f"{folder}/app.py", APP.replace("import tasks\n", "app.task('C')(list)\napp.worker('C')(dict)\n")
        )
    assert base_of(workshop, "one/app.py") != base_of(workshop, "two/app.py")
    assert base_of(workshop, "one/app.py") == base_of(workshop, str(workshop.folder / "one" / "app.py"))


def test_the_second_module_may_be_imported_first(workshop: Any) -> None:
    """The twin is then complete before the started module makes its pipeline; the functions are those of the latter."""
    text = APP.replace("import tasks\n", "").replace("app.main()", "app.test_run()\n    print(len(seen))")
    workshop.write("app.py", "import tasks\n" + text)
    workshop.write("tasks.py", TASKS)
    status, program = workshop.run("-m", "app")
    assert (status, program.out) == (0, "[0, 1, 2]\n3\n"), program.err


@pytest.mark.slow
def test_a_module_that_its_package_imports_may_be_started(workshop: Any) -> None:
    """``python -m pkg.app``, where the package imports pkg.app itself: python has run the file by then."""
    (workshop.folder / "pkg").mkdir()
    workshop.write("pkg/__init__.py", "from pkg.app import app\n")
    workshop.write("pkg/app.py", APP.replace("import tasks", "import pkg.tasks"))
    workshop.write("pkg/tasks.py", TASKS.replace("from app", "from pkg.app"))
    status, program = workshop.run("-m", "pkg.app", "run")
    assert (status, program.out) == (0, "[0, 1, 2]\n"), program.err
    assert "pkg.app: 3 items in " in program.err


@pytest.mark.slow
def test_a_file_in_a_package_has_the_name_of_its_module(workshop: Any) -> None:
    """``python pkg/app.py`` and ``python -m pkg.app`` agree."""
    (workshop.folder / "pkg").mkdir()
    workshop.write("pkg/__init__.py", "")
    workshop.write("pkg/app.py", APP.replace("import tasks", "import pkg.tasks"))
    workshop.write("pkg/tasks.py", TASKS.replace("from app", "from pkg.app"))
    ways = [
        ("pkg/app.py",),
        ("-m", "pkg.app"),
        ("-m", "zmqpipeline", "-A", "pkg.app"),
        ("-m", "zmqpipeline", "-A", "pkg/app.py"),
    ]
    workshop.environ["PYTHONPATH"] += f":{workshop.folder}"
    assert len({base_of(workshop, *way) for way in ways}) == 1
    for way in ways:
        status, program = workshop.run(*way, "run")
        assert (status, program.out) == (0, "[0, 1, 2]\n"), program.err


@pytest.mark.slow
def test_app_run_works_from_the_started_module(workshop: Any) -> None:
    """``app.run()`` in the started module fills the list of that module, not that of the twin."""
    workshop.write("app.py", APP.replace("app.main()", "print(app.run().ok, len(seen), app.name)"))
    workshop.write("tasks.py", TASKS)
    status, program = workshop.run("app.py")
    assert (status, program.out) == (0, "[0, 1, 2]\nTrue 3 app\n"), program.err


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("create_app(5).main()", "of a module that makes it when it is called without arguments"),
        ("create_app(count=5).main()", "without arguments"),
    ],
)
def test_a_factory_that_was_given_something_is_refused(workshop: Any, main: str, said: str) -> None:
    """The processes that `run` starts would make another app: one line, status 2."""
    write_package(workshop)
    workshop.write("pkg/__main__.py", f"from pkg import create_app\n{main}\n")
    status, program = workshop.run("-m", "pkg", "run")
    assert (status, len(program.err.splitlines())) == (2, 1), program.err
    assert said in program.err


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("def create_app(name): pass", "takes name, and is called without arguments"),
        ("def create_app(): return 5", "returned a int, no Pipeline"),
        ("def create_app(): 1 / 0", "raised ZeroDivisionError: division by zero (at "),
        ("class Stop(BaseException): pass\ndef create_app(): raise Stop('no')", "raised Stop: no (at "),
        ("class Stop(BaseException): pass\nraise Stop('no')", "Importing 'made' raised Stop: no (at "),
        ("create_app = int", "is a type, no Pipeline"),
        ("", "has no 'create_app'"),
    ],
)
def test_a_factory_that_makes_no_app_is_told(workshop: Any, factory: str, said: str) -> None:
    """One line, with the name of the factory."""
    workshop.write("made.py", factory + "\n")
    status, program = workshop.run("-m", "zmqpipeline", "-A", "made:create_app", "check")
    assert (status, len(program.err.splitlines())) == (2, 1), program.err
    assert said in program.err


@pytest.mark.parametrize("place", ["./", ".", "pkg/"])
def test_a_folder_in_the_place_of_a_file_is_told(workshop: Any, place: str) -> None:
    """It is there, and is no file."""
    write_package(workshop)
    status, program = workshop.run("-m", "zmqpipeline", "-A", place, "check")
    assert (status, len(program.err.splitlines())) == (2, 1), program.err
    assert program.err.startswith(f"Error: {place!r} is a folder. Give a Python file in it")


def test_a_name_that_is_not_there_is_told_with_those_that_are(workshop: Any) -> None:
    """The apps of the module, and the functions that make one and are called without arguments; no others."""
    workshop.write(
        "made.py",
        """
import zmqpipeline
from zmqpipeline import Pipeline

first = Pipeline("first")

def create_app(count=3):
    return other()

def other():
    return zmqpipeline.Pipeline("other")

def annotated() -> "zmqpipeline.Pipeline":
    return other()

def needing(name):
    return Pipeline(name)

def main():
    first.main()
""",
    )
    status, program = workshop.run("-m", "zmqpipeline", "-A", "made:creat_app", "check")
    assert (status, program.err) == (
        2,
        "Error: 'made' has no 'creat_app'. Pipelines in it: 'first'. Functions that make one: "
        "'annotated', 'create_app', 'other'. Did you mean 'create_app'?\n",
    )


def test_a_package_whose_app_is_in_a_module_is_told(workshop: Any) -> None:
    """``-A pkg`` where pkg.app was meant."""
    (workshop.folder / "pkg").mkdir()
    workshop.write("pkg/__init__.py", "")
    workshop.write("pkg/app.py", "")
    status, program = workshop.run("-m", "zmqpipeline", "-A", "pkg", "check")
    assert status == 2
    assert "Did you mean -A pkg.app?" in program.err


def test_two_pipelines_of_one_name_are_told(workshop: Any) -> None:
    """Where the one in use has no tasks and another has: which modules made them, and what to type."""
    workshop.write("app.py", "from zmqpipeline import Pipeline\napp = Pipeline('x')\nimport other\napp.main()\n")
    workshop.write(
        "other.py",
        "from zmqpipeline import Pipeline\napp = Pipeline('x')\napp.add_task('C', list)\napp.add_worker('C', dict)\n",
    )
    status, program = workshop.run("app.py", "run")
    assert (status, len(program.err.splitlines())) == (2, 1), program.err
    assert "made in '__main__', has no tasks" in program.err
    assert "made in 'other'" in program.err
    assert "zmqpipeline -A other run" in program.err


LATE = """
from zmqpipeline import Pipeline

app = Pipeline(__name__)

def main():
    import tasks
    app.main()

if __name__ == "__main__":
    main()
"""
EARLY = """
@app.task("B")
def others():
    return {}

@app.worker("B")
def work(data):
    return data
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", [("-m", "app"), ("app.py",)], ids=" ".join)
def test_modules_that_a_function_imports_are_imported_by_the_processes_of_run(
    workshop: Any, way: tuple[str, ...]
) -> None:
    """They import the file, do not call its main(), and import the modules of the functions that it has found."""
    workshop.write("app.py", LATE.replace("def main", f"{EARLY}\ndef main"))
    workshop.write("tasks.py", TASKS)
    status, program = workshop.run(*way, "run")
    assert status == 0, program.err
    assert "C: sent 3, collected 3" in program.err
    assert "B: sent 1, collected 1" in program.err


def test_tasks_that_a_function_imports_are_missing_where_it_is_not_called(workshop: Any) -> None:
    """`-A app` imports the file: what happened, and what to type."""
    workshop.write("app.py", LATE)
    workshop.write("tasks.py", TASKS)
    status, program = workshop.run("-m", "zmqpipeline", "-A", "app", "run")
    assert status == 2, program.err
    line = program.err.splitlines()[0]
    assert line.startswith("Error: Pipeline 'app' has no tasks after 'app' was imported. "), program.err
    assert "at the top level of app.py, or import the module that adds them there: what a function " in line
    assert "Traceback" not in program.err


IN_MAIN = """
def main():
    @app.task("C")
    def numbers():
        return {}

    @app.worker("C")
    def work(data):
        return data

    app.main()
"""


def test_one_of_two_tasks_that_is_added_in_a_function_is_told(workshop: Any) -> None:
    """Its worker is started, and does not find it."""
    workshop.write("app.py", LATE.replace("def main():\n    import tasks\n    app.main()\n", f"{EARLY}\n{IN_MAIN}"))
    status, program = workshop.run("-m", "app", "run")
    assert status == 2, program.err
    assert "There is no task 'C'. Known: 'B'. It is added too late: what a function such as main()" in program.err


@pytest.mark.slow
@pytest.mark.parametrize("way", [("-m", "pk"), ("main.py",)], ids=" ".join)
def test_a_program_that_imports_the_app_and_its_tasks_runs(workshop: Any, way: tuple[str, ...]) -> None:
    """The package makes the app, and the program that is started imports the tasks: the package itself does not."""
    (workshop.folder / "pk").mkdir()
    workshop.write("pk/__init__.py", "from zmqpipeline import Pipeline\napp = Pipeline(__name__)\n")
    workshop.write("pk/tasks.py", TASKS.replace("from app", "from pk"))
    program = "from pk import app\nfrom pk import tasks\napp.main()\n"
    workshop.write("pk/__main__.py", program)
    workshop.write("main.py", program)
    status, program = workshop.run(*way, "run", "--workers", "2")
    assert status == 0, program.err
    assert "C: sent 3, collected 3" in program.err
    status, program = workshop.run(*way, "worker", "--processes", "2", "--exit-when-idle", "3", "C")
    assert status == 0, program.err


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ('@app.task("C", timez=3)\ndef items(): pass', '@app.task("C", timez=3)', "Did you mean 'times'?"),
        ('@app.task("C")\ndef items(data): pass', '@app.task("C")', "takes a parameter 'data'"),
        ("@app.metadata\ndef given(): pass\napp.add_metadata(print)", "app.add_metadata(print)", "has two functions"),
        ("@app.collector\ndef collect(data, oops): pass", "@app.collector", "takes a parameter 'oops'"),
        ('@app.available("C")\ndef may(ack, oops): pass', '@app.available("C")', "takes a parameter 'oops'"),
        ("@app.register\nclass Foreign: pass", "@app.register", "Foreign"),
    ],
)
def test_a_decorator_that_refuses_shows_the_line_and_the_reason(
    workshop: Any, lines: str, line: str, said: str
) -> None:
    """In a program's own traceback: the user's line, one of ours, and the message."""
    workshop.write("app.py", f"from zmqpipeline import Pipeline\napp = Pipeline('x')\n{lines}\n")
    status, program = workshop.run("app.py")
    shown = [one.strip() for one in program.err.splitlines() if set(one) - set(" ^")]
    assert (status, len(shown)) == (1, 6), program.err
    assert shown[2] == line
    assert said in shown[-1]
