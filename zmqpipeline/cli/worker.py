"""The command `worker`: one worker, or processes of them that are started again when they die."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import (
    check_task,
    exit_when_idle_flag,
    flag_arguments,
    making,
    patient,
    serve,
    settle,
    shared_flags,
)
from zmqpipeline.roles.worker import Worker, WorkerRunner
from zmqpipeline.runtime.child import parents_host, take_handed_keys
from zmqpipeline.runtime.log import about_process
from zmqpipeline.runtime.security.issued import HandedKeys, RunKeys


@click.command("worker", epilog="Example: python -m app worker C --processes 4 --endpoint tcp://SERVER:5550")
@click.argument("task_type", required=False)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads a process. Default: as the app declares.")
@click.option(
    "--processes", type=click.IntRange(1), metavar="N", help="Number of worker processes; one that dies is restarted."
)
@click.option("--idle-timeout", type=click.FloatRange(0), metavar="S", help="Exit after S seconds without an item.")
@click.option("--stay", is_flag=True, help="Keep running: serve the next run when one has ended.")
@click.option("--tell-slowest", type=click.IntRange(0), default=0, hidden=True)
@exit_when_idle_flag
@shared_flags
@click.pass_obj
def worker_command(
    app: Pipeline,
    /,
    task_type: str | None,
    threads: int | None,
    processes: int | None,
    stay: bool,
    tell_slowest: int,
    **flags: Any,
) -> int:
    """Execute the items of one task. Without TASK_TYPE: of every task, each in a process of its own."""
    options = settle(app, flags)
    if host := parents_host():
        # who runs on the machine that it was started on knows that its addresses are there
        from zmqpipeline.processes.far import check_reach

        check_reach(app, options, host)
    known = app.worker_types
    if task_type is not None:
        check_task(task_type, known)
    types = [task_type] if task_type is not None else known
    if len(types) == 1 and processes is None:
        about_process(task=types[0], worker=f"{socket.gethostname()}/{os.getpid()}")
        with making(f"worker of {types[0]!r}", worker=True):
            worker = cast("Worker", app.compile("worker", types[0], options=patient(options, flags), threads=threads))
        worker.stay = worker.stay or stay
        runner = WorkerRunner.of(worker)
        runner.run_keys = RunKeys(handed=HandedKeys.read(take_handed_keys()))
        runner.slowest = tell_slowest
        return serve(worker, worker=True)
    given = {**flags, "threads": threads, "stay": stay, "exit_when_idle": options.exit_when_idle}
    # one worker is a process like any other; who starts several has more to import
    from zmqpipeline.processes.launch import supervise_workers

    return supervise_workers(app, types, processes or 1, flag_arguments(given), options.drain_timeout)
