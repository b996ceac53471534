"""``python -m zmqpipeline -A package.module[:app] COMMAND``: the command line around an app that it imports."""

from __future__ import annotations

from zmqpipeline.runtime import child, standard_files
from zmqpipeline.runtime.imports import many_imports


def _start() -> None:
    # what is opened from here on, such as the lifeline, shall not be in the place of a closed one
    standard_files.open_closed_files()
    # before anything else is imported: from here on the process ends with the one that started it
    child.adopt()
    with many_imports():
        from zmqpipeline.cli.main import main
    main()


if __name__ == "__main__":
    _start()
