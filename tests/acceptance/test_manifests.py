"""`manifests` in real processes: what the pods would run runs here, with the keys of the Secrets, to its end."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from tests.acceptance.conftest import ROOT, Program
from tests.support.pages import blocks_of
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

PAGE = ROOT / "docs/howto/deploy-kubernetes.md"
(SURVEY,) = (one.text for one in blocks_of(ROOT / "docs/howto/resume.md") if one.rest == "survey.py")
COMMANDS = [
    line.removeprefix("python ").split(">")[0].split("|")[0].split()
    for block in blocks_of(PAGE)
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("python -m survey")
]


def written(workshop: Workshop, *arguments: str) -> list[Any]:
    """What `manifests` writes of the survey, each checked."""
    status, program = workshop.run("-m", "survey", "manifests", *arguments)
    assert status == 0, program.err
    found = list(yaml.safe_load_all(program.out))
    for value in found:
        if value["kind"] != "ScaledObject":
            kubernetes_validate.validate(value, "1.33", strict=True)
    return found


@pytest.fixture
def survey(workshop: Workshop) -> Workshop:
    """The app of the page, of which every item succeeds."""
    workshop.write("survey.py", SURVEY.replace("== 13", "== -1"))
    return workshop


class Kubelet:
    """Starts the containers of pods as processes of this machine, with a folder for each volume."""

    def __init__(self, workshop: Workshop, objects: list[Any], port: int) -> None:
        self.workshop, self.port = workshop, port
        self.secrets = {one["metadata"]["name"]: one["stringData"] for one in objects if one["kind"] == "Secret"}
        self.pods = {
            one["metadata"]["name"]: one["spec"]["template"]["spec"]
            for one in objects
            if "template" in one.get("spec", {})
        }

    def start(self, pod: str) -> Program:
        """Its init containers, one after the other, then its only container."""
        folder = self.workshop.folder / f"{pod}-{len(self.workshop.programs)}"
        folder.mkdir()
        paths = {}
        for volume in self.pods[pod]["volumes"]:
            paths[volume["name"]] = self._volume(folder, volume)
        for container in self.pods[pod].get("initContainers", ()):
            program = self._run(container, paths)
            assert program.wait() == 0, program.err
        (container,) = self.pods[pod]["containers"]
        return self._run(container, paths)

    def _volume(self, folder: Path, volume: Mapping[str, Any]) -> Path:
        """A claim outlives its pods; the files of a Secret are links to some that a group may read."""
        name = volume["name"]
        if "persistentVolumeClaim" in volume:
            path = self.workshop.folder / volume["persistentVolumeClaim"]["claimName"]
            path.mkdir(exist_ok=True)
            return path
        path = folder / name
        path.mkdir()
        if "secret" in volume:
            (path / "..2026").mkdir()
            (path / "..data").symlink_to("..2026")
            for key, text in self.secrets[volume["secret"]["secretName"]].items():
                assert re.fullmatch(r"[-._a-zA-Z0-9]+", key)
                (path / "..2026" / key).write_text(text)
                (path / "..2026" / key).chmod(volume["secret"]["defaultMode"])
                (path / key).symlink_to(Path("..data", key))
        path.chmod(0o1777)
        return path

    def _run(self, container: Mapping[str, Any], paths: Mapping[str, Path]) -> Program:
        places = {one["mountPath"]: str(paths[one["name"]]) for one in container["volumeMounts"]}

        def mapped(text: str) -> str:
            for mount, path in places.items():
                if text == mount or text.startswith(f"{mount}/"):
                    text = path + text[len(mount) :]
            hosts = r"tcp://(\*|survey[a-z-]*|127\.0\.0\.1):5550"
            return re.sub(hosts, f"tcp://127.0.0.1:{self.port}", text).replace("$$(", "$(")

        python, *command = container["command"]
        assert python == "python"
        environ = {one["name"]: mapped(one.get("value", "the uid of the job")) for one in container["env"]}
        arguments = map(mapped, [*command, *container["args"]])
        return self.workshop.start(*arguments, **environ)


WAITS = """    import os, time
    while data["n"] > 500 and not os.path.exists("GO"):
        time.sleep(0.01)
"""
"""In the worker's function: half of the items wait until the server was killed."""


