"""Several worker processes behind one command: ``worker --processes N``, or ``worker`` without a task type."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import field

from zmqpipeline.errors import RoleDied
from zmqpipeline.processes.failed_starts import FailedStarts
from zmqpipeline.processes.restarts import ChildEnded, ChildSlots, Signalled, Verdict, about_child
from zmqpipeline.processes.supervisor import OVERTIME
from zmqpipeline.protocol.dataclass import dataclass

log = logging.getLogger("zmqpipeline.worker")


@dataclass
class WorkerSupervisor:
    """Keeps the workers of a group running until each has ended by itself; times in seconds."""

    slots: ChildSlots
    drain_timeout: float
    status: int = 0
    signum: int | None = None
    kill_at: float | None = None
    ending: bool = False
    starts: FailedStarts = field(default_factory=lambda: FailedStarts(log))
    began: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """The exit status: 0 when each has left, and after a SIGTERM that they drained on; 130 after Ctrl-C.

        2 when one cannot be started as it is configured; 1 when the init functions of a task raise, and 3 when each of
        its workers has failed to start again and again in another way.
        """
        with self.slots.signals(is_last=True):
            try:
                for place in self.slots.places:
                    self.slots.start(place)
                while self.slots.running() or self.slots.next_start() is not None:
                    self._turn()
            finally:
                self.slots.kill()
                self.starts.close()
        return 128 + self.signum if self.signum == signal.SIGINT else self.status

    def _turn(self) -> None:
        dues = [due for due in (self.kill_at, self.slots.next_start()) if due is not None]
        event = self.slots.wait(min(dues, default=None))
        now = time.monotonic()
        if isinstance(event, Signalled):
            self._signal(event.signum, now)
        elif isinstance(event, ChildEnded):
            self._ended(event, now)
        if self.kill_at is not None and self.kill_at <= now:
            self._kill()
        self.slots.start_due(now)

    def _signal(self, signum: int, now: float) -> None:
        if self.signum is not None:
            self.status = 128 + signum
            self._kill()
            return
        self.signum = signum
        self._end(now)

    def _ended(self, end: ChildEnded, now: float) -> None:
        place, verdict, is_told = end.place, self.slots.judge(end, now), self.starts.note(end)
        if self.ending:
            place.restart_at = None
        elif verdict in (Verdict.MISCONFIGURED, Verdict.HOPELESS):
            if verdict is Verdict.MISCONFIGURED:
                why, self.status = f"The {place.label} cannot be started; its message is above.", 2
            else:
                is_bug = self.slots.is_bug(place.task)
                why, self.status = self.starts.verdict(place), 1 if is_bug else RoleDied.exit_status
            log.error("%s The other workers drain.", why)
            self._end(now)
        elif verdict is Verdict.DIED and not is_told:
            about = {"about": about_child(end)}
            log.warning("%s Its items are handed out again.", end.describe(now), extra=about)

    def _end(self, now: float) -> None:
        self.ending = True
        self.slots.stand_down()
        self.slots.terminate()
        self.kill_at = now + self.drain_timeout + OVERTIME

    def _kill(self) -> None:
        self.kill_at = None
        for place in self.slots.running():
            log.warning("The %s did not end in time; it is killed.", place.label)
        self.slots.kill()
