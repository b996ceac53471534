"""The engine of `run --launch PREFIX`: a command line before that of each worker, such as ``ssh node{index}``.

The prefix is split into words as a shell does it, and no shell sees it. Fields in it are filled in for each worker.
What follows it is written so that any shell on the way leaves it as it is (`launch_words.plain`), but for the path of
the interpreter, which stands there as it was given: a remote shell may find ``~/venv/bin/python``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zmqpipeline.errors import ConfigurationError
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.child import PATH_VARIABLE, Child
from zmqpipeline.runtime.launch_words import LAUNCHED_FLAG, plain
from zmqpipeline.runtime.launched import LaunchedChild
from zmqpipeline.runtime.security.issued import KeyIssuer, keys_for_worker

_FIELD = re.compile(r"(?<!\$)\{(index|task|run)\}")
"""A field of a prefix; ``${index}`` is a variable of a shell."""

_ARCHIVE = re.compile(r"python\d+\.zip$")
"""Where an interpreter looks for its standard library first."""


def words_of(prefix: str) -> tuple[str, ...]:
    """The words of a prefix. Raises ConfigurationError if it has none, or a quotation without an end."""
    try:
        words = tuple(shlex.split(prefix))
    except ValueError as error:
        raise ConfigurationError(
            f"--launch {prefix!r} cannot be split into words: {error}. Close it, or put a backslash before it."
        ) from error
    if not words or not words[0]:
        raise ConfigurationError("--launch names no command. Give one, as in --launch 'nice -n 10', or leave it out.")
    return words


def filled(words: Sequence[str], *, index: int, task: str, run: str) -> tuple[str, ...]:
    """The words for one worker.

    Raises:
        ConfigurationError: the task's name is in it, and would not be the same behind a shell.
    """
    if shlex.quote(task) != task and any(found[1] == "task" for one in words for found in _FIELD.finditer(one)):
        raise ConfigurationError(
            f"The task's name {task!r} has characters that a shell would change, and --launch has the field "
            "{task}. Use {index} or {run} there, or rename the task."
        )
    values = {"index": str(index), "task": task, "run": run}
    return tuple(_FIELD.sub(lambda found: values[found[1]], one) for one in words)


def added_path() -> list[str]:
    """What of our `sys.path` this interpreter does not find by itself.

    The command may be a program of another Python, which must not find the standard library of this one.
    """
    library = sysconfig.get_path("stdlib")
    found = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    entries = (entry or str(Path.cwd()) for entry in sys.path)
    return [
        entry
        for entry in dict.fromkeys(entries)
        if entry not in found and not f"{entry}/".startswith(f"{library}/") and not _ARCHIVE.search(entry)
    ]


def handed_path(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which this interpreter, started elsewhere, imports what we import; `environ` is ours."""
    return {"PYTHONPATH": os.pathsep.join(added_path()), PATH_VARIABLE: environ.get("PYTHONPATH", "")}


@dataclass(frozen=True)
class LaunchCommand:
    """Starts a process behind these words; `python` is the interpreter behind them, None: the path of this one."""

    words: Sequence[str]
    python: str | None = None
    issuer: KeyIssuer | None = None
    """Gives each process keys of its own; None: the run has no keys."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError if the command is not there."""
        if shutil.which(self.words[0]) is None:
            raise ConfigurationError(
                f"--launch begins with the command {self.words[0]!r}, which is not found here. Install it, or give its "
                "path."
            )

    @property
    def hint(self) -> str:
        """See `Engine`."""
        return (
            f" Nothing was heard of the worker behind {self.words[0]!r}: see what that command wrote above. It must "
            "pass on standard input and standard error."
        )

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """As `Engine.start`."""
        module = arguments[: arguments.index("-m") + 2]
        behind = [*module, LAUNCHED_FLAG, *plain(arguments[len(module) :])]
        command = [*self.words, self.python or sys.executable, *behind]
        environ = self._environ(os.environ)
        try:
            with keys_for_worker(self.issuer, label, exited) as (keys, ended):
                return LaunchedChild(label, command, ended, environ=environ, stdout=stdout, keys=keys)
        except OSError as error:
            raise ConfigurationError(
                f"The --launch command {self.words[0]!r} cannot be started: {error.strerror or error}. Try it in a "
                "shell."
            ) from error

    def _environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Ours; where the command passes it on, this interpreter imports for its worker what it imports for us."""
        if self.python is not None:
            return dict(environ)
        return {**environ, **handed_path(environ)}
