"""How a worker's threads begin: together, in time, and with a word to whoever started the process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from zmqpipeline.errors import WorkerInitError
from zmqpipeline.protocol.events import InitDone, InitFailed
from zmqpipeline.runtime.threads.preparation import Beginning, Preparation

LOG = logging.getLogger("zmqpipeline.test")


class Scene:
    """The threads of a pool that begin, and what is told and posted meanwhile."""

    def __init__(
        self,
        init_worker: Callable[[], object] = lambda: None,
        init_thread: Callable[[int], object] = lambda index: None,
        *,
        threads: int = 3,
        limit: float | None = 60.0,
    ) -> None:
        self.events: list[Any] = []
        self.words: list[str] = []
        self.outcomes: dict[int, str] = {}
        self.preparation = Preparation(init_worker, init_thread, ("worker_init function 'load'", "thread_init"))
        self._begin = Beginning(self.preparation, threads, limit, self.events.append, self._tell, LOG).begin
        self.threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def _tell(self, word: str) -> bool:
        self.words.append(word)
        return True

    def _run(self, index: int) -> None:
        try:
            self._begin(index)
            self.outcomes[index] = self.words[-1]
        except BaseException as error:
            self.outcomes[index] = f"{type(error).__name__}: {error}"

    def run(self) -> dict[int, str]:
        """Let all threads begin; what each of them came to: the last word that was told by then, or what it raised."""
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.outcomes


def test_all_threads_begin_together() -> None:
    """Each goes on when the last is ready, and not before that is told."""
    scene = Scene()
    assert scene.run() == dict.fromkeys(range(3), "working")
    assert scene.words == ["starting", "working"]
    assert scene.events == [InitDone()]
    scene.preparation.conclude("The worker")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_that_raises_keeps_all_from_beginning(index: int) -> None:
    """Each thread raises what that one raised, and it is never told that the worker is at work."""

    def init(number: int) -> None:
        if number == index:
            raise OSError("no camera")

    scene = Scene(init_thread=init)
    assert scene.run() == dict.fromkeys(range(3), "OSError: no camera")
    assert scene.words == ["starting"]
    with pytest.raises(WorkerInitError, match=r"^The worker could not start: OSError: no camera in \S+:\d+ init$"):
        scene.preparation.conclude("The worker")


@pytest.mark.parametrize("hangs", ["init_worker", "init_thread"])
def test_one_that_takes_too_long_is_told_of(hangs: str) -> None:
    """InitFailed names the function and the line; a thread that comes back later does not begin."""
    let_go = threading.Event()

    def load(*index: int) -> None:
        assert let_go.wait(60)

    given: dict[str, Any] = {hangs: load}
    scene = Scene(limit=0.05, **given)
    posted = scene.events.append

    def post(event: object) -> None:
        posted(event)
        let_go.set()

    scene._begin.__self__._post = post  # type: ignore[attr-defined]
    name = "worker_init function 'load'" if hangs == "init_worker" else "thread_init"
    text = f"TimeoutError: The {name} did not return within 0.05 s (init_timeout=); it is in wait, line "
    assert all(outcome.startswith(text) for outcome in scene.run().values()), scene.outcomes
    (failed,) = scene.events
    assert isinstance(failed, InitFailed)
    assert failed.trouble.error == "TimeoutError"
    assert scene.words == ["starting"]
    with pytest.raises(WorkerInitError, match="TimeoutError"):
        scene.preparation.conclude("The worker")
