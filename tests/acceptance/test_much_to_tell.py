"""What distributor and collector tell each other: nothing is told twice that need not be, and nothing is too much."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.messages import TaskProgress
from zmqpipeline.runtime.journal import Journal

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

APP = """
import os, time
from zmqpipeline import Pipeline

app = Pipeline("told")
ITEMS = int(os.environ.get("ITEMS", "5"))

@app.task("C")
def numbers():
    for n in range(ITEMS):
        yield {"n": n, "large": "x" * 40_000}

@app.worker("C")
def work(data):
    if "FAIL" in os.environ:
        raise ValueError("as planned")
    return {"n": data["n"]}

@app.collector
def collect(data):
    # nobody hears an ACK for longer than a second
    time.sleep(float(os.environ.get("COLLECT", "0")))

@app.failed
def failed(failure):
    time.sleep(2.3)

if __name__ == "__main__":
    app.main()
"""


def test_a_failed_item_is_not_sent_again_while_failed_is_slow(workshop: Workshop) -> None:
    """Five failed items, of which each takes `failed` more than a second: the collector gets each of them once."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--json", "--log-level", "DEBUG", FAIL="1", timeout=60)
    assert status == 1, program.err
    assert program.json["failures"] == 5
    said = [line for line in program.err.splitlines() if "sent GiveUp" in line]
    # each second would be eleven more; of a collector that was held up the word may have come too late once
    assert 1 <= len(said) <= 8, said


def test_a_run_of_more_ranges_than_one_message_tells_goes_on(workshop: Workshop) -> None:
    """150,000 ranges are in the journal: they are told in parts, at the start and again while no ACK comes."""
    workshop.write("app.py", APP)
    spans = tuple(end for at in range(1, 150_001) for end in (2 * at + 10, 2 * at + 11))
    journal = Journal(workshop.folder / "run.db", pipeline="told", durable=False)
    journal.begin(SetRun("run-1", b"", [TaskProgress("C", spans, ())]))
    journal.close()
    status, program = workshop.run(
        "-m", "app", "run", "--json", "--journal", "run.db", ITEMS="3", COLLECT="1.5", timeout=60
    )
    assert status == 0, program.err
    assert program.json["tasks"]["C"]["collected"] == 150_003
    assert "Traceback" not in program.err


META = """
import sys
import zmqpipeline

zmqpipeline.TaskType.register_type("C")
WORKERS, RESULTS, ACKS, META = (zmqpipeline.EndpointAddress(f"ipc://{name}.ipc") for name in ("w", "r", "a", "m"))

class Numbers(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("C")
    endpoint = WORKERS
    dependencies = []

    def handle(self, data, address, msgtype):
        self.n_count += 1
        self.is_complete = self.n_count == 3
        return {"word": self.metadata["word"]}

class Echo(zmqpipeline.SingleThreadedWorker):
    task_type = zmqpipeline.TaskType("C")
    endpoint = WORKERS
    collector_endpoint = RESULTS

    def handle_execution(self, data):
        return data

class Collect(zmqpipeline.Collector):
    endpoint = RESULTS
    ack_endpoint = ACKS

    def handle_collection(self, data, task_type, msgtype):
        print(data["word"], flush=True)

    def handle_finished(self, data, task_type):
        pass

class Meta(zmqpipeline.MetaDataWorker):
    endpoint = META

    def get_metadata(self):
        return {"word": "given"}

role = sys.argv[1]
if role == "distributor":
    zmqpipeline.Distributor.register_task(Numbers)
    zmqpipeline.Distributor(RESULTS, ACKS, True, META).run()
else:
    {"worker": Echo, "collector": Collect, "meta": Meta}[role]().run()
"""


def test_metadata_outlives_a_distributor_that_had_no_collector(workshop: Workshop, eventually: Eventually) -> None:
    """The distributor has the metadata, and is killed before a collector has the run: its successor gets them, too."""
    workshop.write("roles.py", META)
    first = workshop.start("roles.py", "distributor", ZMQPIPELINE_LOG_LEVEL="DEBUG")
    meta = workshop.start("roles.py", "meta", ZMQPIPELINE_LOG_LEVEL="DEBUG")
    eventually(lambda: (workshop.folder / "m.ipc").exists(), "the distributor's address")
    with pytest.raises(AssertionError, match="still running"):
        meta.wait(3.0)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    rest = [workshop.start("roles.py", role) for role in ("distributor", "collector", "worker")]
    for program in (*rest, meta):
        assert program.wait() == 0, program.err
    assert rest[1].out.split() == ["given"] * 3
