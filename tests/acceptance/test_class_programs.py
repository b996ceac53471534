"""The documented programs of the class API, as real processes in any order; each ends by itself with status 0."""

from __future__ import annotations

import itertools
import random
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

SETTINGS = """
import zmqpipeline
for name in ("FIRST", "SECOND"):
    zmqpipeline.TaskType.register_type(name)
COLLECTOR_ENDPOINT = "tcp://localhost:{0}"
COLLECTOR_ACK_ENDPOINT = "tcp://localhost:{1}"
METADATA_ENDPOINT = "ipc://metaworker.ipc"
WORKER_ENDPOINT = "ipc://worker.ipc"
SECOND_WORKER_ENDPOINT = "ipc://second.ipc"
"""

TASKS = """
import settings
import zmqpipeline

class FirstTask(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("FIRST")
    endpoint = zmqpipeline.EndpointAddress(settings.WORKER_ENDPOINT)
    dependencies = []
    n_count = 0

    def handle(self, data, address, msgtype):
        self.n_count += 1
        if self.n_count >= 100:
            self.is_complete = True
        return {"workload": .001}

class SecondTask(FirstTask):
    task_type = zmqpipeline.TaskType("SECOND")
    endpoint = zmqpipeline.EndpointAddress(settings.SECOND_WORKER_ENDPOINT)
    dependencies = [zmqpipeline.TaskType("FIRST")]

class MetaTask(FirstTask):
    def handle(self, data, address, msgtype):
        self.is_complete = True
        print("MyTask: meta_variable is:", data["meta_variable"])
        return data
"""

WORKER = """
import settings
import time
import zmqpipeline
from zmqpipeline.utils import shutdown

class MyWorker(zmqpipeline.{base}):
    task_type = zmqpipeline.TaskType("{task}")
    endpoint = zmqpipeline.EndpointAddress(settings.{endpoint})
    collector_endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ENDPOINT)
    n_threads = 10
    n_executions = 0

    def handle_execution(self, data, *args, **kwargs):
        self.n_executions += 1
        {work}

    def handle_thread_execution(self, data, index):
        time.sleep(data["workload"])

if __name__ == "__main__":
    worker = MyWorker()
    print("worker running")
    worker.run()
    print("finished - handled %d executions" % worker.n_executions)
    shutdown.kill_current_process()
"""

COLLECTOR = """
import settings
import time
import zmqpipeline

class StopWatchCollector(zmqpipeline.Collector):
    endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ENDPOINT)
    ack_endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ACK_ENDPOINT)
    start_time = None
    n = 0

    def handle_collection(self, data, task_type, msgtype):
        if not self.start_time:
            self.start_time = time.time()
        self.n += 1
        print(task_type)

    def handle_finished(self, data, task_type, msgtype):
        print("collection took %.1f milliseconds" % ((time.time() - self.start_time) * 1000))

if __name__ == "__main__":
    collector = StopWatchCollector()
    print("collector running")
    collector.run()
    print("finished", collector.n)
"""

DISTRIBUTOR = """
import settings
import zmqpipeline
import tasks

if __name__ == "__main__":
    for task in ({tasks}):
        zmqpipeline.Distributor.register_task(task)
    dist = zmqpipeline.Distributor(
        collector_endpoint=zmqpipeline.EndpointAddress(settings.COLLECTOR_ENDPOINT),
        collector_ack_endpoint=zmqpipeline.EndpointAddress(settings.COLLECTOR_ACK_ENDPOINT),
        {metadata}
    )
    dist.run()
    print("finished")
"""

META = """
import settings
import zmqpipeline
from zmqpipeline.utils.shutdown import kill_current_process

class MyMetaData(zmqpipeline.MetaDataWorker):
    endpoint = zmqpipeline.EndpointAddress(settings.METADATA_ENDPOINT)

    def get_metadata(self):
        return {"meta_variable": "my value"}

if __name__ == "__main__":
    instance = MyMetaData()
    instance.run()
    print("worker is finished")
    kill_current_process()
"""

SLEEPS = 'time.sleep(data["workload"])'
PROGRAMS = ("worker.py", "collector.py", "distributor.py")


