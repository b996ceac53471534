"""Keys in real processes: the page docs/howto/secure.md as it stands there, and who is turned away with which words."""

from __future__ import annotations

import re
import shutil
import signal
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs/howto/secure.md").read_text()
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(APP,) = re.findall(r"```python\n# squares.py\n(.*?)```", PAGE, re.DOTALL)
SQUARES = {n * n for n in range(1000)}
SAID = 10.0
"""Seconds within which a client hears what is wrong, on a busy machine, too."""


class Site:
    """The page's app and its keys, at a free tcp address."""

    def __init__(self, workshop: Workshop, port: int) -> None:
        workshop.write("squares.py", APP)
        self.workshop, self.endpoint = workshop, f"tcp://127.0.0.1:{port}"

    def command(self, line: str) -> list[str]:
        """A line of the page as arguments for python, at this address."""
        line = line.replace("tcp://SERVER:5550", self.endpoint)
        return line.removeprefix("python ").split()

    def start(self, role: str, *arguments: str, **environ: str) -> Program:
        """Start a role at this address."""
        return self.workshop.start("-m", "squares", *role.split(), "--endpoint", self.endpoint, *arguments, **environ)

    def make_keys(self) -> Path:
        """What the first line of the page makes."""
        status, program = self.workshop.run(*self.command(COMMANDS[0]))
        assert status == 0, program.err
        return self.workshop.folder / "keys"


@pytest.fixture
def site(workshop: Workshop, free_port: int) -> Site:
    """The app without keys yet."""
    return Site(workshop, free_port)


def check_collected(program: Program) -> None:
    """Each item came once."""
    assert sorted(map(int, program.out.split())) == sorted(SQUARES)


@pytest.mark.slow
def test_the_commands_of_the_page(site: Site, eventually: Callable[..., None]) -> None:
    """Keys, the roles with them, a key that is handed out: all is collected; once removed, the key is refused."""
    keygens, roles, handing, removal = COMMANDS[:2], COMMANDS[2:4], COMMANDS[4:7], COMMANDS[7]
    folder = site.workshop.folder
    for line in keygens:
        status, program = site.workshop.run(*site.command(line))
        assert status == 0, program.err
    distributor, collector = (site.workshop.start(*site.command(line)) for line in roles)
    assert [line.split()[0] for line in handing[:2]] == ["mkdir", "cp"]
    (folder / "handed").mkdir(mode=0o700)
    for name in handing[1].split()[2:-1]:
        shutil.copy2(folder / name, folder / "handed")
    worker = site.workshop.start(*site.command(handing[2]))
    assert [one.wait() for one in (distributor, collector, worker)] == [0, 0, 0], worker.err
    check_collected(collector)

    assert removal.split()[0] == "rm"
    (folder / removal.split()[1]).unlink()
    distributor, collector = (site.workshop.start(*site.command(line)) for line in roles)
    worker = site.workshop.start(*site.command(handing[2]))
    words = f"{site.endpoint} refused this key; add worker-3.pub to its authorized/workers"
    eventually(lambda: words in worker.err, words)
    eventually(lambda: "refused the key" in distributor.err, "the distributor's word")
    assert collector.out == ""
    shutil.copy(folder / "keys/worker-3.pub", folder / "keys/authorized/workers")
    assert [one.wait() for one in (distributor, collector, worker)] == [0, 0, 0], worker.err
    check_collected(collector)


@pytest.mark.slow
def test_keygen_makes_closed_files_and_overwrites_none(site: Site) -> None:
    """Folders of mode 0700 and files of 0600, whatever the mask; a second time nothing is touched, and the status 2."""
    keys = site.make_keys()
    modes = {path.relative_to(keys): stat.S_IMODE(path.stat().st_mode) for path in [keys, *keys.rglob("*")]}
    assert {mode for path, mode in modes.items() if (keys / path).is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if (keys / path).is_file()} == {0o600}
    assert len([path for path in modes if path.suffix == ".secret"]) == 5
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    for arguments in ((), ("--worker", "worker"), ("--client", "../x"), ("--worker", "client")):
        status, program = site.workshop.run("-m", "squares", "keygen", "keys", *arguments)
        assert (status, program.err.count("\n")) == (2, 1), program.err
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before
    assert not any("secret = " in program.out + program.err for program in site.workshop.programs)


