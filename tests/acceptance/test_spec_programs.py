"""Programs in the documented form, a file and a process for each role: settings, tasks, worker, collector, distributor.

Each is started when the one before it says that it runs, so the orders are real; each ends by itself with status 0.
"""

from __future__ import annotations

import itertools
import re
import signal
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

SETTINGS = """
import zmqpipeline

for name in ("CALC", "FIRST", "SECOND"):
    zmqpipeline.TaskType.register_type(name)
"""

NAMES = ("WORKER", "SECOND_WORKER", "COLLECTOR", "COLLECTOR_ACK", "METADATA")

LOGGING = """
zmqpipeline.configureLogging({
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"file": {
        "level": "DEBUG", "class": "logging.FileHandler", "filename": "output.log", "formatter": "verbose"}},
    "loggers": {
        "zmqpipeline." + name: {"handlers": ["file"], "level": "DEBUG", "propagate": True}
        for name in ("distributor", "task", "collector", "worker", "metadataworker")
    },
    "formatters": {"verbose": {"format": "%(name)s %(levelname)s %(process)d %(message)s"}},
})
"""

TASKS = """
import settings
import zmqpipeline

class CalculationTask(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("CALC")
    endpoint = zmqpipeline.EndpointAddress(settings.WORKER_ENDPOINT)
    dependencies = []
    n_count = 0

    def handle(self, data, address, msgtype):
        self.n_count += 1
        if self.n_count >= 100:
            self.is_complete = True
        return {"workload": .002}

class FirstTask(CalculationTask):
    task_type = zmqpipeline.TaskType("FIRST")

class SecondTask(CalculationTask):
    task_type = zmqpipeline.TaskType("SECOND")
    endpoint = zmqpipeline.EndpointAddress(settings.SECOND_WORKER_ENDPOINT)
    dependencies = [zmqpipeline.TaskType("FIRST")]

class MetaTask(CalculationTask):
    def handle(self, data, address, msgtype):
        self.is_complete = True
        print("task:", data["meta_variable"], msgtype, address.rpartition("/")[2])
        return data
"""

WORKER = """
import settings
import time
import zmqpipeline
from zmqpipeline.utils import shutdown

class MyWorker(zmqpipeline.SingleThreadedWorker):
    task_type = zmqpipeline.TaskType("CALC")
    endpoint = zmqpipeline.EndpointAddress(settings.WORKER_ENDPOINT)
    collector_endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ENDPOINT)
    n_executions = 0

    def handle_execution(self, data, *args, **kwargs):
        self.n_executions += 1
        time.sleep(data["workload"])

if __name__ == "__main__":
    worker = MyWorker()
    print("worker running")
    worker.run()
    print("finished - handled %d executions" % worker.n_executions)
    shutdown.kill_current_process()
"""

MULTI_WORKER = (
    WORKER.replace("SingleThreadedWorker", "MultiThreadedWorker")
    .replace("    n_executions = 0", "    n_threads = 10\n    n_executions = 0")
    .replace(
        'time.sleep(data["workload"])',
        'return data\n\n    def handle_thread_execution(self, data, index):\n        time.sleep(data["workload"])',
    )
)

META_WORKER = """
import settings
import zmqpipeline
from zmqpipeline.utils.shutdown import kill_current_process

class MyMetaData(zmqpipeline.MetaDataWorker):
    endpoint = zmqpipeline.EndpointAddress(settings.METADATA_ENDPOINT)

    def get_metadata(self):
        return {"meta_variable": "my value"}

if __name__ == "__main__":
    instance = MyMetaData()
    print("meta worker running")
    instance.run()
    print("worker is finished")
    kill_current_process()
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
        if self.n == 10:
            print("ten are collected")

    def handle_finished(self, data, task_type, msgtype):
        total = (time.time() - self.start_time) * 1000
        print("collection took %.1f milliseconds, %r %s %s" % (total, data, task_type, msgtype))

if __name__ == "__main__":
    collector = StopWatchCollector()
    print("collector running")
    collector.run()
    print("finished - collected %d" % collector.n)
"""

DISTRIBUTOR = """
import settings
import zmqpipeline
import tasks

if __name__ == "__main__":
    dist = zmqpipeline.Distributor(
        collector_endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ENDPOINT),
        collector_ack_endpoint = zmqpipeline.EndpointAddress(settings.COLLECTOR_ACK_ENDPOINT),
    )
    zmqpipeline.Distributor.register_task(tasks.CalculationTask)
    print("distributor running")
    dist.run()
    print("finished")
"""

DEPENDENCIES = DISTRIBUTOR.replace(
    "register_task(tasks.CalculationTask)",
    "register_task(tasks.SecondTask)\n    zmqpipeline.Distributor.register_task(tasks.FirstTask)",
)

