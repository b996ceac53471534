"""Processes that tests start compile nothing twice: a pytest plugin.

Where the environment forbids to write bytecode, or the tree is new, each of a thousand processes would compile all of
the library: a third of its start. So all of them share a folder for it, which is gone afterwards.

The processes of xdist keep theirs in the tree, where that is allowed: what pytest makes of some thousand asserts would
take each of them six seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import Any

import pytest

_FOLDER = pytest.StashKey[str]()
_IN_TREE = "bytecode_in_tree"


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder, and name it to all processes to come, those of xdist included."""
    if not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="zp-bytecode-")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    elif config.workerinput[_IN_TREE]:
        sys.pycache_prefix = None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of xdist whether it may keep bytecode in the tree."""
    node.workerinput[_IN_TREE] = not sys.dont_write_bytecode and sys.pycache_prefix is None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    folder = config.stash.get(_FOLDER, "")
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
