"""Processes that tests start compile nothing twice: a pytest plugin.

Where the environment forbids to write bytecode, or the tree is new, each of a thousand processes would compile all of
the library: a third of its start. So all of them share a folder for it, which is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder, and name it to all processes to come, those of xdist included."""
    if not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="zp-bytecode-")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    folder = config.stash.get(_FOLDER, "")
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
