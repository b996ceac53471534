"""Find an app by what ``-A`` says, and say what ``-A`` would find an app that exists.

A target is ``package.module``, ``package.module:name``, ``folder/file.py`` or ``folder/file.py:name``. Without a name
the module's only Pipeline is meant, or the one called ``app``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, ImportFailed, did_you_mean

_targets: dict[int, str] = {}
"""What `find_app` was asked for, by the id of the app it found: apps live as long as their modules."""

_importing: list[str] = []
"""The targets that are being imported now: while there is one, nothing may be run."""


def find_app(target: str) -> Pipeline:
    """The app that `target` names. Raises ImportFailed, in one line, if there is none."""
    place, name = split_target(target)
    with _while_importing(target):
        module = _load_file(place) if _is_file(place) else _load_module(place)
    app = _pick(module, name, place)
    _targets[id(app)] = f"{Path(place).resolve() if _is_file(place) else place}:{_name_in(module, app)}"
    return app


def split_target(target: str) -> tuple[str, str]:
    """The module or file, and the name in it, which may be empty: ``"pkg.jobs:app"`` is ``("pkg.jobs", "app")``."""
    place, colon, name = target.rpartition(":")
    if not colon or not (name == "" or name.isidentifier()):
        place, name = target, ""
    if not place:
        raise ImportFailed(f"{target!r} names no module. Give a module or a file: -A package.module:app, or -A jobs.py")
    return place, name


def target_of(app: Pipeline) -> str:
    """What ``-A`` must say so that a new process finds this app. Raises ImportFailed if nothing can find it."""
    known = _targets.get(id(app))
    if known is not None:
        return known
    for module in _candidates(app):
        name = _name_in(module, app)
        place = _place_of(module) if name else ""
        if place:
            return f"{place}:{name}"
    raise ImportFailed(
        f"Pipeline {app.name!r} cannot be imported by the processes that `run` starts: no module holds it under a "
        f"name of its own (it was made in {app.import_name!r}, inside a function or at a prompt). "
        "Make it at the top of a file."
    )


def refuse_while_importing(what: str) -> None:
    """Raise ConfigurationError if the app's module is only just being imported, by a child process or by ``-A``."""
    if _importing:
        raise ConfigurationError(
            f"{what} was reached while {_importing[-1]!r} was being imported, so every process would start a pipeline "
            "of its own. Put the call under `if __name__ == '__main__':`."
        )


@contextmanager
def _while_importing(target: str) -> Iterator[None]:
    _importing.append(target)
    try:
        yield
    finally:
        _importing.pop()


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _import_raised(name, error) from error
        raise ImportFailed(f"There is no module {error.name!r}.{_did_you_mean(name)} Searched from {here}.") from None
    except (Exception, SystemExit) as error:
        raise _import_raised(name, error) from error


def _load_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise ImportFailed(
            f"There is no file {place!r} in {Path.cwd()}. Give a Python file, or a module as -A package.module"
        )
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "__zmqpipeline_app__"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportFailed(f"{place!r} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise _import_raised(place, error) from error
    return module


def _import_raised(place: str, error: BaseException) -> ImportFailed:
    """One line that leads to the spot: the last frame of the traceback, or the line of a syntax error."""
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" (at {error.filename}:{error.lineno})"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = str(error).splitlines()
    return ImportFailed(
        f"Importing {place!r} raised {type(error).__name__}: {text[0] if text else 'no message'}{where}."
    )


def _did_you_mean(name: str) -> str:
    stems = [path.stem for path in Path.cwd().glob("*.py")]
    return did_you_mean(name.partition(".")[0], stems)


def _pick(module: ModuleType, name: str, place: str) -> Pipeline:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    if name:
        return _named(module, name, place, sorted(apps))
    if len({id(value) for value in apps.values()}) == 1:
        return next(iter(apps.values()))
    if "app" in apps:
        return apps["app"]
    if not apps:
        raise ImportFailed(f"{place!r} holds no Pipeline. Make one at its top level: app = Pipeline('name')")
    known = ", ".join(repr(key) for key in sorted(apps))
    raise ImportFailed(f"{place!r} holds several pipelines: {known}. Say which: -A {place}:{sorted(apps)[0]}")


def _named(module: ModuleType, name: str, place: str, known: list[str]) -> Pipeline:
    value = getattr(module, name, None)
    if isinstance(value, Pipeline):
        return value
    seen = f"{name!r} in {place!r} is a {type(value).__name__}, no Pipeline." if hasattr(module, name) else ""
    names = ", ".join(repr(key) for key in known) or "none"
    raise ImportFailed(f"{seen or f'{place!r} has no {name!r}.'} Pipelines in it: {names}.")


def _candidates(app: Pipeline) -> list[ModuleType]:
    """Where an app may be found: the module that made it, then the main one, then all others."""
    names = [app.import_name, "__main__", *list(sys.modules)]
    modules = (sys.modules.get(name) for name in dict.fromkeys(names))
    return [module for module in modules if isinstance(module, ModuleType)]


def _name_in(module: ModuleType, app: Pipeline) -> str:
    return next((name for name, value in list(vars(module).items()) if value is app), "")


def _place_of(module: ModuleType) -> str:
    """How another process imports this module: by its name, or by its file if it is the script that was started."""
    if module.__name__ != "__main__":
        return module.__name__
    if module.__spec__ is not None:
        return module.__spec__.name
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if file and Path(file).is_file() else ""
