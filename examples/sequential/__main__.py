"""Start it with ``python -m examples.sequential [--items N] [--delay SECONDS]``."""

from __future__ import annotations

import argparse
import time


def loop(items: int, delay: float) -> float:
    """Do all items one after the other; the seconds that it took."""
    began = time.monotonic()
    for _ in range(items):
        time.sleep(delay)
    return time.monotonic() - began


def report(items: int, delay: float, seconds: float) -> str:
    """One line: what was slept, how long it took, and how much of it was not sleep."""
    slept = items * delay
    over = (seconds / slept - 1) * 100 if slept else 0.0
    return f"{items} sleeps of {delay * 1000:g} ms, {slept:.2f} s in all, took {seconds:.2f} s in a loop: {over:+.1f} %"


def main() -> None:
    """Read the command line, do the work, say how long it took."""
    parser = argparse.ArgumentParser(prog="python -m examples.sequential", description=__doc__)
    parser.add_argument("--items", type=int, default=100, metavar="N", help="how many items (default: %(default)s)")
    parser.add_argument(
        "--delay", type=float, default=0.01, metavar="SECONDS", help="what each takes (default: %(default)s)"
    )
    given = parser.parse_args()
    print(report(given.items, given.delay, loop(given.items, given.delay)))


if __name__ == "__main__":
    main()
