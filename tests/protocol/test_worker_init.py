"""A worker with init functions: nothing begins before the distributor knows that these have returned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.bench import TROUBLE
from tests.support.worker_scene import Scene
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m


@pytest.mark.parametrize("trial", [False, True])
def test_nothing_begins_before_the_distributor_knows_that_the_init_functions_have_returned(trial: bool) -> None:
    """Until then the worker says that nothing can have begun; the first item has the init functions called."""
    scene = Scene(has_inits=True)
    assert scene.bench.said(m.WorkerReport)[-1].begun == ()
    scene.distributor.says(m.Work("run", "A", 1, 0.0, (7, 8), (), [b"x"], b"", trial))
    assert (len(scene.bench.of(c.Initialize)), scene.bench.of(c.Execute)) == (1, [])
    scene.distributor.says(m.Settled("run", "A", ()))
    scene.bench.wait(1.0)
    report = scene.bench.said(m.WorkerReport)[-1]
    assert (report.held, report.begun) == ((7, 8), ())
    scene.bench.tell(e.InitDone())
    report = scene.bench.said_one(m.WorkerReport)
    assert (report.held, report.begun) == ((7, 8), None)
    said = scene.bench.of(c.Send)[-1].envelope.number
    peer, link = scene.distributor.peer, scene.distributor.link
    for received, begun in ((said - 1, 0), (said, 1)):
        envelope = replace(link.wrap(m.Settled("run", "A", ())), received=received)
        scene.bench.tell(e.Received(peer, envelope))
        assert len(scene.bench.of(c.Execute)) == begun
    scene.work(9)
    assert len(scene.bench.of(c.Execute)) == 1, "what comes later begins at once"


def test_what_comes_before_that_is_known_waits_for_it_too() -> None:
    """Sent while the distributor still believed that nothing has begun; a lost word is said again, and waited for."""
    scene = Scene(has_inits=True)
    scene.work(7)
    unheard = scene.distributor.link.received
    scene.bench.tell(e.InitDone())
    peer, link = scene.distributor.peer, scene.distributor.link
    work = m.Work("run", "A", 1, 0.0, (8, 9), (), [b"x"])
    scene.bench.tell(e.Received(peer, replace(link.wrap(work), received=unheard)))
    assert scene.bench.of(c.Execute) == []
    # the word was lost, as is seen by what was sent after it
    scene.bench.tell(e.Received(peer, link.wrap(m.Settled("run", "A", (), resync=True))))
    assert scene.bench.of(c.Execute) == []
    again = scene.bench.of(c.Send)[-1].envelope.number
    scene.bench.tell(e.Received(peer, replace(link.wrap(m.Settled("run", "A", ())), received=again)))
    assert sorted(number for one in scene.bench.of(c.Execute) for number in one.numbers) == [7, 8]


def test_what_comes_after_a_lost_word_waits_for_it_to_be_said_again() -> None:
    """The distributor has heard later messages of ours, and asks for what it has missed."""
    scene = Scene(has_inits=True)
    scene.work(7)
    scene.bench.tell(e.InitDone())
    peer, link = scene.distributor.peer, scene.distributor.link
    scene.bench.tell(e.Received(peer, link.wrap(m.Settled("run", "A", (), resync=True))))
    again = scene.bench.of(c.Send)[-1].envelope.number
    assert scene.bench.said(m.WorkerReport)[-1].begun is None
    work = m.Work("run", "A", 1, 0.0, (8, 9), (), [b"x"])
    for received, begun in ((again - 1, []), (again, [7, 8])):
        scene.bench.tell(e.Received(peer, replace(link.wrap(work), received=received)))
        assert sorted(number for one in scene.bench.of(c.Execute) for number in one.numbers) == begun
    scene.work(9)
    assert len(scene.bench.of(c.Execute)) == 1, "what comes later begins at once"


def test_what_waits_for_the_init_functions_is_recalled() -> None:
    """The last first, and the pool is asked for the rest."""
    scene = Scene(has_inits=True)
    scene.work(1, 2, 3)
    scene.work(4)
    scene.distributor.says(m.Recall("run", "A", 2))
    assert scene.bench.one(c.TakeBack).count == 0
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (3, 5)
    scene.distributor.says(m.Recall("run", "A", 1 << 30))
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (1, 3)


@pytest.mark.parametrize("what", ["idle_timeout", "exit_when_idle"])
def test_who_waits_for_a_word_that_nobody_says_is_idle(what: str) -> None:
    """The distributor is gone; while the init functions run the worker is busy all the same."""
    scene = Scene(has_inits=True, options=Options(**{what: 5.0, "drain_timeout": 1.0}))
    scene.work(7)
    scene.bench.tell(e.Disconnected("workers"))
    scene.bench.tell(e.Disconnected("results"))
    scene.bench.wait(20.0)
    assert scene.machine.phase == "working"
    scene.bench.tell(e.InitDone())
    scene.bench.wait(6.0)
    scene.bench.wait(6.0)
    assert scene.machine.phase in ("draining", "ended")


def test_what_waits_for_the_init_functions_goes_back_when_they_raise_or_the_worker_drains() -> None:
    """It had not begun."""
    scene = Scene(has_inits=True)
    scene.work(7)
    scene.bench.tell(e.Drain(10.0))
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (7, 8)
    scene = Scene(has_inits=True)
    scene.work(7)
    scene.bench.tell(e.InitFailed(TROUBLE))
    assert scene.bench.said_one(m.Goodbye).trouble == TROUBLE
    assert scene.bench.one(c.Ended).status == 1
