"""Start it with ``python -m examples.thumbnails run [--meta path=FOLDER] [--meta out=FOLDER] [--meta edge=PIXELS]``."""

from __future__ import annotations

from examples.thumbnails.app import app

if __name__ == "__main__":
    app.main()
