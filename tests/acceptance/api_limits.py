"""An API with limits: prompts against a local server that answers 429 above its rate, with everything killed at half.

    python -m tests.acceptance.api_limits --prompts 20000 --rate 1000

The server takes no more in any second than what a rate and its burst come to, twice the rate, and what may come late:
so many prompts are in flight at most, and so many are asked again by the processes that are started again. It refuses
all for a moment at first, as one whose quota somebody else has used up. After the pause that this leads to none is
refused, also by the processes that are started again; and it is paid for no more than the prompts and what was in
flight when everything was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import tempfile
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from tests.acceptance.conftest import Program, Workshop, wait_until

SERVER = """
import asyncio, json, sys, time
from collections import deque

MOST, CLOSED = int(sys.argv[1]), float(sys.argv[2])
taken, figures = deque(), {"paid": 0, "refused": 0, "refused_later": 0, "first": 0.0}

def answer(now):
    figures["first"] = figures["first"] or now
    while taken and taken[0] < now - 1.0:
        taken.popleft()
    opens = figures["first"] + CLOSED
    if now < opens or len(taken) >= MOST:
        figures["refused"] += 1
        # who was on the way when the pause was asked for is refused with it
        figures["refused_later"] += now > figures["first"] + 2 * CLOSED
        wait = max(opens - now, 0.05)
        return b"HTTP/1.1 429 Too Many Requests\\r\\nRetry-After: %f\\r\\nContent-Length: 0\\r\\n\\r\\n" % wait
    taken.append(now)
    figures["paid"] += 1
    return b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"

async def serve(reader, writer):
    while (line := await reader.readline()):
        while await reader.readline() not in (b"\\r\\n", b""):
            pass
        if line.startswith(b"GET /figures"):
            body = json.dumps(figures).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        else:
            said = answer(time.monotonic())
            await asyncio.sleep(0.01)
            writer.write(said)

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

APP = """
import os
import aiohttp
from zmqpipeline import Pipeline, Retry

app = Pipeline("ask")
URL, PROMPTS = os.environ["URL"], int(os.environ["PROMPTS"])

@app.task("prompt", rate=os.environ["RATE"] + "/s", limit=int(os.environ["LIMIT"]))
def prompts():
    for n in range(PROMPTS):
        yield {"n": n}

@app.worker_init("prompt")
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session

@app.worker("prompt", concurrency=200)
async def ask(data, resource):
    async with resource.get(URL) as answer:
        if answer.status == 429:
            raise Retry(after=float(answer.headers["Retry-After"]), pause=True)
        return {"n": data["n"], "answer": await answer.text()}

@app.collector
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS answers (n INTEGER PRIMARY KEY, answer TEXT)")
    journal.execute("INSERT INTO answers VALUES (:n, :answer)", data)
    with open("kept", "a") as file:
        print(data["n"], file=file)

if __name__ == "__main__":
    app.main()
"""

CLOSED = 1.0
LIMIT = 100


@dataclass(frozen=True)
class Figures:
    """What came of it, as the server and the journal have it."""

    prompts: int
    answers: int
    paid: int
    refused: int
    refused_later: int
    seconds: float

    def check(self) -> None:
        """Hold it against what is promised."""
        assert self.answers == self.prompts, self
        assert self.refused > 0, self
        assert self.refused_later == 0, self
        assert self.prompts <= self.paid <= self.prompts + LIMIT, self


def run(workshop: Workshop, prompts: int, rate: int) -> Figures:
    """The whole of it."""
    workshop.write("server.py", SERVER)
    workshop.write("app.py", APP)
    server = workshop.start("server.py", str(2 * rate + 2 * LIMIT), str(CLOSED))
    wait_until(lambda: bool(server.out.strip()), "the server", 30.0)
    url = f"http://127.0.0.1:{int(server.out)}/"
    environ = {"URL": url, "PROMPTS": str(prompts), "RATE": str(rate), "LIMIT": str(LIMIT)}

    def start() -> list[Program]:
        roles = (("distributor",), ("worker",), ("collector", "--journal", "run.journal"))
        return [workshop.start("-m", "app", *role, **environ) for role in roles]

    began = time.monotonic()
    roles = start()
    longest = 60 + 3 * prompts / rate
    wait_until(lambda: len(workshop.lines("kept")) >= prompts // 2, "half of them", longest)
    for role in roles:
        os.kill(role.pid, signal.SIGKILL)
        role.wait()
    roles = start()
    ended = [role.wait(longest) for role in roles]
    assert ended == [0, 0, 0], (ended, roles[0].err)
    seconds = time.monotonic() - began
    with urllib.request.urlopen(f"{url}figures", timeout=10) as told:
        figures = json.load(told)
    with closing(sqlite3.connect(workshop.folder / "run.journal")) as db:
        ((answers,),) = db.execute("SELECT count(*) FROM answers")
    server.signal(signal.SIGKILL)
    server.wait()
    return Figures(prompts, answers, figures["paid"], figures["refused"], figures["refused_later"], seconds)


@click.command()
@click.option("--prompts", default=20_000, show_default=True)
@click.option("--rate", default=1000, show_default=True, help="So many a second.")
def main(prompts: int, rate: int) -> None:
    """Run it, and print what came of it."""
    with tempfile.TemporaryDirectory(prefix="api-limits-") as folder:
        workshop = Workshop(Path(folder))
        try:
            figures = run(workshop, prompts, rate)
        finally:
            workshop.close()
    click.echo(figures)
    figures.check()


if __name__ == "__main__":
    main()
