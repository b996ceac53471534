"""Objects of the users' classes of the class API, and what was raised as they were made.

Where a class is installed as a library, is written in C, or needs arguments that nobody gives, no frame of the
traceback says that this is the user's. So the exception itself is marked, where the class is called. It goes on as it
is: a program that compiles a role sees what its own class raised.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TypeVar

from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime.error_text import made_at, trouble_of

Made = TypeVar("Made")

_MARK = "_zmqpipeline_class"
"""The attribute of an exception that says which class raised it: where it is, and what else is to be said.

That is text: who pickles the exception need not be able to pickle the class.
"""


def instance(cls: type[Made]) -> Made:
    """An object of a user's class, which is made without arguments; what that raises is marked."""
    try:
        return cls()
    except Exception as error:
        # whatever its class makes of attributes
        BaseException.__setattr__(error, _MARK, (made_at(cls), _hint(cls)))
        raise


def trouble_of_class(error: Exception) -> ErrorInfo | None:
    """What a user's class raised as it was made, as text; None if this is from elsewhere."""
    mark = BaseException.__getattribute__(error, "__dict__").get(_MARK)
    if mark is None:
        return None
    place, hint = mark
    trouble = trouble_of(error)
    if trouble.place:
        return trouble
    # no code of the user was at work: so it is the call that is wrong, or what is called is written in C
    return dataclasses.replace(trouble, message=f"{trouble.message}{hint}", place=place)


def _hint(cls: type) -> str:
    """What to do about a class that cannot be made without arguments; empty of others, and where nobody knows."""
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind()
    except TypeError:
        return ". The class is made without arguments, so each parameter needs a default"
    return ""
