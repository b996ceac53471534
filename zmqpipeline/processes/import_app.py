"""Find an app by what ``-A`` says, and say what ``-A`` would find an app that exists.

A target is ``package.module``, ``package.module:name``, ``folder/file.py`` or ``folder/file.py:name``. Without a name
the module's only Pipeline is meant, or the one called ``app``. The name may be that of a factory, a function that
returns a Pipeline; without a name, one called ``create_app`` or ``make_app`` is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from zmqpipeline.app import Pipeline
from zmqpipeline.definitions import origin
from zmqpipeline.errors import ConfigurationError, ImportFailed, did_you_mean
from zmqpipeline.runtime import child

_targets: dict[int, str] = {}
"""What `find_app` was asked for, by the id of the app it found: apps live as long as their modules."""

_importing: list[str] = []
"""The targets that are being imported now: while there is one, nothing may be run."""


def find_app(target: str) -> Pipeline:
    """The app that `target` names. Raises ImportFailed, in one line, if there is none."""
    place, name = split_target(target)
    with _while_importing(target):
        module = _load_file(place) if _is_file(place) else _load_module(place)
        app, found = _pick(module, name, place)
        for other in child.parents_imports():
            # a program that imports the app, and the module that adds its tasks, may be what was started
            _load_module(other)
    _targets[id(app)] = f"{Path(place).resolve() if _is_file(place) else place}:{found}"
    return app


def hand_on(app: Pipeline) -> str:
    """What ``-A`` must say to the processes that are started from here on; these import the app's other modules, too.

    The program that was started may have imported them, and not the module that makes the app. Raises ImportFailed.
    """
    names = [name for name in app.registry.modules() if name not in origin.STARTED and _has_name(name)]
    child.hand_on_imports(names)
    return target_of(app)


def _has_name(name: str) -> bool:
    """Whether a module is imported by this name, here and elsewhere."""
    module = sys.modules.get(name)
    return module is not None and getattr(module, "__spec__", None) is not None


def split_target(target: str) -> tuple[str, str]:
    """The module or file, and the name in it, which may be empty: ``"pkg.jobs:app"`` is ``("pkg.jobs", "app")``."""
    place, colon, name = target.removesuffix("()").rpartition(":")
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
    factory = origin.factory_of(app.origin)
    place = _place_of(factory[0]) if factory else ""
    if factory and place:
        return f"{place}:{factory[1]}"
    raise ImportFailed(
        f"Pipeline {app.name!r} cannot be imported by the processes that `run` starts: no module holds it under a "
        f"name of its own (it was made in {app.import_name!r}, inside a function or at a prompt). "
        "Make it at the top of a file, or in a function of a module that makes it when it is called without arguments."
    )


def from_here(target: str) -> str:
    """The same target for a process whose working folder may be a copy of ours: a file in it by its relative path."""
    place, name = split_target(target)
    here = Path.cwd()
    if not _is_file(place) or not Path(place).is_relative_to(here):
        return target
    return f"{Path(place).relative_to(here)}:{name}"


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
    return place.endswith(".py") or os.sep in place or place.startswith(".")


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _import_raised(name, error) from error
        raise ImportFailed(f"There is no module {error.name!r}.{_did_you_mean(name)} Searched from {here}.") from None
    except BaseException as error:
        raise _import_raised(name, error) from error


def _load_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if path.is_dir():
        raise ImportFailed(
            f"{place!r} is a folder. Give a Python file in it, or a package by its name: -A package.module, in the "
            "folder that holds it."
        )
    if not path.is_file():
        raise ImportFailed(
            f"There is no file {place!r} in {Path.cwd()}. Give a Python file, or a module as -A package.module"
        )
    name = origin.name_of_file(path)
    if name in sys.modules or not all(part.isidentifier() for part in name.split(".")):
        name = origin.LOADED_FILE
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportFailed(f"{place!r} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    origin.STARTED.add(name)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _import_raised(place, error) from error
    return module


def _import_raised(place: str, error: BaseException) -> ImportFailed:
    return _raised(f"Importing {place!r}", error)


def _raised(what: str, error: BaseException) -> ImportFailed:
    """One line that leads to the spot: the last frame of the traceback, or the line of a syntax error."""
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" (at {error.filename}:{error.lineno})"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = str(error).splitlines()
    return ImportFailed(f"{what} raised {type(error).__name__}: {text[0] if text else 'no message'}{where}.")


def _did_you_mean(name: str) -> str:
    stems = [path.stem for path in Path.cwd().glob("*.py")]
    return did_you_mean(name.partition(".")[0], stems)


FACTORIES = ("create_app", "make_app")
"""Functions that are called for an app where a module holds none."""


def _pick(module: ModuleType, name: str, place: str) -> tuple[Pipeline, str]:
    """The app that is meant, and under which name the module has it, or a function that makes it."""
    apps = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    if name:
        return _named(module, name, place, sorted(apps)), name
    if len({id(value) for value in apps.values()}) == 1:
        name, app = next(iter(apps.items()))
        return app, name
    if "app" in apps:
        return apps["app"], "app"
    factory = next((one for one in FACTORIES if isinstance(getattr(module, one, None), FunctionType)), "")
    if not apps and factory:
        return _made_by(getattr(module, factory), f"{place}:{factory}"), factory
    if not apps:
        raise ImportFailed(
            f"{place!r} holds no Pipeline. Make one at its top level: app = Pipeline('name'); or in a function "
            f"create_app() that returns it.{_submodule(module)}"
        )
    known = ", ".join(repr(key) for key in sorted(apps))
    raise ImportFailed(f"{place!r} holds several pipelines: {known}. Say which: -A {place}:{sorted(apps)[0]}")


def _submodule(module: ModuleType) -> str:
    """A package whose app is in its module `app` is often meant by the package's name."""
    found = hasattr(module, "__path__") and importlib.util.find_spec(f"{module.__name__}.app") is not None
    return f" Did you mean -A {module.__name__}.app?" if found else ""


