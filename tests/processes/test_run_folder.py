"""The folder of a run: gone with it, and if it was killed, with the next."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path

import pytest

from tests.support.transports import peer_process
from zmqpipeline.processes.run_folder import run_folder

RUN = """
import sys
from pathlib import Path
from zmqpipeline.processes.run_folder import run_folder

with run_folder(Path(sys.argv[1])) as folder:
    (folder / "workers.ipc").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    """As long as its process lives it stays."""
    with peer_process(RUN, str(tmp_path)) as process:
        assert process.stdout is not None
        old = Path(process.stdout.readline().strip())
        with run_folder(tmp_path) as beside:
            assert sorted(tmp_path.iterdir()) == sorted([old, beside])
            assert beside.stat().st_mode & 0o777 == 0o700
        assert list(tmp_path.iterdir()) == [old]
    assert (old / "workers.ipc").exists(), "the killed process cannot have removed it"
    with run_folder(tmp_path) as new:
        assert list(tmp_path.iterdir()) == [new]
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_of_ours_stays(tmp_path: Path) -> None:
    """A folder without the file, a file, a link, and a folder of another name."""
    with run_folder(tmp_path) as copied:
        shutil.copytree(copied, tmp_path / "other")
    (tmp_path / "zmqpipeline-0").mkdir()
    (tmp_path / "zmqpipeline-test").touch()
    (tmp_path / "zmqpipeline-link").symlink_to(tmp_path / "other")
    before = sorted(tmp_path.iterdir())
    assert len(before) == 4
    with run_folder(tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == before
    assert list((tmp_path / "other").iterdir())


def test_the_folder_is_gone_when_the_run_raises(tmp_path: Path) -> None:
    """Whatever it raises."""
    try:
        with run_folder(tmp_path):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems are: the run goes on, and nobody takes its folder for that of a dead one."""

    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as system:
        system.setattr(fcntl, "flock", no_locks)
        with run_folder(tmp_path) as folder:
            system.undo()
            with run_folder(tmp_path):
                assert folder.exists()
    assert not list(tmp_path.iterdir())
