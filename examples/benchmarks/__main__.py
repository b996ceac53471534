"""Start it with ``python -m examples.benchmarks NAME``; each command is a module of this package."""

from __future__ import annotations

from importlib import import_module

import click

BENCHMARKS = (
    "chain",
    "checksums",
    "curve",
    "floor",
    "granularity",
    "journal",
    "latency",
    "memory",
    "mixed",
    "overhead",
    "payload",
    "peers",
    "scale",
    "service",
    "stages",
    "startup",
    "threads",
    "throughput",
    "turns",
    "uneven",
    "waiting",
)
"""What measures. Beside these there are `record`, which keeps results, and `plot`, which draws them."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare zmqpipeline with a yardstick, in one run on this machine. Every answer is checked."""


for _one in (*BENCHMARKS, "plot", "record"):
    main.add_command(import_module(f"examples.benchmarks.{_one}").command)

if __name__ == "__main__":
    main(prog_name="python -m examples.benchmarks")
