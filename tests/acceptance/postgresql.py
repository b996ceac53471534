"""Rows into PostgreSQL, by the program of the page: ``python -m tests.acceptance.postgresql``.

A server is made in a folder and started there; distributor, worker and collector are killed so often on the way. That
needs `postgres` and `initdb` in the PATH; where they are not, this says so and ends with status 3 (with
``--if-installed``: 0).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg

from tests.acceptance.conftest import ROOT, Program, Workshop, wait_until
from tests.support.pages import blocks_of

PAGE = ROOT / "docs/howto/postgresql.md"


NOT_INSTALLED = 3


def is_installed() -> bool:
    """Whether there is a PostgreSQL to make a server of."""
    return all(shutil.which(one) for one in ("postgres", "initdb"))


@contextmanager
def server() -> Iterator[str]:
    """The address of a new server, which is gone afterwards. `is_installed` says whether there can be one."""
    found = shutil.which("postgres"), shutil.which("initdb")
    folder = Path(tempfile.mkdtemp(prefix="zp-pg-"))
    # it does not run as root
    who = "nobody" if os.geteuid() == 0 else ""
    if who:
        os.chown(folder, pwd.getpwnam(who).pw_uid, -1)
    how = {"user": who or None, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        make = [
            str(found[1]),
            "-D",
            f"{folder}/data",
            "-U",
            "rows",
            "-A",
            "trust",
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
        ]
        subprocess.run(make, check=True, timeout=120, **how)  # type: ignore[call-overload]
        run = [str(found[0]), "-D", f"{folder}/data", "-k", str(folder), "-c", "listen_addresses="]
        process = subprocess.Popen(run, **how)  # type: ignore[call-overload]
        try:
            address = f"host={folder} user=rows dbname=postgres"
            wait_until(lambda: _answers(address), "the database", 120.0)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    finally:
        shutil.rmtree(folder)


def _answers(address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


def done(address: str) -> int:
    """How many rows there are by now."""
    with psycopg.connect(address) as db:
        try:
            row = db.execute("SELECT count(*) FROM squares").fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
    return 0 if row is None else int(row[0])


def load(workshop: Workshop, address: str, rows: int, kills: int) -> tuple[int, int, int]:
    """Run the program of the page; its count(*), count(DISTINCT number) and how many squares are right."""
    (program,) = [one.text for one in blocks_of(PAGE) if one.rest == "rows.py"]
    workshop.write("rows.py", program)

    def start() -> list[Program]:
        roles = (("distributor",), ("worker",), ("collector", "--journal", "rows.journal"))
        return [workshop.start("-m", "rows", *role, DATABASE=address, ROWS=str(rows)) for role in roles]

    for kill in range(1, kills + 1):
        roles = start()
        least = rows * kill // (kills + 2)
        wait_until(lambda least=least: done(address) >= least, f"{least} rows", 300)  # type: ignore[misc]
        for role in roles:
            os.kill(role.pid, signal.SIGKILL)
            role.wait()
    roles = start()
    ended = [role.wait(300) for role in roles]
    assert ended == [0, 0, 0], (ended, roles[0].err, roles[2].err)
    with psycopg.connect(address) as db:
        found = db.execute(
            "SELECT count(*), count(DISTINCT number), count(*) FILTER (WHERE square = number::numeric ^ 2) FROM squares"
        ).fetchone()
    assert found is not None
    return found[0], found[1], found[2]


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--kills", default=20, show_default=True, help="So often everything is killed.")
@click.option("--if-installed", is_flag=True, help="End with status 0 where there is no PostgreSQL.")
def main(rows: int, kills: int, *, if_installed: bool) -> None:
    """Run it, and print what is in the table."""
    if not is_installed():
        click.echo("There is no PostgreSQL server here: `postgres` and `initdb` are not in the PATH.", err=True)
        sys.exit(0 if if_installed else NOT_INSTALLED)
    with tempfile.TemporaryDirectory(prefix="zp-rows-") as folder, server() as address:
        workshop, began = Workshop(Path(folder)), time.monotonic()
        try:
            found = load(workshop, address, rows, kills)
        finally:
            workshop.close()
    click.echo(f"{kills} kills, {time.monotonic() - began:.0f} s: count(*), count(DISTINCT number), right: {found}")
    assert found == (rows, rows, rows), found


if __name__ == "__main__":
    main()
