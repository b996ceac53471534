"""Where a pipeline was made: the import name of its module, its file, and the function that made it.

A module that is started (``python -m app``, ``python app.py``) is called ``__main__`` while it runs, and by its import
name wherever else it is imported: by the processes that `run` starts, and by a second module that says
``from app import app``. So the import name stands for both here:

- ``Pipeline(__name__)`` has the import name for its name, however the program is started.
- The second import of a started file is a **twin**: python executes the file once more. The pipeline that is made in it
  is the one that the same line has made, or is about to make, in the started module. What the twin registers is passed
  over, since the started module runs the same lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from zmqpipeline.definitions.registry import Registry
from zmqpipeline.protocol.dataclass import dataclass

Made = TypeVar("Made", bound="Original")

STARTED = {"__main__", "__mp_main__"}
"""Names of modules that are executed as a program, besides those that `-A FILE` loads."""

LOADED_FILE = "__zmqpipeline_app__"
"""What a file is called that `-A FILE` loads, if its own name is taken."""


@dataclass(frozen=True)
class Call:
    """A call of a module's function that a pipeline was made in, and whether it was given anything."""

    code: CodeType
    module: str
    is_bare: bool


@dataclass(frozen=True)
class Origin:
    """Where one pipeline was made."""

    module: str
    """The module's ``__name__`` there and then."""
    import_name: str
    """By which name other processes import the module."""
    file: str
    """Its file, without links; empty if there is none."""
    line: int
    at_import: bool
    """Whether it was made while the module was being executed."""
    calls: tuple[Call, ...] = field(repr=False, default=())
    """The functions that it was made in, the innermost first."""


def origin_of(frame: FrameType) -> Origin:
    """The origin of what is made by the line that this frame executes."""
    module = str(frame.f_globals.get("__name__", "__main__"))
    at_import = any(one.f_globals is frame.f_globals for one in _frames(frame) if _is_module(one))
    calls = tuple(call for one in _calls(frame) if (call := _call(one)) is not None)
    return Origin(module, import_name(frame.f_globals), file_of(frame.f_globals), frame.f_lineno, at_import, calls)


def import_name(module: Mapping[str, Any]) -> str:
    """By which name a module is imported, of which these are the globals: that of its file, if it is a started one."""
    name = str(module.get("__name__", "__main__"))
    if name not in STARTED and name != LOADED_FILE:
        return name
    spec = module.get("__spec__")
    if name in STARTED and spec is not None and spec.name not in STARTED:
        return str(spec.name)
    file = file_of(module)
    return name_of_file(Path(file)) if file else name


