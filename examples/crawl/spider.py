"""The same crawl by Scrapy, to compare with; it needs ``pip install scrapy``.

Start it with ``python -m examples.crawl.spider SITE JOBDIR TABLE``. What Scrapy has to do is in the folder JOBDIR, so
that it goes on where it was ended; each page is a row of the table, committed as it comes.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import scrapy
from scrapy.crawler import CrawlerProcess

from examples.crawl.app import LINK, TITLE


class Pages(scrapy.Spider):  # type: ignore[misc]
    """Each page once, whoever links to it: Scrapy drops a request that it has seen."""

    name = "pages"
    handle_httpstatus_list = (404,)

    def parse(self, response: Any) -> Iterator[Any]:
        """One page: a row, and a request for each of its links."""
        links = LINK.findall(response.text) if response.status == 200 else []
        title = TITLE.search(response.text)
        yield {"url": response.url, "status": response.status, "title": title[1] if title else "", "links": len(links)}
        for link in links:
            yield scrapy.Request(urljoin(response.url, link))


class Table:
    """Scrapy's item pipeline: rows of a table."""

    def __init__(self, crawler: Any) -> None:
        """The table is made if there is none."""
        self.db = sqlite3.connect(crawler.settings["TABLE"], isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS pages (url TEXT, status INTEGER, title TEXT, links INTEGER)")

    @classmethod
    def from_crawler(cls, crawler: Any) -> Table:
        """How Scrapy makes one."""
        return cls(crawler)

    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        """Insert one row."""
        self.db.execute("INSERT INTO pages VALUES (:url, :status, :title, :links)", item)
        return item


if __name__ == "__main__":
    site, jobdir, table = sys.argv[1:]
    settings = {"JOBDIR": jobdir, "TABLE": table, "ITEM_PIPELINES": {Table: 1}, "LOG_LEVEL": "WARNING"}
    process = CrawlerProcess({**settings, "TELNETCONSOLE_ENABLED": False})
    process.crawl(Pages, start_urls=[urljoin(site, "/")])
    process.start()
