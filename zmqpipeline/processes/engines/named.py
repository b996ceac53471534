"""Engines by name: `run --engine NAME`, our own and those of installed packages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

from zmqpipeline.errors import ConfigurationError, PipelineError, did_you_mean
from zmqpipeline.processes.engines import GROUP, Engine, EngineRun, RunEngine

log = logging.getLogger("zmqpipeline.run")


def engine_named(name: str, run: EngineRun) -> RunEngine:
    """Make the engine of this name for a run.

    Raises:
        ConfigurationError: there is none of this name, or it cannot be imported or made.
    """
    known = _known()
    if name not in known:
        names = ", ".join(repr(one) for one in sorted({"local", *known}))
        raise ConfigurationError(
            f"There is no engine {name!r}.{did_you_mean(name, ['local', *known])} Known: {names}. Others are "
            f"registered by the packages that have them, in the group {GROUP!r} of entry points."
        )
    try:
        engine = known[name].load()(run)
    except PipelineError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"The engine {name!r} ({known[name].value}) cannot be used: {type(error).__name__}: {error}. See its "
            "documentation, or run without --engine."
        ) from error
    if not isinstance(engine, RunEngine):
        raise ConfigurationError(
            f"The engine {name!r} ({known[name].value}) gives a {type(engine).__name__}, which is no RunEngine. "
            "Register a subclass of zmqpipeline.processes.engines.RunEngine."
        )
    return engine


@contextmanager
def in_use(name: str, engine: RunEngine) -> Iterator[Callable[[str, int], Engine]]:
    """What gives the engine of each worker (`RunEngine.for_worker`); the engine is closed after the block.

    What its `for_worker` raises is a ConfigurationError. What its `close` raises is logged: the run is over by then.
    """

    def for_worker(task: str, index: int) -> Engine:
        try:
            return engine.for_worker(task, index)
        except PipelineError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"The engine {name!r} has no place for worker {index} of {task!r}: {type(error).__name__}: {error}. "
                "See its documentation, or run without --engine."
            ) from error

    try:
        yield for_worker
    finally:
        try:
            engine.close()
        except Exception as error:
            log.warning("The engine %r could not be closed: %s: %s", name, type(error).__name__, error)


def _known() -> Mapping[str, EntryPoint]:
    return {"dask": _DASK, **{one.name: one for one in entry_points(group=GROUP)}}


_DASK = EntryPoint("dask", "zmqpipeline.processes.engines.dask:DaskEngine", GROUP)
