"""The engine of this machine: child processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.child import Child


@dataclass(frozen=True)
class ThisMachine:
    """Starts a child process by the interpreter that runs this one."""

    hint: str = ""

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """As `Engine.start`."""
        return Child(label, arguments, exited, stdout=stdout)


THIS_MACHINE = ThisMachine()
"""The engine of all that is not to be elsewhere."""
