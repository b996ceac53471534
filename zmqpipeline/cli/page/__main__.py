"""The page's server beside a run: ``python -m zmqpipeline.cli.page PLAN``, which `run` starts.

It ends with `run`, however that one ends. It is told what to serve by the file PLAN; lines of `run` come down the
lifeline: its warnings, how many workers it has, and that it is over. What a browser asks for goes to `run` on standard
output.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from zmqpipeline.cli.asker import Asker
from zmqpipeline.cli.page.place import TOKEN_VARIABLE
from zmqpipeline.cli.page.plan import ServerPlan
from zmqpipeline.cli.page.server import serve
from zmqpipeline.cli.page.shown import RunOver
from zmqpipeline.cli.page.site import Site
from zmqpipeline.cli.page.watch import Watch
from zmqpipeline.options import Options
from zmqpipeline.processes.worker_places import Staff
from zmqpipeline.runtime import child
from zmqpipeline.runtime.child_report import READY

NICE = 5
"""Where all cores compute, the roles of the run come first."""


def main(plan_file: str) -> None:
    """Serve until `run` says that it is over, or is gone."""
    token = os.environ.pop(TOKEN_VARIABLE, None)
    os.nice(NICE)
    plan = ServerPlan.read(Path(plan_file).read_text(encoding="utf-8", errors="surrogateescape"))
    listener = socket.socket(fileno=plan.listener)
    words = sys.stdout.fileno()

    def ask_for(word: str) -> None:
        os.write(words, f"{word}\n".encode())

    async def run() -> None:
        with Asker(lambda: [plan.base], plan.roles, Options(**plan.options)) as asker:
            watch = Watch(asker, plan.interval)
            site = Site(plan.page, watch, asker, ask_for if plan.control else None)
            hear, loop = _hearer(watch), asyncio.get_running_loop()
            child.listen(lambda line: loop.call_soon_threadsafe(hear, line))
            child.tell_parent(READY)
            await serve(site, watch, listener, plan.host, token, own=False)
            child.listen(None)

    asyncio.run(run())


def _hearer(watch: Watch) -> Callable[[str], None]:
    """What is done with a line of `run`."""

    def hear(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "log":
            level, text = json.loads(rest)
            watch.say(level, text)
        elif word == "over":
            told = json.loads(Path(rest).read_text(encoding="utf-8"))
            watch.end(RunOver(told["status"], told))
        elif word == "workers":
            which, there, wanted, is_ordered = (int(one) for one in rest.split())
            watch.staff(which, Staff(there, wanted, bool(is_ordered)))
        elif word == "ends":
            watch.unstaff()

    return hear


if __name__ == "__main__":
    child.adopt()
    main(sys.argv[1])
