"""Why a broker refuses a request, in words for the client's user."""

from __future__ import annotations

from zmqpipeline.options import Options
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.services.requests import Service

NAMES_SHOWN = 20
"""So many names of services are in a refusal."""

ENDING = m.ErrorInfo("ServiceUnavailable", "The broker is ending; ask again when it is back.")
_ASK_AGAIN = (
    "It may have been executed. Ask again if that does no harm; a service with idempotent=True does so by itself."
)


def cut_short() -> m.ErrorInfo:
    """The broker has waited long enough for what runs."""
    return m.ErrorInfo("ServiceUnavailable", f"The broker ended before the answer came. {_ASK_AGAIN}")


def nobody(name: str, served: list[str]) -> m.ErrorInfo:
    """Nobody serves this name; these are served."""
    more = f" and {len(served) - NAMES_SHOWN} more" if len(served) > NAMES_SHOWN else ""
    known = ", ".join(map(repr, served[:NAMES_SHOWN])) or "none"
    text = f"Nobody serves {name!r}. Served now: {known}{more}. Start a worker for it, or check the name."
    return m.ErrorInfo("ServiceUnavailable", text)


def too_many(options: Options, service: Service, *, by_bytes: bool) -> m.ErrorInfo:
    """There is no room for another request."""
    text = f"{options.max_queued_requests} requests (max_queued_requests) wait for service {service.name!r} already."
    if by_bytes:
        text = f"Requests and replies of {options.max_held_bytes} bytes (max_held_bytes) wait at the broker already."
    return m.ErrorInfo("ServiceUnavailable", f"{text} Start more workers, or ask more slowly.")


def dropped(most: int) -> m.ErrorInfo:
    """There is no room for the reply."""
    text = f"Its reply was dropped: replies of {most} bytes (half of max_held_bytes) wait at the broker already, "
    advice = "and most of them for this client. It was executed. Read the replies faster, or ask for less at once."
    return m.ErrorInfo("ServiceUnavailable", text + advice)


def maybe_executed(service: Service) -> m.ErrorInfo:
    """Nobody knows whether it was."""
    text = f"The broker or the worker of service {service.name!r} that had this request was lost."
    return m.ErrorInfo("WorkerLost", f"{text} {_ASK_AGAIN}")


def why_lost(service: Service) -> m.ErrorInfo:
    """Its worker is gone, and so were others before, if it may be executed again."""
    times = service.ledger.spec.crash_limit
    if times > 1:
        text = f"{times} workers of service {service.name!r} were lost while they had this request."
        return m.ErrorInfo("WorkerLost", f"{text} It is given to no further one.")
    text = f"The worker of service {service.name!r} was lost while it had this request."
    return m.ErrorInfo("WorkerLost", f"{text} {_ASK_AGAIN}")
