"""``python -m zmqpipeline -A package.module[:app] COMMAND``: the command line around an app that it imports."""

from __future__ import annotations

from zmqpipeline.runtime import child


def _start() -> None:
    # before anything else is imported: from here on the process ends with the one that started it
    child.adopt()
    from zmqpipeline.cli.main import main

    main()


if __name__ == "__main__":
    _start()
