"""One client of the service, asking all the while: ``python -m tests.acceptance.chaos.client NAME ADDRESS``.

So many requests are open at any time; each right answer is a line. A wrong one ends it. What is refused is asked again:
a broker that ends in good order refuses, and another one will answer.
"""

from __future__ import annotations

import sys
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

from tests.acceptance.chaos.app import PLAN, app, note
from zmqpipeline.errors import ServiceUnavailable
from zmqpipeline.options import Options

OPEN_REQUESTS = 8
"""How many requests a client has open."""


def ask(name: str, address: str) -> None:
    """Ask all requests of the plan; raises what is neither a right answer nor a refusal."""
    left = list(reversed(range(PLAN.items)))
    asked: dict[Future[Any], int] = {}
    with app.client("double", options=replace(Options(), endpoint=address)) as client:
        while left or asked:
            while left and len(asked) < OPEN_REQUESTS:
                n = left.pop()
                asked[client.submit({"client": name, "n": n}, timeout=60)] = n
            done, _ = wait(asked, return_when=FIRST_COMPLETED)
            for one in done:
                n = asked.pop(one)
                if isinstance(one.exception(), ServiceUnavailable):
                    note("refusals", name, n, 0)
                    left.append(n)
                    continue
                answer = one.result()
                if answer != {"n": n, "double": 2 * n}:
                    raise ValueError(f"asked {n}, was answered {answer}")
                note("calls", name, n, 0)


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2])
