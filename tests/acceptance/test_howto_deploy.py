"""The pages docs/howto/deploy-*.md: their files fit the command line, grace outlasts a drain, Slurm's script runs."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.acceptance.conftest import ROOT, Program
from tests.support.pages import blocks_of
from tests.support.ports import free_ports
from zmqpipeline import Pipeline
from zmqpipeline.cli import main as cli
from zmqpipeline.runtime.security import keyfiles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

HOWTO = ROOT / "docs/howto"


def files_of(name: str) -> dict[str, str]:
    """The files that docs/howto/NAME.md shows, by their names."""
    return {block.rest: block.text for block in blocks_of(HOWTO / f"{name}.md") if block.word == "file"}


def units() -> dict[str, configparser.ConfigParser]:
    """The unit files of docs/howto/deploy-systemd.md."""
    found = {}
    for name, text in files_of("deploy-systemd").items():
        if name.endswith(".service"):
            found[name] = configparser.ConfigParser(interpolation=None)
            found[name].optionxform = str  # type: ignore[assignment, method-assign]
            found[name].read_string(text)
    return found


def check_arguments(arguments: list[str]) -> None:
    """The command line knows this command, with these flags."""
    group = cli._commands(Pipeline("survey"))
    name, *rest = arguments
    context = click.Context(group)
    command = group.get_command(context, name)
    assert command is not None, name
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("name", ["survey-collector.service", "survey-distributor.service", "survey-worker.service"])
def test_a_unit_starts_a_command_and_outlasts_its_drain(name: str) -> None:
    """`ExecStart` is a command line that is understood; systemd kills later than the role has drained."""
    service = units()[name]["Service"]
    check_arguments(shlex.split(service["ExecStart"])[3:])
    assert service["KillMode"] == "mixed"
    (drain,) = re.findall(r"^ZMQPIPELINE_DRAIN_TIMEOUT=(\d+)$", files_of("deploy-systemd")["survey.env"], re.MULTILINE)
    assert int(service["TimeoutStopSec"]) >= int(drain) + 5


def test_units_have_keys_where_others_can_reach_them() -> None:
    """Without keys, no role of the page would start: its address is open to other machines."""
    assert re.search(r"^ZMQPIPELINE_KEYS=\S+$", files_of("deploy-systemd")["survey.env"], re.MULTILINE)


SCRIPTS = ["survey.sbatch", "server.sbatch", "workers.sbatch"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_slurm_warns_earlier_than_the_drain_takes(name: str) -> None:
    """The signal comes so early that the drain is over before the time limit."""
    script = files_of("deploy-slurm")[name]
    (early,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", script, re.MULTILINE)
    (drain,) = re.findall(r"^export ZMQPIPELINE_DRAIN_TIMEOUT=(\d+)$", script, re.MULTILINE)
    assert int(early) >= int(drain) + 5


SCONTROL = """#!/bin/bash
case "$1" in
  requeue) echo "requeued $2" ;;
