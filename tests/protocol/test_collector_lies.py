"""The collector machine: what strangers and wrong peers say."""

from __future__ import annotations

import pytest

from tests.support.bench import Stranger
from tests.support.collector_scene import Scene
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.collecting import MAX_TASKS
from zmqpipeline.protocol.data.collected import CollectedItems
from zmqpipeline.protocol.data.ranges import MAX_RANGES


@pytest.fixture
def scene() -> Scene:
    """A collector that has been told a run."""
    return Scene()


# lies -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [m.Propose("pipe", "mine"), m.Bye("x"), m.Finish("x", True, []), m.GiveUp("x", []), m.Keys("x", "A", b"", (), b"")],
    ids=lambda body: type(body).__name__,
)
def test_who_does_not_know_the_run_keeps_nobody_from_being_its_distributor(body: m.Message) -> None:
    """A stranger that was there first, and says what only a distributor says, has not taken its place."""
    scene = Scene(begun=False)
    stranger = Stranger(scene.bench, "acks", b"s")
    stranger.says(body)
    scene.begin()
    stranger.says(body)
    assert scene.results(0)
    scene.collected(0)
    assert scene.distributor.was_told(m.Ack)
    assert scene.machine.phase == "active"


def test_a_second_distributor_is_told_of_once(scene: Scene) -> None:
    """However often it asks; after its next connection again."""
    stranger = Stranger(scene.bench, "acks", b"s")
    stranger.says(m.Propose("pipe", "mine"))
    assert "second distributor" in scene.bench.logged()
    stranger.says(m.Propose("pipe", "mine"))
    assert scene.bench.last == []
    scene.bench.tell(e.PeerLost(stranger.peer))
    stranger.says(m.Propose("pipe", "mine"))
    assert "second distributor" in scene.bench.logged()


def test_a_run_with_metadata_that_nobody_could_open_is_not_begun() -> None:
    """It is told and dropped; one that is sound begins."""
    scene = Scene(begun=False)
    scene.machine._is_dict = lambda packed: packed == b"meta"
    scene.distributor.says(m.Begin("pipe", "run", b"bad", []))
    assert scene.machine.phase == "empty"
    assert "no packed dict" in scene.bench.logged()
    scene.begin()
    assert scene.machine.phase == "active"


def test_who_claims_to_keep_everything_is_asked_for_no_more_than_a_message_can_tell(scene: Scene) -> None:
    """The answer to a huge claim is cut short; nothing of it is kept."""
    for number in range(0, 2 * MAX_RANGES + 10, 2):
        scene.machine._task("A").collected.add(number, number + 1)
    scene.machine._acks.count = MAX_RANGES + 5
    scene.worker.says(m.Kept("run", "A", (0, 2**62)))
    (missing,) = scene.worker.was_told(m.Missing)
    assert len(missing.spans) == 2 * MAX_RANGES
    assert len(scene.machine._tasks["A"].pending) == 0


def test_results_of_endless_tasks_are_dropped(scene: Scene) -> None:
    """Who makes up names of tasks cannot fill the memory with them; the tasks that there are go on."""
    scene.results(0)
    scene.machine._tasks |= {f"t{count}": CollectedItems() for count in range(MAX_TASKS)}
    assert not [one for one in scene.results(1, task="another") if not isinstance(one, c.Log)]
    scene.worker.says(m.Kept("run", "another", (0, 1)))
    assert scene.bench.last == []
    assert "another" not in scene.machine._tasks
    assert scene.results(1)


def test_results_of_tasks_that_the_distributor_has_not_named_are_dropped_and_told_of_once() -> None:
    """Nobody makes up an item of a task that is none, however early; and no made-up names keep a real task out."""
    scene = Scene(begun=False)
    scene.begin(m.TaskProgress("A", (), ()), m.TaskProgress("B", (), ()))
    scene.machine._tasks |= {f"t{count}": CollectedItems() for count in range(MAX_TASKS)}
    (told,) = scene.results(0, task="another")
    assert isinstance(told, c.Log)
    assert "speaks of a task 'another', which this pipeline has not" in told.text
    assert scene.worker.says(m.Kept("run", "another", (0, 1))) == []
    assert [one.task for one in scene.results(0, task="B") if isinstance(one, c.Collect)] == ["B"]


def test_a_collector_with_a_journal_takes_the_tasks_that_its_distributor_names() -> None:
    """It may hold nothing of a task that begins later; whoever sends results first does not keep that task out."""
    scene = Scene(begun=False)
    scene.bench.tell(e.Restored("run", b"meta", [m.TaskProgress("A", (0, 1), ())]))
    scene.machine._tasks |= {f"t{count}": CollectedItems() for count in range(MAX_TASKS)}
    assert not [one for one in scene.results(0, task="B") if isinstance(one, c.Collect)]
    scene.begin(m.TaskProgress("A", (), ()), m.TaskProgress("B", (), ()))
    assert [one.task for one in scene.results(0, task="B") if isinstance(one, c.Collect)] == ["B"]


def test_one_connection_speaks_for_one_process(scene: Scene) -> None:
    """A peer that changes its name is told of once, and what it says under another one is dropped."""
    scene.results(0)
    for count in range(3):
        liar = Stranger(scene.bench, "results", b"w1", who=b"n%d" % count)
        liar.says(m.Results("run", "A", 1, (5, 6), [b"x"]))
        assert scene.bench.of(c.Collect) == []
    assert scene.results(1)
