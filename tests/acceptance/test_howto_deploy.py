"""The pages docs/howto/deploy-*.md: their files fit the command line, grace outlasts a drain, Slurm's script runs."""

from __future__ import annotations

import configparser
import json
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


def test_a_pod_starts_a_command_and_outlasts_its_drain() -> None:
    """The arguments of each container are understood; Kubernetes kills later than the role has drained."""
    text = files_of("deploy-kubernetes")["survey.yaml"]
    arguments = [json.loads(one) for one in re.findall(r"^ *args: (\[.*\])$", text, re.MULTILINE)]
    assert [one[0] for one in arguments] == ["run", "worker"]
    for one in arguments:
        check_arguments(one)
    drains = re.findall(r'ZMQPIPELINE_DRAIN_TIMEOUT, value: "(\d+)"', text)
    graces = re.findall(r"terminationGracePeriodSeconds: (\d+)", text)
    assert len(drains) == len(graces) == len(arguments)
    assert min(map(int, graces)) >= max(map(int, drains)) + 5


def test_slurm_warns_earlier_than_the_drain_takes() -> None:
    """The signal comes so early that the drain is over before the time limit."""
    script = files_of("deploy-slurm")["survey.sbatch"]
    (early,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", script, re.MULTILINE)
    (drain,) = re.findall(r"^export ZMQPIPELINE_DRAIN_TIMEOUT=(\d+)$", script, re.MULTILINE)
    assert int(early) >= int(drain) + 5


SCONTROL = """#!/bin/bash
case "$1" in
  show) echo 127.0.0.1; echo node2 ;;
  requeue) echo "requeued $2" ;;
esac
"""
SRUN = """#!/bin/bash
while [[ "$1" = --* ]]; do shift; done
exec "$@"
"""


class Cluster:
    """One node, on which `srun` runs its command and `scontrol` knows of two."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        folder = workshop.folder / "bin"
        folder.mkdir()
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (program,) = (one.text for one in blocks_of(HOWTO / "resume.md") if one.rest == "survey.py")
        workshop.write("survey.py", program.replace("== 13", "== -1"))
        script = files_of("deploy-slurm")["survey.sbatch"].replace("port=5550", f"port={free_ports(7)[0]}")
        script = script.replace("tcp://*:", "tcp://127.0.0.1:")
        workshop.write("survey.sbatch", script)
        self.environ = {
            **workshop.environ,
            "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "2",
        }

    def submit(self) -> Program:
        """Start the script as slurmd would."""
        program = Program(self.workshop.folder, "job", ["bash", "survey.sbatch"], self.environ)
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
    slow = whole.replace('    if data["n"] == -1', '    __import__("time").sleep(0.02)\n    if data["n"] == -1')
    assert slow != whole
    program.write_text(slow)
    job = cluster.submit()
    eventually(lambda: cluster.rows() > 20, "some rows are collected")
    job.signal(signal.SIGTERM)
    assert job.wait(60) == 143, job.out + job.err
    assert "requeued 7" in job.out
    done = cluster.rows()
    assert 20 < done < 1000

    program.write_text(whole)
    again = cluster.submit()
    assert again.wait(60) == 0, again.out + again.err
    assert cluster.rows() == 1000


def test_no_page_has_a_pod_or_a_job_begin_anew_at_each_start() -> None:
    """What is started again by a machine has an id, so that it goes on with its run, and no `--fresh`."""
    for name in ("deploy-kubernetes", "deploy-slurm", "deploy-systemd"):
        for text in files_of(name).values():
            assert "--fresh" not in text
    assert "ZMQPIPELINE_RUN_ID" in files_of("deploy-kubernetes")["survey.yaml"]
    assert '--run-id "$SLURM_JOB_ID"' in files_of("deploy-slurm")["survey.sbatch"]