@pytest.mark.slow
def test_a_run_hands_its_keys_on(site: Site) -> None:
    """By the flag and by the variable; on ipc it is encrypted, too, when that is required."""
    site.make_keys()
    for flags, environ in (
        (["--keys", "keys", "--encryption", "required"], {}),
        ([], {"ZMQPIPELINE_KEYS": "keys", "ZMQPIPELINE_ENDPOINT": site.endpoint}),
    ):
        status, program = site.workshop.run("-m", "squares", "run", *flags, **environ)
        assert status == 0, program.err
        check_collected(program)
    status, program = site.workshop.run("-m", "squares", "run", "--encryption", "required")
    assert (status, program.out) == (2, "")
    assert "no keys" in program.err


@pytest.mark.slow
@pytest.mark.parametrize("who", ["without keys", "of a client", "of another server"])
def test_a_worker_with_the_wrong_key_gets_nothing(site: Site, who: str, eventually: Callable[..., None]) -> None:
    """It never executes anything and says why, so does the distributor, and the run ends with the right one."""
    keys = site.make_keys()
    other = site.workshop.folder / "other"
    flags = ["--keys", "other"]
    words, theirs = "breaks off every handshake", "took it for another server"
    if who == "without keys":
        flags, words, theirs = [], "asks for a key", "does not speak CURVE"
    elif who == "of a client":
        other.mkdir(mode=0o700)
        shutil.copy2(keys / "server.pub", other)
        for half in ("pub", "secret"):
            shutil.copy2(keys / f"client.{half}", other / f"worker.{half}")
        words, theirs = "refused this key; add worker.pub", "it is that of the client client"
    else:
        assert site.workshop.run("-m", "squares", "keygen", "other")[0] == 0
    distributor, collector = site.start("distributor", "--keys", "keys"), site.start("collector", "--keys", "keys")
    wrong = site.start("worker C", "--log-level", "debug", *flags)
    eventually(lambda: words in wrong.err, words)
    eventually(lambda: theirs in distributor.err, theirs)
    right = site.start("worker C", "--keys", "keys")
    assert [one.wait() for one in (right, distributor, collector)] == [0, 0, 0]
    check_collected(collector)
    assert "received" not in wrong.err
    # it is told of no run, but finds that the one at its address is over
    assert wrong.wait() == 0


@pytest.mark.slow
def test_a_service_with_keys(site: Site, eventually: Callable[..., None]) -> None:
    """A client with its key has a reply; one without has none, nor one that has a worker's key, and both are told."""
    keys = site.make_keys()
    broker, worker = site.start("service", "--keys", "keys"), site.start("service-worker double", "--keys", "keys")
    call = ("-m", "squares", "call", "double", '{"n": 21}', "--endpoint", site.endpoint)
    status, program = site.workshop.run(*call, "--keys", "keys")
    assert (status, program.out) == (0, '{"n": 42}\n'), program.err
    other = site.workshop.folder / "other"
    other.mkdir(mode=0o700)
    shutil.copy2(keys / "server.pub", other)
    shutil.copy2(keys / "worker.secret", other / "client.secret")
    for flags, words in (((), "asks for a key"), (("--keys", "other"), "refused this key")):
        status, program = site.workshop.run(*call, *flags, "--timeout", str(SAID))
        assert (status, program.out) == (1, "")
        assert words in program.err
    eventually(lambda: "that of the worker worker" in broker.err, "the broker's word")
    broker.signal(signal.SIGTERM)
    assert (broker.wait(), worker.wait()) == (143, 0)


