"""The words of `--launch`, what is refused before anything starts, and what a launched worker says of addresses."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.processes.engines.prefix import LaunchCommand, added_path, filled, words_of
from zmqpipeline.processes.far import check_reach, refuse_missing
from zmqpipeline.processes.import_app import from_here
from zmqpipeline.processes.launch import EngineChoice, engines_for
from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, ChildSlots, Slot, Verdict
from zmqpipeline.runtime.child_report import Told


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("nice -n 10", ("nice", "-n", "10")),
        ("taskset -c {index}", ("taskset", "-c", "3")),
        ("ssh node{index} cd /srv/app && exec", ("ssh", "node3", "cd", "/srv/app", "&&", "exec")),
        ("""sh -c 'exec "$@"' --""", ("sh", "-c", 'exec "$@"', "--")),
        ("docker run --name {run}-{task}-{index}", ("docker", "run", "--name", "r1-C-3")),
        ("awk {print} ${index} {other}", ("awk", "{print}", "${index}", "{other}")),
    ],
)
def test_a_prefix_is_split_and_filled(prefix: str, words: tuple[str, ...]) -> None:
    """As a shell splits it; the fields are filled in, also in the middle of a word, and other braces are left alone."""
    assert filled(words_of(prefix), index=3, task="C", run="r1") == words


@pytest.mark.parametrize(
    ("prefix", "said"), [("", "names no command"), ("''", "names no command"), ("a 'b", "quotation")]
)
def test_what_is_no_command_is_refused(prefix: str, said: str) -> None:
    """With the reason."""
    with pytest.raises(ConfigurationError, match=said):
        words_of(prefix)


def test_a_task_that_a_shell_would_change_is_not_filled_in() -> None:
    """A remote shell reads the prefix; such a name may still be that of a task whose prefix has no such field."""
    assert filled(["ssh", "node{index}"], index=0, task="a; b", run="r") == ("ssh", "node0")
    with pytest.raises(ConfigurationError, match="rename the task"):
        filled(["ssh", "{task}"], index=0, task="a; b", run="r")


def test_a_command_that_is_not_there_is_refused() -> None:
    """Before anything is started."""
    with pytest.raises(ConfigurationError, match="'no-such-command', which is not found"):
        engines_for("no-such-command -x", None, EngineChoice())(None)("C", 0)


def test_an_interpreter_needs_a_command_before_it() -> None:
    """``--python`` alone would be ignored."""
    with pytest.raises(ConfigurationError, match="Add --launch"):
        engines_for(None, "/usr/bin/python3", EngineChoice())


def test_only_what_was_added_to_the_search_path_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A launch command that is written in Python would find the standard library of another one first."""
    monkeypatch.chdir(tmp_path)
    before = [entry for entry in sys.path if entry]
    monkeypatch.setattr("sys.path", ["", "/srv/jobs", *before])
    path = added_path()
    assert path[:2] == [str(tmp_path), "/srv/jobs"]
    assert str(Path(os.__file__).parent) in before
    assert not [entry for entry in path if Path(entry).is_relative_to(Path(os.__file__).parent)]
    assert not [entry for entry in path if entry.endswith(".zip")]


def test_each_run_has_a_word_of_its_own() -> None:
    """The same for all workers of a run, another one for the next."""
    engine_of, of_next = (engines_for("env {run}", None, EngineChoice())(None) for _ in range(2))
    engines = [engine_of("C", 0), engine_of("D", 1), of_next("C", 0)]
    words = [engine.words[1] for engine in engines if isinstance(engine, LaunchCommand)]
    assert words[0] == words[1] != words[2]


def test_files_below_the_working_folder_are_named_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The far side may have its copy elsewhere; modules and other files stay as they are."""
    monkeypatch.chdir(tmp_path)
    assert from_here(f"{tmp_path}/jobs/app.py:app") == "jobs/app.py:app"
    assert from_here("/elsewhere/app.py:app") == "/elsewhere/app.py:app"
    assert from_here("package.module:app") == "package.module:app"


def test_a_folder_that_is_not_here_is_refused(tmp_path: Path) -> None:
    """A worker would wait there for ever; tcp, abstract sockets, and folders that are here, are not looked at."""
    for address in ("tcp://node:5550", "ipc://@abstract", f"ipc://{tmp_path}/workers.ipc"):
        refuse_missing(EndpointAddress(address), "head", "node")
    with pytest.raises(ConfigurationError, match=r"machine of `run` \(head\).*--endpoint tcp://HOST:PORT"):
        refuse_missing(EndpointAddress(f"ipc://{tmp_path}/gone/workers.ipc"), "head", "node")


def test_a_loopback_of_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the address; not on the same machine, nor of an address that leads elsewhere."""
    app = Pipeline("reach")
    app.add_task("C", lambda: None)
    with caplog.at_level(logging.WARNING):
        check_reach(app, Options(endpoint="tcp://node7:5550"), "another-machine")
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        check_reach(app, Options(endpoint="tcp://localhost:5550"), "another-machine")
    assert [record.getMessage().startswith("The address tcp://localhost:5550") for record in caplog.records] == [True]


def end(place: Slot, told: bytes, status: int = 255) -> ChildEnded:
    """The end of a child that had told this."""
    return ChildEnded(place, 4711, status, 0.5, Told.read(told))


def test_a_command_that_never_led_to_a_worker_is_given_up() -> None:
    """After five failed starts in a row, as any other; the first line says what to look at."""
    engine = LaunchCommand(("env",))
    place = Slot("worker of 'C'", [], "C", engine=engine)
    slots = ChildSlots([place])
    verdicts = []
    for _ in range(FAILED_STARTS_LIMIT):
        verdicts.append(slots.judge(end(place, b""), 100.0))
        if len(verdicts) == 1:
            assert "Nothing was heard of the worker behind 'env'" in end(place, b"").describe(100.0)
    assert verdicts == [Verdict.DIED] * (FAILED_STARTS_LIMIT - 1) + [Verdict.HOPELESS]


def test_a_command_that_led_to_a_worker_is_tried_again_for_ever() -> None:
    """A server that is down for a minute does not end a run of hours; a worker that fails is counted all the same."""
    place = Slot("worker of 'C'", [], "C", engine=LaunchCommand(("env",)))
    slots = ChildSlots([place])
    assert slots.judge(end(place, b"here 9 node\nready\nworking\n"), 100.0) is Verdict.DIED
    assert {slots.judge(end(place, b""), 100.0) for _ in range(20)} == {Verdict.DIED}
    verdicts = [slots.judge(end(place, b"here 9 node\n"), 100.0) for _ in range(FAILED_STARTS_LIMIT)]
    assert verdicts[-1] is Verdict.HOPELESS


def test_a_death_behind_a_command_is_named() -> None:
    """The machine, and the signal if the command ended with its number plus 128; not for a status that was chosen."""
    place = Slot("worker of 'C'", [], "C", engine=LaunchCommand(("env",)))
    killed = end(place, b"here 9 node7\nready\n", 137)
    assert "(pid 4711 on node7) ended by status 137 (SIGKILL) after" in killed.describe(100.0)
    assert killed.describe_death() == "exit status 137 (SIGKILL)"
    assert end(place, b"here 9 node7\nexit 137\n", 137).describe_death() == "exit status 137"
    assert end(Slot("worker", [], "C"), b"ready\n", 137).describe_death() == "exit status 137"
