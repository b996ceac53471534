"""Start it with ``python -m examples.thumbnails.client [PICTURE] [--out FILE] [--endpoint ADDRESS]``."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from examples.background import served
from examples.thumbnails import pictures
from examples.thumbnails.app import EDGE, app
from zmqpipeline import Options
from zmqpipeline.errors import RequestFailed


def ask(options: Options, picture: bytes, edge: int, out: Path) -> str:
    """Ask for one thumbnail and write it to a file; what there is to say about it."""
    with app.client("thumbnail", options=options) as client:
        reply = client.request({"picture": picture, "edge": edge})
    pictures.write(out, reply["thumbnail"])
    return f"{out}: {reply['width']} x {reply['height']} pixels, {len(reply['thumbnail']):,} of {len(picture):,} bytes"


def main() -> None:
    """Read the command line, ask once, and say what came."""
    parser = argparse.ArgumentParser(prog="python -m examples.thumbnails.client", description="Ask for one thumbnail.")
    parser.add_argument("picture", nargs="?", type=Path, metavar="PICTURE", help="a file; without one, one is drawn")
    parser.add_argument("--out", type=Path, default=Path("thumbnail.png"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--edge", type=int, default=EDGE, metavar="PIXELS", help="the longest side (%(default)s)")
    parser.add_argument("--endpoint", metavar="ADDRESS", help="of a broker that runs; without one, one is started")
    given = parser.parse_args()
    try:
        picture = given.picture.read_bytes() if given.picture else pictures.draw(0)
        place = (
            nullcontext(Options(endpoint=given.endpoint))
            if given.endpoint
            else served("examples.thumbnails", "thumbnail")
        )
        with place as options:
            print(ask(options, picture, given.edge, given.out))
    except (OSError, RequestFailed) as error:
        raise SystemExit(f"No thumbnail: {error}") from None


if __name__ == "__main__":
    main()