@pytest.mark.slow
def test_an_open_address_needs_keys_or_a_word(site: Site, eventually: Callable[..., None]) -> None:
    """Refused, by the command line in one line with status 2, by a program as an error; with --insecure it runs."""
    open_ = site.endpoint.replace("127.0.0.1", "0.0.0.0")
    status, program = site.workshop.run("-m", "squares", "run", "--endpoint", open_)
    assert (status, program.out, program.err.count("\n")) == (2, "", 1)
    assert "--insecure" in program.err
    assert "--keys" in program.err
    status, program = site.workshop.run("-m", "squares", "run", "--endpoint", open_, "--insecure")
    assert status == 0, program.err
    assert program.err.count("is open to other machines") == 2
    site.workshop.write("broker.py", f"from zmqpipeline import Service\nService('{open_}', 'ipc://x.ipc').run()\n")
    status, program = site.workshop.run("broker.py")
    assert status == 1
    assert program.err.splitlines()[-1].startswith("zmqpipeline.errors.KeysError: ")
    assert "insecure" in program.err.splitlines()[-1]
    program = site.workshop.start("broker.py", ZMQPIPELINE_INSECURE="1")
    eventually(lambda: "is open to other machines" in program.err, "a warning, although no logging is configured")
    program.signal(signal.SIGTERM)
    program.wait()


@pytest.mark.parametrize(("name", "mode"), [("", 0o750), ("server.secret", 0o640), ("worker.secret", 0o644)])
def test_wider_modes_are_refused(site: Site, name: str, mode: int) -> None:
    """In one line that names the file and the command that mends it, with status 2."""
    keys = site.make_keys()
    (keys / name).chmod(mode)
    role = "worker C" if name == "worker.secret" else "distributor"
    program = site.start(role, "--keys", "keys")
    assert (program.wait(), program.err.count("\n")) == (2, 1), program.err
    assert f"(mode {mode:o}). Run `chmod {'600' if name else '700'} " in program.err


METADATA = """
import sys
import zmqpipeline
from zmqpipeline import EndpointAddress, TaskType

BASE = int(sys.argv[2])

def at(offset):
    return EndpointAddress(f"tcp://127.0.0.1:{BASE + offset}")

TaskType.register_type("C")

class Numbers(zmqpipeline.Task):
    task_type, endpoint, dependencies = TaskType("C"), at(0), []

    def handle(self, data, address, msgtype):
        self.is_complete = True
        return {"told": data["word"]}

class Worker(zmqpipeline.SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = TaskType("C"), at(0), at(1)

    def handle_execution(self, data, *args, **kwargs):
        return {"told": data["told"], "worker": self.metadata["word"]}

class Collector(zmqpipeline.Collector):
    endpoint, ack_endpoint = at(1), at(2)

    def handle_collection(self, data, task_type, msgtype):
        print("collected", data["told"], data["worker"], self.metadata["word"])

class Metadata(zmqpipeline.MetaDataWorker):
    endpoint = at(3)

    def get_metadata(self):
        return {"word": sys.argv[3]}

def distributor():
    zmqpipeline.Distributor.register_task(Numbers)
    return zmqpipeline.Distributor(at(1), at(2), receive_metadata=True, metadata_endpoint=at(3))

{"worker": Worker, "collector": Collector, "metadata": Metadata, "distributor": distributor}[sys.argv[1]]().run()
"""


@pytest.mark.slow
def test_metadata_come_from_who_has_their_key(site: Site, free_port: int, eventually: Callable[..., None]) -> None:
    """One without a key, or with a worker's, gives nothing and is told why; the run begins with the right one's."""
    keys = site.make_keys()
    site.workshop.write("classes.py", METADATA)
    other = site.workshop.folder / "other"
    other.mkdir(mode=0o700)
    shutil.copy2(keys / "server.pub", other)
    for half in ("pub", "secret"):
        shutil.copy2(keys / f"worker.{half}", other / f"metadata.{half}")

    def start(role: str, word: str = "", keys: str = "keys") -> Program:
        return site.workshop.start("classes.py", role, str(free_port), word, ZMQPIPELINE_KEYS=keys)

    roles = [start(role) for role in ("distributor", "collector", "worker")]
    bare, thief = start("metadata", "bare", keys=""), start("metadata", "stolen", keys="other")
    eventually(lambda: "asks for a key" in bare.err, "what the one without a key is told")
    eventually(lambda: "refused this key; add metadata.pub" in thief.err, "what the one with a worker's key is told")
    eventually(lambda: "it is that of the worker worker" in roles[0].err, "what the distributor says")
    assert not any(one.ended() for one in (bare, thief, *roles))
    right = start("metadata", "right")
    assert [one.wait() for one in (right, *roles)] == [0, 0, 0, 0], roles[0].err
    assert roles[1].out == "collected right right right\n"
    assert not bare.ended()
    assert not thief.ended()
