"""A real sshd on the loopback, for the user who runs it: its keys, its configuration and that of its clients."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support.ports import free_port

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""An empty folder that Debian's sshd wants when root starts it; its own service makes it."""

LISTEN = """\
ListenAddress 127.0.0.1
Port {port}
"""

SERVER = """\
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
ClientAliveInterval {alive}
ClientAliveCountMax 3
"""

NO_PENALTIES = "PerSourcePenalties no\n"
"""Since OpenSSH 9.8 sshd refuses an address for a while from which connections broke off."""

CLIENT = """\
Host node*
  HostName 127.0.0.1
  HostKeyAlias node
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ServerAliveInterval 5
"""


def program() -> str | None:
    """Its absolute path, which it insists on; None if it is not installed."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def lacking() -> str:
    """Why there can be none; empty if all of it is there."""
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    missing += ["sshd"] if program() is None else []
    return f"there is no {', no '.join(missing)}" if missing else ""


def _takes(option: str, folder: Path) -> bool:
    """Whether this sshd knows a line of its configuration."""
    config = folder / "tried_config"
    config.write_text(f"HostKey {folder}/host\n{option}")
    return subprocess.run([str(program()), "-t", "-f", str(config)], capture_output=True, check=False).returncode == 0


class Sshd:
    """One in a folder; its clients go to ``node0``, ``node1`` and so on with ``ssh -F CONFIG``."""

    def __init__(self, folder: Path, *, alive: int = 1) -> None:
        """`alive`: after so many seconds of silence it asks a client, and closes after three that got no answer."""
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self.folder = folder
        self.config = folder / "ssh_config"
        self._log = folder / "sshd.log"
        port = free_port()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        (folder / "known_hosts").write_text(f"node {(folder / 'host.pub').read_text()}")
        server = SERVER.format(folder=folder, alive=alive)
        if _takes(NO_PENALTIES, folder):
            server += NO_PENALTIES
        (folder / "sshd_config").write_text(LISTEN.format(port=port) + server)
        (folder / "machine_config").write_text(server)
        self.config.write_text(CLIENT.format(port=port, folder=folder, user=getpass.getuser()))
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = [str(program()), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def refuses(self) -> str:
        """Why nobody is let in, in ssh's words and its own; empty if a command was executed."""
        deadline = time.monotonic() + 60
        while True:
            command = ["ssh", "-F", str(self.config), "node0", "true"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return ""
            if self._process.poll() is not None or time.monotonic() > deadline:
                return f"{done.stderr}{self.log}"
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)

    def machine_without_network(self) -> str:
        """A program that is a `ProxyCommand`: an sshd on a machine with another name, which has a loopback alone."""
        sshd = shlex.join([str(program()), "-i", "-f", str(self.folder / "machine_config")])
        begin = f"ip link set lo up; hostname far; exec {sshd}"
        return f"#!/bin/sh\nexec unshare --net --uts sh -c {shlex.quote(begin)}\n"

    def kill(self) -> None:
        """End the process that listens, with -9; connections that there are go on."""
        self._process.kill()
        self._process.wait(60)

    def start_again(self) -> None:
        """At the same port."""
        self._process = self._start()

    def close(self) -> None:
        """End it."""
        self.kill()
