"""The command `manifests`: what Kubernetes needs to run the app, as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from zmqpipeline.addresses import ROLE_OFFSETS
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import metadata_flag
from zmqpipeline.cli.kubernetes import Cluster, check_image, check_name, check_namespace, check_storage_class, named
from zmqpipeline.cli.output import tell
from zmqpipeline.cli.yaml_text import document
from zmqpipeline.definitions.registry import WorkerEntry
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.processes import import_app
from zmqpipeline.processes.worker_numbers import read_workers, worker_bounds
from zmqpipeline.runtime.security import flat_keys

KINDS = (
    "Secret",
    "Service",
    "PersistentVolumeClaim",
    "Job",
    "Deployment",
    "NetworkPolicy",
    "ScaledObject",
)
"""What may be written."""

MAX_PODS = MAX_UID = 2**31 - 1
"""Kubernetes takes no larger numbers of these."""

MAX_DRAIN = 10.0**9
"""Seconds that a pod may have to drain: 30 years, which Kubernetes takes."""

_kind = click.Choice(KINDS)

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
"""An amount, such as 500m of a core or 512Mi of memory."""


@click.command("manifests", epilog="Example: python -m app manifests --image registry.example/app:1 > app.yaml")
@click.option("--image", required=True, metavar="IMAGE", help="The image that has the app and its packages.")
@click.option("--name", metavar="NAME", help="What the names of all objects begin with. Default: that of the app.")
@click.option("--namespace", default="", metavar="NAME", help="Default: the one that kubectl is used with.")
@click.option(
    "--workers", multiple=True, metavar="N|TASK=N,...", help="Pods of workers for each task, or for one. Default: 1."
)
@click.option("--keda", is_flag=True, help="Scale the workers by KEDA, from none to --max-workers, as the run needs.")
@click.option(
    "--max-workers",
    type=click.IntRange(1, MAX_PODS),
    default=10,
    show_default=True,
    metavar="N",
    help="With --keda: pods of workers for each task, at most.",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the keys of this folder into the Secrets: the output is then secret. Default: placeholders.",
)
@click.option("--insecure", is_flag=True, help="Without keys: nothing is encrypted.")
@click.option("--only", multiple=True, type=_kind, metavar="KIND", help="Only these objects, such as Secret.")
@click.option("--without", multiple=True, type=_kind, metavar="KIND", help="All but these objects.")
@click.option("--journal-size", default="1Gi", show_default=True, metavar="SIZE", help="Of the journal's volume.")
@click.option("--storage-class", default="", metavar="NAME", help="Of the journal's volume. Default: the cluster's.")
@click.option("--port", type=click.IntRange(1, 65535 - max(ROLE_OFFSETS.values())), default=5550, show_default=True)
@click.option("--cpu", default="1", show_default=True, metavar="N", help="What each worker, and the server, asks for.")
@click.option("--memory", default="512Mi", show_default=True, metavar="SIZE", help="Likewise; more is not given.")
@click.option(
    "--user", type=click.IntRange(1, MAX_UID), default=1000, show_default=True, metavar="UID", help="Who the roles are."
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    metavar="S",
    help="Seconds that a stopped role waits for running items. Default: as the app says.",
)
@click.option("--python", default="python", show_default=True, metavar="PATH", help="The interpreter in the image.")
@metadata_flag
@click.pass_obj
def manifests(
    app: Pipeline,
    /,
    workers: Sequence[str],
    name: str | None,
    keys: Path | None,
    only: Sequence[str],
    without: Sequence[str],
    python: str,
    meta: Mapping[str, str],
    drain_timeout: float | None,
    **flags: object,
) -> int:
    """Write the manifests that run the app on Kubernetes, complete, to stdout.

    A Job for distributor and collector, with a volume for its journal; a Deployment of the workers of each task;
    Services, NetworkPolicies, and Secrets for the keys.
    """
    if keys is not None and flags["insecure"]:
        raise click.UsageError("--insecure is without keys, and --keys names some. Leave out one of them.")
    if flags["keda"] and not flags["namespace"]:
        raise click.UsageError("--keda wants --namespace NAME: KEDA, in a namespace of its own, asks for the metrics.")
    _check(flags)
    drain_timeout = app.options.drain_timeout if drain_timeout is None else drain_timeout
    if drain_timeout > MAX_DRAIN:
        raise ConfigurationError(f"--drain-timeout {drain_timeout:g} is too long for a pod. Give fewer seconds.")
    app.check()
    cluster = Cluster(
        name=check_name(name) if name is not None else named(app.name, most=30),
        command=[python, "-m", "zmqpipeline", "-A", import_app.from_here(import_app.target_of(app))],
        workers=_numbers(app, workers),
        successors=frozenset(task for task, entry in app.registry.workers.items() if _has_successors(entry)),
        services=app.service_names,
        drain_timeout=drain_timeout,
        metadata=meta,
        keys=_read(keys) if keys is not None else {},
        **flags,  # type: ignore[arg-type]
    )
    for text in texts(cluster, only, without):
        tell(text, nl=False)
    return 0


def texts(cluster: Cluster, only: Sequence[str] = (), without: Sequence[str] = ()) -> list[str]:
    """The documents of these kinds (none: of all), but for those."""
    return [
        document(value, comment)
        for value, comment in cluster.objects()
        if (not only or value["kind"] in only) and value["kind"] not in without
    ]


def _numbers(app: Pipeline, given: Sequence[str]) -> dict[str, int]:
    """How many pods of workers each task gets. Raises ConfigurationError for what cannot be."""
    read = read_workers(app, given) or {}
    everybody = read if isinstance(read, Mapping) else {}
    if any(isinstance(one, str) and "auto" in one for one in everybody.values()):
        raise ConfigurationError("--workers auto counts the cores of this machine. Say how many pods.")
    if any(isinstance(one, str) for one in everybody.values()):
        raise ConfigurationError("--workers MIN:MAX is for `run`. Say how many pods, or --keda --max-workers N.")
    for name in (*app.worker_types, *app.service_names):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"The name {name!r} cannot be written in a manifest. Rename it.") from error
    if any(isinstance(one, int) and one > MAX_PODS for one in everybody.values()):
        raise ConfigurationError(f"--workers: Kubernetes takes at most {MAX_PODS} pods of a Deployment. Ask for fewer.")
    return {task: bounds.most for task, bounds in worker_bounds(app, {"": 1, **everybody}, most=MAX_PODS).items()}


def _check(flags: Mapping[str, object]) -> None:
    """Raise ConfigurationError for what Kubernetes would refuse; a namespace or a class of storage may be left out."""
    check_image(str(flags["image"]))
    if namespace := str(flags["namespace"]):
        check_namespace(namespace)
    if storage_class := str(flags["storage_class"]):
        check_storage_class(storage_class)
    for flag in ("journal_size", "cpu", "memory"):
        _check_quantity(f"--{flag.replace('_', '-')}", str(flags[flag]))


def _check_quantity(flag: str, text: str) -> None:
    """Raise ConfigurationError if Kubernetes would not take it as an amount."""
    if _QUANTITY.fullmatch(text) is None or not text.strip("0.kKMGTPEim"):
        raise ConfigurationError(
            f"{flag} {text} is no amount as Kubernetes has it. Give a number above 0, with or without a unit, such as "
            "2, 500m, 512Mi or 4Gi."
        )


def _has_successors(entry: WorkerEntry) -> bool:
    """Whether the processes of this worker end after some items, to be replaced."""
    limits = [entry.keywords.get(name) for name in ("max_items", "max_memory")]
    limits += [getattr(entry.cls, name, None) for name in ("max_items", "max_memory")]
    return any(one is not None for one in limits)


def _read(folder: Path) -> dict[str, Mapping[str, str]]:
    """What the Secrets hold. Raises KeysError if a key is missing, or open to others."""
    found: dict[str, Mapping[str, str]] = {"server": flat_keys.of_server(folder)}
    for role in ("worker", "client"):
        found[role] = flat_keys.of_role(folder, role)
    return found
