"""Prefect's server for one run, as a process of its own that starts while this one still imports Prefect.

Prefect would start one itself, but only after this process has imported all of the server, and would wait for it.
This module imports nothing of Prefect until it has to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket

from nightisp.errors import ServerError

_PATIENCE_S = 120.0
_GRACE_S = 5.0
_HOST = "127.0.0.1"
_AS_PREFECT_DOES = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


class Embedded:
    """A server that is on its way."""

    def __init__(self) -> None:
        places = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100, '' is the current folder
        self._process = subprocess.Popen(  # noqa: S603 - no shell
            [sys.executable, "-P", "-m", __name__],
            env={**os.environ, **_AS_PREFECT_DOES, "PYTHONPATH": os.pathsep.join(places)},
            stdin=subprocess.PIPE,  # ends when this process does, however it ends
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which still has its end to tell
        )
        self._url: str | None = None

    @contextmanager
    def reported_to(self) -> Iterator[None]:
        """Wait until it is up, and have Prefect report to it, unless Prefect's profile names another server.

        Raises
        ------
        ServerError
            If it does not come up.
        """
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        if PREFECT_API_URL.value():  # to read profiles takes Prefect's import, so it was started before they were known
            self._process.kill()
            yield
            return
        self._url = self._url or f"http://{_HOST}:{self._port()}/api"
        # Its services that would miss a heartbeat are off, and a flow waits up to a second for the last one to end.
        with temporary_settings({PREFECT_API_URL: self._url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield

    def _port(self) -> int:
        """Return its port, which it tells once it answers."""
        late = threading.Timer(_PATIENCE_S, self._process.kill)
        late.start()
        try:
            told = self._process.stdout.readline() if self._process.stdout else b""
        finally:
            late.cancel()
        if told:
            return int(told)
        self._process.kill()  # if it has only closed the pipe
        raise ServerError(
            f"Prefect's embedded server does not come up: it ended with status {self._process.wait()}, and said above "
            "why. Mend that, or start a server (`nightisp ui`) and set PREFECT_API_URL to it, or use --engine local"
        )

    def end(self) -> None:
        """End it, and wait until it has written down what it was told."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(timeout=_GRACE_S + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def beside() -> Iterator[Embedded | None]:
    """Start a server unless PREFECT_API_URL names one, and end it at last."""
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = Embedded()
    try:
        yield server
    finally:
        server.end()


def _serve() -> None:
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything else prints is for people
    threading.Thread(target=_follow, name="leash", daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                pipe.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")
                pipe.close()

    Server(uvicorn.Config(create_app, factory=True, host=_HOST, port=0, log_level="error", lifespan="on")).run()


def _follow() -> None:
    """End when whoever started this server has ended, or closes the pipe."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    _serve()
