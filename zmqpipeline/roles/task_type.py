"""TaskType: a string that names a kind of work. It is registered before use, so that a misspelling is found at once."""

from __future__ import annotations

from zmqpipeline.errors import TaskTypeError

_registered: set[str] = set()


LONGEST = 4096
"""The most characters of a name: a message with a longer one is read by nobody."""


class TaskType(str):
    """The name of a task, the same for the task and its worker: a str that was registered.

    Raises TaskTypeError, which is a TypeError, for a name that `register_type` was never called with in this process.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> TaskType:
        """Return the registered name as a TaskType."""
        _check(name)
        if name not in _registered:
            raise TaskTypeError(_unknown(name))
        return super().__new__(cls, name)

    @staticmethod
    def register_type(name: str) -> None:
        """Make a name known in this process; any string that is not empty, and has at most LONGEST characters.

        Doing so again is no error.
        """
        _check(name)
        _registered.add(str.__str__(name))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as a name that registers itself, so that it may travel to a spawned process."""
        return _restore, (str.__str__(self),)


def _restore(name: str) -> TaskType:
    TaskType.register_type(name)
    return TaskType(name)


def _check(name: object) -> None:
    if not isinstance(name, str):
        raise TaskTypeError(f"A task type is a string, not {type(name).__name__} ({name!r}).")
    if not name:
        raise TaskTypeError("A task type must not be empty. Name the kind of work, as in 'RESIZE'.")
    if reason := why_no_name(name):
        raise TaskTypeError(f"A task type {reason}: {name[:40]!a}.")


def why_no_name(name: str) -> str:
    """Why this text cannot name anything to another process, to complete a sentence; empty if it can."""
    if len(name) > LONGEST:
        return f"has at most {LONGEST} characters, and this one has {len(name)}"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "holds no lone surrogate, which no journal and no terminal takes"
    return ""


def _unknown(name: str) -> str:
    import difflib  # at the first mistake only

    close = difflib.get_close_matches(name, _registered, n=1)
    if close:
        return f"The task type {name!r} is not registered: did you mean {close[0]!r}?"
    known = ", ".join(repr(each) for each in sorted(_registered)) or "none"
    return f"The task type {name!r} is not registered. Known: {known}. Call TaskType.register_type({name!r}) first."
