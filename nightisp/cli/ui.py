"""`nightisp ui`: Prefect's server and its UI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Annotated

import typer

_PATIENCE_S = 180.0
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # 50 task runs a transaction in place of one: a third of the server's time for task runs, and it keeps up
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""What a standing server is given unless the environment says otherwise."""


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of a server that is started.")] = 4200,
    host: Annotated[
        str, typer.Option("--host", help="Address that it listens at; others than 127.0.0.1 let in who can reach it.")
    ] = "127.0.0.1",
) -> None:
    """Find Prefect's server, or start one until Ctrl-C, and say where its UI is.

    With PREFECT_API_URL set, that server is looked for and none is started.
    """
    from nightisp.errors import ServerError

    named = os.environ.get("PREFECT_API_URL")
    api = named or f"http://{host}:{port}/api"
    if _answers(api):
        _say(api)
        return
    if named:
        raise ServerError(
            f"Prefect's API at {named} cannot be reached; start that server, or unset PREFECT_API_URL to start one here"
        )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    environment = {**SETTINGS, "PREFECT_UI_API_URL": api, **os.environ}  # or the page asks port 4200
    typer.echo("starting Prefect's server", err=True)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:  # noqa: S603 - no shell
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            _wait_for(api, server)
            _say(api)
            typer.echo("Ctrl-C ends it", err=True)
            server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()


def _wait_for(api: str, server: subprocess.Popen[bytes]) -> None:
    from nightisp.errors import ServerError

    end = time.monotonic() + _PATIENCE_S
    while not _answers(api):
        if server.poll() is not None or time.monotonic() > end:
            raise ServerError(f"Prefect's server does not come up at {api}; is the port taken? Choose another --port")
        time.sleep(0.3)


def _answers(api: str) -> bool:
    try:
        if not api.startswith(("http://", "https://")):  # a file is no server
            return False
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310
            return bool(answer.read().strip() == b"true")
    except (OSError, ValueError):
        return False


def _say(api: str) -> None:
    typer.echo(f"Prefect's UI: {api.removesuffix('/').removesuffix('/api')}")
    typer.echo(f"runs are seen there: PREFECT_API_URL={api} nightisp flow run ...")
