"""``python -m tests.acceptance.slurm``: the scripts of docs/howto/deploy-slurm.md under a Slurm of one node.

A controller, a node and munge are started in a folder, on ports of the loopback. Twice a sweep of simulations goes into
one table of SQLite: by workers that are steps of the job of `run`, and by workers in a job array. Meanwhile jobs are
preempted (requeued), warned, cancelled, and the node's daemon is killed and started again. Every simulation must be in
the table once, and the status of the job must be 0.

That needs root, and slurmctld, slurmd, munged and their commands in the PATH; where they are not, this says so and ends
with status 3 (with ``--if-installed``: 0).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from tests.acceptance.conftest import ROOT, wait_until
from tests.support.pages import blocks_of
from tests.support.ports import free_ports
from tests.support.steps import Clock
from zmqpipeline.runtime.security import keyfiles

PAGE = ROOT / "docs/howto/deploy-slurm.md"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
MISSING = 3
WORKERS = 4
PATIENCE = 300.0

CONFIG = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
CryptoType=crypto/munge
# how long a requeued job waits follows from the life of credentials
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
KillWait=5
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

APP = """
import os
import random
import time

from zmqpipeline import Pipeline

app = Pipeline("survey")

@app.task("measure", total=int(os.environ["SIMULATIONS"]))
def seeds():
    for seed in range(int(os.environ["SIMULATIONS"])):
        yield {"seed": seed}

def fast():
    try:
        with open("fast") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0

@app.worker("measure")
def measure(data):
    until = time.monotonic() + 1
    draw = random.Random(data["seed"])
    position = sum(draw.choice((-1, 1)) for _ in range(1000))
    time.sleep(0.03)
    # from this one on they take long: what befalls the jobs must not come when all is over
    while data["seed"] >= fast() and time.monotonic() < until:
        time.sleep(0.02)
    return {"seed": data["seed"], "position": position}

@app.collector
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS walks (seed INTEGER PRIMARY KEY, position INTEGER)")
    # a second one of the same seed would be an error
    journal.execute("INSERT INTO walks VALUES (:seed, :position)", data)

if __name__ == "__main__":
    app.main()
"""


def lacking() -> str:
    """Why it cannot be done here; empty if it can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"there is no {', no '.join(missing)}"
    return "" if os.geteuid() == 0 else "Slurm starts jobs as other users, which root alone may"


class Slurm:
    """Its daemons, and the commands for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        ctld, slurmd = free_ports(2)
        self.config.write_text(CONFIG.format(host=socket.gethostname(), folder=folder, ctld=ctld, slurmd=slurmd))
        self.environ = {**os.environ, "SLURM_CONF": str(self.config)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir(mode=0o755)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)

    def start(self) -> None:
        """Start all three, and wait until the node takes jobs."""
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        flags = [f"--{flag}={self.folder}/munge.{name}" for flag, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *flags)
        wait_until((self.folder / "munge.socket").exists, "munge")
        self._daemon("slurmctld", "-D", "-i", "-f", str(self.config))
        self.start_node()
        wait_until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), "the node", PATIENCE)

    def start_node(self) -> None:
        """The daemon of the node, be it for a second time."""
        self._daemon("slurmd", "-D", "-f", str(self.config))

    def kill_node(self) -> None:
        """End it as a crash would."""
        self._daemons["slurmd"].kill()
        self._daemons["slurmd"].wait(10)

    def _daemon(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [str(shutil.which(name)), *flags], stdout=out, stderr=out, env=self.environ, start_new_session=True
            )

    def ask(self, *command: str, folder: Path | None = None, **environ: str) -> str:
        """What a command of Slurm says; one that fails says nothing that counts."""
        done = subprocess.run(
            command,
            env={**self.environ, **environ},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def state(self, job: str) -> str:
        """Such as RUNNING."""
        words = dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job).split())
        return words.get("JobState", "")

    def exit_code(self, job: str) -> str:
        """Such as ``0:0``."""
        words = dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job).split())
        return words.get("ExitCode", "")

    def restarts(self, job: str) -> int:
        """How often it was requeued."""
        words = dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job).split())
        return int(words.get("Restarts", "0"))

    def close(self) -> None:
        """End the jobs, then the daemons, each by its process id."""
        if self._daemons and self._daemons["slurmctld"].poll() is None:
            self.ask("scancel", "--user=root")
            deadline = time.monotonic() + 20
            while self.ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)


@contextmanager
def cluster() -> Iterator[Slurm]:
    """One that takes jobs, and is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="zp-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.close()
        shutil.rmtree(folder)


