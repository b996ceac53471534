"""What `manifests` writes of an app, as values: the objects of Kubernetes. Pure: nothing is asked, read or written.

Who restarts what, and where the journal is:

- The distributor and the collector are one container, of `run --workers 0`. `run` starts a distributor again that dies.
- The container's end is the pod's, and a Job makes another pod: after a kill, an eviction, a lost node or a full disk
  (75), not after failed items (1) or a wrong setting (2). Its run id is that of the Job, so the next pod goes on.
- The journal is on a volume that one pod mounts at a time, and outlives the Job.
- The workers of each task are a Deployment. A worker stays when a run is over, and serves the next one.

A pod is killed MARGIN seconds after its roles have drained at the latest.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zmqpipeline.addresses import ROLE_OFFSETS
from zmqpipeline.errors import ConfigurationError

MARGIN = 10
"""Seconds that a pod has beyond the time its roles drain for."""

MAX_NAME = 40
"""Letters of what this gives a name to: Kubernetes adds some to that of a pod, which may have 63."""

MAX_LABEL, MAX_SUBDOMAIN = 63, 253
"""Letters of a namespace, and of a class of storage."""

METRICS_PORT = 9108

PLACEHOLDER = """\
A placeholder, with which no role starts. To have it filled, name a folder that `keygen DIR` has made: --keys DIR.
To leave it out of what you keep: --without Secret."""

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_SECRETS, _KEYS = "/etc/zmqpipeline-keys", "/run/zmqpipeline"
_RUN_ID = "metadata.labels['batch.kubernetes.io/controller-uid']"

Object = dict[str, Any]
"""One object of Kubernetes."""


def check_name(name: str) -> str:
    """The name. Raises ConfigurationError if Kubernetes would refuse it for a Service, which is the strictest."""
    if len(name) > MAX_NAME - 10 or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be a name of objects of Kubernetes. Use small letters, digits and '-', a letter first "
            f"and no '-' last, at most {MAX_NAME - 10} of them: --name {named(name, most=MAX_NAME - 10)}."
        )
    return name


def check_namespace(name: str) -> None:
    """Raise ConfigurationError if no namespace can have this name: it is a label of RFC 1123."""
    if len(name) > MAX_LABEL or not re.fullmatch(_LABEL, name):
        raise ConfigurationError(
            f"--namespace {name!r} cannot be the name of a namespace. Use small letters, digits and '-', which is "
            f"neither first nor last, at most {MAX_LABEL} of them."
        )


def check_storage_class(name: str) -> None:
    """Raise ConfigurationError if no class of storage can have this name: it is a subdomain of DNS."""
    if len(name) > MAX_SUBDOMAIN or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
        raise ConfigurationError(
            f"--storage-class {name!r} cannot be the name of a class of storage. Use small letters, digits, '-' and "
            f"'.', a letter or digit beside each '.', first and last, at most {MAX_SUBDOMAIN} of them."
        )


def check_image(name: str) -> None:
    """Raise ConfigurationError if it cannot name an image."""
    if not name or " " in name or not name.isprintable():
        raise ConfigurationError(
            f"--image {name!r} names no image. Give it without blanks, such as registry.example/app:1."
        )


def named(text: str, others: Iterable[str] = (), *, most: int = MAX_NAME) -> str:
    """A name made of any text, such as that of a task: as it is, with ``-`` for ``_``, or what is left with a digest.

    It has at most so many letters. None of `others`, texts that need names of the same kind, gets the same.
    """
    simple = text.replace("_", "-")
    is_alone = all(one == text or one.replace("_", "-") != simple for one in others)
    if is_alone and len(simple) <= most and _NAME.fullmatch(simple):
        return simple
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=3).hexdigest()
    plain = plain if plain[:1].isalpha() else f"x{plain and '-'}{plain}"
    return f"{plain[: most - len(digest) - 1].rstrip('-')}-{digest}"


@dataclass(frozen=True)
class Cluster:
    """What the objects are to be like."""

    name: str
    image: str
    command: Sequence[str]
    """What starts a role, up to the word that names it: ``python -m zmqpipeline -A survey:app``."""
    workers: Mapping[str, int]
    """Pods of the worker of each task; empty: the app has services only."""
    successors: frozenset[str] = frozenset()
    """Tasks whose workers end after some items, to be replaced: that is done in the pod."""
    services: Sequence[str] = ()
    namespace: str = ""
    port: int = 5550
    drain_timeout: float = 25.0
    journal_size: str = "1Gi"
    storage_class: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False
    """Without keys."""
    keda: bool = False
    max_workers: int = 10
    cpu: str = "1"
    memory: str = "512Mi"
    user: int = 1000
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the Secrets hold, by the kind of role: server, worker, client. Empty: what is to be put in their place."""

    def objects(self) -> Iterator[tuple[Object, str]]:
        """Each object, with what is said above it."""
        if not self.insecure:
            yield from self._secrets()
        if self.workers:
            yield from self._server()
            for task, number in self.workers.items():
                yield self._worker(task, number), f"The workers of the task {task!a}."
        if self.services:
            yield from self._broker()
        yield from self._policies()
        if self.keda and self.workers:
            yield from self._scaling()

    # the parts of objects ---------------------------------------------------------------------------------------------

    def _of(self, what: str) -> str:
        return f"{self.name}-{what}"

    def worker_name(self, kind: str, task: str) -> str:
        """What the Deployment of a worker is called: of a task, or of a service."""
        others = self.services if kind == "service" else self.workers
        return self._of(f"{kind}-{named(task, others, most=20)}")

    def _labels(self, component: str) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/component": component}

    def _object(self, version: str, kind: str, name: str, **rest: Any) -> Object:
        metadata: Object = {"name": name, **({"namespace": self.namespace} if self.namespace else {})}
        metadata["labels"] = {"app.kubernetes.io/name": self.name}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}

    def _endpoint(self, host: str) -> list[str]:
        return ["--endpoint", f"tcp://{host}:{self.port}"]

    def _environ(self, *, keys: bool = True) -> list[Object]:
        texts = {"ZMQPIPELINE_DRAIN_TIMEOUT": f"{self.drain_timeout:g}", "ZMQPIPELINE_LOG_LEVEL": "info"}
        texts["ZMQPIPELINE_LOG_JSON"] = "true"
        if keys and not self.insecure:
            texts["ZMQPIPELINE_KEYS"] = f"{_KEYS}/keys"
        return [{"name": name, "value": value} for name, value in texts.items()]

    def _container(self, name: str, arguments: Sequence[str], **rest: Any) -> Object:
        mounts = [{"name": "tmp", "mountPath": "/tmp"}, *rest.pop("mounts", ())]
        if not self.insecure:
            mounts.append({"name": "keys", "mountPath": _KEYS})
            if name == "keys":
                mounts.append({"name": "secret", "mountPath": _SECRETS, "readOnly": True})
        return {
            "name": name,
            "image": self.image,
            "command": [*map(_literal, self.command)],
            "args": [*map(_literal, arguments)],
            "env": [*self._environ(keys=name != "keys"), *rest.pop("env", ())],
            "volumeMounts": mounts,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            **rest,
        }

    def _pod(self, component: str, keys: str, container: Object, volumes: Sequence[Object] = (), **rest: Any) -> Object:
        """A template; `keys` is the kind of role whose Secret it gets."""
        labels = {**self._labels(component), **rest.pop("labels", {})}
        spec: Object = {
            **rest,
            "terminationGracePeriodSeconds": math.ceil(self.drain_timeout) + MARGIN,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": self.user,
                "runAsGroup": self.user,
                "fsGroup": self.user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        all_volumes = [{"name": "tmp", "emptyDir": {}}, *volumes]
        if not self.insecure:
            # the files of a Secret are readable by a group: the roles want them closed to all others
            spec["initContainers"] = [self._container("keys", ["keygen", "--copy", _SECRETS, f"{_KEYS}/keys"])]
            all_volumes += [
                {"name": "keys", "emptyDir": {"medium": "Memory"}},
                {"name": "secret", "secret": {"secretName": self._of(f"{keys}-keys"), "defaultMode": 0o440}},
            ]
        return {
            "metadata": {"labels": labels},
            "spec": {**spec, "containers": [container], "volumes": all_volumes},
        }

    def _insecure(self) -> list[str]:
        return ["--insecure"] if self.insecure else []

    def _service(self, name: str, component: str, ports: Mapping[str, int], *, headless: bool = True) -> Object:
        listed = [{"name": name, "port": port} for name, port in ports.items()]
        # no virtual address: the name is that of the pod, also before it is ready
        head = {"clusterIP": "None", "publishNotReadyAddresses": True} if headless else {}
        spec = {**head, "selector": self._labels(component), "ports": listed}
        return self._object("v1", "Service", name, spec=spec)

    def _ports(self, *roles: str) -> dict[str, int]:
        return {role: self.port + ROLE_OFFSETS[role] for role in roles}

    # the objects ------------------------------------------------------------------------------------------------------

    def _secrets(self) -> Iterator[tuple[Object, str]]:
        kinds = {
            "server": bool(self.workers or self.services),
            "worker": True,
            "client": self.keda or bool(self.services),
        }
        for kind in (kind for kind, is_used in kinds.items() if is_used):
            about, held = f"The keys of each {kind}.", dict(self.keys.get(kind, {}))
            if not held:
                about += f"\n{PLACEHOLDER}"
                held = {"server.pub": "a placeholder: see --keys of `manifests`\n"}
            name = self._of(f"{kind}-keys")
            yield self._object("v1", "Secret", name, type="Opaque", stringData=held), about

    def _server(self) -> Iterator[tuple[Object, str]]:
        ports = self._ports("workers", "results", "status")
        yield self._service(self.name, "server", ports), "Where workers find the distributor and the collector."
        storage = {"storageClassName": self.storage_class} if self.storage_class else {}
        claim = {
            "accessModes": ["ReadWriteOnce"],
            **storage,
            "resources": {"requests": {"storage": self.journal_size}},
        }
        yield (
            self._object("v1", "PersistentVolumeClaim", self._of("journal"), spec=claim),
            "The journal, and the tables of the app in it.",
        )
        yield (
            self._job(),
            (
                "Distributor and collector. Killed, evicted, a lost node, a full disk (75): started again, the run\n"
                "goes on. Failed items (1) and a wrong setting (2) are final."
            ),
        )

    def _job(self) -> Object:
        pairs = [word for key, value in self.metadata.items() for word in ("--meta", f"{key}={value}")]
        where = [*self._endpoint("*"), *self._insecure(), "--journal", f"/journal/{self.name}.db"]
        asks = [*map(_literal, self.command), "status", "--json", *self._endpoint("127.0.0.1")]
        probe = {"exec": {"command": asks}, "timeoutSeconds": 20}
        container = self._container(
            "server",
            ["run", "--workers", "0", *where, *pairs],
            # the id of the Job: its pods go on with its run; another Job begins a run of its own
            env=[{"name": "ZMQPIPELINE_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": _RUN_ID}}}],
            mounts=[{"name": "journal", "mountPath": "/journal"}],
            resources={"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": {"memory": self.memory}},
            startupProbe={**probe, "periodSeconds": 10, "failureThreshold": 60},
            livenessProbe={**probe, "periodSeconds": 60, "failureThreshold": 5},
        )
        volume = {"name": "journal", "persistentVolumeClaim": {"claimName": self._of("journal")}}
        template = self._pod("server", "server", container, [volume], restartPolicy="Never")
        rules = [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "server", "operator": "In", "values": [1, 2]}},
        ]
        if not self.insecure:
            # a Secret that holds no keys: that does not pass by itself
            final = {"containerName": "keys", "operator": "In", "values": [2]}
            rules.append({"action": "FailJob", "onExitCodes": final})
        spec = {"backoffLimit": 20, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": rules}}
        return self._object("batch/v1", "Job", self.name, spec={**spec, "template": template})

    def _deployment(self, name: str, number: int | None, template: Object, **rest: Any) -> Object:
        selector = {"matchLabels": template["metadata"]["labels"]}
        replicas = {"replicas": number} if number is not None else {}
        spec = {**replicas, **rest, "selector": selector, "template": template}
        return self._object("apps/v1", "Deployment", name, spec=spec)

    def _worker(self, task: str, number: int) -> Object:
        processes = ["--processes", "1"] if task in self.successors else []
        arguments = ["worker", "--stay", *processes, *self._endpoint(self.name), "--", task]
        # KEDA sets the number, which must not be set back when this is applied again
        return self._workers("worker", task, None if self.keda else number, arguments)

    def _workers(self, kind: str, task: str, number: int | None, arguments: Sequence[str]) -> Object:
        name = self.worker_name(kind, task)
        resources = {"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": {"memory": self.memory}}
        container = self._container("worker", arguments, resources=resources)
        template = self._pod(kind, "worker", container, labels={"zmqpipeline/worker": name})
        return self._deployment(name, number, template)

    def _broker(self) -> Iterator[tuple[Object, str]]:
        name, ports = self._of("broker"), self._ports("service-clients", "service-workers")
        yield self._service(name, "broker", ports), "Where clients and workers of services find the broker."
        container = self._container("broker", ["service", *self._endpoint("*"), *self._insecure()])
        template = self._pod("broker", "server", container)
        # two brokers would each have some of the workers
        recreate = {"type": "Recreate"}
        yield self._deployment(name, 1, template, strategy=recreate), "The broker of services."
        for service in self.services:
            arguments = ["service-worker", *self._endpoint(name), "--", service]
            yield self._workers("service", service, 1, arguments), f"The workers of the service {service!a}."

    def _policies(self) -> Iterator[tuple[Object, str]]:
        if self.workers:
            ways = [("worker", self._ports("workers", "results"))]
            if self.keda:
                ways.append(("metrics", self._ports("status")))
            yield self._policy(self.name, "server", ways), "Workers alone reach the distributor and the collector."
            yield self._policy(self._of("worker"), "worker", []), "Nobody connects to a worker."
        if self.services:
            ways = [("service", self._ports("service-workers")), ("client", self._ports("service-clients"))]
            yield (
                self._policy(self._of("broker"), "broker", ways),
                f"Clients are pods with these two labels: {self.name}, client.",
            )
            yield self._policy(self._of("service"), "service", []), "Nobody connects to the worker of a service."

    def _policy(self, name: str, component: str, ways: Sequence[tuple[str, Mapping[str, int]]]) -> Object:
        ingress = [
            {
                "from": [{"podSelector": {"matchLabels": self._labels(other)}}],
                "ports": [{"port": port} for port in ports.values()],
            }
            for other, ports in ways
        ]
        spec = {"podSelector": {"matchLabels": self._labels(component)}, "policyTypes": ["Ingress"], "ingress": ingress}
        return self._object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)

    def _scaling(self) -> Iterator[tuple[Object, str]]:
        name = self._of("metrics")
        yield (
            self._service(name, "metrics", {"metrics": METRICS_PORT}, headless=False),
            "What KEDA, or Prometheus, reads.",
        )
        flags = ["--host", "0.0.0.0", "--port", str(METRICS_PORT)]
        container = self._container(
            "metrics",
            ["metrics", *flags, *self._endpoint(self.name)],
            ports=[{"name": "metrics", "containerPort": METRICS_PORT}],
            readinessProbe={"tcpSocket": {"port": METRICS_PORT}},
            livenessProbe={"tcpSocket": {"port": METRICS_PORT}, "periodSeconds": 30},
        )
        yield self._deployment(name, 1, self._pod("metrics", "client", container)), "It asks the distributor when read."
        for task in self.workers:
            yield (
                self._scaled(task),
                f"As many workers as the task {task!a} could use; none while it has nothing to do.",
            )

    def _scaled(self, task: str) -> Object:
        label = task.replace("\\", "\\\\").replace('"', '\\"')
        trigger = {
            "type": "metrics-api",
            "metricType": "AverageValue",
            "metadata": {
                # KEDA is in a namespace of its own
                "url": f"http://{self._of('metrics')}.{self.namespace}:{METRICS_PORT}/metrics",
                "format": "prometheus",
                "valueLocation": f'zmqpipeline_desired_workers{{task="{label}"}}',
                "targetValue": "1",
            },
        }
        name = self.worker_name("worker", task)
        spec = {
            "scaleTargetRef": {"name": name},
            "pollingInterval": 15,
            "cooldownPeriod": 120,
            "minReplicaCount": 0,
            "maxReplicaCount": max(self.max_workers, self.workers[task]),
            # nobody answers: there is no run
            "fallback": {"failureThreshold": 8, "replicas": 0},
            "triggers": [trigger],
        }
        return self._object("keda.sh/v1alpha1", "ScaledObject", name, spec=spec)


def _literal(word: str) -> str:
    """A word of a command, which Kubernetes leaves as it is: it would fill in ``$(NAME)``."""
    return word.replace("$(", "$$(")
