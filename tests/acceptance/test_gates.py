"""Gates in real processes: one that waits for a particular ACK sees each, in order, with its own data."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import test_spec_programs as spec

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

APP = """
import time
from zmqpipeline import Pipeline

app = Pipeline("gate")
sent = 0

@app.task("C")
def items():
    global sent
    for n in range(1, 7):
        sent = n
        yield {"n": n}

@app.available("C")
def available(ack_data):
    with open("asked", "a") as file:
        file.write(f"{sent} {ack_data['_id']} {ack_data.get('n')}\\n")
    return sent < 5 or ack_data.get("n") == 3

@app.worker("C", threads=5)
def work(data):
    time.sleep(0.02)
    return data

@app.collector
def collect(data):
    return {"n": data["n"]}

if __name__ == "__main__":
    app.main()
"""

TASKS = """
import settings
import zmqpipeline

class CalculationTask(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("CALC")
    endpoint = zmqpipeline.EndpointAddress(settings.WORKER_ENDPOINT)
    dependencies = []
    n_count = 0

    def is_available_for_handling(self, last_ack_data):
        print("asked", self.n_count, last_ack_data["_id"], last_ack_data.get("n"))
        return self.n_count < 5 or last_ack_data.get("n") == 3

    def handle(self, data, address, msgtype, ack_data):
        self.n_count += 1
        self.is_complete = self.n_count == 6
        return {"n": self.n_count, "workload": 0.02, "after": ack_data.get("n")}
"""

COLLECTOR = spec.COLLECTOR.replace(
    "    def handle_collection(self, data, task_type, msgtype):\n",
    "    def get_ack_data(self):\n        return {'n': self.last['n']}\n\n"
    "    def handle_collection(self, data, task_type, msgtype):\n"
    "        self.last = data\n        print('collected', data['n'], data['after'])\n",
)

RESTARTED = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("gate")
sent = 0

@app.task("C")
def items():
    global sent
    for n in range(1, 41):
        sent = n
        yield {"n": n}

@app.available("C")
def available(ack_data):
    with open("asked", "a") as file:
        file.write(f"{os.getpid()} {ack_data['_id']} {ack_data.get('n', 0)}\\n")
    return sent == ack_data.get("n", 0)

@app.worker("C")
def work(data):
    time.sleep(0.01)
    while data["n"] == 30 and not Path("go").exists():
        time.sleep(0.01)
    return data

@app.collector
def collect(data):
    with open("collected", "a") as file:
        file.write(f"{data['n']}\\n")
    return {"n": data["n"]}

if __name__ == "__main__":
    app.main()
"""


@pytest.mark.slow
def test_the_sixth_item_waits_for_the_third_ack(workshop: Workshop) -> None:
    """Five are out, and come back in any order and together; twelve runs of twelve are good."""
    workshop.write("gate.py", APP)
    for _ in range(12):
        (workshop.folder / "asked").unlink(missing_ok=True)
        status, program = workshop.run("-m", "gate", "run")
        assert status == 0, program.err
        asked = [line.split() for line in workshop.lines("asked") if line.startswith("5 ")]
        assert [int(number) for _, number, _ in asked] == list(range(len(asked)))
        data = [n for _, _, n in asked]
        assert (data[0], data[-1]) == ("None", "3")
        assert len(set(data)) == len(data)


def test_the_documented_classes_wait_for_a_particular_ack(workshop: Workshop) -> None:
    """`is_available_for_handling` is asked with each ACK once it says no; `handle` gets the one that let it pass."""
    spec.write(workshop)
    workshop.write("tasks.py", TASKS)
    workshop.write("collector.py", COLLECTOR)
    threaded = spec.MULTI_WORKER.replace(
        'time.sleep(data["workload"])', 'time.sleep(data["workload"])\n        return data'
    )
    workshop.write("multi_worker.py", threaded)
    programs = [workshop.start(name) for name in ("collector.py", "multi_worker.py", "run_distributor.py")]
    spec.see_through(*programs)
    asked = [line.split()[1:] for line in programs[2].out.split("\n") if line.startswith("asked 5")]
    assert [int(number) for _, number, _ in asked] == list(range(len(asked)))
    assert asked[-1][2] == "3"
    assert "collected 6 3\n" in programs[0].out


@pytest.mark.slow
@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_a_gate_goes_on_after_a_restart(workshop: Workshop, role: str, eventually: Any) -> None:
    """Lock-step by the data of the ACKs: a killed role is started again, with a journal, and all are collected once."""
    workshop.write("gate.py", RESTARTED)
    commands = {
        "collector": ("collector", "--journal", "run.db"),
        "distributor": ("distributor",),
        "worker": ("worker", "C"),
    }
    programs = {name: workshop.start("-m", "gate", *command) for name, command in commands.items()}
    eventually(lambda: len(workshop.lines("collected")) > 10, "ten items are collected")
    programs[role].signal(signal.SIGKILL)
    programs[role].wait()
    programs[role] = workshop.start("-m", "gate", *commands[role])
    workshop.write("go", "")
    assert [program.wait() for program in programs.values()] == [0, 0, 0], [one.err for one in programs.values()]
    collected = workshop.numbers("collected")
    assert sorted(set(collected)) == list(range(1, 41))
    assert len(collected) <= 41
    if role == "distributor":
        # the collector remembers all that they carried: the new gate is asked with each
        asked = [line.split() for line in workshop.lines("asked")]
        _, second = dict.fromkeys(one[0] for one in asked)
        numbers = [int(number) for pid, number, _ in asked if pid == second]
        assert sorted(set(numbers)) == list(range(41))
