"""Keys of workers that an engine places: each has a pair of its own, as those behind `run --launch` have."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.dask_cluster import APP, cluster_in, left_over
from tests.acceptance.test_launched_keys import processes_that_show, read
from tests.support.stolen_keys import steal
from zmqpipeline.runtime.security import keyfiles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

LISTENER = f"""#!{sys.executable}
# an interpreter that keeps what goes down the lifeline: the only way to the secret
import os, subprocess, sys, threading
from pathlib import Path

worker = subprocess.Popen([{sys.executable!r}, *sys.argv[1:]], stdin=subprocess.PIPE)

def copy():
    while data := os.read(0, 65536):
        with Path(__file__).with_name("stdin").open("ab") as file:
            file.write(data)
        try:
            worker.stdin.write(data)
            worker.stdin.flush()
        except OSError:
            return
    worker.stdin.close()

threading.Thread(target=copy, daemon=True).start()
status = worker.wait()
os._exit(128 - status if status < 0 else status)
"""


class Site:
    """The app with a folder of keys that its workers do not find."""

    def __init__(self, workshop: Workshop, port: int) -> None:
        self.workshop = workshop
        workshop.write("app.py", APP)
        workshop.write("listener.py", LISTENER).chmod(0o700)
        self.keys = workshop.folder / "head" / "keys"
        self.keys.parent.mkdir()
        keyfiles.make_all(self.keys)
        self.far = ("--endpoint", f"tcp://127.0.0.1:{port}")
        workshop.environ["TMPDIR"] = str(workshop.folder)

    def start(self, *flags: str) -> Program:
        """Start `run --engine dask` with two workers, and keys that must be used."""
        run = ("-m", "app", "run", "--no-progress", "--workers", "2", "--engine", "dask", "--log-level", "info")
        return self.workshop.start(
            *run, "--keys", "head/keys", "--encryption", "required", *flags, ITEMS="40", NAP="0.01"
        )

    @property
    def handed(self) -> list[dict[str, str]]:
        """The keys that workers were handed, in the order in which they came."""
        lines = [json.loads(line) for line in self.workshop.lines("stdin") if line.startswith("{")]
        return [line["keys"] for line in lines]

    @property
    def issued(self) -> set[str]:
        """The names in the folder of the keys of the run."""
        return {one.name for one in self.workshop.folder.glob("zmqpipeline-*/issued/*")}

    def holding(self, secret: str) -> list[str]:
        """The files that have this in them."""
        return [one.name for one in self.workshop.folder.rglob("*") if one.is_file() and secret in read(one)]

    def thief(self, keys: dict[str, str]) -> Program:
        """A worker of somebody who has seen these keys."""
        steal(keys, self.workshop.folder)
        return self.workshop.start("-m", "app", "worker", "C", *self.far, "--keys", "stolen")


@pytest.fixture
def site(workshop: Workshop, free_port: int) -> Site:
    """Everything in a folder of its own, at a port of its own."""
    return Site(workshop, free_port)


def name_of(keys: dict[str, str]) -> str:
    """The name of the file of a key that is let in."""
    return keys["public"].encode().hex()


def test_each_worker_on_a_cluster_has_a_pair_of_its_own(site: Site, eventually: Eventually) -> None:
    """Known to nobody between, and withdrawn when `run` has seen the end of its worker."""
    site.workshop.write("wait", "")
    with cluster_in(site.workshop.folder, workers=2) as cluster:
        listener = str(site.workshop.folder / "listener.py")
        program = site.start("--scheduler", cluster.address, *site.far, "--python", listener)
        eventually(lambda: len(site.workshop.lines("begun")) == 2, "both are at work", 60)
        first, second = site.handed
        assert first["public"] != second["public"]
        assert first["server"] == second["server"] == keyfiles.server_public(site.keys).decode()
        assert site.issued == {name_of(first), name_of(second)}
        held = cluster.held()
        for keys in (first, second):
            assert keys["secret"] not in held
            assert processes_that_show(keys["secret"]) == []
        # the searches find what is there
        assert "--lifeline" in held
        assert processes_that_show("--lifeline") != []
        for pid in site.workshop.numbers("workers"):
            assert b"keys" not in Path(f"/proc/{pid}/cmdline").read_bytes()

        victim = site.workshop.numbers("workers")[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(site.handed) == 3, "another one is handed another pair", 60)
        withdrawn = {one.removesuffix("-withdrawn") for one in site.issued if one.endswith("-withdrawn")}
        (gone,) = (keys for keys in (first, second) if name_of(keys) in withdrawn)
        thief = site.thief(gone)
        eventually(lambda: "refused this key" in thief.err, "the key of the dead one is refused")
        (site.workshop.folder / "wait").unlink()
        assert program.wait(60) == 0, program.err
    assert sorted(site.workshop.numbers("collected")) == list(range(40))
    assert thief.pid not in site.workshop.numbers("workers")
    for keys in site.handed:
        assert set(site.holding(keys["secret"])) <= {"stdin", "worker.secret"}
    assert site.issued == set()


def test_a_local_cluster_with_keys(site: Site) -> None:
    """At the private addresses, where keys are used, too, if they must be."""
    program = site.start()
    assert program.wait(60) == 0, program.err
    assert sorted(site.workshop.numbers("collected")) == list(range(40))
    assert "refused" not in program.err
    assert left_over(site.workshop.folder) == []
