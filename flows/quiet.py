"""Prefect's settings for a run that reports to the server it embeds: quiet, and without telemetry."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from nightisp.errors import ProjectError

EMBEDDED = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_EVENT_LOGGER_ENABLED": "false",
    # 50 task runs a transaction in place of one: thousands that were found in the store are written down at once
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


def settle() -> None:
    """Set what the user has not set; with PREFECT_API_URL only telemetry is turned off."""
    wanted = dict(EMBEDDED)
    if os.environ.get("PREFECT_API_URL"):
        wanted = {name: wanted[name] for name in ("PREFECT_SERVER_ANALYTICS_ENABLED", "DO_NOT_TRACK")}
        wanted |= {"PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL"}
        wanted["PREFECT_CLIENT_MAX_RETRIES"] = "3"  # 14 s; a server that is gone for longer is gone, the run goes on
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    _check_tasks()


def _check_tasks() -> None:
    """`tasks.py` is a common file name: say so plainly if another one is found before ours."""
    found = importlib.util.find_spec("tasks")
    ours = Path(__file__).parents[1] / "tasks" / "__init__.py"
    if found is None or found.origin is None or Path(found.origin).resolve() != ours.resolve():
        raise ProjectError(
            f"`tasks` is {found.origin if found else 'missing'}; expected nightisp's, {ours}. "
            "Run nightisp in a folder without a tasks.py of its own, or use --engine local"
        )
