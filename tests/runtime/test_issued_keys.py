"""Keys that a run issues: who is let in by them, for how long, and what is said of those that were withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.test_security import poll_for
from tests.support.patience import PATIENCE
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import KeysUnavailable
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected
from zmqpipeline.runtime.security import keyfiles
from zmqpipeline.runtime.security.issued import (
    HandedKeys,
    KeyIssuer,
    RunKeys,
    issued_to,
    keys_for_worker,
    withdrawn_from,
)
from zmqpipeline.runtime.transport.transport import Transport


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of keys."""
    keyfiles.make_all(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def issuer(keys: Path) -> KeyIssuer:
    """That of one run."""
    return KeyIssuer(keys.parent / "issued", keyfiles.server_public(keys))


def server_of(stack: ExitStack, keys: Path, issuer: KeyIssuer, hop: str = "workers") -> Transport:
    """A bound role of this run."""
    options = Options(keys=str(keys), linger=0.0)
    server = stack.enter_context(Transport(options, run_keys=RunKeys(admitted=issuer.folder)))
    server.bind(hop, EndpointAddress("tcp://127.0.0.1:0"))
    return server


def gets_in(server: Transport, handed: HandedKeys, hop: str = "workers") -> bool:
    """Whether a worker with these keys, and no folder, is connected; waits for it as long as that may take."""
    return Connected(hop) in arrivals_of(server, handed, PATIENCE, lambda found: Connected(hop) in found, hop)


def is_kept_out(server: Transport, handed: HandedKeys, is_said: Callable[[], object] = lambda: True) -> bool:
    """Whether such a worker is not connected for a while, nor until something is said of it."""
    found = arrivals_of(server, handed, 0.6, lambda found: Connected("workers") in found)
    found += arrivals_of(server, handed, PATIENCE, lambda found: Connected("workers") in found or is_said())
    return Connected("workers") not in found


def arrivals_of(
    server: Transport, handed: HandedKeys, seconds: float, until: Callable[[list[Any]], object], hop: str = "workers"
) -> list[Any]:
    """What comes of a worker with these keys, and no folder, until it is enough or the time is over."""
    with Transport(Options(linger=0.0, encryption="required"), run_keys=RunKeys(handed=handed)) as client:
        client.connect(hop, server.address(hop))
        return poll_for(seconds, server, client, until=until)


def test_a_pair_is_let_in_until_it_is_withdrawn(
    keys: Path, issuer: KeyIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """As a worker, by the run that has issued it; afterwards it is refused, with the name of who had it."""
    handed = issuer.issue("worker 2 of 'C'")
    assert issued_to(issuer.folder, handed.public.encode()) == "worker 2 of 'C'"
    with ExitStack() as stack:
        server = server_of(stack, keys, issuer)
        assert gets_in(server, handed)
        issuer.withdraw(handed.public)
        assert is_kept_out(server, handed, lambda: "refused the key of the worker 2 of 'C'" in caplog.text)
    assert issued_to(issuer.folder, handed.public.encode()) is None
    assert withdrawn_from(issuer.folder, handed.public.encode()) == "worker 2 of 'C'"
    assert "refused the key of the worker 2 of 'C'" in caplog.text
    assert handed.secret not in caplog.text
    issuer.withdraw(handed.public)


def test_another_run_lets_nobody_in_by_it(keys: Path, issuer: KeyIssuer) -> None:
    """Though both have the same folder of keys, and so does a role that has no such list."""
    handed = issuer.issue("worker of 'C'")
    other = KeyIssuer(keys.parent / "other", keyfiles.server_public(keys))
    with ExitStack() as stack:
        assert is_kept_out(server_of(stack, keys, other), handed)
        plain = stack.enter_context(Transport(Options(keys=str(keys), linger=0.0)))
        plain.bind("workers", EndpointAddress("tcp://127.0.0.1:0"))
        assert is_kept_out(plain, handed)


@pytest.mark.parametrize("hop", ["acks", "status", "metadata", "clients"])
def test_it_is_the_key_of_a_worker_alone(hop: str, keys: Path, issuer: KeyIssuer) -> None:
    """It opens the hops of workers, and no other."""
    handed = issuer.issue("worker of 'C'")
    folder = keys.parent / "stolen"
    folder.mkdir(mode=0o700)
    role = {"acks": "distributor", "status": "client", "metadata": "metadata", "clients": "client"}[hop]
    for name, text in (
        ("server.pub", f"public = {handed.server}\n"),
        (f"{role}.secret", f"role = {role}\npublic = {handed.public}\nsecret = {handed.secret}\n"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    with ExitStack() as stack:
        server = server_of(stack, keys, issuer, hop)
        client = stack.enter_context(Transport(Options(keys=str(folder), linger=0.0)))
        client.connect(hop, server.address(hop))
        assert Connected(hop) not in poll_for(0.6, server, client, until=lambda found: Connected(hop) in found)


def test_a_list_that_others_may_read_lets_nobody_in(
    keys: Path, issuer: KeyIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """As with the folder of keys."""
    handed = issuer.issue("worker of 'C'")
    issuer.folder.chmod(0o755)
    with ExitStack() as stack:
        server = server_of(stack, keys, issuer)
        assert is_kept_out(server, handed, lambda: "open to other users (mode 755)" in caplog.text)
    assert "open to other users (mode 755)" in caplog.text


def test_a_full_disk_is_said(issuer: KeyIssuer) -> None:
    """A key that nobody would let in is not handed out, and the same command may succeed later."""
    issuer.folder.rmdir()
    with pytest.raises(KeysUnavailable, match="key of the worker of 'C' cannot be noted") as raised:
        issuer.issue("worker of 'C'")
    assert raised.value.exit_status == 75
    with pytest.raises(KeysUnavailable, match="keys of this run cannot be noted"):
        KeyIssuer(issuer.folder / "none", b"")


def test_a_key_is_withdrawn_with_its_worker_or_if_there_is_none(issuer: KeyIssuer) -> None:
    """Before anybody hears of the worker's end; without an issuer there is no key."""
    seen: list[tuple[str, str | None]] = []

    def exited(child: str) -> None:
        seen.append((child, issued_to(issuer.folder, keys["public"].encode())))

    with keys_for_worker(issuer, "worker of 'C'", exited) as (keys, ended):
        assert issued_to(issuer.folder, keys["public"].encode()) == "worker of 'C'"
    ended("child")
    assert seen == [("child", None)]
    handed = []
    with (  # noqa: PT012 - the start raises
        pytest.raises(OSError, match="no process"),
        keys_for_worker(issuer, "worker of 'C'", exited) as (keys, _),
    ):
        handed.append(keys["public"].encode())
        raise OSError("no process")
    assert issued_to(issuer.folder, handed[0]) is None
    with keys_for_worker(None, "worker of 'C'", exited) as (keys, ended):
        assert (dict(keys), ended) == ({}, exited)


def test_a_secret_is_not_shown() -> None:
    """Not even by who prints the object."""
    assert "s3cret" not in repr(HandedKeys("p", "s3cret", "s"))