esac
"""
SRUN = """#!/bin/bash
while [[ "$1" = -* ]]; do shift; done
exec "$@"
"""


class Cluster:
    """One node, on which `srun` runs its command."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        folder = workshop.folder / "bin"
        folder.mkdir()
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (program,) = (one.text for one in blocks_of(HOWTO / "resume.md") if one.rest == "survey.py")
        workshop.write("survey.py", program.replace("== 13", "== -1"))
        port = free_ports(7)[0]
        for name in SCRIPTS:
            script = files_of("deploy-slurm")[name].replace("port=5550", f"port={port}")
            workshop.write(name, script.replace("$(hostname)", "127.0.0.1"))
        keyfiles.make_all(workshop.folder / "keys")
        self.environ = {
            **workshop.environ,
            "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "2",
        }

    def submit(self, *script: str, **environ: str) -> Program:
        """Start a script as slurmd would, by default `survey.sbatch`."""
        script, number = script or ("survey.sbatch",), len(self.workshop.programs)
        program = Program(self.workshop.folder, f"job-{number}", ["bash", *script], {**self.environ, **environ})
        self.workshop.programs.append(program)
        return program

    def rows(self) -> int:
        """How many rows the journal holds; 0 as long as there is no table."""
        path = self.workshop.folder / "survey.db"
        if not path.exists():
            return 0
        with closing(sqlite3.connect(path, timeout=20)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'squares'").fetchone():
                return 0
            return int(db.execute("SELECT count(*) FROM squares").fetchone()[0])


@pytest.mark.slow
@pytest.mark.processes
def test_the_script_for_slurm_runs_to_its_end(workshop: Workshop) -> None:
    """Server and workers find each other, all is collected, nobody stays, and the job is not requeued."""
    cluster = Cluster(workshop)
    job = cluster.submit()
    assert job.wait(60) == 0, job.out + job.err
    assert cluster.rows() == 1000
    assert "requeued" not in job.out


@pytest.mark.slow
@pytest.mark.processes
def test_a_job_that_is_warned_is_requeued_and_goes_on(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """SIGTERM to the script drains the roles and requeues the job; the second start does what is left."""
    cluster = Cluster(workshop)
    program = workshop.folder / "survey.py"
    whole = program.read_text()
    slow = whole.replace('    if data["n"] == -1', '    __import__("time").sleep(0.1)\n    if data["n"] == -1')
    assert slow != whole
    program.write_text(slow)
    job = cluster.submit()
    eventually(lambda: cluster.rows() > 20, "some rows are collected")
    job.signal(signal.SIGTERM)
    assert job.wait(60) == 143, job.out + job.err
    assert "requeued 7" in job.out
    done = cluster.rows()
    assert 20 < done < 1000
    assert "secret" not in job.out + job.err

    program.write_text(whole)
    again = cluster.submit()
    assert again.wait(60) == 0, again.out + again.err
    assert cluster.rows() == 1000


WAITS = """
    import os, time
    me = os.environ["SLURM_ARRAY_TASK_ID"]
    open(f"at-work-{me}", "w").close()
    time.sleep(0.005)
    while data["n"] > 500 and not os.path.exists(f"leave-{me}"):
        time.sleep(0.01)
"""
"""In the worker's function: the run is not over before each of the jobs may leave."""


@pytest.mark.slow
@pytest.mark.processes
def test_the_scripts_of_an_array_for_slurm_run_to_their_end(
    workshop: Workshop, eventually: Callable[..., None]
) -> None:
    """Workers that begin before their server find it; one that is warned is requeued; all leave when it is over."""
    cluster = Cluster(workshop)
    program = workshop.folder / "survey.py"
    program.write_text(program.read_text().replace("    if data", f"{WAITS}    if data", 1))
    workers = [
        cluster.submit(
            "workers.sbatch", "7", SLURM_JOB_ID=f"{9 + n}", SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID=f"{n}"
        )
        for n in range(2)
    ]
    server = cluster.submit("server.sbatch")
    eventually(lambda: cluster.rows() > 20, "some rows are collected")
    eventually(lambda: len(list(workshop.folder.glob("at-work-*"))) == 2, "both are at work")
    workers[1].signal(signal.SIGTERM)
    workshop.write("leave-1", "")
    assert workers[1].wait() == 0, workers[1].err
    assert "requeued 9_1" in workers[1].out
    workshop.write("leave-0", "")
    assert server.wait(60) == 0, server.out + server.err
    assert workers[0].wait() == 0, workers[0].err
    assert cluster.rows() == 1000
    assert "requeued" not in server.out + workers[0].out


def test_no_page_has_a_pod_or_a_job_begin_anew_at_each_start() -> None:
    """What is started again by a machine has an id, so that it goes on with its run, and no `--fresh`."""
    for name in ("deploy-slurm", "deploy-systemd"):
        for text in files_of(name).values():
            assert "--fresh" not in text
    assert '--run-id "$SLURM_JOB_ID"' in files_of("deploy-slurm")["survey.sbatch"]
