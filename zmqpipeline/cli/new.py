"""The command `new`: a small app with its test, to begin with.

A new app: its file, its test and its README, from the templates of the package.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
from importlib import resources
from pathlib import Path
from string import Template

import click

from zmqpipeline.cli.output import tell
from zmqpipeline.errors import ConfigurationError

FILES = {"{name}.py": "app.py.txt", "test_{name}.py": "test_app.py.txt", "README.md": "README.md.txt"}
"""What is written, and the template of each."""


def write_app(name: str, where: Path) -> list[Path]:
    """Write a new app of this name into a folder of that name below `where`; the files.

    Raises:
        ConfigurationError: the name is none that Python can import by, or stands for another module; or there is
            something of that name already, which is not touched.
    """
    _check_name(name)
    folder = where / name
    texts = {file.format(name=name): _filled(template, name) for file, template in FILES.items()}
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigurationError(
            f"{str(folder)!r} is there already, and is left as it is. Choose another name, or move it away."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"The folder {str(folder)!r} cannot be made: {error.strerror}.") from error
    try:
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # a half of an app helps nobody
        raise ConfigurationError(f"The app cannot be written to {str(folder)!r}: {error.strerror}.") from error
    return [folder / file for file in texts]


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of an app: its file is imported by that name, which takes letters, digits "
            f"and underscores, and no word of Python.{_better(name)}"
        )
    if name in sys.stdlib_module_names or name in sys.builtin_module_names or _is_installed(name):
        raise ConfigurationError(
            f"There is a module {name!r} already, which the app would stand in the way of. Choose another name, "
            f"such as {f'my_{name}'!r}."
        )


def _is_installed(name: str) -> bool:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    # a folder without __init__.py counts as a package, too; whether one is in the way is seen when ours is made
    return found is not None and found.origin is not None


def _better(name: str) -> str:
    close = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    usable = close.isidentifier() and not keyword.iskeyword(close)
    return f" Did you mean {close!r}?" if usable else ""


def _filled(template: str, name: str) -> str:
    text = resources.files("zmqpipeline").joinpath("cli/templates").joinpath(template).read_text(encoding="utf-8")
    return Template(text).substitute(name=name)


@click.command("new", epilog="Example: zmqpipeline new squares")
@click.argument("name")
def new_command(name: str) -> int:
    """Write a small app, its test and a README into the new folder NAME; all of it works at once."""
    for file in write_app(name, Path()):
        tell(f"wrote {file}")
    tell(f"Now: cd {name} && python -m {name} run")
    return 0