def name_of_file(file: Path) -> str:
    """``app`` for ``app.py``; with the packages that it is in before it, as ``python -m`` would have them."""
    parts = [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file() or parts == ["__main__"]:
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(part for part in parts if part)


def file_of(module: Mapping[str, Any]) -> str:
    """The file of a module, of which these are the globals, without links; empty if there is none."""
    file = module.get("__file__")
    path = os.path.realpath(file) if isinstance(file, str) else ""
    return path if os.path.exists(path) else ""  # noqa: PTH110


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_module(frame: FrameType) -> bool:
    return frame.f_code.co_name == "<module>"


def _calls(frame: FrameType) -> Iterator[FrameType]:
    for one in _frames(frame):
        if _is_module(one):
            return
        yield one


def _call(frame: FrameType) -> Call | None:
    code = frame.f_code
    function = _unwrapped(frame.f_globals.get(code.co_name))
    if function is None or function.__code__ is not code:
        return None
    return Call(code, str(frame.f_globals.get("__name__", "")), _is_bare(function, frame))


def _unwrapped(function: Any) -> FunctionType | None:
    """What is behind decorators that say so, such as functools.cache."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function if isinstance(function, FunctionType) else None


def _is_bare(function: FunctionType, frame: FrameType) -> bool:
    """Whether each parameter has its default, as in a call without arguments."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = dict(zip(reversed(names), reversed(function.__defaults__ or ()), strict=False))
    defaults.update(function.__kwdefaults__ or {})
    nothing = object()
    every = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return all(frame.f_locals.get(name) is defaults.get(name, nothing) for name in every)


# factories ------------------------------------------------------------------------------------------------------------


def factory_of(origin: Origin) -> tuple[ModuleType, str] | None:
    """Module and name of the function that makes this pipeline when it is called without arguments, if there is one.

    It is the outermost of those that the pipeline was made in which have returned: what still runs has only used it.
    """
    running = {frame.f_code for frame in _frames(sys._getframe(1))}
    returned = [call for call in origin.calls if call.code not in running]
    if not returned:
        return None
    call = returned[-1]
    module = sys.modules.get(call.module)
    function = _unwrapped(getattr(module, call.code.co_name, None))
    if module is None or function is None or function.__code__ is not call.code or not call.is_bare:
        return None
    return module, call.code.co_name


# twins ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A pipeline that was made while a module was executed, and the started module of that file, if there was one."""

    line: int
    app: ReferenceType[Any]
    home: ReferenceType[ModuleType] | None


_made: WeakKeyDictionary[ModuleType, list[_Entry]] = WeakKeyDictionary()
"""What was made in each module, in the order of the making."""

_all: WeakSet[Any] = WeakSet()
"""Every pipeline of this process."""


def started_module(file: str) -> ModuleType | None:
    """The started module of this file, if it is one."""
    for name in STARTED:
        module = sys.modules.get(name)
        if module is not None and file and file_of(vars(module)) == file:
            return module
    return None


def twin_of(origin: Origin) -> Any:
    """The pipeline that the same line has made in the started module, or in a twin of it; None if there is none."""
    module, home = sys.modules.get(origin.module), started_module(origin.file)
    if not origin.at_import or module is None or home is None:
        return None
    index = len(_of_line(module, origin.line))
    others = [home] if module is not home else [one for one in list(_made) if one is not home]
    for other in others:
        made = _of_line(other, origin.line)
        if index < len(made) and _is_pair(home, other, made[index], origin) and (app := made[index].app()) is not None:
            _remember(module, home, origin, app)
            return app
    return None


def _is_pair(home: ModuleType, other: ModuleType, made: _Entry, origin: Origin) -> bool:
    if other is home or (made.home is not None and made.home() is home):
        return True
    # `python -m package.app`, and the package itself imports package.app: that comes before there is a started module
    return made.home is None and home.__spec__ is not None and origin.import_name == other.__name__


def _of_line(module: ModuleType, line: int) -> list[_Entry]:
    return [one for one in _made.get(module, ()) if one.line == line]


def remember(origin: Origin, app: Any) -> ModuleType | None:
    """Keep a new pipeline for its twins; the started module, if it is of one."""
    _all.add(app)
    module, home = sys.modules.get(origin.module), started_module(origin.file)
    if not origin.at_import or module is None:
        return None
    _remember(module, home, origin, app)
    return home


def _remember(module: ModuleType, home: ModuleType | None, origin: Origin, app: Any) -> None:
    _made.setdefault(module, []).append(_Entry(origin.line, ref(app), None if home is None else ref(home)))


def is_from_twin(home: ModuleType | None) -> bool:
    """Whether the call under way stands in a twin of the started module `home`, at its import."""
    if home is None:
        return False
    module = next((frame.f_globals for frame in _frames(sys._getframe(1)) if _is_module(frame)), None)
    return module is not None and module is not vars(home) and file_of(module) == file_of(vars(home))


def namesakes(app: Any) -> list[Any]:
    """The other pipelines of this process that have the same name."""
    return [one for one in _all if one is not app and one.name == app.name]


def twice(app: Any, other: Any) -> str:
    """The sentence about a pipeline without tasks, of which the other one has them."""
    return (
        f"Pipeline {app.name!r}, made in {app.origin.module!r}, has no tasks; another one of that name has them, made "
        f"in {other.origin.module!r}. All modules must import the same one. If the file that makes it is started, "
        f"start it as `zmqpipeline -A {other.import_name} run`."
    )


def without_tasks(app: Any) -> str:
    """The sentence about a pipeline that has nothing to run when its module has been executed."""
    file = Path(app.origin.file).name or "its file"
    add = (
        f"Add a function with `@app.task('NAME')` at the top level of {file}, or import the module that adds them there"
    )
    if app.origin.module in STARTED:
        return f"Pipeline {app.name!r} has no tasks. {add}, before `app.main()` or `app.run()`."
    return f"Pipeline {app.name!r} has no tasks after {app.origin.module!r} was imported. {add}: {NOT_IMPORTED}."


NOT_IMPORTED = (
    "what a function such as main() adds or imports, or what stands below `if __name__ == '__main__':`, is missing in "
    "the processes that import this file, as those that `run` starts do"
)
"""Why tasks are there in the process that was started, and not in others."""


class Original:
    """Base of `Pipeline`: in a twin, the constructor returns what the started module made."""

    origin: Origin
    """Where it was made."""

    registry: Registry

    _home: ModuleType | None
    """The started module that made it, if one did; what its twin registers is passed over."""

    def __new__(cls: type[Made], *args: Any, **keywords: Any) -> Made:
        """A new one; or, in the second import of a file that was started, the one that was made there."""
        origin = origin_of(sys._getframe(1))
        twin: Made | None = twin_of(origin)
        if twin is None:
            made = super().__new__(cls)
            made.origin = origin
            made._home = remember(origin, made)
            return made
        if origin.module in STARTED:
            # the functions of the started module are those that its other lines see
            twin.registry.forget(twin.origin.module)
            twin.origin, twin._home = origin, sys.modules[origin.module]
        return twin
