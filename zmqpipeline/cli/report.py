"""What `run --report FILE` writes, and when: at the end of each run that began, however it ended, in one step.

That the file can be written is looked at before anything is started. What goes wrong with it at the end is a warning:
the status stays that of the run.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.report_page import Report, page
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import IN_PROGRAMS, Options
from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.processes.run_record import RunRecord
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.runtime.error_text import printable

log = logging.getLogger("zmqpipeline.run")

_PACKAGES = ("zmqpipeline", "pyzmq", "msgpack", "click")


class Reporter:
    """Keeps the record of a run, and writes the report about it."""

    def __init__(self, path: Path) -> None:
        """Raise ConfigurationError if a file cannot be written there."""
        self.record = RunRecord()
        self._path = path
        _check(path)

    def write(self, app: Pipeline, outcome: Outcome, headline: str, options: Options, given: Mapping[str, str]) -> bool:
        """Write it; False, and a warning, if that could not be. `given` are settings that are no options.

        Of the metadata the names are shown, and of what begins with a command its name: the rest may hold secrets.
        """
        given = {**given, "launch": given["launch"].split(" ")[0]}
        settings, versions = _settings(options, given), list(_versions())
        report = Report(app.name, headline, outcome, self.record, dict(app.totals), settings, versions)
        try:
            _replace(self._path.resolve(), page(report).encode("utf-8", "backslashreplace"))
        except OSError as error:
            log.warning("The report was not written to %s: %s. What the run has done stays.", self._path, error)
            return False
        except Exception:
            # whoever waits for the run's status shall have it
            log.exception("The report was not written to %s. What the run has done stays.", self._path)
            return False
        return True


def _check(path: Path) -> None:
    try:
        target = path.resolve()
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        if target.exists() and not target.is_file():
            raise OSError("it is no regular file")
        # a name that is too long is found out by the first line
        draft = _draft(target)
        draft.touch()
        draft.unlink()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"The report cannot be written to {printable(str(path))!r}: {reason}. Name a file in a folder that is "
            "there and may be written to: --report FILE.html."
        ) from error


def _replace(target: Path, content: bytes) -> None:
    draft = _draft(target)
    try:
        draft.write_bytes(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _draft(target: Path) -> Path:
    """A name beside the file that nobody else uses; no longer than the file's own can be."""
    return target.with_name(f".zmqpipeline-report-{uuid.uuid4().hex[:12]}")


def _settings(options: Options, given: Mapping[str, str]) -> Sequence[tuple[str, str, bool]]:
    found = [(name, value, False) for name, value in given.items() if value]
    for one in fields(Options):
        if one.name not in IN_PROGRAMS:
            value = getattr(options, one.name)
            found.append((one.name, str(value), value == one.default))
    return found


def _versions() -> Sequence[tuple[str, str]]:
    found = [(name, _version(name)) for name in _PACKAGES]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [
        *found,
        ("Python", python),
        ("system", platform.platform()),
        ("machine", f"{socket.gethostname()}, {usable_cores()} usable cores, process {os.getpid()}"),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
