"""The progress line of `run`: what it says, how it shortens, and what a terminal gets of it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zmqpipeline.cli.progress import ProgressLine, progress_line, progress_shown
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.runtime.log import log_to_stderr
from zmqpipeline.runtime.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def progress(*, seconds: float = 10.0, failed: int = 0, workers: int = 2, **done: tuple[int, int | None]) -> Progress:
    """So many items of each task are done, of so many; those of the first failed."""
    counts = [TaskCounts(task, "open", collected=number) for task, (number, _) in done.items() if number]
    if failed:
        counts[0] = TaskCounts(counts[0].task, "open", collected=counts[0].collected - failed, failed=failed)
    totals = {task: total for task, (_, total) in done.items()}
    known = [total for total in totals.values() if total is not None]
    total = sum(known) if len(known) == len(totals) else None
    return Progress(counts, total, seconds, totals=totals, workers=workers)


def test_a_line_with_totals() -> None:
    """The bar, all and each task with its bar and rate, rate, time left, workers, failures."""
    now = progress(A=(90, 90), B=(60, 210), C=(0, 100), failed=3)
    assert progress_line(now, 12.5, 200, {"A": 0.0, "B": 12.5}) == (
        "[#######-------------]   37%  150/400  B [##------] 60/210 12/s  A [########] 90/90  C [--------] 0/100"
        "  12/s  20 s left  2 workers  3 failed"
    )


def test_a_line_without_totals() -> None:
    """No bar and no time left; one task is not told twice."""
    assert progress_line(progress(A=(90, None), workers=1), 0.5, 200) == "90 items  0.5/s  1 worker"
    line = progress_line(progress(A=(9, None), B=(1, 5)), 2.0, 200, {"A": 1.5})
    assert line == "10 items  A 9 1.5/s  B [#-------] 1/5  2.0/s  2 workers"


def test_bars_and_then_rates_of_tasks_are_left_out_first() -> None:
    """Before any task is."""
    now = progress(A=(10, 20), B=(5, 20))
    lines = [progress_line(now, 3.0, width, {"A": 2.0, "B": 1.0}) for width in (130, 100, 90, 78)]
    assert [line.partition("15/40  ")[2] for line in lines] == [
        "A [####----] 10/20 2.0/s  B [##------] 5/20 1.0/s  3.0/s  8.3 s left  2 workers",
        "A 10/20 2.0/s  B 5/20 1.0/s  3.0/s  8.3 s left  2 workers",
        "A 10/20  B 5/20  3.0/s  8.3 s left  2 workers",
        "+2 tasks  3.0/s  8.3 s left  2 workers",
    ]


@pytest.mark.parametrize("width", [200, 90, 75, 60, 40, 10, 0])
def test_a_line_never_wraps(width: int) -> None:
    """Tasks are left out first, the last ones before the others; then it is cut."""
    line = progress_line(progress(**{f"task{n}": (n, 100) for n in range(9)}), 5.0, width)
    assert len(line) <= width
    if width == 90:
        assert "task1 1/100" in line
        assert "+8 tasks" in line


def test_names_do_not_disturb_the_terminal() -> None:
    """A task may be called anything."""
    assert "\x1b" not in progress_line(progress(**{"a\x1b[2J": (1, 2), "b": (1, 2)}), 1.0, 200)


def test_a_terminal_gets_one_line() -> None:
    """It is drawn over itself, and left with an end of line; the rate is that of the last seconds."""
    stream = Terminal()
    with progress_shown(None, stream) as observe:
        assert isinstance(observe, ProgressLine)
        observe(progress(seconds=0.0, A=(0, 1000)))
        observe(progress(seconds=20.0, A=(200, 1000)))
        observe(progress(seconds=25.0, A=(300, 1000)))
    drawn = stream.getvalue()
    assert drawn.endswith("\n")
    assert drawn.count("\n") == 1
    lines = drawn.split("\r")[1:]
    assert len(lines) == 3
    assert "10/s" in lines[1]
    assert "20/s  35 s left" in lines[2]
    assert all("\x1b[K" in line for line in lines)


def test_each_task_has_the_rate_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before, by processes that are gone, is done by nobody in these."""
    monkeypatch.setenv("COLUMNS", "150")
    stream = Terminal()
    with progress_shown(None, stream) as observe:
        assert observe is not None
        observe(progress(seconds=0.0, A=(0, 1000), B=(0, 1000)))
        observe(replace(progress(seconds=1.0, A=(500, 1000), B=(100, 1000)), inherited=600))
        observe(replace(progress(seconds=3.0, A=(510, 1000), B=(150, 1000)), inherited=600))
    lines = stream.getvalue().split("\r")[1:]
    assert "B [#-------] 150/1000 25/s  30/s" in lines[-1]
    assert "A [####----] 510/1000 5.0/s" in lines[-1]
    assert all("300/s" not in line and "600/s" not in line for line in lines)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_failures_are_red_where_colours_are_wanted(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is coloured, and nothing at all with NO_COLOR."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    with progress_shown(None, stream) as observe:
        assert observe is not None
        observe(progress(A=(90, 100), failed=3))
    drawn = stream.getvalue()
    assert drawn.count("\x1b[31m") == (0 if variables else 1)
    assert ("\x1b[31m3 failed\x1b[0m" in drawn) == (not variables)


def test_nothing_is_drawn_if_nothing_comes_or_is_wanted() -> None:
    """No line without numbers, none with --no-progress."""
    stream = Terminal()
    with progress_shown(True, stream):
        pass
    with progress_shown(False, stream) as observe:
        assert observe is None
    assert stream.getvalue() == ""


def test_elsewhere_a_line_is_written_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, --progress writes a line every five seconds."""
    with progress_shown(True, io.StringIO()) as observe:
        assert observe is not None
        for second in range(12):
            observe(progress(seconds=float(second), A=(second, 100)))
    assert capsys.readouterr().err.splitlines() == [
        "5 of 100 items done, 1 a second",
        "10 of 100 items done, 1 a second",
    ]


def test_a_log_line_clears_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line begins by clearing the progress line; in a file it does not."""
    top = logging.getLogger("zmqpipeline")
    for stream, begin in ((Terminal(), "\r\x1b[K2"), (io.StringIO(), "2")):
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])
            patch.setattr(top, "handlers", [])
            patch.setattr(top, "propagate", True)
            patch.setattr(top, "level", logging.WARNING)
            patch.setattr(sys, "stderr", stream)
            log_to_stderr("warning")
            top.warning("here")
        assert stream.getvalue().startswith(begin)


@pytest.mark.slow
@pytest.mark.processes
def test_a_run_on_a_terminal_draws_its_line(tmp_path: Path) -> None:
    """With a real terminal: the last line says that all is done, and by how many workers."""
    (tmp_path / "app.py").write_text(APP)
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "app", "run", "--workers", "2"]
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "COLUMNS": "200",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stderr=theirs) as run:
        os.close(theirs)
        drawn = b""
        with contextlib.suppress(OSError):  # Linux says EIO when the last one closes its end
            while some := os.read(ours, 65536):
                drawn += some
    os.close(ours)
    assert run.returncode == 0, drawn
    text = drawn.decode()
    assert "4 workers" in text
    assert re.search(r"\[#{20}\]  100%  120/120  A \[#{8}\] 90/90  B \[#{8}\] 30/30", text), text
    assert any(line.startswith("bars: 120 items in") for line in text.splitlines()), text


APP = """
from zmqpipeline import Pipeline
app = Pipeline("bars")

@app.task("A", times=90)
def a():
    return {}

@app.task("B", times=30)
def b():
    return {}

app.worker("A")(lambda data: data)
app.worker("B")(lambda data: data)
app.collector(lambda data: None)

if __name__ == "__main__":
    app.main()
"""
