"""``python -m zmqpipeline.processes.engines.dask_local PROCESSES THREADS``: a LocalCluster for one run, on its own.

It prints the address of its scheduler, and closes when its standard input ends, as it does when `run` dies. Beside the
collector, in the process of `run`, the scheduler's loop and its collector of cycles would cost items.
"""

from __future__ import annotations

import logging
import sys

import dask
import distributed

NEAR = "127.0.0.1:0"


def main() -> None:
    """Make it, and wait."""
    processes, threads = map(int, sys.argv[1:3])
    # the profiler would look at a thread that only waits, a hundred times a second
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        cluster = distributed.LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            processes=True,
            memory_limit=0,
            # they are served in any case: to this machine alone, and without the pages that cost
            dashboard_address=NEAR,
            worker_dashboard_address=NEAR,
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.ERROR,
        )
    with cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
