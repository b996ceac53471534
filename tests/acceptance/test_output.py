"""Commands whose stdout or stderr is closed, or on a full disk, or read no longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

APP = """
import sys
from zmqpipeline import Pipeline

app = Pipeline("ok")

@app.task("a")
def numbers():
    for n in range(3):
        yield {"n": n}

@app.worker("a")
def work(data):
    return data

@app.collector
def collect(data):
    print(data["n"])

@app.service("echo")
def echo(data):
    return data

if __name__ == "__main__":
    if sys.argv[1:] == ["app.run"]:
        sys.exit(not app.run(workers=1).ok)
    app.main()
"""

IS_FULL = "Error: The output cannot be written: No space left on device.\n"

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


def in_shell(workshop: Workshop, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this line in the folder, where ``ok`` is the program."""
    workshop.write("ok.py", APP)
    line = f"ok() {{ '{sys.executable}' -m ok \"$@\"; }}; {command}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=workshop.folder,
        env={**workshop.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&-"])
@pytest.mark.parametrize("command", ["run --workers 1 --progress", "app.run"])
def test_a_run_needs_no_stderr(command: str, closed: str, workshop: Workshop) -> None:
    """Nor a standard input: all is collected."""
    done = in_shell(workshop, f"ok {command} {closed}")
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")


@pytest.mark.slow
def test_a_run_with_json_needs_no_stderr(workshop: Workshop) -> None:
    """What the collector prints is for stderr then, and goes nowhere."""
    done = in_shell(workshop, "ok run --workers 1 --json 2>&-")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


@pytest.mark.slow
def test_roles_need_no_stderr(workshop: Workshop) -> None:
    """Distributor, worker group and collector, each started without; and a journal is whole after it."""
    place = f"--endpoint ipc://{workshop.folder}/place"
    roles = f"ok distributor {place} 2>&- & ok worker --processes 1 {place} 2>&- & "
    done = in_shell(workshop, f"{roles} ok collector --journal run.db {place} 2>&- && wait && ok check 2>&-")
    assert done.returncode == 0
    assert done.stdout.startswith("0\n1\n2\nPipeline 'ok'")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["status", "top", "call echo '{}' --timeout 0"])
def test_what_asks_ends_as_ever_without_streams(command: str, closed: str, workshop: Workshop) -> None:
    """With its own status, that of an app of which nothing runs."""
    plain, without = (in_shell(workshop, f"ok {command} {more}") for more in ("", closed))
    assert without.returncode == plain.returncode
    assert "Traceback" not in without.stdout + without.stderr


@full
@pytest.mark.slow
def test_a_full_disk_under_stdout_is_one_line_and_may_pass(workshop: Workshop) -> None:
    """Of what is asked for; also of what Python has kept of the user's lines, which were collected."""
    for command in ("check", "graph"):
        done = in_shell(workshop, f"ok {command} >/dev/full")
        assert (done.returncode, done.stderr) == (75, IS_FULL)
    done = in_shell(workshop, "ok run --help >/dev/full")
    assert (done.returncode, done.stderr) == (75, "Error: No space left on device.\n")
    done = in_shell(workshop, "ok run --workers 1 --json >/dev/full")
    assert done.returncode == 75
    assert done.stderr.endswith(IS_FULL)
    assert "Traceback" not in done.stderr
    done = in_shell(workshop, "ok run --workers 1 >/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 75
    assert "all collected" in done.stderr
    assert done.stderr.endswith(IS_FULL)


@full
@pytest.mark.slow
def test_a_full_disk_under_stderr_changes_no_status(workshop: Workshop) -> None:
    """What is said there is about the run, which came to its end."""
    done = in_shell(workshop, "ok run --workers 1 2>/dev/full")
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")
    assert in_shell(workshop, "ok check nothing 2>/dev/full").returncode == 2


@pytest.mark.slow
def test_what_cannot_be_written_for_another_reason_is_wrong_usage(workshop: Workshop) -> None:
    """Such as a file that is open for reading alone."""
    done = in_shell(workshop, "ok check 1</dev/null")
    assert (done.returncode, done.stderr) == (2, "Error: The output cannot be written: Bad file descriptor.\n")


@pytest.mark.slow
def test_a_program_may_put_an_object_of_its_own_in_the_place_of_stdout(workshop: Workshop) -> None:
    """One that writes and flushes, and is no file: as programs have it that log what is printed."""
    workshop.write("ok.py", APP)
    workshop.write("tee.py", TEE)
    status, program = workshop.run("tee.py")
    assert (status, program.out) == (0, "tee 0\ntee 1\ntee 2\ntee True\n"), program.err


TEE = """
import sys
from ok import app

class Tee:
    def __init__(self, file):
        self.file = file
    def write(self, text):
        return self.file.write(f"tee {text}" if text.strip() else text)
    def flush(self):
        self.file.flush()

if __name__ == "__main__":
    sys.stdout = Tee(sys.stdout)
    ok = app.run(workers=1).ok
    print(ok)
"""


@pytest.mark.slow
def test_a_reader_that_is_gone_ends_a_command(workshop: Workshop) -> None:
    """Without a word, as other programs do; the status is 1."""
    workshop.write("ok.py", APP)
    # it has gone before the writer begins
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "ok", "check"]
    done = subprocess.run(
        command,
        cwd=workshop.folder,
        env=workshop.environ,
        stdout=writes,
        stderr=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, b"")


RAISING = APP.replace(
    "    return data\n\n@app.coll", "    raise ValueError('bad \\x1b[31m\\u202e\\x00\\n\\x1b[2J')\n\n@app.coll"
)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["worker", "import"])
def test_an_exception_changes_no_terminal(where: str, workshop: Workshop) -> None:
    """Its message is in the line, in the traceback, and at the end; what is kept, and JSON, have it as it was."""
    text = RAISING if where == "worker" else RAISING.replace("app = ", "raise ValueError('bad \\x1b[31m')\napp = ", 1)
    workshop.write("ok.py", text)
    run = ("run", "--workers", "1", "--journal", "run.db")
    status, program = workshop.run("-m", "zmqpipeline", "-A", "ok", *run)
    assert status == (1 if where == "worker" else 2)
    assert "bad \\x1b[31m" in program.err
    assert all(one.isprintable() or one in "\n\t" for one in program.err)
    if where == "worker":
        _, program = workshop.run("-m", "ok", "dead", "show", "a", "0", "--journal", "run.db")
        assert all(one.isprintable() or one in "\n\t" for one in program.out)
        _, program = workshop.run("-m", "ok", "dead", "list", "--journal", "run.db", "--json")
        assert program.json[0]["message"] == "bad \x1b[31m\u202e\x00\n\x1b[2J"
