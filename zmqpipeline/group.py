"""Several worker processes behind one command: ``worker --processes N``, or ``worker`` without a task type."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass, field

from zmqpipeline.runtime.crew import ChildEnded, Crew, Signalled, about_child
from zmqpipeline.runtime.processes import describe_status
from zmqpipeline.supervisor import INIT_LIMIT, OVERTIME

log = logging.getLogger("zmqpipeline.worker")


@dataclass
class WorkerGroup:
    """Keeps the workers of a crew running until each has ended by itself; times in seconds."""

    crew: Crew
    drain_timeout: float
    status: int = 0
    signum: int | None = None
    kill_at: float | None = None
    ending: bool = False
    began: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """The exit status: 0 when all ended with 0, and after a SIGTERM that they drained on; 130 after Ctrl-C."""
        with self.crew.signals():
            try:
                for place in self.crew.places:
                    self.crew.start(place)
                while self.crew.running() or self.crew.next_start() is not None:
                    self._turn()
            finally:
                self.crew.kill()
        return 128 + self.signum if self.signum == signal.SIGINT else self.status

    def _turn(self) -> None:
        dues = [due for due in (self.kill_at, self.crew.next_start()) if due is not None]
        happening = self.crew.wait(min(dues, default=None))
        now = time.monotonic()
        if isinstance(happening, Signalled):
            self._signal(happening.signum, now)
        elif isinstance(happening, ChildEnded):
            self._ended(happening, now)
        if self.kill_at is not None and self.kill_at <= now:
            self._kill()
        self.crew.start_due(now)

    def _signal(self, signum: int, now: float) -> None:
        if self.signum is not None:
            self.status = 128 + signum
            self._kill()
            return
        self.signum = signum
        self._end(now)

    def _ended(self, end: ChildEnded, now: float) -> None:
        place = end.place
        delay = place.ended(end.status, end.lived, now)
        if self.ending or end.status == 0:
            place.restart_at = None
        elif end.status == 2 or place.failed_starts >= INIT_LIMIT:
            log.error("The %s cannot be started; its message is above. The other workers drain.", place.label)
            self.status = end.status
            self._end(now)
        else:
            log.warning(
                "The %s (pid %d) ended by %s after %.1f s; a new one starts in %.1f s. Its items are handed out again.",
                *(place.label, end.pid, describe_status(end.status), end.lived, delay),
                extra={"about": about_child(place, end.pid)},
            )

    def _end(self, now: float) -> None:
        self.ending = True
        self.crew.stand_down()
        self.crew.terminate()
        self.kill_at = now + self.drain_timeout + OVERTIME

    def _kill(self) -> None:
        self.kill_at = None
        for place in self.crew.running():
            log.warning("The %s did not end in time; it is killed.", place.label)
        self.crew.kill()
