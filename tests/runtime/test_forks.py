"""A forked child keeps neither locks nor bound sockets of its parent; the parent keeps both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from zmqpipeline.runtime.locks import PathLock

HEAD = """
import os, select, socket, sys, threading
from pathlib import Path
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.processes.run_folder import remove_abandoned, run_folder
from zmqpipeline.runtime.locks import PathLock
from zmqpipeline.runtime.transport.transport import Transport

def fork_and_die():
    '''The child writes a line, and stays until its standard input ends; the parent is gone at once.'''
    if os.fork():
        os._exit(0)
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)

place = sys.argv[1]
"""


def orphan(place: str, text: str) -> subprocess.Popen[str]:
    """Run a program until its forked child has outlived it; the child ends when its standard input does."""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD + text, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "forked\n"
    assert program.wait(60) == 0
    return program


def end(program: subprocess.Popen[str]) -> None:
    """Let the child go."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.close()
    assert program.stdout.read() == ""
    program.stdout.close()


def test_a_lock_is_not_inherited(tmp_path: Path) -> None:
    """The parent is dead, its child lives: the lock is free."""
    place = str(tmp_path / "x.ipc")
    child = orphan(place, "lock = PathLock(place)\nfork_and_die()")
    PathLock(place).release()
    end(child)


def test_a_child_that_lets_go_does_not_take_the_lock_away(tmp_path: Path) -> None:
    """`release` and `remove_socket` of the child's copy do nothing; the parent still holds it, the file is there."""
    place = tmp_path / "x.ipc"
    place.touch()
    text = """
lock = PathLock(place)
if not os.fork():
    lock.remove_socket()
    lock.release()
    lock.release()
    os._exit(0)
assert os.wait()[1] == 0
assert Path(place).exists()
try:
    PathLock(place)
except BlockingIOError:
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", HEAD + text, str(place)], capture_output=True, text=True, check=False)
    assert done.stdout == "held\n", done.stderr


@pytest.mark.parametrize("kind", ["ipc", "abstract", "tcp", "everywhere", "six"])
def test_a_bound_address_is_not_inherited(kind: str, tmp_path: Path) -> None:
    """Neither the listening socket nor an accepted one: the address is free, and a peer sees the end at once."""
    if kind in ("ipc", "abstract"):
        path = str(tmp_path / "a.ipc") if kind == "ipc" else f"@zp-{os.getpid()}-{tmp_path.name}"
        place, family, at = f"ipc://{path}", socket.AF_UNIX, path.replace("@", "\0")
    else:
        host = {"tcp": "127.0.0.1", "everywhere": "0.0.0.0", "six": "[::1]"}[kind]
        family = socket.AF_INET6 if kind == "six" else socket.AF_INET
        port = free_ports(1, [host.strip("[]")])[0]
        place, at = f"tcp://{host}:{port}", ("::1" if kind == "six" else "127.0.0.1", port)
    text = f"""
transport = Transport(Options(insecure=True))
transport.bind("workers", EndpointAddress(place))
peer = socket.socket({int(family)})
peer.connect({at!r})
peer.recv(10)  # the greeting: it is accepted
users = socket.create_server(("127.0.0.1", 0))
if os.fork():
    os._exit(0)
users.getsockname()  # the program's own sockets are left alone
assert users.fileno() >= 0 and os.fstat(users.fileno())
peer.settimeout(60)
while peer.recv(100):
    pass
print("forked", flush=True)
sys.stdin.read()
os._exit(0)
"""
    child = orphan(place, text)
    again = socket.socket(family)
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == "ipc":
        Path(path).unlink()
    again.bind(at if kind != "everywhere" else ("0.0.0.0", at[1]))
    again.listen()
    again.close()
    end(child)


def test_a_runs_folder_is_abandoned_although_a_child_lives(tmp_path: Path) -> None:
    """The next run removes it."""
    child = orphan(str(tmp_path), "with run_folder(Path(place)):\n    fork_and_die()")
    from zmqpipeline.processes.run_folder import remove_abandoned

    assert len(list(tmp_path.iterdir())) == 1
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []
    end(child)


def test_forks_and_locks_of_other_threads_do_not_meet(tmp_path: Path) -> None:
    """While threads take and release locks, each of fifty children has no descriptor of a lock's file."""
    text = """
over = threading.Event()
def busy(name):
    while not over.is_set():
        PathLock(f"{place}/{name}").release()
threads = [threading.Thread(target=busy, args=(name,)) for name in "abc"]
for thread in threads:
    thread.start()
for _ in range(50):
    child = os.fork()
    if not child:
        left = [n for n in os.listdir("/proc/self/fd") if ".lock" in os.path.realpath(f"/proc/self/fd/{n}")]
        os._exit(1 if left else 0)
    if os.waitpid(child, 0)[1]:
        print("left open")
over.set()
print("done")
"""
    command = [sys.executable, "-W", "ignore", "-c", HEAD + text, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout == "done\n", done.stderr
