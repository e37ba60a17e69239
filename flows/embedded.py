"""Prefect's server for one run, as a process of its own that starts while this one still imports Prefect.

Prefect would start one itself, but only after this process has imported all of the server, and would wait for it.
This module imports nothing of Prefect until it has to.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from nightisp.errors import ServerError

if TYPE_CHECKING:
    from uvicorn import Server

_PATIENCE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
_RECORD_S = 60.0
"""What writing down may take: thousands of task runs that were found in the store within seconds."""
_STUCK_S = 5.0
"""How long nothing may be written down before the rest is given up."""
_LOOK_S = 1.0
_HOST = "127.0.0.1"
_AS_PREFECT_DOES = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


class Embedded:
    """A server that is on its way."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._start()

    def _start(self) -> None:
        places = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100, '' is the current folder
        self._process = subprocess.Popen(  # noqa: S603 - no shell
            [sys.executable, "-P", "-m", __name__],
            env={**os.environ, **_AS_PREFECT_DOES, "PYTHONPATH": os.pathsep.join(places)},
            stdin=subprocess.PIPE,  # ends when this process does, however it ends
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which still has its end to tell
        )

    def is_wanted(self) -> bool:
        """Tell whether Prefect's own settings name no server; if they do, this one is ended.

        To read its profiles takes Prefect's import, so this one was started before they were known.
        """
        from prefect.settings import PREFECT_API_URL

        if not PREFECT_API_URL.value():
            return True
        self._process.kill()
        return False

    @contextmanager
    def reported_to(self) -> Iterator[None]:
        """Wait until it is up, have Prefect report to it, and wait until it was told all.

        Raises
        ------
        ServerError
            If it does not come up.
        """
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        if self._url and self._process.poll() is not None:  # a watch goes on for days
            self.end()
            self._url = None
            self._start()
        self._url = self._url or f"http://{_HOST}:{self._port()}/api"
        # Its services that would miss a heartbeat are off, and a flow waits up to a second for the last one to end.
        with temporary_settings({PREFECT_API_URL: self._url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            try:
                yield
            finally:
                self._tell_all()

    def _port(self) -> int:
        """Return its port, which it tells once it answers."""
        patience, late = float(os.environ.get(_PATIENCE, 120)), threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(patience, give_up)
        timer.start()
        try:
            told = self._process.stdout.readline() if self._process.stdout else b""
        finally:
            timer.cancel()
        if told:
            return int(told)
        self._process.kill()  # if it has only closed the pipe
        status = self._process.wait()
        what = f"within {patience:.0f} s ({_PATIENCE})" if late.is_set() else f"(status {status}); it said above why"
        raise ServerError(
            f"Prefect's embedded server does not come up {what}. "
            "Start one yourself (`nightisp ui`) and set PREFECT_API_URL to it, or use --engine local"
        )

    def _tell_all(self) -> None:
        """Wait until task runs, which Prefect tells of by and by, are told; not of a server that is gone."""
        from prefect.events.worker import EventsWorker

        answers = cast("tuple[set[Any], set[Future[bool]]]", EventsWorker.drain_all(timeout=0, at_exit=False))
        waiting = answers[1]
        while waiting and self._process.poll() is None:
            waiting = wait(waiting, _LOOK_S).not_done

    def end(self) -> None:
        """End it, and wait until it has written down what it was told."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(timeout=_RECORD_S + 1)
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
    gc.disable()  # until it answers: what is imported stays, and to look for cycles in it takes a sixth of the time
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything else prints is for people
    servers: list[Server] = []
    threading.Thread(target=_follow, args=(servers,), name="leash", daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    log = logging.getLogger("uvicorn.error")

    class Told(uvicorn.Server):
        """Tells its port once it answers, and ends when its owner does: signals are for the owner."""

        async def startup(self, sockets: Any = None) -> None:
            log.setLevel(logging.ERROR)  # why it does not come up; Prefect has set up logging by now
            await super().startup(sockets)
            log.setLevel(logging.CRITICAL)
            gc.freeze()
            gc.enable()
            if self.started and not self.should_exit:
                with suppress(BrokenPipeError), pipe:
                    pipe.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")

        async def shutdown(self, sockets: Any = None) -> None:
            await _recorded(self)
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: Any) -> None:
            pass

    config = uvicorn.Config(create_app, factory=True, host=_HOST, port=0, log_level="error", lifespan="on")
    servers.append(Told(config))
    servers[0].run()
    sys.stderr.flush()
    os._exit(0 if servers[0].started else 1)  # all is closed; to take Python's objects apart takes another second


async def _recorded(server: Server) -> None:
    """Wait until what was told is written down, as long as it gets less: Prefect would drop what it has not come to."""
    from prefect.server.utilities.messaging.memory import METRICS

    least, at = float("inf"), time.monotonic()
    while True:
        await asyncio.sleep(0.05)
        left = len(server.server_state.tasks) + sum(told["published"] - told["consumed"] for told in METRICS.values())
        if left < least:
            least, at = left, time.monotonic()
        if not left or time.monotonic() - at > _STUCK_S:
            return


def _follow(servers: list[Server]) -> None:
    """End when whoever started this server has ended, or closes the pipe."""
    while os.read(0, 1):
        pass
    for server in servers:
        server.should_exit = True
        time.sleep(_RECORD_S)
    os._exit(1)


if __name__ == "__main__":
    _serve()
