"""The journal's file: whatever happens to it, it holds what was committed, or says in a letter why it is none."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.transports import peer_process
from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, TaskProgress
from zmqpipeline.runtime.journal import Journal, JournalLost, database, dead_items, peek, retry
from zmqpipeline.runtime.journal.database import APPLICATION_ID

RUN = SetRun("run-1", b"metadata")

# Collects in groups of some items, user's row and mark together; says each commit; goes on until it is killed, or ends
# without closing anything.
COLLECTS = """
import os, sys
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.runtime.journal import Journal
path, first, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
journal = Journal(path, pipeline="squares")
if journal.restored is None:
    journal.begin(SetRun("run-1", b""))
for number in range(first, most):
    with journal.item() as transaction:
        transaction.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY, text)")
        transaction.execute("INSERT INTO numbers VALUES (?, ?)", (number, "x" * (number % 700)))
    # two of three numbers, so that ranges do not merge into one
    journal.collected("C", [number + number // 2], number.to_bytes(16, "big"))
    if number % 3 == 2:
        journal.commit()
        print(number, flush=True)
os._exit(0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal may be."""
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """A new journal in which a run has begun."""
    made = Journal(path, pipeline="squares")
    made.begin(RUN)
    yield made
    made.close()


def rows(path: Path, sql: str = "SELECT n FROM numbers ORDER BY n") -> list[int]:
    """One column of the file, as another program sees it; nothing if the table was not made yet."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        return [row[0] for row in db.execute(sql)] if "numbers" in tables or "numbers" not in sql else []


def check_prefix(path: Path) -> int:
    """The journal opens, and its marks, its keys and the user's rows are those of whole commits; how many items."""
    with contextlib.closing(Journal(path, pipeline="squares")) as journal:
        restored = journal.restored
    numbers = rows(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) % 3 == 0
    if restored is not None and restored.progress:
        assert numbers_of(restored.progress[0].collected) == [n + n // 2 for n in numbers]
        assert restored.keys == {"C": {n.to_bytes(16, "big") for n in numbers}}
    else:
        assert numbers == []
    return len(numbers)


def folder_of(path: Path) -> dict[str, bytes]:
    """Every file of a journal's folder."""
    return {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}


def refused(path: Path, expected: str, pipeline: str = "squares") -> None:
    """Every way to use this journal is refused with this letter, and no file is changed, made or removed by it."""
    before = folder_of(path)
    uses: list[Callable[[], object]] = [
        lambda: Journal(path, pipeline=pipeline),
        lambda: Journal(path, pipeline=pipeline, fresh=True),
    ]
    if pipeline == "squares":
        uses += [lambda: peek(path), lambda: dead_items(path), lambda: retry(path, None)]
    for use in uses:
        with pytest.raises(JournalError, match=f"(?s){expected}") as caught:
            use()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert folder_of(path) == before


# what is no journal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"x", b"not a database " * 100, b"SQLite format 3\0", bytes(5000), b"PK\3\4" * 999]
)
def test_what_is_no_sqlite_file_is_refused(path: Path, content: bytes) -> None:
    """Whatever its length."""
    path.write_bytes(content)
    refused(path, r"is no sqlite file|is a sqlite file, but no journal|is torn or damaged")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_database_of_another_program_is_refused(path: Path, mode: str) -> None:
    """It is not even brought up to date from its own log."""
    code = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute(f'PRAGMA journal_mode = {sys.argv[2]}')\n"
        "db.execute('CREATE TABLE theirs (n)')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path), mode], check=True, timeout=60)
    if mode == "wal":
        # the index of a log is no content: whoever reads the log may make it anew
        assert {one.name for one in path.parent.iterdir()} == {"run.db", "run.db-wal", "run.db-shm"}
        path.with_name("run.db-shm").unlink()
        before = folder_of(path)
        for use in (lambda: Journal(path, pipeline="squares", fresh=True), lambda: peek(path)):
            with pytest.raises(JournalError, match="but no journal"):
                use()
        assert {name: content for name, content in folder_of(path).items() if name in before} == before
    else:
        refused(path, "is a sqlite file, but no journal")
    assert rows(path, "SELECT count(*) FROM theirs") == [0]


def test_a_newer_format_is_refused(journal: Journal, path: Path) -> None:
    """By its number and the one that is known."""
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 5")
    refused(path, "has the format 5; this version of zmqpipeline knows 4")


def test_the_journal_of_another_pipeline_is_refused(journal: Journal, path: Path) -> None:
    """By both names, a fresh run too; reading it is nobody's harm."""
    journal.close()
    refused(path, "belongs to the pipeline 'squares', not to 'cubes'", "cubes")
    assert peek(path) is not None


def test_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    """A missing folder, a file as a folder, a folder as the file, a device."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match=r"there is no folder '.*nowhere'. Make it"):
        Journal(tmp_path / "nowhere" / "run.db", pipeline="squares")
    with pytest.raises(JournalError, match=r"there is no folder '.*file'"):
        Journal(tmp_path / "file" / "run.db", pipeline="squares")
    if Path("/proc/self").exists():
        with pytest.raises(JournalError, match=r"the folder '/proc' takes no files\. Name another one"):
            Journal(Path("/proc/run.db"), pipeline="squares")
    for name in (tmp_path, Path(os.devnull)):
        with pytest.raises(JournalError, match="is no file, but a folder or a device"):
            Journal(name, pipeline="squares")
    assert not Path(os.devnull).is_file()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


UNPRIVILEGED = """
import os, sys
import urllib.parse  # which newer Pythons import late, when this user can perhaps read it no more
from zmqpipeline.errors import JournalError
from zmqpipeline.runtime.journal import Journal, peek
if os.getuid() == 0:
    os.setuid(65534)
try:
    Journal(sys.argv[1], pipeline="squares")
except JournalError as error:
    print(error)
print(peek(sys.argv[1]).run)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_file_or_folder_is_refused(what: str) -> None:
    """It can be read all the same. The system refuses nothing to its administrator, so that one gives up its rights."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "run.db"
        with contextlib.closing(Journal(path, pipeline="squares")) as journal:
            journal.begin(RUN)
        before = folder_of(path)
        path.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o777 if what == "file" else 0o555)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        folder.chmod(0o777)
        assert f"The journal {path} cannot be opened: " in done.stdout, done.stderr
        assert done.stdout.endswith("\nrun-1\n")
        assert folder_of(path) == before


@pytest.mark.parametrize("left", ["nothing", "an empty file", "what a killed one was making"])
def test_where_there_is_nothing_a_journal_is_made(path: Path, left: str) -> None:
    """An empty file is nothing; so is what a process left that was killed while it made one."""
    if left == "an empty file":
        path.touch()
    elif left != "nothing":
        path.with_name(".run.db.new").write_bytes(b"SQLite format 3\0 and no more")
        path.with_name("run.db.lock").write_bytes(b"not a number")
    Journal(path, pipeline="squares").close()
    assert [one.name for one in path.parent.iterdir()] == ["run.db"]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


# what was torn --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of a process that ended without closing it: a file and its log, 300 items in 100 commits."""
    path = tmp_path_factory.mktemp("crashed") / "run.db"
    subprocess.run([sys.executable, "-c", COLLECTS, str(path), "0", "300"], check=True, timeout=60, capture_output=True)
    return path


def copied(crashed: Path, folder: Path, cut: int | None = None) -> Path:
    """A copy of file and log; with `cut`, so many bytes of the log."""
    folder.mkdir(exist_ok=True)
    path = folder / "run.db"
    shutil.copyfile(crashed, path)
    log = crashed.with_name("run.db-wal").read_bytes()
    path.with_name("run.db-wal").write_bytes(log if cut is None else log[:cut])
    return path


def test_a_log_that_is_cut_anywhere_gives_the_commits_before(crashed: Path, tmp_path: Path) -> None:
    """As after a loss of power: marks, keys and the user's rows are those of one commit, whichever it is."""
    length = crashed.with_name("run.db-wal").stat().st_size
    rng = random.Random(20)
    cuts = [0, 1, 31, 32, length, *sorted(rng.sample(range(length), 60))]
    found = [check_prefix(copied(crashed, tmp_path / str(at), cut)) for at, cut in enumerate(cuts)]
    assert found[4] == 300
    assert found[5:] == sorted(found[5:])
    assert len(set(found)) > 20


def test_a_log_with_a_flipped_byte_gives_the_commits_before_it(crashed: Path, tmp_path: Path) -> None:
    """Each frame of the log has a sum."""
    rng = random.Random(21)
    for at in range(20):
        path = copied(crashed, tmp_path / str(at))
        log = bytearray(path.with_name("run.db-wal").read_bytes())
        log[rng.randrange(len(log))] ^= 1 << rng.randrange(8)
        path.with_name("run.db-wal").write_bytes(log)
        assert check_prefix(path) <= 300


def test_a_file_that_is_cut_anywhere_is_refused(crashed: Path, tmp_path: Path) -> None:
    """At each page and within, in its header, and down to one byte; the log was in the file already."""
    path = copied(crashed, tmp_path / "whole")
    assert check_prefix(path) == 300
    content = path.read_bytes()
    rng = random.Random(22)
    cuts = {1, 15, 16, 99, 100, 511, 512, 1024, len(content) - 1, *range(4096, len(content), 4096)}
    for cut in sorted(cuts | set(rng.sample(range(len(content)), 30)) - {0}):
        path.write_bytes(content[:cut])
        refused(path, r"is torn or damaged|is no sqlite file|but no journal")


def test_an_empty_file_beside_a_full_log_is_refused(crashed: Path, tmp_path: Path) -> None:
    """Somebody emptied it: a new journal there would be the end of what the log holds."""
    path = copied(crashed, tmp_path / "x")
    path.write_bytes(b"")
    refused(path, "is torn or damaged: it is empty, but its log run.db-wal is not")
    path.unlink()
    with pytest.raises(JournalError, match="its log"):
        Journal(path, pipeline="squares")


def test_a_page_of_ours_that_was_overwritten_is_refused(journal: Journal, path: Path) -> None:
    """The length is right, the content is not; sqlite would read on, and find items without numbers."""
    journal.failed([FailedItem("C", number, 1, "worker", ErrorInfo("E", "m"), b"its data") for number in range(300)])
    journal.commit()
    journal.close()
    content = bytearray(path.read_bytes())
    end = (content.index(b"its data") // 4096 + 1) * 4096
    content[end - 500 : end] = bytes(500)
    path.write_bytes(content)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM zmqpipeline_failed").fetchone() == (300,)
    refused(path, "is torn or damaged: .*page")


# what was killed ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_collector_leaves_marks_and_rows_of_the_same_items(path: Path) -> None:
    """Again and again, at any moment: all that it said to be committed is there, and the next one goes on with it."""
    rng = random.Random(23)
    done, lives = 0, 12
    for _ in range(lives):
        with peer_process(COLLECTS, str(path), str(done), "1000000") as collector:
            assert collector.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                said = int(collector.stdout.readline())
            time.sleep(rng.random() * 0.003)
            collector.kill()
            collector.wait()
        found = check_prefix(path)
        assert found > said
        done = found
    assert done >= 3 * lives


# a full disk ----------------------------------------------------------------------------------------------------------


def insert(journal: Journal, number: int) -> None:
    """One call of a user's function that keeps the number, and its mark."""
    with journal.item() as transaction:
        transaction.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
        transaction.execute("INSERT INTO numbers VALUES (?)", (number,))
    journal.collected("C", [number], b"")


def fill(journal: Journal) -> None:
    """No page more than there are: what sqlite then says is what it says of a full disk."""
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


NO_ROOM = """
import resource, sys
from zmqpipeline.errors import JournalError
from zmqpipeline.runtime.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    Journal(sys.argv[1], pipeline="squares")
except JournalError as error:
    print(error)
"""


def test_a_journal_that_there_is_no_room_for_leaves_nothing_behind(path: Path) -> None:
    """Not the file that it was begun in, either; what to do is said."""
    done = subprocess.run([sys.executable, "-c", NO_ROOM, str(path)], capture_output=True, text=True, check=True)
    assert re.search(r"run\.db cannot be used now; sqlite says: [^.]+\. Free some space", done.stdout), done.stderr
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_at_a_commit_keeps_what_was_committed(journal: Journal, path: Path) -> None:
    """The letter names the file, sqlite's words, and what to do; with the same journal it goes on afterwards."""
    journal.collected("C", [1], b"")
    journal.commit()
    fill(journal)
    journal.collected("C", list(range(3, 20_000, 2)), b"")
    with pytest.raises(
        JournalLost, match=r"run\.db cannot be written: sqlite says: .*is full\. .*free space.*same journal"
    ):
        journal.commit()
    journal.rollback()
    journal.close()
    with contextlib.closing(Journal(path, pipeline="squares")) as second:
        assert second.restored is not None
        assert second.restored.progress == [TaskProgress("C", (1, 2), ())]
        second.collected("C", list(range(3, 20_000, 2)), b"")
        second.commit()
    assert rows(path, "SELECT count(*) FROM zmqpipeline_done") == [10_000]


@pytest.mark.parametrize("caught", [False, True])
def test_a_full_disk_in_a_users_statement_is_no_failure_of_the_item(journal: Journal, path: Path, caught: bool) -> None:
    """Also if the function catches what sqlite raised: its other rows and the mark would be there without this one."""
    insert(journal, 1)
    journal.commit()
    fill(journal)
    insert(journal, 2)

    def call() -> None:
        with journal.item() as transaction:
            try:
                transaction.execute("INSERT INTO numbers VALUES (zeroblob(100000))")
            except sqlite3.OperationalError:
                if not caught:
                    raise

    with pytest.raises(JournalLost, match="sqlite says: database or disk is full"):
        call()
    journal.rollback()
    journal.close()
    assert rows(path) == [1]
    assert rows(path, "SELECT start FROM zmqpipeline_done") == [1]


# size -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_items_in_any_order_are_few_bytes_and_open_at_once(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst order there is: at its half, where the ranges are the most, and at the end."""
    numbers = list(range(1_000_000))
    random.Random(1).shuffle(numbers)
    journal = Journal(path, pipeline="squares")
    journal.begin(RUN)
    told = []
    for half in (numbers[:500_000], numbers[500_000:]):
        for at in range(0, len(half), 5000):
            journal.collected("C", half[at : at + 5000], b"")
            journal.commit()
        size = sum(one.stat().st_size for one in path.parent.iterdir())
        journal.close()
        # of the processor: what other programs take of it is not counted
        began = time.process_time()
        journal = Journal(path, pipeline="squares")
        seconds = time.process_time() - began
        assert journal.restored is not None
        (progress,) = journal.restored.progress
        told.append(f"{len(progress.collected) // 2} ranges: {size} bytes, opened in {seconds:.3f} s")
        assert size < 32 * len(half)
        assert seconds < 5.0, "what is promised; on a machine that does nothing else it is 0.1"
    journal.close()
    assert progress.collected == (0, 1_000_000)
    with capsys.disabled():
        print(f"\n{'; '.join(told)}")


def test_a_reader_is_not_misled_by_a_writer_that_comes_meanwhile(journal: Journal, path: Path) -> None:
    """It began alone, without locks; a collector opened the file, wrote and closed it: it reads all of it again."""
    journal.begin(SetRun("run-1", b""))
    journal.close()
    looks = []

    def use(db: sqlite3.Connection | None) -> tuple[int, int]:
        assert db is not None
        (first,) = db.execute("SELECT count(*) FROM zmqpipeline_failed").fetchone()
        if not looks:
            with contextlib.closing(Journal(path, pipeline="squares")) as writer:
                writer.failed([FailedItem("C", n, 1, "worker", ErrorInfo("E", "m" * 5000), b"") for n in range(50)])
                writer.commit()
        looks.append(first)
        return first, len(db.execute("SELECT message FROM zmqpipeline_failed").fetchall())

    assert database.read(path, use) == (50, 50)
    assert looks == [0, 50]
