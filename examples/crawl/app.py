"""The crawl: each page is fetched once, whoever links to it, and is a row of a table in the journal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import urlopen

from zmqpipeline import Pipeline

app = Pipeline("crawl")
LINK, TITLE = re.compile(r'href="([^"]+)"'), re.compile(r"<title>(.*?)</title>")


def seeds(metadata: dict[str, Any]) -> list[dict[str, str]]:
    """Where it begins."""
    return [{"url": urljoin(metadata["site"], "/")}]


@app.task("page", first=seeds, for_each="page", key="url", retries=3)
def links(page: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What a page has links to: those that are known by now are skipped."""
    for url in page["links"]:
        yield {"url": url}


@app.worker("page", threads=4)
def fetch(data: dict[str, str]) -> dict[str, Any]:
    """Get one page. A dead link is a result, too; what else goes wrong is tried again."""
    try:
        with urlopen(data["url"], timeout=30) as answer:
            text = answer.read().decode()
    except HTTPError as error:
        return {"url": data["url"], "status": error.code, "title": "", "links": []}
    found = [urljoin(data["url"], link) for link in LINK.findall(text)]
    title = TITLE.search(text)
    return {"url": data["url"], "status": 200, "title": title[1] if title else "", "links": found}


@app.collector("page")
def keep(page: dict[str, Any], journal: Any) -> None:
    """One row for each: it is there together with the mark that the page is done, and with its links."""
    journal.execute(
        "CREATE TABLE IF NOT EXISTS pages (url TEXT PRIMARY KEY, status INTEGER, title TEXT, links INTEGER)"
    )
    journal.execute(
        "INSERT INTO pages VALUES (?, ?, ?, ?)", (page["url"], page["status"], page["title"], len(page["links"]))
    )
