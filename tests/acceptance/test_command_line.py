"""The command line: bad input gets one line, status 2 and no traceback; good input does what it says."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

APP = """
from zmqpipeline import Pipeline

app = Pipeline("lines")

@app.task("A")
def first():
    yield {"n": 1}

@app.task("B", depends_on=["A"])
def second():
    yield {"n": 2}

@app.worker("A")
def on_first(data):
    return data

@app.worker("B")
def on_second(data):
    return data

@app.collector
def collect(data):
    print("collected", data["n"])
"""
MAIN = """
if __name__ == "__main__":
    app.main()
"""


def complains(workshop: Any, *arguments: str, **environ: str) -> str:
    """Run it; it must end with status 2 and say one line on stderr, which is returned."""
    status, program = workshop.run(*arguments, **environ)
    assert status == 2, program.err
    assert "Traceback" not in program.err
    lines = program.err.strip().splitlines()
    assert len(lines) == 1, program.err
    return str(lines[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], ["no command 'rum'", "Did you mean 'run'"]),
        (["worker", "a"], ["no task 'a'", "Did you mean 'A'", "Known: 'A', 'B'"]),
        (["statsu"], ["no command 'statsu'", "Did you mean 'status'"]),
        (["graph", "--dto"], ["'--dto'", "Did you mean '--dot'"]),
        (["run", "--workers", "a=2"], ["'a'", "Did you mean 'A'"]),
        (["run", "--log-level", "wraning"], ["'wraning'", "Did you mean 'warning'"]),
        (["dead", "lits"], ["no command 'lits'", "Did you mean 'list'"]),
        (["run", "--workers", "many"], ["'many'", "TASK=NUMBER"]),
        (["run", "--workers", "C=2"], ["'C'", "Known: 'A', 'B'"]),
        (["run", "--meta", "path"], ["'path'", "K=V"]),
        (["run", "--jsn"], ["--jsn", "--json"]),
        (["collector", "--endpoint", "tpc://127.0.0.1:5550"], ["did you mean tcp://"]),
        (["collector", "--endpoint", "tcp://127.0.0.1"], ["tcp://127.0.0.1", "port"]),
        (["collector", "--endpoint", "ipc:///tmp/" + "x" * 120], ["107", "bytes"]),
        (["collector", "--endpoint", "inproc://here"], ["inproc://here", "threads of one process", "test_run"]),
        (["worker", "A", "--endpoint", "inproc://here"], ["inproc://here", "threads of one process"]),
        (["run", "--endpoint", "inproc://here"], ["inproc://here", "threads of one process"]),
        (["run", "--endpoint", "ipc:///tmp/" + "x" * 120], ["107", "bytes"]),
        (["worker", "A", "--idle-timeout", "0"], ["idle_timeout", "0.01"]),
        (["run", "--log-level", "loud"], ["loud", "warning"]),
        (["worker", "A", "--threads", "0"], ["--threads"]),
        (["distributor", "--meta-file", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value[0], str) else "",
)
def test_bad_input_is_one_line(arguments: list[str], said: list[str], workshop: Any) -> None:
    """What the user can mend is said in one line: what, where, and what there is instead."""
    workshop.write("app.py", APP + MAIN)
    line = complains(workshop, "-m", "app", *arguments)
    assert all(word in line for word in said), line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (APP.replace('depends_on=["A"]', 'depends_on=["Z"]') + MAIN, ["'Z'", "'B'"]),
        (APP.replace('@app.task("A")', '@app.task("A", depends_on=["B"])') + MAIN, ["circle", "'A'", "'B'"]),
        (APP.replace('@app.worker("B")', "") + MAIN, ["No worker for task 'B'"]),
        (
            APP.replace("on_first(data)", "on_first(data, metdata)").replace("return data", "return {}") + MAIN,
            ["'metdata'"],
        ),
        ("from zmqpipeline import Pipeline\napp = Pipeline('empty')" + MAIN, ["'empty'", "no tasks"]),
        (APP.replace('@app.task("B", depends_on=["A"])', '@app.task("A")') + MAIN, ["'A'", "'first'", "'second'"]),
        (APP.replace('@app.worker("B")', '@app.worker("Z")') + MAIN, ["'Z'", "does not exist"]),
    ],
    ids=["unknown dependency", "circle", "no worker", "unknown parameter", "no tasks", "two tasks", "no such task"],
)
@pytest.mark.parametrize("command", [("zmqpipeline", "-A", "app"), ("app",)], ids=["zmqpipeline", "app"])
def test_a_bad_app_is_one_line(text: str, said: list[str], command: tuple[str, ...], workshop: Any) -> None:
    """An app that does not fit together is said in one line; by `python -m app` only once its decorators have run."""
    workshop.write("app.py", text)
    if command == ("app",) and (said[-1] == "'metdata'" or "'second'" in said):
        status, program = workshop.run("-m", "app", "run")
        line = program.err.splitlines()[-1]
        assert (status, program.err.count("Traceback")) == (1, 1), program.err
        assert 'app.py", line ' in program.err
    else:
        line = complains(workshop, "-m", *command, "run")
    assert all(word in line for word in said), line


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", ["no module 'nowhere'"]),
        ("ap", ["Did you mean 'app'"]),
        ("app:other", ["'other'", "'app'"]),
        ("nowhere.py", ["no file 'nowhere.py'"]),
        ("broken", ["broken", "ZeroDivisionError", "broken.py:2"]),
        ("several", ["'one', 'two'"]),
        ("unguarded", ["app.main()", "__main__"]),
    ],
)
def test_an_app_that_is_not_there_is_one_line(target: str, said: list[str], workshop: Any) -> None:
    """-A with a wrong name, a broken module, none or several apps, or a module that starts itself: one line."""
    workshop.write("app.py", APP)
    workshop.write("broken.py", "x = 1\ny = x / 0\n")
    workshop.write("unguarded.py", APP + "\napp.main()\n")
    workshop.write("several.py", APP.replace("app", "one") + APP.replace("app", "two"))
    line = complains(workshop, "-m", "zmqpipeline", "-A", target, "check")
    assert all(word in line for word in said), line


@pytest.mark.slow
@pytest.mark.parametrize("target", ["app", "app:app", "app.py", "app.py:app", "pkg.inner:app"])
def test_an_app_is_found(target: str, workshop: Any) -> None:
    """-A takes a module or a file, with or without the app's name, and its children find it, too."""
    workshop.write("app.py", APP)
    (workshop.folder / "pkg").mkdir()
    workshop.write("pkg/__init__.py", "")
    workshop.write("pkg/inner.py", APP)
    status, program = workshop.run("-m", "zmqpipeline", "-A", target, "run")
    assert status == 0, program.err
    assert program.out.splitlines() == ["collected 1", "collected 2"]