METADATA = DISTRIBUTOR.replace("tasks.CalculationTask", "tasks.MetaTask").replace(
    "COLLECTOR_ACK_ENDPOINT),",
    "COLLECTOR_ACK_ENDPOINT),\n        receive_metadata = True,"
    "\n        metadata_endpoint = zmqpipeline.EndpointAddress(settings.METADATA_ENDPOINT),",
)

INTERRUPTED = DISTRIBUTOR.replace(
    "    dist.run()\n",
    "    try:\n        dist.run()\n    except KeyboardInterrupt:\n        pass\n    dist.shutdown()\n",
)

THREADS = """
import threading
import collector
import tasks
import worker
import zmqpipeline

if __name__ == "__main__":
    zmqpipeline.Distributor.register_task(tasks.CalculationTask)
    roles = [
        worker.MyWorker(),
        zmqpipeline.Distributor(collector.StopWatchCollector.endpoint, collector.StopWatchCollector.ack_endpoint),
    ]
    threads = [threading.Thread(target=role.run) for role in roles]
    for thread in threads:
        thread.start()
    gathers = collector.StopWatchCollector()
    gathers.run()
    for thread in threads:
        thread.join()
    print("finished", gathers.n, roles[0].n_executions)
"""

FILES = {
    "tasks.py": TASKS,
    "worker.py": WORKER,
    "multi_worker.py": MULTI_WORKER,
    "meta_worker.py": META_WORKER,
    "collector.py": COLLECTOR,
    "run_distributor.py": DISTRIBUTOR,
    "run_dependencies.py": DEPENDENCIES,
    "run_metadata.py": METADATA,
    "run_interrupted.py": INTERRUPTED,
    "threads.py": THREADS,
}

ROLES = ("worker.py", "collector.py", "run_distributor.py")
ORDERS = list(itertools.permutations(ROLES))
TRANSPORTS = ("mixed", "tcp", "ipc")


def addresses(transport: str) -> str:
    """The lines of settings.py that give each hop its address; "mixed" is as documented: workers over ipc."""
    port = free_ports(len(NAMES))[0] if transport in ("tcp", "mixed") else 0
    lines = []
    for step, name in enumerate(NAMES):
        if transport == "tcp" or (transport == "mixed" and "COLLECTOR" in name):
            address = f"tcp://localhost:{port + step}"
        else:
            address = f"{'inproc' if transport == 'inproc' else 'ipc'}://{name.lower()}.ipc"
        lines.append(f"{name}_ENDPOINT = {address!r}\n")
    return "".join(lines)


def write(workshop: Workshop, transport: str = "mixed", more: str = "") -> None:
    """Write all programs, and settings for this transport."""
    workshop.write("settings.py", SETTINGS + addresses(transport) + more)
    for name, text in FILES.items():
        workshop.write(name, text)


def write_dependent_workers(workshop: Workshop) -> None:
    """Two workers that print the time of each item; the second one also that of its init_worker."""
    for place, name in (("", "first"), ("SECOND_", "second")):
        text = WORKER.replace("CALC", name.upper()).replace("settings.WORKER", f"settings.{place}WORKER")
        text = text.replace("        time.sleep", f'        print("{name}", time.time())\n        time.sleep')
        init = '    def init_worker(self):\n        print("init", time.time())\n\n    def handle_execution'
        workshop.write(f"{name}_worker.py", text.replace("    def handle_execution", init))


def start(workshop: Workshop, eventually: Eventually, names: tuple[str, ...]) -> dict[str, Program]:
    """Start programs in this order, each when the one before it has said that it runs."""
    programs = {}
    for name in names:
        program = programs[name] = workshop.start(name)
        eventually(lambda program=program: "running" in program.out or program.ended(), f"{name} runs")
    return programs


def see_through(*programs: Program) -> None:
    """All end by themselves with status 0, and have nothing to complain of."""
    assert [program.wait() for program in programs] == [0] * len(programs), [program.err for program in programs]
    assert [program.complaints for program in programs] == [""] * len(programs)


def handled(program: Program) -> int:
    """How many executions a worker says that it had."""
    return int(re.findall(r"^finished - handled (\d+) executions$", program.out, re.MULTILINE)[0])


def times(program: Program, word: str) -> list[float]:
    """The times that a program printed after a word."""
    return [float(time) for time in re.findall(rf"^{word} ([\d.]+)$", program.out, re.MULTILINE)]


