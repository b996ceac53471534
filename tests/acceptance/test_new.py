"""`zmqpipeline new NAME`: what it writes works at once, and it never touches what is there."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT
from zmqpipeline.cli.new import write_app
from zmqpipeline.errors import ConfigurationError

pytestmark = pytest.mark.processes


@pytest.mark.slow
def test_what_it_writes_runs_and_passes(workshop: Any) -> None:
    """As a newcomer would: new, run, run with metadata, and the tests; nothing is edited."""
    status, program = workshop.run("-m", "zmqpipeline", "new", "squares")
    assert status == 0, program.err
    assert program.out.splitlines()[-1] == "Now: cd squares && python -m squares run"
    folder = workshop.folder / "squares"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "squares.py", "test_squares.py"]

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**workshop.environ, "PYTHONPATH": f"{ROOT}"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)

    run = python("-m", "squares", "run")
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.splitlines())[:2] == ["0 squared is 0", "1 squared is 1"]
    assert len(python("-m", "squares", "run", "--meta", "count=25").stdout.splitlines()) == 25
    plugin = ("-p", "zmqpipeline.pytest_plugin")  # where the package is installed, pytest finds it
    tests = python("-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", "-W", "error")
    assert tests.returncode == 0, tests.stdout
    assert "2 passed" in tests.stdout


@pytest.mark.slow
def test_the_readme_is_true(workshop: Any) -> None:
    """Each command that it shows is one that there is, with flags that it takes."""
    assert workshop.run("-m", "zmqpipeline", "new", "squares")[0] == 0
    text = (workshop.folder / "squares" / "README.md").read_text()
    commands = re.findall(r"python -m squares ([^#`\n]+)", text)
    assert len(commands) >= 6
    for command in commands:
        arguments = command.split()
        status, program = workshop.run("-m", "zmqpipeline", "-A", "squares/squares.py", *arguments, "--help")
        assert status == 0, program.err
        flags = [one for one in arguments if one.startswith("--")]
        assert all(flag in program.out for flag in flags), command


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-app", "Did you mean 'my_app'?"),
        ("class", "no word of Python"),
        ("2squares", "letters, digits and underscores"),
        ("a/b", "Did you mean 'a_b'?"),
        ("../up", "Did you mean 'up'?"),
        ("", "cannot be the name of an app"),
        ("json", "There is a module 'json' already"),
        ("zmqpipeline", "There is a module 'zmqpipeline' already"),
        ("größe", "letters, digits and underscores"),
    ],
)
def test_a_bad_name_is_refused(name: str, said: str, tmp_path: Path) -> None:
    """What cannot be imported, or stands for something else: the error says why, and nothing is written."""
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        write_app(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_is_left_alone(kind: str, workshop: Any) -> None:
    """One line with status 2; an existing folder, also an empty one, or a file stays as it is."""
    place = workshop.folder / "squares"
    place.mkdir() if kind == "folder" else place.write_text("mine")
    status, program = workshop.run("-m", "zmqpipeline", "new", "squares")
    assert status == 2
    assert len(program.err.splitlines()) == 1
    assert "is there already, and is left as it is" in program.err
    assert list(place.iterdir()) == [] if kind == "folder" else place.read_text() == "mine"


def test_nothing_is_left_of_half_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of it leaves no folder behind that would be in the way."""
    real = Path.write_text

    def full(path: Path, *arguments: Any, **given: Any) -> int:
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *arguments, **given)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigurationError, match=os.strerror(errno.ENOSPC)):
        write_app("squares", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_other_commands_need_an_app(workshop: Any) -> None:
    """Without -A one line says how to name one; --help needs none; an app's own command line has no `new`."""
    status, program = workshop.run("-m", "zmqpipeline", "run")
    assert (status, len(program.err.splitlines())) == (2, 1)
    assert "Say which app: -A package.module" in program.err
    assert workshop.run("-m", "zmqpipeline", "run", "--help")[0] == 0
    workshop.write("app.py", "from zmqpipeline import Pipeline\nPipeline('x').main()\n")
    status, program = workshop.run("-m", "app", "new", "squares")
    assert status == 2
    assert "no command 'new'" in program.err
