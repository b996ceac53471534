"""``python -m tests.support.built_pages FOLDER``: what Sphinx built there has no dead link, and every public name.

Exits with 1 and a line for each dead link, or for each name that the pages' index does not know.
"""

from __future__ import annotations

import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import zmqpipeline


class Page(HTMLParser):
    """The links of one page, and what links may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what is an address, and what has a name."""
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.append(value)
            elif key == "id" and value:
                self.anchors.add(value)


def dead_links(folder: Path) -> list[str]:
    """Each link from a page to a file or an anchor of the same folder that is not there."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            anchor = unquote(parts.fragment)
            is_there = target.exists() and (not anchor or target not in pages or anchor in pages[target].anchors)
            if not is_there:
                dead.append(f"{path.relative_to(folder.resolve())}: {link}")
    assert pages, f"no pages in {folder}"
    return dead


def names_in(inventory: Path) -> set[str]:
    """The names of objects in Sphinx's index file: four lines of head, then a compressed line an object."""
    body = inventory.read_bytes().split(b"\n", 4)[4]
    return {line.split(" ", 1)[0] for line in zlib.decompress(body).decode().splitlines()}


def main(folder: Path) -> int:
    """Print what is wrong; the exit status."""
    known = names_in(folder / "objects.inv")
    wanted = {f"zmqpipeline.{name}" for name in zmqpipeline.__all__ if name != "__version__"}
    wrong = [f"dead link in {one}" for one in dead_links(folder)]
    wrong += [f"no entry for {name}" for name in sorted(wanted - known)]
    for line in wrong:
        print(line)
    print(f"{len(wanted)} public names, {len(wrong)} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
