"""`run --engine dask`, on a LocalCluster of its own and on clusters that there are, with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import troubles, wait_until
from tests.acceptance.dask_cluster import APP, cluster_in, left_over

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]


class Scene:
    """The app in a workshop."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        workshop.write("app.py", APP)

    def hold(self) -> None:
        """Have each worker stay in the item that it is at, until `go`."""
        self.workshop.write("wait", "")

    def go(self) -> None:
        """Let them end it."""
        (self.workshop.folder / "wait").unlink()

    def states(self) -> list[str]:
        """How the distributor says that the workers are; nothing while it says nothing."""
        status, asked = self.workshop.run("-m", "app", "status", "--json")
        return [one["state"] for one in asked.json["workers"]] if status == 0 else []

    def start(self, *flags: str, workers: str = "4", **environ: str) -> Program:
        """Start `run --engine dask`."""
        run = ("-m", "app", "run", "--no-progress", "--workers", workers, "--engine", "dask")
        return self.workshop.start(*run, *flags, **environ)

    @property
    def pids(self) -> list[int]:
        """The workers that have begun an item, in order."""
        return self.workshop.numbers("workers")

    def assert_each_once(self, items: int = 600) -> None:
        """Every item was collected once, and no process of the run is left."""
        assert sorted(self.workshop.numbers("collected")) == list(range(items))
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No process of the run is left; the last ones may be on their way out."""
        wait_until(lambda: not left_over(self.workshop.folder), "nothing is left")


@pytest.fixture
def scene(workshop: Workshop) -> Scene:
    """Everything in a folder of its own."""
    return Scene(workshop)


def parent(pid: int) -> int:
    """The process id of a process's parent: of a worker, the Dask worker that has started it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_local_cluster(scene: Scene, eventually: Eventually) -> None:
    """All is collected once, status 0; what workers print arrives here, and nothing else is said."""
    scene.hold()
    program = scene.start(NAP="0.002")
    eventually(lambda: len(scene.workshop.lines("begun")) == 4, "all are at work")
    scene.go()
    assert program.wait() == 0, program.err
    scene.assert_each_once()
    assert program.out.count("printed") == 600
    assert len(scene.pids) == 4
    assert troubles(program.err)[0].startswith("squares: 600 items"), program.err
    assert "\x1e" not in program.err


def test_json_is_alone_on_stdout(scene: Scene) -> None:
    """What workers print goes to stderr then."""
    program = scene.start("--json", ITEMS="20")
    assert program.wait(60) == 0, program.err
    assert program.json["workers"] == {"C": 4}
    assert program.err.count("printed") == 20


def test_dask_workers_are_killed(scene: Scene, eventually: Eventually) -> None:
    """The workers on them leave, others are started, each item is collected once."""
    scene.hold()
    program = scene.start()
    for number in range(2):
        eventually(lambda count=4 + number: len(scene.pids) >= count, "workers are at work")
        os.kill(parent(scene.pids[-1]), signal.SIGKILL)
    scene.go()
    assert program.wait(100) == 0, program.err
    scene.assert_each_once()
    assert len(scene.pids) > 4, program.err


def test_a_worker_is_killed(scene: Scene, eventually: Eventually) -> None:
    """The Dask worker stays, and the next one is started there."""
    scene.hold()
    program = scene.start()
    eventually(lambda: len(scene.pids) == 4, "all are at work")
    os.kill(scene.pids[0], signal.SIGKILL)
    eventually(lambda: len(scene.pids) == 5, "another one is at work")
    scene.go()
    assert program.wait() == 0, program.err
    scene.assert_each_once()
    assert "ended by SIGKILL" in program.err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_run_drains(scene: Scene, how: signal.Signals, eventually: Eventually) -> None:
    """What runs is finished and collected, by SIGTERM, and by the Ctrl-C of a terminal, which all of its group get."""
    scene.hold()
    program = scene.start()
    eventually(lambda: len(scene.workshop.lines("begun")) == 4, "all are at work")
    program.signal(how, group=how == signal.SIGINT)
    eventually(lambda: "The run drains" in program.err, "it drains")
    eventually(lambda: scene.states() == ["draining"] * 4, "all have heard it")
    scene.go()
    assert program.wait() == 128 + how, program.err
    assert sorted(scene.workshop.numbers("collected")) == sorted(scene.workshop.numbers("begun"))
    assert len(scene.workshop.numbers("collected")) == 4
    scene.assert_nothing_left()


def test_ctrl_c_twice(scene: Scene, eventually: Eventually) -> None:
    """Ends it at once, and nothing is left."""
    scene.hold()
    program = scene.start()
    eventually(lambda: len(scene.workshop.lines("begun")) == 4, "all are at work")
    for _ in range(2):
        program.signal(signal.SIGINT, group=True)
        eventually(lambda: "The run drains" in program.err, "it drains")
    assert program.wait() == 130, program.err
    scene.assert_nothing_left()


