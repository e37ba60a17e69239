"""The lab of docker-compose.yml, as far as that goes without Docker: its services fit together, its commands exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.quiet import EMBEDDED
from nightisp.cli.ui import SETTINGS

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "nightisp-lab"}
MODULES = {
    "prefect": ["-m", "prefect"],
    "dask": ["-m", "dask"],
    "nightisp": ["-c", "from nightisp.__main__ import program; program()"],
}
COMMANDS = {name: shlex.split(s["command"]) for name, s in OURS.items() if isinstance(s["command"], str)}


def test_services_wait_for_services_that_tell_when_they_are_ready() -> None:
    assert set(COMMANDS) == {"server", "scheduler", "gpu", "cpu", "worker", "deploy"}
    for service in SERVICES.values():
        needed = service.get("depends_on", {})
        conditions = {name: needed[name]["condition"] for name in needed} if isinstance(needed, dict) else {}
        assert set(needed) <= set(SERVICES)
        for name, condition in conditions.items():
            assert condition == "service_completed_successfully" or "healthcheck" in SERVICES[name]


def test_every_server_writes_down_many_task_runs_at_once() -> None:
    def recorder(settings: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in settings.items() if "_TASK_RUN_RECORDER_" in name}

    assert recorder(OURS["server"]["environment"]) == recorder(SETTINGS) == recorder(EMBEDDED) != {}


def test_only_this_machine_can_reach_it_and_secrets_are_asked_for() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    given = re.findall(r"(?:PASSWORD|SECRET\w*|USER|KEY\w*): (.*)", TEXT)
    assert len(given) >= 5
    assert all(value == "prefect" or value.startswith("${") for value in given)


def test_the_extras_of_the_image_are_those_of_the_package() -> None:
    (extras,) = {service["build"]["args"]["EXTRAS"] for service in OURS.values()}
    command = [sys.executable, "scripts/requirements.py", extras]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert {"prefect-dask", "s3fs", "prefect"} <= {re.split(r"[>=<\[]", line)[0] for line in printed.splitlines()}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_and_their_options_exist(name: str) -> None:
    words = COMMANDS[name]
    bare = [word for word in words if not word.startswith("--")]
    verbs = bare[1 : {"dask": 2}.get(bare[0], 3)]
    environment = {**os.environ, "COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *MODULES[bare[0]], *verbs, "--help"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for option in [word for word in words if word.startswith("--")]:
        assert re.search(rf"(?<![-\w]){option}(?![-\w])", done.stdout), f"{' '.join(verbs)} has no {option}"
