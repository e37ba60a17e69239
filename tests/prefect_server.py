"""A standing Prefect server on loopback, and the command line as it is used with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
MAIN = "from nightisp.__main__ import program; program()"


class Server:
    def __init__(self, home: Path, port: int, variables: dict[str, str]) -> None:
        self.pid = 0
        self.api = f"http://127.0.0.1:{port}/api"
        bare = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "NIGHTISP_"))}
        self.environment = bare | {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PYTHONPATH": str(REPOSITORY),
            **variables,
        }

    def command(self, folder: Path, *arguments: str, api: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"PREFECT_API_URL": self.api if api is None else api} if api != "" else {})
        command = [sys.executable, "-c", MAIN, *arguments]
        return subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=120
        )

    def ask(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.api}/{path}", body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=20).read())

    def finished(self, run: str, patience_s: float = 90) -> dict[str, Any]:
        """Return a flow run once it is over."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            found: dict[str, Any] = self.ask(f"flow_runs/{run}")
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            time.sleep(0.3)
        pytest.fail(f"the run does not come to an end: {found['state']}")

    def finished_tasks(self, run: str, count: int) -> list[str]:
        """Return the names of the task runs of a flow run, once that many are over: they are told a little later."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}}
        for _ in range(100):
            found = self.ask("task_runs/filter", wanted)
            if len(found) == count and all(task["state_type"] == "COMPLETED" for task in found):
                break
            time.sleep(0.2)
        return sorted(task["name"] for task in found)


@contextmanager
def standing(home: Path, **variables: str) -> Iterator[Server]:
    """Start a server and wait until it answers; `variables` are its environment's, and that of `Server.command`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Server(home, port, variables)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=made.environment, stdout=log, stderr=log)
        try:
            for _ in range(600):
                assert process.poll() is None, (home / "server.log").read_text()[-2000:]
                try:
                    made.ask("health")
                    break
                except OSError:
                    time.sleep(0.2)
            made.pid = process.pid
            yield made
        finally:
            process.terminate()
            process.wait(30)