@pytest.mark.slow
def test_a_script_runs_from_anywhere(workshop: Any) -> None:
    """`python folder/app.py run` and `python -m app run` work; the children import what the script could import."""
    (workshop.folder / "deep").mkdir()
    workshop.write("deep/helper.py", "VALUE = 7\n")
    workshop.write("deep/script.py", "import helper\n" + APP.replace('{"n": 1}', '{"n": helper.VALUE}') + MAIN)
    status, program = workshop.run("deep/script.py", "run")
    assert status == 0, program.err
    assert program.out.splitlines() == ["collected 7", "collected 2"]


def test_an_unguarded_script_spawns_nobody_for_ever(workshop: Any) -> None:
    """A script that runs its app without the guard: the children say so in one line each, and `run` ends with 2."""
    workshop.write("app.py", APP + "\napp.main()\n")
    status, program = workshop.run("app.py", "run")
    assert status == 2
    assert "Traceback" not in program.err
    assert "if __name__ == '__main__':" in program.err


def test_an_app_that_no_child_can_import_is_one_line(workshop: Any) -> None:
    """An app made inside a function, or at a prompt: refused before anything starts."""
    body = "\n".join("    " + line for line in APP.splitlines())
    workshop.write("inside.py", f"def make():\n{body}\n    app.main()\n\nif __name__ == '__main__':\n    make()\n")
    assert "inside a function or at a prompt" in complains(workshop, "inside.py", "run")
    assert "inside a function or at a prompt" in complains(workshop, "-c", APP + "app.main(['run'])")


def test_a_port_in_use_is_one_line(workshop: Any, free_port: int) -> None:
    """A collector or distributor whose port is taken names the address; `run` then ends with 2 as well."""
    workshop.write("app.py", APP + MAIN)
    with socket.socket() as taken:
        port = free_port + 1
        taken.bind(("127.0.0.1", port))
        taken.listen()
        place = f"tcp://127.0.0.1:{free_port}"
        assert str(port) in complains(workshop, "-m", "app", "collector", "--endpoint", place)
        status, program = workshop.run("-m", "app", "run", "--endpoint", place)
    assert status == 2, program.err
    assert str(port) in program.err


