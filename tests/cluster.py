"""A Dask cluster of processes on loopback TCP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

REPOSITORY = Path(__file__).parents[1]


@dataclass
class Cluster:
    address: str
    workers: dict[str, subprocess.Popen[bytes]]
    scheduler: subprocess.Popen[bytes]
    folder: Path

    def log(self, worker: str) -> str:
        """Return what a worker said."""
        return (self.folder / f"{worker}.log").read_text()


@contextmanager
def cluster(folder: Path, resources: Mapping[str, str], threads: int = 1, **variables: str) -> Iterator[Cluster]:
    """Start a scheduler, and workers by name with what each offers, as `GPU=1`."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    started: dict[str, subprocess.Popen[bytes]] = {}
    # What a run of Prefect in this process has set, so that it is quiet, is not for workers: tests read their logs.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**bare, "PYTHONPATH": str(REPOSITORY), **variables}

    def start(name: str, *arguments: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            started[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    try:
        start("scheduler", "scheduler", "--port", str(port))
        for name, offered in resources.items():
            start(
                name,
                "worker",
                address,
                "--nthreads",
                str(threads),
                "--no-nanny",
                "--name",
                name,
                "--resources",
                offered,
            )
        with Client(address, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(len(resources), timeout=120)
        yield Cluster(address, {name: started[name] for name in resources}, started["scheduler"], folder)
    finally:
        for process in reversed(started.values()):
            process.terminate()
        for process in started.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