def _named(module: ModuleType, name: str, place: str, known: list[str]) -> Pipeline:
    value = getattr(module, name, None)
    if isinstance(value, Pipeline):
        return value
    if callable(value) and not isinstance(value, type):
        return _made_by(value, f"{place}:{name}")
    seen = f"{name!r} in {place!r} is a {type(value).__name__}, no Pipeline." if hasattr(module, name) else ""
    factories = sorted(key for key, one in vars(module).items() if _is_factory(key, one))
    raise ImportFailed(
        f"{seen or f'{place!r} has no {name!r}.'} Pipelines in it: {_listed(known)}. "
        f"Functions that make one: {_listed(factories)}.{did_you_mean(name, [*known, *factories])}"
        f"{'' if known or factories else _submodule(module)}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _is_factory(name: str, value: object) -> bool:
    """Whether this is a function that makes an app, as far as can be seen without calling it."""
    if not isinstance(value, FunctionType) or _needs(value):
        return False
    made = value.__annotations__.get("return")
    if name in FACTORIES or made is Pipeline or (isinstance(made, str) and made.rpartition(".")[2] == "Pipeline"):
        return True
    function = inspect.unwrap(value)
    return isinstance(function, FunctionType) and "Pipeline" in function.__code__.co_names


def _needs(factory: Callable[..., Any]) -> list[str]:
    """The arguments that it cannot be called without."""
    try:
        return [one.name for one in inspect.signature(factory).parameters.values() if _must_be_given(one)]
    except ValueError:
        return []  # some builtins hide their signature


def _made_by(factory: Callable[..., Any], target: str) -> Pipeline:
    """What a factory returns when it is called without arguments."""
    if needs := _needs(factory):
        raise ImportFailed(
            f"The factory {target!r} takes {', '.join(needs)}, and is called without arguments. Give them defaults."
        )
    try:
        app = factory()
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(f"Calling the factory {target!r}", error) from error
    if not isinstance(app, Pipeline):
        raise ImportFailed(f"The factory {target!r} returned a {type(app).__name__}, no Pipeline.")
    return app


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


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
