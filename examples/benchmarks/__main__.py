"""Start it with ``python -m examples.benchmarks NAME``; the commands are in the modules of this package."""

from __future__ import annotations

from importlib import import_module

import click

MODULES = (
    "arrays",
    "autoscale",
    "crowd",
    "dask",
    "granularity",
    "killed",
    "latency",
    "machines",
    "memory",
    "peers",
    "rates",
    "scale",
    "schedules",
    "stages",
    "startup",
    "threads",
    "waiting",
    "watched",
)
"""What measures. Beside these there are `record`, which keeps results, and `plot`, which draws them."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare zmqpipeline with a yardstick, in one run on this machine. Every answer is checked."""


def _add(module: str) -> list[str]:
    """Add the commands of a module; their names."""
    found = [
        one for one in vars(import_module(f"examples.benchmarks.{module}")).values() if isinstance(one, click.Command)
    ]
    for one in found:
        main.add_command(one)
    return [str(one.name) for one in found]


BENCHMARKS = sorted(name for module in MODULES for name in _add(module))
for _module in ("plot", "record"):
    _add(_module)

if __name__ == "__main__":
    main(prog_name="python -m examples.benchmarks")
