"""Engines by name: what is registered, what is refused, and what becomes of one that raises."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from zmqpipeline.errors import ConfigurationError
from zmqpipeline.processes.engines import EngineRun, RunEngine
from zmqpipeline.processes.engines.named import engine_named, in_use
from zmqpipeline.processes.launch import EngineChoice, engines_for
from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, ChildSlots, Slot, Verdict
from zmqpipeline.processes.unheard import UNHEARD_SECONDS, unheard
from zmqpipeline.runtime.child import Child

RUN = EngineRun("p", "r1", "ipc:///tmp/x", 2)

ENGINES = """
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.processes.engines import RunEngine

class Good(RunEngine):
    hint = " See there."

class Strict(RunEngine):
    def __init__(self, run):
        raise ConfigurationError("Give a region: --engine-option region=NAME.")

class Broken(RunEngine):
    def __init__(self, run):
        raise KeyError("token")

class Other:
    def __init__(self, run):
        pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with some engines."""
    (tmp_path / "some_engines.py").write_text(ENGINES)
    info = tmp_path / "some_engines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-engines\nVersion: 1.0\n")
    names = "".join(f"{name.lower()} = some_engines:{name}\n" for name in ("Good", "Strict", "Broken", "Other", "Gone"))
    (info / "entry_points.txt").write_text(f"[zmqpipeline.engines]\n{names}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_engines", raising=False)


@pytest.mark.usefixtures("installed")
def test_an_engine_is_found_by_its_entry_point() -> None:
    """It is made once, with the run."""
    engine = engine_named("good", RUN)
    assert (engine.run, engine.hint) == (RUN, " See there.")
    assert engine.for_worker("C", 0) is engine


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("goad", r"no engine 'goad'. Did you mean 'good'\? Known: 'broken', 'dask', 'gone', 'good', 'local'"),
        ("strict", "^Give a region"),
        ("broken", r"'broken' \(some_engines:Broken\) cannot be used: KeyError: 'token'"),
        ("gone", r"'gone' \(some_engines:Gone\) cannot be used: AttributeError"),
        ("other", "gives a Other, which is no RunEngine"),
    ],
)
def test_what_cannot_be_used_is_a_short_letter(name: str, said: str) -> None:
    """With the name, what was seen, and what to do."""
    with pytest.raises(ConfigurationError, match=said):
        engine_named(name, RUN)


@pytest.mark.parametrize(
    ("choice", "launch", "said"),
    [
        (EngineChoice("dask"), "nice", "--launch and --engine dask both say"),
        (EngineChoice(scheduler="tcp://x:1"), None, "--scheduler is for an engine"),
        (EngineChoice(options={"a": "b"}), None, "--engine-option is for an engine"),
    ],
)
def test_flags_that_do_not_fit_together(choice: EngineChoice, launch: str | None, said: str) -> None:
    """Are refused before anything starts."""
    with pytest.raises(ConfigurationError, match=said):
        engines_for(launch, None, choice)


def test_an_interpreter_goes_with_an_engine() -> None:
    """``--python`` is that of the far side."""
    engines_for(None, "/usr/bin/python3", EngineChoice("dask"))


class Raising(RunEngine):
    """One whose `start` raises."""

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """As `Engine.start`."""
        raise OSError("503: slow down")


def test_a_start_that_raises_is_a_failed_start(caplog: pytest.LogCaptureFixture) -> None:
    """It is said, tried again with a delay, and after five in a row given up."""
    place = Slot("worker of 'C'", [], "C", engine=Raising(RUN))
    slots, verdicts = ChildSlots(), []
    for _ in range(FAILED_STARTS_LIMIT):
        slots.start(place)
        end = slots.wait(0.0)
        assert isinstance(end, ChildEnded)
        verdicts.append(slots.judge(end, 100.0))
        assert place.restart_at is not None
    assert verdicts == [Verdict.DIED] * (FAILED_STARTS_LIMIT - 1) + [Verdict.HOPELESS]
    assert "could not start the worker of 'C': OSError: 503: slow down" in caplog.text


@pytest.mark.parametrize("given", [None, object()])
def test_what_is_no_child_is_a_failed_start(given: object, caplog: pytest.LogCaptureFixture) -> None:
    """It would never end, and the run would wait for it."""

    class Vague(RunEngine):
        def start(self, *_: object, **__: object) -> Child:
            return given  # type: ignore[return-value]

    place, slots = Slot("worker of 'C'", [], "C", engine=Vague(RUN)), ChildSlots()
    slots.start(place)
    assert place.child is None
    end = slots.wait(0.0)
    assert isinstance(end, ChildEnded)
    assert slots.judge(end, 100.0) is Verdict.DIED
    assert f"start() of Vague gives a {type(given).__name__}, which is no Child" in caplog.text


def test_a_place_that_cannot_be_made_and_an_end_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The one is a short letter, the other is logged."""

    class Clumsy(RunEngine):
        def for_worker(self, task: str, index: int) -> RunEngine:
            raise KeyError("zone")

        def close(self) -> None:
            raise OSError("gone")

    with (
        in_use("clumsy", Clumsy(RUN)) as engine_of,
        pytest.raises(ConfigurationError, match="'clumsy' has no place for worker 1 of 'C': KeyError: 'zone'"),
    ):
        engine_of("C", 1)
    assert "The engine 'clumsy' could not be closed: OSError: gone" in caplog.text


@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_second_signal_ends_a_run_whose_engine_does_not_return(
    signum: signal.Signals, raised: type[BaseException]
) -> None:
    """Nobody takes events meanwhile: the first one waits for the engine."""

    class Stuck(RunEngine):
        def start(self, *_: object, **__: object) -> Child:
            signal.raise_signal(signum)
            signals.append("first")
            signal.raise_signal(signum)
            raise AssertionError("it goes on")

    signals: list[str] = []
    slots = ChildSlots()
    with pytest.raises(raised), slots.signals():
        slots.start(Slot("worker of 'C'", [], "C", engine=Stuck(RUN)))
    assert signals == ["first"]
    with slots.signals():
        signal.raise_signal(signum)


def test_a_base_without_a_start() -> None:
    """A class that forgets it says so at its first worker."""
    with pytest.raises(NotImplementedError, match="RunEngine has no start"):
        RunEngine(RUN).start("x", [], lambda child: None, stdout=None)


def test_what_is_not_heard_of_is_said_once_it_took_long() -> None:
    """Of workers that an engine places; those of this machine are not looked at."""

    class Silent:
        started = 0.0

        def has_told(self) -> object:
            return type("Told", (), {"host": ""})()

    places = [Slot(f"worker {n} of 'C'", [], "C", engine=Raising(RUN)) for n in range(3)]
    places[0].child = places[1].child = Silent()  # type: ignore[assignment]
    local = Slot("worker of 'D'", [], "D", child=Silent())  # type: ignore[arg-type]
    assert unheard([*places, local], UNHEARD_SECONDS - 1) == ""
    assert "of 2 of 2 workers for 30 s" in unheard([*places, local], UNHEARD_SECONDS)
    places[1].child = None
    assert "of the worker 0 of 'C' for 40 s" in unheard(places, 40.0)
    assert unheard([local], 100.0) == ""
