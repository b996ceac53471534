"""Start it with ``python -m examples.logging run``; the variable LOG_FILE says where the file is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from zmqpipeline import Pipeline, configureLogging

# Here, at the top of the module, it holds in every process of the run: each of them imports the module.
configureLogging(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "short": {"format": "{levelname:<7} {name}: {message}", "style": "{"},
            "long": {
                "format": "{asctime} {levelname} {name} process {process}, thread {threadName}: {message}",
                "style": "{",
            },
        },
        "handlers": {
            "console": {"class": "logging.StreamHandler", "level": "INFO", "formatter": "short"},
            "file": {
                "class": "logging.FileHandler",
                "filename": os.environ.get("LOG_FILE", "zmqpipeline.log"),
                "encoding": "utf-8",
                "formatter": "long",
                # no file for a command that has nothing to say
                "delay": True,
            },
        },
        "loggers": {
            "zmqpipeline.distributor": {"level": "DEBUG", "handlers": ["console", "file"]},
            "zmqpipeline.task": {"level": "DEBUG", "handlers": ["console", "file"]},
            "zmqpipeline.worker": {"level": "DEBUG", "handlers": ["console", "file"]},
            "zmqpipeline.collector": {"level": "DEBUG", "handlers": ["console", "file"]},
        },
    }
)

# A name below one of the library's: its lines go wherever those go.
task_log = logging.getLogger("zmqpipeline.task.letters")
worker_log = logging.getLogger("zmqpipeline.worker.letters")
collector_log = logging.getLogger("zmqpipeline.collector.letters")

app = Pipeline("logging")


@app.task("letter")
def letters() -> Iterator[dict[str, str]]:
    """Three items."""
    for name in ("alpha", "beta", "gamma"):
        task_log.debug("giving out %s", name)
        yield {"name": name}


@app.worker("letter")
def measure(data: dict[str, str]) -> dict[str, int | str]:
    """A debug line an item: the console, which begins at INFO, does not show it; the file has it."""
    worker_log.debug("measuring %s", data["name"])
    return {"name": data["name"], "length": len(data["name"])}


@app.collector
def note(data: dict[str, int | str]) -> None:
    """An info line an item: console and file have it."""
    collector_log.info("%s has %d letters", data["name"], data["length"])


if __name__ == "__main__":
    app.main()
