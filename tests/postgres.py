"""PostgreSQL of the system's package, run for a while on loopback in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "prefect"


def programs() -> Path | None:
    """Return the folder of initdb and postgres, None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


@dataclass
class Postgres:
    bin: Path
    port: int
    pid: int

    @property
    def url(self) -> str:
        """As Prefect wants it."""
        return f"postgresql+asyncpg://{NAME}:{NAME}@127.0.0.1:{self.port}/{NAME}"

    def ask(self, query: str) -> str:
        """Return the single value that a query gives."""
        command = [self.bin / "psql", f"postgresql://{NAME}:{NAME}@127.0.0.1:{self.port}/{NAME}", "-Atc", query]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server with the database `prefect`; it does not run as root, so root runs it as the package's user."""
    folder = programs()
    assert folder
    who: dict[str, Any] = {}
    data = Path(tempfile.mkdtemp(prefix="nightisp-pg-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(data, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = data / "password"
    secret.write_text(NAME)
    secret.chmod(0o644)
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": "/", "timeout": 120, **who}
    try:
        cluster = data / "cluster"
        made = [folder / "initdb", "-D", cluster, "-U", NAME, "-A", "scram-sha-256", f"--pwfile={secret}", "-N"]
        subprocess.run([*made, "-E", "UTF8", "--locale=C.UTF-8"], **quiet)
        told = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {port}"
        control = [folder / "pg_ctl", "-D", cluster, "-w"]
        subprocess.run([*control, "-o", told, "-l", cluster / "log", "start"], **quiet)
        try:
            pid = int((data / "cluster" / "postmaster.pid").read_text().split()[0])
            running = Postgres(folder, port, pid)
            base = f"postgresql://{NAME}:{NAME}@127.0.0.1:{port}/postgres"
            subprocess.run([folder / "psql", base, "-qc", f"CREATE DATABASE {NAME}"], check=True, timeout=30)
            yield running
        finally:
            subprocess.run([*control, "-m", "fast", "stop"], **quiet)
    finally:
        shutil.rmtree(data)
