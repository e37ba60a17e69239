"""An S3 server on loopback, moto's, that can be told to fail and to be slow; `python -m tests.s3 PORT` runs one."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fsspec
import fsspec.asyn
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "night"
SETTINGS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        return None


@dataclass
class Server:
    """What it was asked, and how it is to misbehave: `every` so many-th request fails, each takes `slow` seconds."""

    app: Callable[..., Iterable[bytes]]
    endpoint: str = ""
    every: int = 0
    slow: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)
    failed: int = 0
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        number = next(self._count)
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        time.sleep(self.slow)
        if self.every and number % self.every == 0:
            self.failed += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW_DOWN)))])
            return [_SLOW_DOWN]
        return self.app(environ, start)

    def count(self, method: str, part: str = "") -> int:
        """Count the requests of a method whose path has a part."""
        return sum(m == method and part in path for m, path in self.asked)


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    s3_backends.reset()  # moto keeps its buckets as long as the process lives
    server = Server(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", port, server, threaded=True, request_handler=_Quiet)
    server.endpoint = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def close() -> None:
    """Close what this process has open to S3 servers, so that the next URL is opened with the settings of then."""
    kind = fsspec.get_filesystem_class("s3")
    for opened in list(kind._cache.values()):
        if opened._s3 is not None:  # s3fs's own way hands it to a loop that does not run
            fsspec.asyn.sync(fsspec.asyn.get_loop(), opened._s3.__aexit__, None, None, None)
    kind.clear_instance_cache()


if __name__ == "__main__":
    with serving(int(sys.argv[1])) as here:
        print(here.endpoint, flush=True)  # noqa: T201
        threading.Event().wait()
