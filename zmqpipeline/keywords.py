"""Keywords that a method does not have: refused with the closest one, on every Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from zmqpipeline.errors import RegistrationError, did_you_mean

Method = TypeVar("Method", bound=Callable[..., Any])


def spelt(method: Method) -> Method:
    """Decorator of a method: RegistrationError for a keyword that it does not take, with the one that may be meant."""
    code = method.__code__
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

    @wraps(method)
    def called(self: Any, *args: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                close = did_you_mean(name, known)
                raise RegistrationError(
                    f"`app.{method.__name__}` takes no {name!r}.{close} It takes {', '.join(known)}."
                )
        return method(self, *args, **keywords)

    return cast("Method", called)