@pytest.mark.parametrize(
    ("transport", "order"),
    [
        *(("mixed", order) for order in ORDERS),
        *(("tcp", order) for order in (ORDERS[0], ORDERS[-1])),
        *(("ipc", order) for order in ORDERS[1:5:3]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_single_threaded_worker_in_any_start_order(
    workshop: Workshop, eventually: Eventually, transport: str, order: tuple[str, ...]
) -> None:
    """100 items, each executed and collected once, however the three programs are started."""
    write(workshop, transport)
    programs = start(workshop, eventually, order)
    see_through(*programs.values())
    assert handled(programs["worker.py"]) == 100
    assert re.search(r"collection took \d+\.\d milliseconds, \{\} CALC END\n", programs["collector.py"].out)
    assert programs["collector.py"].out.endswith("finished - collected 100\n")
    assert programs["run_distributor.py"].out == "distributor running\nfinished\n"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_multi_threaded_worker_naps_at_the_same_time(
    workshop: Workshop, eventually: Eventually, transport: str
) -> None:
    """Ten threads: of 100 naps at least five, and ten at most, go on at one time; the counter is exact."""
    write(workshop, transport)
    workshop.write("tasks.py", TASKS.replace(".002", ".04"))
    nap = '        time.sleep(data["workload"])\n'
    noted = f"        began = time.monotonic()\n{nap}        print(f'nap {{began}} {{time.monotonic()}}\\n', end='')\n"
    workshop.write("multi_worker.py", MULTI_WORKER.replace(nap, noted))
    programs = start(workshop, eventually, ("multi_worker.py", "collector.py", "run_distributor.py"))
    see_through(*programs.values())
    assert handled(programs["multi_worker.py"]) == 100
    naps = re.findall(r"^nap ([\d.]+) ([\d.]+)$", programs["multi_worker.py"].out, re.MULTILINE)
    assert len(naps) == 100
    at_once = [sum(float(began) <= float(at) < float(ended) for began, ended in naps) for at, _ in naps]
    assert 5 <= max(at_once) <= 10, at_once


def test_two_multi_threaded_workers_share_the_items(workshop: Workshop, eventually: Eventually) -> None:
    """Their exact counters add up to the number of items, which wait until the later one has come, too."""
    write(workshop)
    both = 'Path(f"at-work-{os.getpid()}").touch()\n        while len(list(Path().glob("at-work-*"))) < 2:\n'
    nap = 'time.sleep(data["workload"])'
    waiting = MULTI_WORKER.replace(nap, f"{both}            time.sleep(0.01)\n        {nap}")
    workshop.write("multi_worker.py", "import os\nfrom pathlib import Path\n" + waiting)
    rest = start(workshop, eventually, ("collector.py", "run_distributor.py"))
    workers = [workshop.start("multi_worker.py") for _ in range(2)]
    see_through(*workers, *rest.values())
    shares = [handled(one) for one in workers]
    assert sum(shares) == 100
    assert min(shares) > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "order",
    [
        ("second_worker.py", "first_worker.py", "run_dependencies.py", "collector.py"),
        ("run_dependencies.py", "collector.py", "first_worker.py", "second_worker.py"),
    ],
    ids=lambda order: order[0],
)
def test_the_second_worker_commences_when_the_first_is_done(
    workshop: Workshop, eventually: Eventually, transport: str, order: tuple[str, ...]
) -> None:
    """Not one item of the second task, and not its init_worker, before the last item of the first."""
    write(workshop, transport)
    write_dependent_workers(workshop)
    programs = start(workshop, eventually, order)
    see_through(*programs.values())
    first, second = programs["first_worker.py"], programs["second_worker.py"]
    assert (len(times(first, "first")), len(times(second, "second"))) == (100, 100)
    (init,) = times(second, "init")
    assert times(first, "init") < times(first, "first")
    assert max(times(first, "first")) < init <= min(times(second, "second"))
    assert "took" in programs["collector.py"].out
    assert programs["collector.py"].out.endswith("finished - collected 200\n")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("early", [True, False])
def test_metadata_comes_before_the_first_item(
    workshop: Workshop, eventually: Eventually, transport: str, early: bool
) -> None:
    """The task forwards it and the worker has it; the distributor waits for it, or it for the distributor."""
    write(workshop, transport)
    workshop.write("worker.py", WORKER.replace('time.sleep(data["workload"])', 'print("got", data, self.metadata)'))
    others = ("worker.py", "collector.py", "run_metadata.py")
    programs = start(workshop, eventually, ("meta_worker.py", *others) if early else (*others, "meta_worker.py"))
    see_through(*programs.values())
    metadata = {"meta_variable": "my value"}
    assert f"got {metadata} {metadata}\nfinished - handled 1 executions\n" in programs["worker.py"].out
    assert f"task: my value READY {programs['worker.py'].pid}\n" in programs["run_metadata.py"].out
    assert programs["meta_worker.py"].out == "meta worker running\nworker is finished\n"


def test_log_lines_go_to_a_file(workshop: Workshop, eventually: Eventually) -> None:
    """Five loggers: beginnings, connections, initializations and messages are told, by the process that they are of."""
    write(workshop, "mixed", LOGGING)
    workshop.write("worker.py", WORKER.replace('time.sleep(data["workload"])', "pass"))
    programs = start(workshop, eventually, ("meta_worker.py", "worker.py", "collector.py", "run_metadata.py"))
    see_through(*programs.values())
    pid = {name: program.pid for name, program in programs.items()}
    told = {tuple(line.removeprefix("zmqpipeline.").split(" ", 3)) for line in workshop.lines("output.log")}
    for logger, level, name, message in (
        ("distributor", "DEBUG", "run_metadata.py", "acks: connected."),
        ("distributor", "DEBUG", "run_metadata.py", "workers: sent Work (1 items)."),
        ("task", "INFO", "run_metadata.py", "Task 'CALC' begins."),
        ("worker", "DEBUG", "worker.py", "The first item is here: init_worker is called."),
        ("worker", "DEBUG", "worker.py", "workers: received Work (1 items)."),
        ("collector", "DEBUG", "collector.py", "results: received Results (1 items)."),
        ("collector", "INFO", "collector.py", "the run is over"),
        ("metadataworker", "DEBUG", "meta_worker.py", "metadata: connected."),
        ("metadataworker", "INFO", "meta_worker.py", "the distributor has the metadata"),
    ):
        assert (logger, level, str(pid[name]), message) in told
    begun = [(logger, int(process)) for logger, _, process, text in told if "begins, with the addresses " in text]
    assert sorted(begun) == sorted(
        zip(("metadataworker", "worker", "collector", "distributor"), pid.values(), strict=True)
    )


@pytest.mark.parametrize("worker", ["worker.py", "multi_worker.py"])
def test_all_roles_as_threads_of_one_process(workshop: Workshop, worker: str) -> None:
    """inproc addresses, with the very classes of the other programs; the process ends by itself."""
    write(workshop, "inproc")
    workshop.write("worker.py", FILES[worker])
    status, program = workshop.run("threads.py")
    assert status == 0, program.err
    assert program.out.endswith("finished 100 100\n")
    assert program.complaints == ""
    assert list(workshop.folder.glob("*.ipc")) == []


def test_ipc_addresses_are_files_in_the_working_folder(workshop: Workshop, eventually: Eventually) -> None:
    """The sockets of the roles that bind are there while these run."""
    write(workshop, "ipc")
    programs = start(workshop, eventually, ("collector.py", "run_distributor.py"))
    names = ("worker.ipc", "collector.ipc", "collector_ack.ipc")
    paths = [workshop.folder / name for name in names]
    eventually(lambda: all(path.exists() for path in paths), "the files are there")
    assert all(stat.S_ISSOCK(path.stat().st_mode) for path in paths)
    see_through(*start(workshop, eventually, ("worker.py",)).values(), *programs.values())


@pytest.mark.slow
def test_a_worker_dies_and_another_takes_its_place(workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 in the middle, and a new worker: the others do not notice; each item is collected once."""
    write(workshop)
    halfway = 'while self.n_executions == 50 and not Path("go").exists():\n            time.sleep(0.01)\n        '
    nap = 'time.sleep(data["workload"])'
    workshop.write("worker.py", "from pathlib import Path\n" + WORKER.replace(nap, halfway + nap))
    programs = start(workshop, eventually, ("collector.py", "run_distributor.py", "worker.py"))
    eventually(lambda: "ten are collected" in programs["collector.py"].out, "ten items")
    worker = programs.pop("worker.py")
    worker.signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    workshop.write("go", "")
    second = workshop.start("worker.py")
    assert programs["run_distributor.py"].wait() == 0
    assert "was lost (its connection broke)" in programs.pop("run_distributor.py").err
    see_through(second, *programs.values())
    assert programs["collector.py"].out.endswith("finished - collected 100\n")
    assert 0 < handled(second) <= 90


def test_an_interrupted_distributor_is_shut_down(workshop: Workshop, eventually: Eventually) -> None:
    """Ctrl-C, and shutdown() after run(), as documented: it ends in good order, long before all items are sent."""
    write(workshop)
    workshop.write("tasks.py", TASKS.replace("100", "10 ** 9"))
    programs = start(workshop, eventually, ("collector.py", "worker.py", "run_interrupted.py"))
    eventually(lambda: "ten are collected" in programs["collector.py"].out, "ten items")
    programs["run_interrupted.py"].signal(signal.SIGINT)
    see_through(programs["run_interrupted.py"])
    assert programs["run_interrupted.py"].out == "distributor running\nfinished\n"
