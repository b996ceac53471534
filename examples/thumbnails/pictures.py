"""The half of the example that knows nothing of pipelines: drawing and shrinking with Pillow."""

from __future__ import annotations

import colorsys
import os
import random
import threading
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

try:
    from PIL import Image, ImageDraw, ImageOps
except ImportError as error:
    raise SystemExit(
        f"The example 'thumbnails' needs Pillow, which cannot be imported ({error}). "
        "From the project's root: pip install '.[thumbnails]'"
    ) from None

SIZE = (800, 600)
"""Width and height of what `draw` draws, in pixels."""


def draw(number: int) -> bytes:
    """A picture of hills in the evening as PNG; the same number always gives the same one."""
    chance = random.Random(number)
    width, height = SIZE
    picture = Image.linear_gradient("L").resize(SIZE)
    hue = chance.random()
    picture = ImageOps.colorize(picture, _colour(hue, 0.6, 0.4), _colour(hue + 0.1, 0.3, 1.0))
    brush = ImageDraw.Draw(picture)
    x, y, radius = chance.randrange(width), chance.randrange(height // 2), chance.randrange(30, 70)
    brush.ellipse((x - radius, y - radius, x + radius, y + radius), _colour(hue + 0.15, 0.2, 1.0))
    for row in range(6):
        top = height // 2 + row * height // 12
        heights = [top + chance.randrange(-60, 60) for _ in range(9)]
        line = [(index * width // 8, heights[index]) for index in range(9)]
        brush.polygon([(0, height), *line, (width, height)], _colour(hue + 0.4, 0.5, 0.6 - row * 0.09))
    return _png(picture)


def shrink(source: Path | BinaryIO, edge: int) -> tuple[bytes, tuple[int, int]]:
    """The picture as PNG, turned as its camera was, with no side longer than `edge`; and its new width and height.

    Raises PIL.UnidentifiedImageError (an OSError) for what is no picture, and other OSErrors for a broken one.
    """
    with Image.open(source) as opened:
        # before it is turned: a JPEG is then only decoded as far as is needed
        opened.thumbnail((edge, edge))
        small = ImageOps.exif_transpose(opened).convert("RGBA" if opened.has_transparency_data else "RGB")
    return _png(small), small.size


def write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all; again gives the same: an item may be executed twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue


def _png(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
