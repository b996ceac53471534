"""A small disk for one run: a tmpfs of a process of its own, that can be filled and freed.

The tmpfs is mounted in a user and mount namespace, so that no rights are needed and nothing is left behind; a program
that shall see it is started through `enter`. Where the system permits no namespaces, a limit on the size of a
collector's files takes its place.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tests.acceptance.chaos.stage import Stage

SIZE = 16 << 20
"""The bytes of the tmpfs: several times what a journal of a run and its WAL need."""


def is_possible() -> bool:
    """Whether this system lets us mount a disk of our own."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("mount")):
        return False
    found = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return found.returncode == 0


class Disk:
    """A tmpfs, seen by programs that are started with `enter` before their command. Use it in a `with` block."""

    is_filled_by_us = True
    """Whether it is full only after `fill`."""

    def __init__(self, folder: Path) -> None:
        """Mount it at this folder, which must exist. RuntimeError if that is not permitted; see `is_possible`."""
        self._ballast = folder / "ballast"
        script = 'mount -t tmpfs -o "size=$2" none "$1" && echo mounted && exec cat'
        self._keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder), str(SIZE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"mounted\n":
            self.close()
            raise RuntimeError(f"A disk of {SIZE} bytes cannot be mounted at {folder} here.")
        self.enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(self._keeper.pid)]
        """What stands before the command of a program that shall see the disk."""

    def __enter__(self) -> Disk:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def fill(self) -> None:
        """Use up all space that is left."""
        self._do(f"dd if=/dev/zero of={self._ballast} bs=4096 || true")

    def free(self) -> None:
        """Give back what `fill` used up."""
        self._do(f"rm -f {self._ballast}")

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file of the disk, and those whose names begin with its name, to a folder that everybody sees."""
        self._do(f"cp {source}* {target}")

    def _do(self, script: str) -> None:
        subprocess.run([*self.enter, "sh", "-c", script], capture_output=True, timeout=10, check=True)

    def close(self) -> None:
        """End the process that keeps it; what was on it is gone."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(10)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()


class Quota:
    """What takes the place of a disk: a limit for the files of the first collector, which later ones do not have."""

    is_filled_by_us = False

    def __init__(self, stage: Stage) -> None:
        """For the collectors of this stage, whose plan has the limit."""
        self._stage = stage

    def __enter__(self) -> Quota:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to be done."""

    def fill(self) -> None:
        """The limit comes by itself."""

    def free(self) -> None:
        """The next collector has no limit."""
        self._stage.plan = replace(self._stage.plan, file_bytes=0)
