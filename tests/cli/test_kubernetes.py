"""What `manifests` writes: valid for Kubernetes whatever the app, and true to what it says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from zmqpipeline.cli.kubernetes import (
    MARGIN,
    MAX_NAME,
    Cluster,
    check_image,
    check_name,
    check_namespace,
    check_storage_class,
    named,
)
from zmqpipeline.cli.manifests import texts
from zmqpipeline.cli.yaml_text import document
from zmqpipeline.errors import ConfigurationError

COMMAND = ["python", "-m", "zmqpipeline", "-A", "survey:app"]
VERSIONS = ["1.30", "1.33"]


def cluster(**given: Any) -> Cluster:
    """One of an app with a task, unless it says something else."""
    usual = {"name": "survey", "image": "registry.example/survey:1", "command": COMMAND, "workers": {"measure": 3}}
    return Cluster(**{**usual, **given})


def objects(one: Cluster) -> list[Any]:
    """What a reader of YAML makes of what is written."""
    return list(yaml.safe_load_all("".join(texts(one))))


def check_valid(found: list[Any]) -> None:
    """Each is what Kubernetes takes, and no two of a kind share a name."""
    for value in found:
        if value["kind"] != "ScaledObject":
            for version in VERSIONS:
                kubernetes_validate.validate(value, version, strict=True)
        for name in (value["metadata"]["name"], *value["metadata"]["labels"].values()):
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), name
    names = [(value["kind"], value["metadata"]["name"]) for value in found]
    assert len(names) == len(set(names))


def containers(found: list[Any]) -> dict[str, Mapping[str, Any]]:
    """The containers of all pods, those before the roles among them, by the name of the object and their own."""
    pods = {
        value["metadata"]["name"]: value["spec"]["template"] for value in found if "template" in value.get("spec", {})
    }
    return {
        f"{name}/{one['name']}": one
        for name, pod in pods.items()
        for one in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    }


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"insecure": True},
        {"namespace": "science", "keda": True, "max_workers": 40},
        {"workers": {}, "services": ["upper", "lower"]},
        {"services": ["upper"], "storage_class": "fast", "metadata": {"path": "/data"}},
        {"keys": {"server": {"server.pub": "public = x\n"}, "worker": {"worker.secret": "secret = y\n"}}},
    ],
    ids=["usual", "insecure", "keda", "services", "both", "keys"],
)
def test_what_is_written_is_valid(given: dict[str, Any]) -> None:
    """For each shape of an app and each flag, by the schemas of two releases."""
    check_valid(objects(cluster(**given)))


def test_the_kinds_of_an_app_with_tasks() -> None:
    """Complete: nothing else must be written by hand."""
    found = [value["kind"] for value in objects(cluster(keda=True, namespace="science"))]
    for kind in ("Job", "PersistentVolumeClaim", "Deployment", "Secret", "Service", "NetworkPolicy", "ScaledObject"):
        assert kind in found


def test_a_pod_outlasts_its_drain() -> None:
    """Each pod is killed later than its roles have drained, by what both are told."""
    found = objects(cluster(drain_timeout=59.5, services=["upper"], keda=True, namespace="science"))
    pods = [value["spec"]["template"]["spec"] for value in found if "template" in value.get("spec", {})]
    assert len(pods) == 5
    assert {pod["terminationGracePeriodSeconds"] for pod in pods} == {60 + MARGIN}
    drains = {env["value"] for one in containers(found).values() for env in one["env"] if "DRAIN" in env["name"]}
    assert drains == {"59.5"}


def test_pods_find_each_other() -> None:
    """Selectors, Services and policies name labels that the pods have, and the volume that is claimed exists."""
    found = objects(cluster(services=["upper"], keda=True, namespace="science"))
    pods = [value["spec"]["template"] for value in found if "template" in value.get("spec", {})]
    labels = [pod["metadata"]["labels"] for pod in pods]
    for value in found:
        spec = value.get("spec", {})
        if value["kind"] == "Service":
            wanted = [spec["selector"]]
        elif value["kind"] == "Deployment":
            wanted = [spec["selector"]["matchLabels"]]
        elif value["kind"] == "NetworkPolicy":
            wanted = [spec["podSelector"]["matchLabels"]]
        else:
            continue
        for one in wanted:
            matching = [each for each in labels if one.items() <= each.items()]
            assert matching, (value["metadata"]["name"], one)
            assert value["kind"] != "Deployment" or len(matching) == 1
    claims = {value["metadata"]["name"] for value in found if value["kind"] == "PersistentVolumeClaim"}
    secrets = {value["metadata"]["name"] for value in found if value["kind"] == "Secret"}
    for pod in pods:
        for volume in pod["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
    scaled = [value["spec"]["scaleTargetRef"]["name"] for value in found if value["kind"] == "ScaledObject"]
    assert scaled == [value["metadata"]["name"] for value in found if "worker-measure" in value["metadata"]["name"]][:1]


def test_every_container_is_closed() -> None:
    """No root, no rights, no writing but where a volume is, in each container."""
    found = objects(cluster(services=["upper"], keda=True, namespace="science"))
    for one in containers(found).values():
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert not one["securityContext"]["allowPrivilegeEscalation"]
    for value in found:
        if "template" in value.get("spec", {}):
            assert value["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_a_number_that_keda_sets_is_not_written() -> None:
    """It would be set back at each `apply`."""
    (worker,) = (
        one
        for one in objects(cluster(keda=True, namespace="x"))
        if one["metadata"]["name"] == "survey-worker-measure" and one["kind"] == "Deployment"
    )
    assert "replicas" not in worker["spec"]


def test_an_unfilled_secret_says_so_and_holds_nothing() -> None:
    """What is printed unasked is no key, and no role takes it for one."""
    text = "".join(texts(cluster(), only=["Secret"]))
    assert "placeholder" in text
    assert "secret =" not in text


TASK = some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


@pytest.mark.slow
@settings(deadline=None)
@given(some.lists(TASK, min_size=1, max_size=4, unique=True), TASK)
def test_any_name_of_a_task_is_valid(tasks: list[str], service: str) -> None:
    """Names of objects and labels are valid and differ; the argument of the worker is the name, to the letter."""
    found = objects(cluster(workers=dict.fromkeys(tasks, 1), services=[service], keda=True, namespace="x"))
    for value in found:
        for name in (value["metadata"]["name"], *value["metadata"]["labels"].values()):
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), name
    names = [(value["kind"], value["metadata"]["name"]) for value in found]
    assert len(names) == len(set(names))
    said = {
        as_started(one["args"])[-1]
        for name, one in containers(found).items()
        if name.endswith("/worker") and one["args"][0] == "worker"
    }
    assert said == set(tasks)


def as_started(arguments: list[str]) -> list[str]:
    """What a kubelet makes of arguments: ``$$`` before a parenthesis is one ``$``, and no variable is named."""
    assert not any(re.search(r"(?<!\$)\$\(", one) for one in arguments)
    return [one.replace("$$(", "$(") for one in arguments]


@settings(deadline=None)
@given(TASK, TASK)
def test_names_are_valid_and_differ(one: str, other: str) -> None:
    """Two texts that need names at the same time never share one."""
    both = (one, other)
    assert len(named(one, both)) <= MAX_NAME
    assert (named(one, both) == named(other, both)) == (one == other)


def test_a_name_is_kept_as_far_as_it_can_be() -> None:
    """With a hyphen for an underscore, unless another one would have the same name then."""
    assert named("measure") == "measure"
    assert named("fetch_page", ["fetch_page", "store"]) == "fetch-page"
    assert named("fetch_page", ["fetch_page", "fetch-page"]).startswith("fetch-page-")
    assert named("Größe 3").startswith("gr-e-3-")


def test_a_wrong_name_is_refused_with_a_right_one() -> None:
    """The message names one that is taken."""
    with pytest.raises(ConfigurationError, match="--name my-survey-") as caught:
        check_name("My_Survey")
    proposed = str(caught.value).rpartition("--name ")[2].rstrip(".")
    assert check_name(proposed) == proposed


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_namespace, ["a", "0-a", "a" * 63], ["Bad_NS", "-a", "a-", "a.b", "a\n", "a" * 64]),
        (check_storage_class, ["fast", "a.b-c.0", "a" * 253], ["A b", "a..b", "a.-b", ".a", "a\n", "a" * 254]),
        (check_image, ["i", "Registry:5000/app@sha256:0"], ["", " ", "a b", "a\n", "\udcff"]),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(check: Callable[[str], None], good: list[str], bad: list[str]) -> None:
    """Each of these names by its own rule."""
    for name in good:
        check(name)
    for name in bad:
        with pytest.raises(ConfigurationError, match=r"^--"):
            check(name)


VALUE = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(some.characters(exclude_categories=["Cs"])),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(some.text(some.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(some.dictionaries(some.text(some.characters(exclude_categories=["Cs"])), VALUE, min_size=1))
def test_a_value_is_read_as_it_was(value: dict[str, Any]) -> None:
    """By a reader of YAML 1.1, whatever is in it."""
    assert yaml.safe_load(document(value, "a comment\nof two lines")) == value


@pytest.mark.parametrize(
    "word", ["yes", "Off", "null", "y", "1e3", "0x1", "1:30", "-", "", " a", "a: b", "#", "2026-11-30", "=", "~"]
)
def test_words_that_mean_something_stay_strings(word: str) -> None:
    """What a reader may take for a number, a truth, a time or nothing is in quotes."""
    assert yaml.safe_load(document({"word": word})) == {"word": word}
    assert json.dumps(word) in document({"word": word})