class Sweep:
    """A folder with the scripts of the page, the app and keys; the jobs that are submitted there."""

    def __init__(self, slurm: Slurm, simulations: int, done: Callable[[str], None]) -> None:
        self.slurm, self.simulations, self.done = slurm, simulations, done
        self._restarts: dict[str, int] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=slurm.folder))
        port = str(free_ports(7)[0])
        for block in blocks_of(PAGE):
            if block.word == "file":
                text = block.text.replace("port=5550", f"port={port}").replace(
                    "--exit-when-idle 60", "--exit-when-idle 5"
                )
                assert text != block.text, block.rest
                (self.folder / block.rest).write_text(text)
        (self.folder / "survey.py").write_text(APP)
        keyfiles.make_all(self.folder / "keys")
        self.environ = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "SIMULATIONS": str(simulations),
        }

    def submit(self, script: str, *flags: str, argument: str = "") -> str:
        """The number of the job."""
        words = ["sbatch", "--parsable", *flags, script, *([argument] if argument else [])]
        job = self.slurm.ask(*words, folder=self.folder, **self.environ)
        assert job, f"{script} was not taken"
        return job

    def rows(self) -> int:
        """How many simulations are in the table."""
        path = self.folder / "survey.db"
        if not path.exists():
            return 0
        with closing(sqlite3.connect(path, timeout=20)) as db:
            there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'walks'").fetchone()
            return int(db.execute("SELECT count(*) FROM walks").fetchone()[0]) if there else 0

    def reach(self, part: float) -> int:
        """Let so much of it be done quickly, and wait until it is; how many simulations."""
        self._be_fast(part)
        wait_until(
            lambda: self.rows() >= part * self.simulations, f"{part:.0%} of the sweep\n{self.output()}", PATIENCE
        )
        return self.rows()

    def _be_fast(self, part: float) -> None:
        new = self.folder / "fast.new"
        new.write_text(str(int(part * self.simulations)))
        new.replace(self.folder / "fast")

    def running(self, job: str) -> None:
        """Wait until it runs."""
        wait_until(lambda: self.slurm.state(job) == "RUNNING", f"job {job} to run", PATIENCE)
        self._restarts[job] = self.slurm.restarts(job)

    def leave(self, job: str) -> None:
        """Wait until it does not run any more, or was started again since."""
        known = self._restarts.get(job, 0)
        wait_until(
            lambda: self.slurm.state(job) != "RUNNING" or self.slurm.restarts(job) > known,
            f"job {job} to be preempted",
            PATIENCE,
        )

    def crash(self) -> None:
        """The daemon of the node is killed, and started again after two seconds."""
        self.slurm.kill_node()
        time.sleep(2)
        self.slurm.start_node()

    def output(self) -> str:
        """The end of what the jobs wrote."""
        return "\n".join(f"{one.name}: ...{one.read_text()[-1500:]}" for one in sorted(self.folder.glob("slurm-*.out")))

    def finish(self, job: str) -> None:
        """Wait for the end of it, and look at the table."""
        self._be_fast(1)
        wait_until(
            lambda: self.slurm.state(job) in ("COMPLETED", "FAILED", "CANCELLED"),
            f"job {job}\n{self.output()}",
            PATIENCE,
        )
        assert (self.slurm.state(job), self.slurm.exit_code(job)) == ("COMPLETED", "0:0"), self.output()
        with closing(sqlite3.connect(self.folder / "survey.db")) as db:
            rows = db.execute("SELECT seed FROM walks ORDER BY seed").fetchall()
        assert [seed for (seed,) in rows] == list(range(self.simulations)), "lost"
        for secret in self.folder.glob("keys/*.secret"):
            key = secret.read_text().rpartition("secret = ")[2].strip()
            assert key not in self.output()


