"""Keys of workers that `run --launch` places: each has a pair of its own, by its standard input, for this run alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_launch import SSH, Eventually, Stage
from tests.support.descendants import children_of, text_of
from tests.support.stolen_keys import steal
from zmqpipeline.runtime.security import keyfiles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

LISTENING_SSH = SSH.replace(
    "            while data:",
    """            if target > 2:
                with open("stdin", "ab") as file:
                    file.write(data)
            while data:""",
)
"""An ssh that keeps what goes down the lifeline: the only way to the secret."""

WAIT = """
    while not (HERE / "go").exists():
        time.sleep(0.01)
"""


class Site(Stage):
    """The app with a folder of keys, which is not where its workers are."""

    def __init__(self, workshop: Workshop, port: int) -> None:
        super().__init__(workshop, port)
        assert LISTENING_SSH != SSH
        workshop.write("ssh.py", LISTENING_SSH)
        self.keys = workshop.folder / "head" / "keys"
        self.keys.parent.mkdir()
        keyfiles.make_all(self.keys)
        self.away = workshop.folder / "away"
        self.away.mkdir()
        (self.away / "app.py").symlink_to(workshop.folder / "app.py")

    def run(self, body: str, **given: int) -> Program:
        """Start `run` with workers that have another working folder, in which there are no keys."""
        flags = ("--keys", "head/keys", "--encryption", "required", "--log-level", "info")
        return self.start(
            self.ssh.replace(f"cd {self.workshop.folder}", f"cd {self.away}"), body, *self.far, *flags, **given
        )

    @property
    def greetings(self) -> list[dict[str, str]]:
        """The keys that workers have been handed, in the order of their starts."""
        lines = [json.loads(line) for line in self.workshop.lines("stdin") if line.startswith("{")]
        return [line["keys"] for line in lines]

    def steal(self, keys: dict[str, str]) -> Path:
        """A folder of keys for who has seen these."""
        return steal(keys, self.workshop.folder)

    def thief(self) -> Program:
        """A worker that has the stolen keys."""
        return self.workshop.start("-m", "app", "worker", "C", *self.far, "--keys", "stolen")


@pytest.fixture
def site(workshop: Workshop, free_port: int) -> Site:
    """Everything in a folder of its own, at a port of its own."""
    return Site(workshop, free_port)


def processes_that_show(secret: str) -> list[str]:
    """The processes that have this on their command line or in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:
                continue
            if secret.encode() in text:
                found.append(f"{folder.name} {name}")
    return found


def test_each_worker_is_handed_a_pair_of_its_own(site: Site, eventually: Eventually) -> None:
    """No folder of keys is there where it runs; no command line, environment, log or file of the run has the secret."""
    program = site.run(WAIT)
    eventually(lambda: site.at_work(2), "both are at work")
    first, second = site.greetings
    assert first["public"] != second["public"]
    assert first["server"] == second["server"] == keyfiles.server_public(site.keys).decode()
    for keys in (first, second):
        assert processes_that_show(keys["secret"]) == []
        # the search finds what is there
        assert processes_that_show("--lifeline") != []
    site.workshop.write("go", "")
    assert program.wait() == 0, program.err
    site.assert_each_once()
    for keys in (first, second):
        assert keys["secret"] not in program.out + program.err
        holding = [one.name for one in site.workshop.folder.rglob("*") if one.is_file() and keys["secret"] in read(one)]
        assert holding == ["stdin"]


def read(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def test_the_folder_of_a_run_has_public_halves_alone(site: Site, eventually: Eventually) -> None:
    """It is closed to others, and gone with the run."""
    site.workshop.environ["TMPDIR"] = str(site.workshop.folder)
    program = site.run(WAIT)
    eventually(lambda: site.at_work(2), "both are at work")
    (folder,) = site.workshop.folder.glob("zmqpipeline-*/issued")
    assert folder.stat().st_mode & 0o077 == 0
    assert {one.name for one in folder.iterdir()} == {keys["public"].encode().hex() for keys in site.greetings}
    assert not [one for one in folder.parent.rglob("*") if one.is_file() and site.greetings[0]["secret"] in read(one)]
    site.workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert not folder.parent.exists()


def test_a_worker_that_takes_the_place_has_another_pair(
    site: Site, eventually: Eventually, is_gone: Callable[[int], bool]
) -> None:
    """That of the dead one is refused from then on, and the log says whose it was."""
    program = site.run(WAIT, workers=1)
    eventually(lambda: site.at_work(1), "it is at work")
    os.kill(site.pids[0], signal.SIGKILL)
    eventually(lambda: site.at_work(2), "another one is at work")
    first, second = site.greetings
    assert first["public"] != second["public"]
    site.steal(first)
    thief = site.thief()
    eventually(lambda: "refused this key" in thief.err, "the stolen key is refused")
    eventually(lambda: "refused the key of the worker of 'C'" in program.err, "the owner is named")
    site.workshop.write("go", "")
    assert program.wait() == 0, program.err
    site.assert_each_once()
    assert thief.pid not in site.pids


def test_a_key_of_another_run_is_refused(site: Site, eventually: Eventually) -> None:
    """With the same folder of keys, at the same address, while the next run goes on."""
    site.workshop.write("go", "")
    program = site.run(WAIT, workers=1)
    assert program.wait() == 0, program.err
    (stolen,) = site.greetings
    site.steal(stolen)
    (site.workshop.folder / "go").unlink()
    (site.workshop.folder / "workers").unlink()
    (site.workshop.folder / "collected").unlink()
    thief = site.thief()
    program = site.run(WAIT, workers=1)
    eventually(lambda: site.at_work(1), "the worker of the second run is at work")
    eventually(lambda: "refused this key" in thief.err, "the stolen key is refused")
    site.workshop.write("go", "")
    assert program.wait() == 0, program.err
    site.assert_each_once()
    assert thief.pid not in site.pids


def test_a_distributor_that_was_killed_knows_the_keys_again(site: Site, eventually: Eventually) -> None:
    """Its workers are let in by the next one, and nothing is lost."""
    program = site.run(WAIT)
    eventually(lambda: site.at_work(2), "both are at work")
    (distributor,) = (pid for pid in children_of(program.pid) if "distributor" in text_of(pid, "cmdline"))
    os.kill(distributor, signal.SIGKILL)
    eventually(lambda: "distributor (pid" in program.err and "ended by SIGKILL" in program.err, "its death is seen")
    site.workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert set(site.workshop.numbers("collected")) == set(range(300))
    assert len(site.greetings) == len(site.pids) == 2
    assert "refused" not in program.err


def test_a_command_on_this_machine_has_keys_of_its_own_too(site: Site) -> None:
    """Behind `nice`, at the private addresses: the folder of keys is not on the worker's command line."""
    body = """note("cmdline", " ".join(sys.argv))"""
    program = site.start("nice -n 5", body, "--keys", "head/keys", "--encryption", "required")
    assert program.wait() == 0, program.err
    site.assert_each_once()
    assert not [line for line in site.workshop.lines("cmdline") if "keys" in line]
