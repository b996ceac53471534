"""Start it with ``python -m examples.benchmarks NAME``; each benchmark is a module of this package."""

from __future__ import annotations

from importlib import import_module

import click

_BENCHMARKS = (
    "curve",
    "floor",
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
    "throughput",
    "turns",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare zmqpipeline with a yardstick, in one run on this machine. Every answer is checked."""


for _one in _BENCHMARKS:
    main.add_command(import_module(f"examples.benchmarks.{_one}").command)

if __name__ == "__main__":
    main(prog_name="python -m examples.benchmarks")
