"""Start it with ``python -m examples.service service``, ``service-worker`` or ``call count JSON``."""

from __future__ import annotations

from examples.service.app import app

if __name__ == "__main__":
    app.main()