def test_a_second_collector_on_the_same_address_is_refused(workshop: Any, eventually: Callable[..., None]) -> None:
    """Over ipc, too, a second collector is told that the address is taken, and the first one goes on."""
    workshop.write("app.py", APP + MAIN)
    first = workshop.start("-m", "app", "collector")
    eventually(lambda: list(workshop.folder.rglob("acks.ipc")), "the first collector's sockets")
    assert "results.ipc" in complains(workshop, "-m", "app", "collector")
    assert not first.ended()


def test_check_prints_roles_and_order(workshop: Any) -> None:
    """`check` shows each role's addresses and what comes after what."""
    workshop.write("app.py", APP + MAIN)
    status, program = workshop.run("-m", "app", "check", "--endpoint", "tcp://127.0.0.1:5550")
    assert status == 0, program.err
    assert "distributor  tcp://127.0.0.1:5550, tcp://127.0.0.1:5554 (status)" in program.out
    assert "worker B  tcp://127.0.0.1:5550, tcp://127.0.0.1:5551" in program.out
    assert "collector  tcp://127.0.0.1:5551, tcp://127.0.0.1:5552" in program.out
    assert "A; B after A" in program.out


def test_help_lists_the_commands(workshop: Any) -> None:
    """--help shows what there is, and nothing that is not there yet; no command at all is a usage error."""
    workshop.write("app.py", APP + MAIN)
    status, program = workshop.run("-m", "app", "--help")
    assert status == 0
    roles = (
        "run",
        "distributor",
        "worker",
        "collector",
        "service",
        "service-worker",
        "call",
        "dead",
        "keygen",
        "status",
        "check",
        "graph",
    )
    assert all(f"  {name} " in program.out for name in roles)
    assert workshop.run("-m", "app")[0] == 2


@pytest.mark.slow
def test_help_says_what_the_flags_do(workshop: Any) -> None:
    """Every role and `run` take --drain-timeout; --fresh says what it leaves alone; `dead` lists its three commands."""
    workshop.write("app.py", APP + MAIN)
    told = {
        command: " ".join(workshop.run("-m", "app", *command.split(), "--help")[1].out.split())
        for command in ("run", "distributor", "worker", "collector", "service", "service-worker", "dead")
    }
    assert [command for command, text in told.items() if "--drain-timeout" not in text] == ["dead"]
    for flag in ("--keys DIR", "--encryption [auto|required|off]", "--insecure"):
        assert [command for command, text in told.items() if flag not in text] == ["dead"], flag
    for command in ("run", "collector"):
        assert "--journal FILE" in told[command]
        assert "Your own tables are kept" in told[command]
    assert "--journal" not in told["worker"] + told["distributor"]
    assert all(f" {name} " in told["dead"] for name in ("list", "show", "retry"))


COMMANDS = (
    "run", "distributor", "worker", "collector", "service", "service-worker", "call", "dead", "dead list", "dead show",
    "dead retry", "keygen", "dashboard", "manifests", "metrics", "status", "top", "check", "graph",
)  # fmt: skip


@pytest.mark.slow
def test_help_has_an_example_of_every_command(workshop: Any) -> None:
    """Each --help ends with a command line that click can read: a command and flags that there are."""
    workshop.write("app.py", APP + MAIN)
    told = workshop.run("-m", "app", "--help")[1].out
    assert "Example:" in told
    found = re.search(r"Commands:\n(.*?)\n\n", told, re.DOTALL)
    assert found is not None
    listed = [line.split()[0] for line in found[1].splitlines() if line[2] != " "]
    assert sorted(listed) == sorted({name.split()[0] for name in COMMANDS})
    for name in COMMANDS:
        status, program = workshop.run("-m", "app", *name.split(), "--help")
        assert status == 0, program.err
        example = " ".join(program.out.partition("Example:")[2].split()).partition(" | ")[0]
        assert example.startswith(f"python -m app {name}"), name
        if name != "dead":
            flags = re.findall(r" (--[a-z-]+)", example)
            assert all(f"{flag} " in program.out.partition("Example:")[0] for flag in flags), example