def in_an_allocation(sweep: Sweep) -> None:
    """`survey.sbatch`: workers are steps of the job, started by `srun` behind `run`."""
    slurm, done = sweep.slurm, sweep.done
    job = sweep.submit("survey.sbatch", f"--ntasks={WORKERS}")
    seen = sweep.reach(0.15)
    done(f"job {job} runs, with {WORKERS} workers as steps of it: {seen} of {sweep.simulations} done")
    steps: list[str] = []

    def are_there() -> bool:
        words = slurm.ask("squeue", "-h", "-s", "-j", job, "-o", "%i").split()
        steps[:] = [word for word in words if word.rpartition(".")[2].isdecimal()]
        return bool(steps)

    wait_until(are_there, "steps of the job", PATIENCE)
    step = steps[0]
    slurm.ask("scancel", step)
    seen = sweep.reach(0.3)
    done(f"the step {step} was cancelled, and its worker is another one: {seen} done")
    slurm.ask("scontrol", "requeue", job)
    sweep.leave(job)
    sweep.running(job)
    seen = sweep.reach(0.5)
    done(f"the job was preempted and requeued, and goes on: {seen} done")
    sweep.crash()
    seen = sweep.reach(0.65)
    done(f"slurmd was killed with -9 and started again: {seen} done")
    slurm.ask("scancel", "--batch", "--signal=TERM", job)
    sweep.leave(job)
    sweep.running(job)
    done(f"the job was warned as before its time limit, drained and requeued itself: {sweep.rows()} done")
    sweep.finish(job)
    done(f"all {sweep.simulations} simulations are in the table, each once; the status of the job is 0")


def in_an_array(sweep: Sweep) -> None:
    """`server.sbatch` and `workers.sbatch`: workers are jobs of their own."""
    slurm, done = sweep.slurm, sweep.done
    server = sweep.submit("server.sbatch")
    array = sweep.submit("workers.sbatch", f"--array=0-{WORKERS - 1}", argument=server)
    seen = sweep.reach(0.15)
    done(f"job {server} and the array {array} of {WORKERS} workers run: {seen} of {sweep.simulations} done")
    slurm.ask("scontrol", "requeue", f"{array}_0")
    slurm.ask("scancel", f"{array}_1")
    sweep.leave(f"{array}_0")
    seen = sweep.reach(0.3)
    done(f"{array}_0 was preempted and requeued, {array}_1 cancelled: {seen} done")
    sweep.crash()
    slurm.ask("scancel", "--batch", "--signal=TERM", f"{array}_2")
    sweep.leave(f"{array}_2")
    seen = sweep.reach(0.5)
    done(f"slurmd was killed with -9 and started again, {array}_2 warned as before its time limit: {seen} done")
    slurm.ask("scontrol", "requeue", server)
    sweep.leave(server)
    sweep.running(server)
    seen = sweep.reach(0.75)
    done(f"the server's job was preempted and requeued, and its workers found it again: {seen} done")
    sweep.finish(server)
    wait_until(lambda: not slurm.ask("squeue", "-h"), f"the workers to leave\n{sweep.output()}", 120.0)
    done(f"all {sweep.simulations} simulations are in the table, each once; no job is left")


@click.command()
@click.option("--simulations", type=click.IntRange(100), default=2000, show_default=True)
@click.option("--if-installed", is_flag=True, help="Status 0 where there is no Slurm.")
def main(simulations: int, if_installed: bool) -> None:
    """Run the scripts of the page under a Slurm of one node."""
    if why := lacking():
        print(f"There can be no Slurm here: {why}", file=sys.stderr)
        sys.exit(0 if if_installed else MISSING)
    done = Clock()
    with cluster() as slurm:
        done("a Slurm of one node takes jobs")
        for way in (in_an_allocation, in_an_array):
            way(Sweep(slurm, simulations, done))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
