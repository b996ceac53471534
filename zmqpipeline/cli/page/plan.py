"""What the page's server must know of an app and a run: all of it is text and numbers, so that another process has it.

The server beside a run does not import the app: its modules may be large, and slow to import.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.describe import graph_of
from zmqpipeline.cli.failed import command_of
from zmqpipeline.cli.page.layout import columns
from zmqpipeline.options import IN_PROGRAMS, Options
from zmqpipeline.runtime.error_text import printable

MAX_BOXES = 200
"""A graph with more boxes is not drawn: nobody could read it."""


@dataclass(frozen=True)
class Scalable:
    """A task whose number of workers may be changed by the page."""

    task: str
    limit: int
    """The most that it may have."""
    own: str
    """What `--workers` says of it: ``4`` or ``1:8``."""


@dataclass(frozen=True)
class PagePlan:
    """What is shown beside the answers of the run. All texts are as the user's program has them."""

    name: str
    graph: dict[str, Any] = field(default_factory=dict)
    """Boxes with their column and row, and arrows; empty: none is drawn."""
    dead: list[str] = field(default_factory=list)
    """The command line of `dead`, up to its name, and what follows: where the failed items are kept; empty: nowhere."""
    is_beside: bool = False
    """`run` has started it: it hears how the run ends."""
    scalable: list[Scalable] = field(default_factory=list)
    """The tasks whose number of workers may be changed; what the page is told, and asks for, names them by their place
    in it."""


@dataclass(frozen=True)
class ServerPlan:
    """What the server beside a run is told besides."""

    page: PagePlan
    base: str
    roles: list[str]
    options: dict[str, Any]
    listener: int
    """The number of the file that listens."""
    host: str
    interval: float
    control: bool

    def write(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> ServerPlan:
        """What `write` has made."""
        told = json.loads(text)
        scalable = [Scalable(**one) for one in told["page"]["scalable"]]
        return cls(**{**told, "page": PagePlan(**{**told["page"], "scalable": scalable})})


def page_plan(ctx: click.Context, app: Pipeline, journal: str | None, *, is_beside: bool) -> PagePlan:
    """The plan for this app, as the command of `ctx` was called; `journal` is where its failed items are kept."""
    dead = [] if journal is None else [command_of(ctx, app, "dead"), journal]
    return PagePlan(app.name, _graph(app), dead, is_beside)


def _graph(app: Pipeline) -> dict[str, Any]:
    boxes, arrows = graph_of(app)
    if len(boxes) > MAX_BOXES:
        return {}
    places = columns([str(box["id"]) for box in boxes], arrows)
    return {
        "boxes": [
            {
                **box,
                "task": printable(str(box["task"])),
                "lines": [printable(line) for line in box["lines"]],
                "column": places[str(box["id"])][0],
                "row": places[str(box["id"])][1],
            }
            for box in boxes
        ],
        "arrows": arrows,
    }


def plain_options(options: Options) -> dict[str, Any]:
    """The options as text and numbers, without those that are programs."""
    return {name: value for name, value in vars(options).items() if name not in IN_PROGRAMS}
