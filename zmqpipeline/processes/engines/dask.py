"""The engine of Dask (extra ``zmqpipeline[dask]``): one long-lived task of a cluster for each worker.

`run --engine dask --scheduler tcp://HOST:8786` uses a cluster that there is, `run --engine dask` makes a LocalCluster.

The task takes one thread of a Dask worker, and the ``resources=`` that were asked for. It executes `run_far`, which
starts our worker as a process of its own there and connects its standard streams to `run`. So Dask sees one task that
runs for as long as the worker does, adaptive clusters see how many wait for a place, and no item goes through Dask.

* Dask starts a task again by itself when it loses the node. That one comes with a token that was used, and is told to
  leave: the place is filled anew as after any other death (`restarts`).
* The run's end, its kill, and the loss of the scheduler end the worker's process: by its token, by the broken
  connection, by the Dask worker that closes.
* What is asked of the scheduler is asked by a thread of its own: one that does not answer holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress, derive
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.processes.engines import EngineRun, RunEngine
from zmqpipeline.processes.engines.prefix import handed_path
from zmqpipeline.runtime.child import Child, search_path
from zmqpipeline.runtime.far_child import FarChild
from zmqpipeline.runtime.far_streams import KILL, LOST, FarCommand, FarStreams, run_far
from zmqpipeline.runtime.launch_words import LAUNCHED_FLAG, plain
from zmqpipeline.runtime.security.issued import keys_for_worker

log = logging.getLogger("zmqpipeline.run")

INSTALL = "pip install 'zmqpipeline[dask]'"

CONNECT = 10.0
"""Seconds that the scheduler may take to answer."""

LAST_WORDS = 1.0
"""Seconds that the last words of a worker may take beyond the end of its task."""

CLOSING = 10.0
"""Seconds that the scheduler may take to let go of what is asked for."""

AT_WORK = ("init", "running", "paused", "closing_gracefully")
"""What a Dask worker's status is for as long as it executes tasks."""

OPTIONS = ("resources", "folder")

HINT = (
    " Nothing was heard of the worker that Dask was asked for: see the log of the Dask worker. zmqpipeline and the app "
    "must be installed where it runs, and `run` must be reached from there."
)