def test_an_init_function_that_raises(scene: Scene) -> None:
    """The run ends with status 1 and says what was raised, as with workers on this machine."""
    scene.workshop.write("bug", "")
    program = scene.start(workers="2")
    assert program.wait(90) == 1, program.err
    assert "KeyError: 'bug'" in program.err
    scene.assert_nothing_left()


def test_a_cluster_that_there_is(scene: Scene, eventually: Eventually) -> None:
    """A run on it, one that is killed with -9, and one that waits for room: nothing is left there each time."""
    with cluster_in(scene.workshop.folder, workers=2) as cluster:
        program = scene.start("--scheduler", cluster.address, workers="2", NAP="0")
        assert program.wait(60) == 0, program.err
        scene.assert_each_once()
        eventually(lambda: cluster.tasks() == [], "no task is left")

        (scene.workshop.folder / "workers").unlink()
        scene.hold()
        program = scene.start("--scheduler", cluster.address, workers="2")
        eventually(lambda: len(scene.pids) == 2, "both are at work")
        program.signal(signal.SIGKILL)
        # they cannot be waited for: they are in their items
        scene.assert_nothing_left()
        eventually(lambda: cluster.tasks() == [], "no task is left")
        scene.go()

        (scene.workshop.folder / "collected").unlink()
        program = scene.start("--scheduler", cluster.address, workers="5", NAP="0.01")
        assert program.wait(60) == 0, program.err
        scene.assert_each_once()
        eventually(lambda: cluster.tasks() == [], "no task is left")


def test_the_distributor_is_killed(scene: Scene, eventually: Eventually) -> None:
    """The workers wait for the next one, and go on."""
    scene.hold()
    program = scene.start()
    eventually(lambda: len(scene.pids) == 4, "all are at work")
    children = [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]
    (distributor,) = (pid for pid in children if b"distributor" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(distributor, signal.SIGKILL)
    eventually(lambda: "The distributor (pid" in program.err, "its death is seen")
    scene.go()
    assert program.wait(90) == 0, program.err
    scene.assert_each_once()
    assert len(scene.pids) == 4


def test_a_local_cluster_that_is_killed(scene: Scene, eventually: Eventually) -> None:
    """Another one is made, and the run goes on there."""
    scene.hold()
    program = scene.start(workers="2", ITEMS="200")
    eventually(lambda: len(scene.pids) == 2, "both are at work")
    children = [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]
    (cluster,) = (pid for pid in children if b"dask_local" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(cluster, signal.SIGKILL)
    scene.go()
    assert program.wait(100) == 0, program.err
    assert "The LocalCluster of Dask has ended (status -9); another one is made." in program.err
    scene.assert_each_once(200)


def test_it_grows_and_shrinks(scene: Scene) -> None:
    """`--workers 1:3` on a LocalCluster."""
    program = scene.start("--log-level", "info", workers="1:3")
    assert program.wait(90) == 0, program.err
    scene.assert_each_once()
    assert "by 1 to 3 workers" in program.err


def test_an_address_that_workers_reach(scene: Scene, free_port: int) -> None:
    """tcp, on which what goes between is encrypted."""
    program = scene.start("--endpoint", f"tcp://127.0.0.1:{free_port}", workers="2", NAP="0", ITEMS="50")
    assert program.wait(60) == 0, program.err
    scene.assert_each_once(50)


def test_a_task_with_resources_that_nobody_has(scene: Scene, eventually: Eventually) -> None:
    """It waits, and the run says so after 30 s; a drain ends it, and the cluster has no task of it."""
    with cluster_in(scene.workshop.folder, workers=1) as cluster:
        program = scene.start("--scheduler", cluster.address, "--engine-option", "resources=GPU:1", workers="1")
        eventually(lambda: "Nothing was heard of the worker of 'C'" in program.err, "it says that it waits")
        program.signal(signal.SIGTERM)
        assert program.wait() == 143, program.err
        eventually(lambda: cluster.tasks() == [], "no task is left")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], "The scheduler of Dask at tcp://127.0.0.1:9 cannot be reached"),
        (["--engine-option", "nodes=3"], "has no option 'nodes'"),
        (["--engine-option", "resources=GPU"], "'GPU' has no number"),
        (["--launch", "nice"], "Leave out one of them"),
    ],
)
def test_what_cannot_be_is_refused(scene: Scene, flags: list[str], said: str) -> None:
    """Status 2, one line, nothing is started."""
    program = scene.start(*flags)
    assert program.wait() == 2, program.err
    assert said in program.err
    assert "Traceback" not in program.err


def test_distributed_is_not_installed(scene: Scene) -> None:
    """The sentence with the command that installs it."""
    scene.workshop.write("distributed.py", "raise ImportError('hidden')")
    program = scene.start()
    assert program.wait() == 2
    assert "pip install 'zmqpipeline[dask]'" in program.err
