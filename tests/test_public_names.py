"""The list of public names is true, sorted and complete; errors are one tree; logging is quiet until configured."""

from __future__ import annotations

import importlib
import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import zmqpipeline
from zmqpipeline import errors
from zmqpipeline.runtime import log


def test_the_list_is_sorted_and_every_name_exists() -> None:
    """`__all__` is sorted, without repeats, and each name in it is there."""
    assert zmqpipeline.__all__ == sorted(set(zmqpipeline.__all__))
    assert [name for name in zmqpipeline.__all__ if not hasattr(zmqpipeline, name)] == []


def test_every_public_name_of_the_package_is_listed() -> None:
    """What the package shows without an underscore is in the list, but for its own modules and the future import."""
    shown = {
        name
        for name, value in vars(zmqpipeline).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert shown - set(zmqpipeline.__all__) == set()


def test_every_public_name_has_a_docstring() -> None:
    """Each listed class, function and module says what it is."""
    listed = [getattr(zmqpipeline, name) for name in zmqpipeline.__all__ if name != "__version__"]
    assert [value for value in listed if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("path", ["messages", "utils.messages", "utils.serializer", "utils.shutdown", "errors"])
def test_documented_import_paths(path: str) -> None:
    """The import paths that are documented work, as modules and as attributes of the package."""
    value = zmqpipeline
    for part in path.split("."):
        value = getattr(value, part)
    assert value is importlib.import_module(f"zmqpipeline.{path}")


def test_errors_are_one_tree_and_drawn() -> None:
    """Each class in `errors` descends from PipelineError and is drawn in the docstring of the module."""
    found = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]
    assert len(found) > 10
    for each in found:
        assert issubclass(each, errors.PipelineError)
        assert f" {each.__name__} " in f" {errors.__doc__} ".replace("\n", " ")
        usual = 2 if issubclass(each, errors.ConfigurationError) else 1
        others = {errors.RoleDied: 3, errors.JournalUnavailable: 75, errors.KeysUnavailable: 75}
        assert each.exit_status == others.get(each, usual)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.EndpointError, TypeError),
        (errors.TaskTypeError, TypeError),
        (errors.DefinitionError, TypeError),
        (errors.SerializeError, TypeError),
        (errors.PipelineTimeout, TimeoutError),
    ],
)
def test_errors_are_the_builtin_ones_too(error: type[Exception], builtin: type[Exception]) -> None:
    """Code that catches the builtin error catches ours."""
    assert issubclass(error, builtin)


def test_errors_carry_what_belongs_to_them() -> None:
    """A failed run carries its troubles, a failed item its record."""
    assert errors.RunFailed("m", {"C": "trouble"}).troubles == {"C": "trouble"}
    assert errors.ItemFailed("m", "record").failure == "record"


def test_warnings_reach_stderr_until_logging_is_configured() -> None:
    """A warning of the library goes to stderr by default, anything less nowhere; then to the configured handler."""
    code = (
        "import logging, zmqpipeline\n"
        "log = logging.getLogger('zmqpipeline.worker')\n"
        "log.warning('before')\n"
        "log.info('not said')\n"
        "zmqpipeline.configureLogging({'version': 1, 'disable_existing_loggers': False,\n"
        "    'handlers': {'console': {'class': 'logging.StreamHandler', 'level': 'DEBUG'}},\n"
        "    'loggers': {'zmqpipeline.worker': {'handlers': ['console'], 'level': 'DEBUG', 'propagate': True}}})\n"
        "log.debug('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "before\nafter\n")


def test_configuring_nonsense_is_an_error() -> None:
    """A dictionary that dictConfig refuses is refused."""
    with pytest.raises(ValueError, match="version"):
        zmqpipeline.configureLogging({})
    assert all(logging.getLogger(name).name == name for name in log.LOGGERS)


def test_an_app_is_defined_without_the_roles() -> None:
    """The import of the package costs little: sockets, roles and their machines are imported when a role is made."""
    code = (
        "import sys\n"
        "from zmqpipeline import Options, Pipeline\n"
        "app = Pipeline('x', options=Options())\n"
        "app.task('C')(lambda: [])\n"
        "app.worker('C')(lambda data: data)\n"
        "app.collector(lambda data: None)\n"
        "print(sorted({'zmq', 'msgpack', 'click', 'asyncio', 'zmqpipeline.roles.base'} & set(sys.modules)))\n"
        "app.compile('collector')\n"
        "print(sorted({'zmq', 'msgpack', 'click', 'asyncio', 'zmqpipeline.roles.base'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "['msgpack', 'zmq', 'zmqpipeline.roles.base']"]


@pytest.mark.parametrize("command", ["worker", "distributor"])
def test_a_role_starts_without_what_starts_others(command: str) -> None:
    """Each process of a run pays for its imports: a role's has none of what launches, supervises and draws."""
    code = (
        "import sys, zmq, msgpack, click, uuid\n"
        "theirs = set(sys.modules)\n"
        f"import zmqpipeline.cli.main, zmqpipeline.cli.{command}\n"
        "heavy = ('processes.supervisor', 'processes.launch', 'processes.restarts', 'cli.run', 'cli.screen')\n"
        "print([one for one in heavy if f'zmqpipeline.{one}' in sys.modules])\n"
        "heavy = ('asyncio', 'sqlite3', 'ssl', 'subprocess', 'sysconfig', 'zoneinfo')\n"
        "print([one for one in heavy if one in set(sys.modules) - theirs])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n[]\n"


@pytest.mark.slow
def test_a_run_of_plain_functions_has_no_event_loop(tmp_path: Path) -> None:
    """asyncio is a tenth of what a process imports: it is imported by the first async function, and by none other."""
    app = (
        "import sys\n"
        "from zmqpipeline import Pipeline\n"
        "app = Pipeline('plain')\n"
        "app.task('C', times=10)(lambda: {})\n"
        "app.worker('C')(lambda data: {'heavy': [one for one in ('asyncio', 'ssl') if one in sys.modules]})\n"
        "if __name__ == '__main__':\n"
        "    app.collector(lambda data: print(data))\n"
        "    print(app.run().ok, [one for one in ('asyncio', 'ssl') if one in sys.modules])\n"
    )
    (tmp_path / "plain.py").write_text(app)
    done = subprocess.run(
        [sys.executable, "plain.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["{'heavy': []}"] * 10 + ["True []"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """With the package's name; what there is, is listed whether it was used or not."""
    with pytest.raises(AttributeError, match="module 'zmqpipeline' has no attribute 'Pipelin'"):
        zmqpipeline.Pipelin  # noqa: B018
    assert set(zmqpipeline.__all__) <= set(dir(zmqpipeline))