@pytest.mark.slow
def test_workers_of_every_task_by_one_command(workshop: Any) -> None:
    """`worker` without a task starts a process for each task; all roles end with status 0."""
    workshop.write("app.py", APP + MAIN)
    programs = [workshop.start("-m", "app", role) for role in ("worker", "collector", "distributor")]
    assert [program.wait() for program in programs] == [0, 0, 0], [program.err for program in programs]
    assert programs[1].out.splitlines() == ["collected 1", "collected 2"]


@pytest.mark.slow
def test_log_lines_may_be_json(workshop: Any) -> None:
    """--log-json writes every log line of every process as a JSON object; --log-level says which."""
    workshop.write("app.py", APP + MAIN)
    status, program = workshop.run("-m", "app", "run", "--log-level", "debug", "--log-json", "--json")
    assert status == 0, program.err
    lines = [json.loads(line) for line in program.err.splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "process", "message"} <= set(lines[0])
    assert len({line["process"] for line in lines}) >= 2


TALKATIVE = """
import logging
from zmqpipeline import Pipeline

app = Pipeline("talk")
log = logging.getLogger("zmqpipeline.mine")

@app.task("A", retries=1, backoff=0.01)
def items():
    log.warning("yielding")
    for n in range(3):
        yield {"n": n}

@app.worker("A", threads=2)
def work(data):
    log.warning("working on %d", data["n"])
    if data["n"] == 1:
        raise ValueError("not this one")
    return data

@app.collector
def collect(data):
    log.warning("collecting %d", data["n"])

if __name__ == "__main__":
    app.main()
"""


def test_json_lines_say_what_they_are_about(workshop: Any) -> None:
    """Task, item, attempt and worker: in what user functions log, and in what the library says of an item."""
    workshop.write("app.py", TALKATIVE)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", "--log-json")
    assert status == 1, program.err
    lines = [json.loads(line) for line in program.err.splitlines() if line.startswith("{")]
    said = {(line["message"], line.get("attempt")): line for line in lines}

    (worker,) = {line["worker"] for line in lines if line["message"].startswith("working")}
    host, pid = worker.rsplit("/", 1)
    assert host == socket.gethostname()
    for n, attempt in ((0, 1), (1, 1), (1, 2), (2, 1)):
        line = said[f"working on {n}", attempt]
        assert (line["task"], line["item"], str(line["process"])) == ("A", n, pid)
    for n in (0, 2):
        line = said[f"collecting {n}", 1]
        assert (line["task"], line["item"], line.get("worker")) == ("A", n, None)
    assert said["yielding", None]["task"] == "A"
    (failed,) = (line for line in lines if "failed for good" in line["message"])
    assert (failed["task"], failed["item"], failed["attempt"], failed["worker"]) == ("A", 1, 2, worker)


def test_a_variable_does_what_a_flag_does(workshop: Any, tmp_path: Path) -> None:
    """A bad ZMQPIPELINE_ variable is one line that names it."""
    workshop.write("app.py", APP + MAIN)
    line = complains(workshop, "-m", "app", "run", ZMQPIPELINE_DRAIN_TIMEOUT="soon")
    assert "ZMQPIPELINE_DRAIN_TIMEOUT" in line
    assert "soon" in line


COLLECTOR = """
import zmqpipeline

class Gather(zmqpipeline.Collector):
    endpoint = zmqpipeline.EndpointAddress("tcp://127.0.0.1:{port}")
    ack_endpoint = zmqpipeline.EndpointAddress("tcp://127.0.0.1:{other}")

    def handle_collection(self, data, task_type, msgtype):
        pass

if __name__ == "__main__":
    Gather().run()
"""


def test_an_address_in_use_is_told(workshop: Any, free_port: int) -> None:
    """By an app's command in one line, with status 2; by a program of the class API in the last line of a traceback."""
    workshop.write("app.py", APP + MAIN)
    workshop.write("collector.py", COLLECTOR.format(port=free_port + 1, other=free_port + 2))
    said = f"tcp://127.0.0.1:{free_port + 1} is in use"
    with socket.create_server(("127.0.0.1", free_port + 1)):
        line = complains(workshop, "-m", "app", "collector", "--endpoint", f"tcp://127.0.0.1:{free_port}")
        assert said in line
        status, program = workshop.run("collector.py")
    assert status == 1
    last = program.err.splitlines()[-1]
    assert last.startswith("zmqpipeline.errors.EndpointInUse: "), program.err
    assert said in last
