"""Start it with ``python -m examples.crawl run --journal FILE --meta site=ADDRESS``."""

from __future__ import annotations

from examples.crawl.app import app

if __name__ == "__main__":
    app.main()
