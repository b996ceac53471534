"""What all roles share: `shutdown` from wherever it is called."""

from __future__ import annotations

import subprocess
import sys
import threading

from tests.support.roles import Rig
from zmqpipeline.roles.runner import RoleRunner

HANDLER = """
import os, signal, sys, threading
import zmqpipeline as z

z.TaskType.register_type("C")
work, results, acks = (z.EndpointAddress(f"inproc://{name}") for name in ("work", "results", "acks"))

class Endless(z.Task):
    task_type, endpoint, dependencies = z.TaskType("C"), work, []
    def handle(self):
        return {}

class Interrupts(z.SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = z.TaskType("C"), work, results
    n = 0
    def handle_execution(self, data):
        self.n += 1
        if self.n == 20:
            os.kill(os.getpid(), signal.SIGUSR1)

class Gathers(z.Collector):
    endpoint, ack_endpoint = results, acks
    def handle_collection(self):
        pass

z.Distributor.register_task(Endless)
distributor, others = z.Distributor(results, acks), [Interrupts(), Gathers()]
signal.signal(signal.SIGUSR1, lambda *call: distributor.shutdown())

def run(one):
    try:
        one.run()
    except z.errors.RunFailed as error:
        assert "ended early: the distributor" in str(error)

threads = [threading.Thread(target=run, args=[one]) for one in others]
for thread in threads:
    thread.start()
distributor.run()
for one, thread in zip(others, threads):
    one.shutdown()
    thread.join()
print(distributor.status)
"""


def test_shutdown_in_a_signal_handler_ends_a_run() -> None:
    """The handler of the user's own signal runs on the thread that runs the role; the run ends in good order."""
    done = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_a_handler_may_call_shutdown_at_any_moment() -> None:
    """Also while its own thread is inside the role, with the role's guard in hand: it does not wait for itself."""
    worker = Rig().worker()

    def handler_within() -> None:
        with RoleRunner.of(worker)._guard:
            worker.shutdown()

    thread = threading.Thread(target=handler_within, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


LATE = """
import os, signal
import zmqpipeline as z
from zmqpipeline.roles.collector import CollectorRunner

class Late(z.Collector):
    endpoint, ack_endpoint = z.EndpointAddress("inproc://results"), z.EndpointAddress("inproc://acks")
    def handle_collection(self):
        pass

class LateRunner(CollectorRunner):
    def _close(self):
        os.kill(os.getpid(), signal.SIGTERM)
        super()._close()

role = Late()
LateRunner(role)
role.shutdown()
role.run()
print(role.status, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


def test_a_signal_after_the_end_of_the_loop_does_not_cut_the_last_messages() -> None:
    """Threads and sockets are closed in good order, and the process is not killed by it."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0 True\n", "", 0)