class DaskEngine(RunEngine):
    """See the module."""

    hint = HINT

    def __init__(self, run: EngineRun) -> None:
        """Connect to the scheduler, or make a cluster. Raises ConfigurationError."""
        super().__init__(run)
        self._distributed = _distributed()
        self._resources = _resources(run.options)
        self._check_address()
        self._cluster: subprocess.Popen[bytes] | None = None
        self._local_address = ""
        self._client: Any = None
        self._futures: dict[bytes, Any] = {}
        self._guard = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        try:
            self._streams = FarStreams(derive(run.endpoint, "engine"))
        except OSError as error:
            raise ConfigurationError(
                f"The address {derive(run.endpoint, 'engine')} cannot be bound ({error}): workers that Dask starts "
                "connect to it. Give another base address: --endpoint tcp://HOST:PORT."
            ) from error
        try:
            self._connect()
        except BaseException:
            self._streams.close()
            self._close_cluster()
            raise
        self._thread = threading.Thread(target=self._work, name="dask engine", daemon=True)
        self._thread.start()

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """As `Engine.start`: asks for it, and returns at once."""
        with keys_for_worker(self.run.issuer, label, exited) as (keys, ended):
            child = FarChild(label, ended, self._streams, lambda: self._withdraw(child.token), stdout=stdout, keys=keys)
        at = arguments.index("-m") + 2
        command = FarCommand(
            arguments=[*arguments[:at], LAUNCHED_FLAG, *plain(arguments[at:])],
            address=str(self._streams.address),
            token=child.token,
            key=self._streams.key,
            python=self.run.python,
            environ=self._environ(),
            folder=self.run.options.get("folder"),
        )
        self._jobs.put(lambda: self._submit(child, command))
        return child

    def close(self) -> None:
        """Leave nothing on the cluster."""
        self._streams.close()
        with self._guard:
            futures = list(self._futures.values())
            self._futures.clear()
        self._jobs.put(lambda: self._cancel(futures))
        self._jobs.put(None)
        self._thread.join(CLOSING)
        self._close_cluster()

    # on the thread that asks ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _submit(self, child: FarChild, command: FarCommand) -> None:
        if child.status is not None:
            return
        try:
            if self._client.status in ("closing", "closed"):
                self._connect()
            future = self._client.submit(
                run_on_dask,
                command,
                key=f"zmqpipeline-{self.run.pipeline}-{self.run.run}-{os.urandom(4).hex()}",
                pure=False,
                retries=0,
                resources=self._resources or None,
            )
        except Exception as error:
            log.warning("Dask cannot be asked for the %s: %s", child.label, _said(error))
            child.ended(1)
            return
        with self._guard:
            self._futures[child.token] = future
        future.add_done_callback(partial(self._task_ended, child))
        if child.status is not None:
            self._withdraw(child.token)

    def _task_ended(self, child: FarChild, future: Any) -> None:
        """Called by a thread of Dask: the task has returned, failed, or is lost."""
        with self._guard:
            self._futures.pop(child.token, None)
        if child.status is not None:
            return
        if future.status == "finished":
            try:
                status, why, is_final = future.result()
            except Exception as error:
                log.info("What the task of Dask for the %s has returned is lost: %s", child.label, _said(error))
                child.ended(LOST)
                return
            if status is not None:
                timer = threading.Timer(LAST_WORDS, child.ended, (status,))
                timer.daemon = True
                timer.start()
                return
            log.warning("Dask has started the %s, but %s.", child.label, why)
            child.ended(2 if is_final else 1, chosen=is_final)
        elif future.status == "error":
            log.warning("The task of Dask for the %s failed: %s", child.label, _said(future.exception()))
            child.ended(1)
        else:
            self._streams.send(child.token, KILL)
            child.ended(LOST)

    def _withdraw(self, token: bytes) -> None:
        with self._guard:
            future = self._futures.pop(token, None)
        if future is not None:
            self._jobs.put(lambda: self._cancel([future]))

    def _cancel(self, futures: list[Any]) -> None:
        if not futures or self._client.status != "running":
            return  # a scheduler that lost us has let go of them
        try:
            self._client.cancel(futures, force=True)
        except Exception as error:
            log.info("Dask was not told that a worker is not needed any more: %s", _said(error))

    # the cluster ------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._cluster is not None and self._cluster.poll() is not None:
            log.warning(
                "The LocalCluster of Dask has ended (status %s); another one is made.", self._cluster.returncode
            )
            self._cluster.communicate()
            self._cluster = None
        if self.run.scheduler is None and self._cluster is None:
            self._cluster = self._local_cluster()
        address = self.run.scheduler or self._local_address
        try:
            self._client = self._distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The scheduler of Dask at {address} cannot be reached: {_said(error)}. Give the address that it logs "
                "at its start: --scheduler tcp://HOST:8786."
            ) from error

    def _local_cluster(self) -> subprocess.Popen[bytes]:
        """As many processes as there are cores, or workers, and a thread for each worker.

        It has a session of its own: a Ctrl-C in the terminal is for `run`, which drains.
        """
        processes = max(1, min(usable_cores(), self.run.workers))
        threads = -(-max(1, self.run.workers) // processes)
        cluster = subprocess.Popen(
            [sys.executable, "-m", "zmqpipeline.processes.engines.dask_local", str(processes), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search_path()},
            start_new_session=True,
        )
        assert cluster.stdout is not None
        self._local_address = cluster.stdout.readline().decode().strip()
        if not self._local_address:
            cluster.communicate()
            raise ConfigurationError(
                f"The LocalCluster of Dask could not be started (status {cluster.returncode}): its message is above."
            )
        return cluster

    def _close_cluster(self) -> None:
        if self._client is not None:
            with suppress(OSError, TimeoutError, asyncio.TimeoutError):
                self._client.close(timeout=CLOSING)
        if self._cluster is not None:
            with suppress(subprocess.TimeoutExpired):
                # the end of its input is the end of it
                self._cluster.communicate(timeout=CLOSING)
            self._cluster.kill()
            self._cluster.communicate()

    def _environ(self) -> dict[str, str]:
        """On this machine a worker imports what we import."""
        return {} if self._cluster is None or self.run.python is not None else handed_path(os.environ)

    def _check_address(self) -> None:
        unknown = sorted(set(self.run.options) - set(OPTIONS))
        if unknown:
            raise ConfigurationError(
                f"The engine of Dask has no option {unknown[0]!r}. Known: {', '.join(OPTIONS)}, as in "
                "--engine-option resources=GPU:1."
            )
        if EndpointAddress(self.run.endpoint).protocol == "inproc":
            raise ConfigurationError("Workers of Dask are other processes: give --endpoint tcp://HOST:PORT.")


def run_on_dask(command: FarCommand) -> tuple[int | None, str, bool]:
    """The task: see `run_far`; and whether another one would fare no better. It runs on a Dask worker."""
    import distributed

    worker = distributed.get_worker()
    status, why = run_far(command, lambda: worker.status.name in AT_WORK)
    return status, why, command.address.startswith("ipc:")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ConfigurationError(f"--engine dask needs the package `distributed`. Install it: {INSTALL}.") from error
    return distributed


def _resources(options: Any) -> dict[str, float]:
    """``GPU:1,MEMORY:2e9`` as Dask takes it."""
    found: dict[str, float] = {}
    for one in filter(None, options.get("resources", "").split(",")):
        name, _, number = one.partition(":")
        try:
            found[name] = float(number)
        except ValueError:
            raise ConfigurationError(
                f"--engine-option resources={options['resources']} is none: {one!r} has no number. Write NAME:NUMBER, "
                "with commas between, as in resources=GPU:1."
            ) from None
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
