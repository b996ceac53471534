"""Start it with ``python -m examples.service.client``: it starts a broker and two workers, asks, and ends them."""

from __future__ import annotations

import asyncio

from examples.background import served
from examples.service.app import app
from zmqpipeline import ServiceClient
from zmqpipeline.errors import ServiceError

PROVERBS = [
    "Many hands make light work",
    "A watched pot never boils",
    "Look before you leap",
    "Well begun is half done",
]


def ask(client: ServiceClient) -> None:
    """The ways to ask."""
    reply = client.request({"text": PROVERBS[0]})
    print(f"one request: {reply['words']} words, {reply['letters']} letters")

    replies = client.request([{"text": text} for text in PROVERBS])
    print(f"a list of them, in order: {[reply['words'] for reply in replies]} words")

    futures = [client.submit({"text": text}) for text in PROVERBS * 25]
    processes = {future.result()["process"] for future in futures}
    print(f"{len(futures)} at once, answered by {len(processes)} processes")

    print(f"from asyncio: {asyncio.run(gather(client))} letters")


async def gather(client: ServiceClient) -> list[int]:
    """Several requests of one event loop."""
    replies = await asyncio.gather(*(client.arequest({"text": text}) for text in PROVERBS))
    return [reply["letters"] for reply in replies]


def ask_wrongly(client: ServiceClient) -> None:
    """What the function raised is raised here, as text; the worker goes on."""
    try:
        client.request({"text": 7})
    except ServiceError as error:
        print(f"an error of the service: {error}")


if __name__ == "__main__":
    with served("examples.service", "count", processes=2) as options, app.client("count", options=options) as client:
        ask(client)
        ask_wrongly(client)