@pytest.mark.slow
@pytest.mark.parametrize("has_keys", [True, False], ids=["keys", "insecure"])
def test_what_the_pods_run_runs_to_its_end(survey: Workshop, has_keys: bool, eventually: Callable[..., None]) -> None:
    """With the keys of the Secrets, as a kubelet mounts them; the server is killed and started again; no row is lost.

    The workers stay for the next run, and the probe of the server succeeds while it runs.
    """
    flags = ["--keys", "keys"] if has_keys else ["--insecure"]
    survey.write(
        "survey.py",
        (survey.folder / "survey.py")
        .read_text()
        .replace("    return {", f"{WAITS.replace('GO', str(survey.folder / 'go'))}    return {{"),
    )
    assert survey.run("-m", "survey", "keygen", "keys")[0] == 0
    kubelet = Kubelet(survey, written(survey, "--image", "survey:1", *flags), free_ports(7)[0])
    server, worker = kubelet.start("survey"), kubelet.start("survey-worker-measure")
    database = survey.folder / "survey-journal" / "survey.db"

    def rows() -> int:
        if not database.exists():
            return 0
        with closing(sqlite3.connect(database, timeout=20)) as db:
            there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'squares'").fetchone()
            return int(db.execute("SELECT count(*) FROM squares").fetchone()[0]) if there else 0

    eventually(lambda: rows() > 20, "some rows are there")
    (container,) = kubelet.pods["survey"]["containers"]
    probe = {**container, "args": container["livenessProbe"]["exec"]["command"][len(container["command"]) :]}
    mounts = {"tmp": Path("/tmp"), "journal": database.parent}
    if has_keys:
        (mounts["keys"],) = (one / "keys" for one in survey.folder.glob("survey-[0-9]*") if (one / "keys").exists())
    assert kubelet._run(probe, mounts).wait() == 0
    server.close()
    before = rows()
    survey.write("go", "")
    again = kubelet.start("survey")
    assert again.wait(60) == 0, again.err
    assert before < rows() == 1000
    assert not worker.ended()
    worker.signal(15)
    assert worker.wait() == 0, worker.err


def test_secrets_are_printed_when_asked_alone(survey: Workshop) -> None:
    """Not by a folder that a variable or the app names; with --keys, each key where it belongs."""
    assert survey.run("-m", "survey", "keygen", "keys")[0] == 0
    survey.environ["ZMQPIPELINE_KEYS"] = "keys"
    status, program = survey.run("-m", "survey", "manifests", "--image", "i")
    assert status == 0
    secret = re.compile(r"secret = \S{40}")
    assert not secret.search(program.out)
    found = written(survey, "--image", "i", "--keys", "keys", "--only", "Secret")
    server, worker = (one["stringData"] for one in found)
    assert {"server.secret", "distributor.secret", "client.secret", "_authorized_workers_worker.pub"} <= set(server)
    assert set(worker) == {"server.pub", "worker.secret"}
    assert "worker.secret" not in server
    assert survey.folder.joinpath("keys/worker.secret").read_text() == worker["worker.secret"]


def test_a_placeholder_starts_no_role(survey: Workshop) -> None:
    """The pod says what is missing, with the status that the Job takes as final."""
    kubelet = Kubelet(survey, written(survey, "--image", "i"), free_ports(7)[0])
    pod = survey.folder / "pod"
    pod.mkdir()
    (secret,) = (one for one in kubelet.pods["survey"]["volumes"] if one["name"] == "secret")
    paths = {"tmp": Path("/tmp"), "keys": pod, "secret": kubelet._volume(pod, secret)}
    (init,) = kubelet.pods["survey"]["initContainers"]
    program = kubelet._run(init, paths)
    assert program.wait() == 2
    assert "holds no public key" in program.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--image"),
        (["--image", "i", "--name", "No_Name"], "--name no-name-"),
        (["--image", "i", "--workers", "auto"], "Say how many pods"),
        (["--image", "i", "--workers", "nothing=2"], "names the task 'nothing'"),
        (["--image", "i", "--keda"], "--namespace"),
        (["--image", "i", "--keys", "keys", "--insecure"], "Leave out one"),
        (["--image", "i", "--keys", "nowhere"], "cannot be used"),
        (["--image", "i", "--only", "Jobs"], "not one of 'Secret'"),
        (["--image", "i", "--cpu", "two"], "--cpu two is no amount"),
        (["--image", "i", "--cpu", "0"], "--cpu 0 is no amount"),
        (["--image", "i", "--memory", "512MB"], "--memory 512MB is no amount"),
        (["--image", "i", "--journal-size", "1 Gi"], "--journal-size 1 Gi is no amount"),
        (["--image", ""], "--image '' names no image"),
        (["--image", "i", "--namespace", "Bad_NS"], "--namespace 'Bad_NS' cannot be"),
        (["--image", "i", "--storage-class", "A b"], "--storage-class 'A b' cannot be"),
        (["--image", "i", "--drain-timeout", "inf"], "--drain-timeout inf is too long"),
        (["--image", "i", "--user", "99999999999"], "99999999999 is not in the range"),
        (["--image", "i", "--workers", "99999999999"], "at most 2147483647 pods"),
    ],
)
def test_what_cannot_be_is_one_line(survey: Workshop, arguments: list[str], said: str) -> None:
    """Status 2, nothing on stdout."""
    status, program = survey.run("-m", "survey", "manifests", *arguments)
    assert (status, program.out) == (2, ""), program.err
    assert said in program.err
    assert len(program.err.splitlines()) == 1, program.err


def test_the_commands_of_the_page(survey: Workshop) -> None:
    """Each that is not of kubectl or docker is understood, and what it writes is valid."""
    assert len(COMMANDS) >= 3
    for command in COMMANDS:
        status, program = survey.run(*command)
        assert status == 0, program.err
        if "manifests" in command:
            kinds = [one["kind"] for one in yaml.safe_load_all(program.out)]
            assert kinds
            assert ("Secret" in kinds) == ("--only" in command), command