@pytest.fixture
def low_port() -> int:
    """A port that is free, as is the next, and below those that the system gives to outgoing connections."""
    chooser = random.Random()
    while True:
        port = chooser.randrange(15_000, 32_000)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


def write(
    workshop: Workshop,
    port: int,
    worker: tuple[str, str] = ("SingleThreadedWorker", SLEEPS),
    tasks: str = "tasks.FirstTask,",
) -> None:
    """Write the programs of one documented example."""
    base, work = worker
    workshop.write("settings.py", SETTINGS.format(port, port + 1))
    workshop.write("tasks.py", TASKS)
    workshop.write("collector.py", COLLECTOR)
    workshop.write("distributor.py", DISTRIBUTOR.format(tasks=tasks, metadata=""))
    workshop.write("worker.py", WORKER.format(base=base, task="FIRST", endpoint="WORKER_ENDPOINT", work=work))


@pytest.mark.parametrize("order", list(itertools.permutations(PROGRAMS)), ids=" ".join)
def test_a_single_threaded_worker_in_any_start_order(workshop: Workshop, low_port: int, order: tuple[str, ...]) -> None:
    """100 items, collected once, however the three programs are started."""
    write(workshop, low_port)
    programs = {name: workshop.start(name) for name in order}
    assert {name: program.wait(20) for name, program in programs.items()} == dict.fromkeys(order, 0)
    assert programs["worker.py"].out.split("\n")[1] == "finished - handled 100 executions"
    assert "collection took" in programs["collector.py"].out
    assert "finished 100" in programs["collector.py"].out
    assert programs["distributor.py"].out == "finished\n"
    assert [program.err for program in programs.values()] == ["", "", ""]


def test_two_multi_threaded_workers_share_the_items(workshop: Workshop, low_port: int) -> None:
    """Their exact counters add up to the number of items, which last until the later one has come, too."""
    write(workshop, low_port, ("MultiThreadedWorker", "return data"))
    workshop.write("tasks.py", TASKS.replace(".001", ".2"))
    programs = [workshop.start(name) for name in ("worker.py", "worker.py", "distributor.py", "collector.py")]
    assert [program.wait(20) for program in programs] == [0] * 4
    handled = [int(count) for one in programs[:2] for count in re.findall(r"handled (\d+)", one.out)]
    assert sum(handled) == 100


def test_the_second_task_waits_for_the_first(workshop: Workshop, low_port: int) -> None:
    """Two workers on two ipc files; nothing of the second is collected before all of the first."""
    write(workshop, low_port, tasks="tasks.SecondTask, tasks.FirstTask")
    second = WORKER.format(base="SingleThreadedWorker", task="SECOND", endpoint="SECOND_WORKER_ENDPOINT", work=SLEEPS)
    workshop.write("second.py", second)
    programs = [workshop.start(name) for name in ("second.py", *PROGRAMS)]
    assert [program.wait(20) for program in programs] == [0] * 4
    tasks = [line for line in programs[2].out.split("\n") if line in ("FIRST", "SECOND")]
    assert tasks == ["FIRST"] * 100 + ["SECOND"] * 100


def test_metadata_comes_before_the_first_item(workshop: Workshop, low_port: int) -> None:
    """The task forwards it, the worker prints it, and the metadata program ends first of all."""
    write(workshop, low_port, ("SingleThreadedWorker", 'print("MyWorker:", data["meta_variable"])'))
    metadata = "receive_metadata=True, metadata_endpoint=zmqpipeline.EndpointAddress(settings.METADATA_ENDPOINT),"
    workshop.write("distributor.py", DISTRIBUTOR.format(tasks="tasks.MetaTask,", metadata=metadata))
    workshop.write("meta.py", META)
    programs = [workshop.start(name) for name in (*PROGRAMS, "meta.py")]
    assert [program.wait(20) for program in programs] == [0] * 4
    assert "MyWorker: my value" in programs[0].out
    assert "meta_variable is: my value" in programs[2].out
    assert programs[3].out == "worker is finished\n"
