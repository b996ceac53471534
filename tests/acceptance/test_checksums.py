"""The example with real input: its manifest is what sha256sum expects, whatever the names."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from examples.checksums import manifest

pytestmark = pytest.mark.processes

NAMES = [
    b"plain",
    b"with space",
    b"back\\slash",
    b"new\nline",
    b"carriage\rreturn",
    b"\xff\xfe",
    "é".encode(),
    b"-dash",
    b"*",
]


def check(folder: Path, out: Path) -> None:
    """`sha256sum -c` in the folder accepts the manifest."""
    subprocess.run(["sha256sum", "-c", "--quiet", "--strict", str(out)], cwd=folder, check=True)


def fill(folder: Path) -> None:
    """Files with odd names, one below another folder, and a link to a file."""
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(name * number * 1000)
    (folder / "below" / "empty").touch()
    (folder / "link").symlink_to("plain")


@pytest.mark.slow
def test_odd_names_arrive_as_they_are(workshop: Any) -> None:
    """Backslashes, newlines, undecodable bytes: one line a file, each accepted; the manifest does not list itself."""
    folder = workshop.folder / "data"
    fill(folder)
    out = folder / "manifest.sha256"
    meta = ("--meta", f"path={folder}", "--meta", f"out={out}")
    for _ in range(2):
        status, program = workshop.run("-m", "examples.checksums", "run", *meta)
        assert status == 0, program.err
        assert out.read_bytes().count(b"\n") == len(NAMES) + 2
        check(folder, out)
    assert f"{len(NAMES) + 2} files in" in program.out
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_what_cannot_be_read_is_listed_and_the_rest_is_there(workshop: Any) -> None:
    """A broken link is a failed item, listed at the end; status 1; every other file is in the manifest."""
    folder, out = workshop.folder / "data", workshop.folder / "out"
    fill(folder)
    (folder / "broken\nlink").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    status, program = workshop.run(
        "-m", "examples.checksums", "run", "--meta", f"path={folder}", "--meta", f"out={out}"
    )
    assert status == 1, program.err
    assert "not in it: broken\\x0alink: FileNotFoundError" in program.out
    assert out.read_bytes().count(b"\n") == len(NAMES) + 2
    check(folder, out)


@pytest.mark.slow
def test_a_folder_that_is_not_there_is_said(workshop: Any) -> None:
    """A wrong path fails the task with a sentence that says what to do; no manifest of nothing is trusted: status 1."""
    status, program = workshop.run("-m", "examples.checksums", "run", "--meta", "path=/no/such/folder")
    assert status == 1
    assert "'/no/such/folder' is no folder" in program.err


@pytest.mark.slow
def test_the_standard_library_by_default(workshop: Any) -> None:
    """Without any --meta: as many lines as there are files, in a manifest in the current folder; those are right."""
    status, program = workshop.run("-m", "examples.checksums", "run", "--workers", "2", timeout=60)
    assert status == 0, program.out + program.err
    library, out = Path(sysconfig.get_path("stdlib")), workshop.folder / "manifest.sha256"
    files = [
        one for folder, _, names in os.walk(library) for one in (Path(folder, name) for name in names) if one.is_file()
    ]
    lines = out.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(files)
    # .ci/run checks all of them, as README.md says; there may be fifty thousand
    out.write_bytes(b"".join(random.Random().sample(lines, min(len(lines), 1000))))
    check(library, out)


def test_lines_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    """The order is that of the names' bytes, whatever the language; the file has everybody's usual rights."""
    out = tmp_path / "out"
    rows = [("é", "2"), ("b", "1"), ("Z", "0"), (os.fsdecode(b"\xff"), "3")]
    assert manifest.write(out, rows) == 4
    assert [line.split()[0] for line in out.read_bytes().splitlines()] == [b"0", b"1", b"2", b"3"]
    assert stat.S_IMODE(out.stat().st_mode) & 0o400


def test_a_manifest_is_whole_or_not_there(tmp_path: Path) -> None:
    """A folder in the manifest's place: an error, and no half-written file beside it."""
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OSError, match="out"):
        manifest.write(out, [("a", "0")])
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_cannot_be_listed_is_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What os.walk only mentions by its error callback is not lost in silence."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").touch()
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    items = list(manifest.walk(tmp_path, tmp_path / "out"))
    assert items[0] == {"path": "file"}
    assert items[1]["path"] == "closed"
    assert "Permission denied" in items[1]["error"]


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    """The digest of a file longer than one piece is that of the whole."""
    content = os.urandom(manifest.CHUNK + 17)
    (tmp_path / "large").write_bytes(content)
    assert manifest.digest(str(tmp_path), "large") == hashlib.sha256(content).hexdigest()
