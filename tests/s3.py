"""An S3 server on loopback, moto's, that can be told to fail and to be slow; `python -m tests.s3 PORT` runs one."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import fsspec.asyn
import pytest
import zarr.core.sync
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from nightisp.remote import Remote

BUCKET = "night"
SETTINGS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

_SLOW_DOWN = ("503 Slow Down", "SlowDown")


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        return None


@dataclass
class Server:
    """What it was asked, and how it is to misbehave: `every` so many-th request fails, each takes `slow` seconds.

    What is to create an object gets the `answers` first, as status and code; then it `overwrites` what there is.
    """

    app: Callable[..., Iterable[bytes]]
    endpoint: str = ""
    every: int = 0
    slow: float = 0.0
    answers: list[tuple[str, str]] = field(default_factory=list)
    overwrites: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    failed: int = 0
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        number = next(self._count)
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        time.sleep(self.slow)
        if self.every and number % self.every == 0:
            self.failed += 1
            return _refused(environ, start, *_SLOW_DOWN)
        if "HTTP_IF_NONE_MATCH" in environ:
            if self.answers:
                return _refused(environ, start, *self.answers.pop(0))
            if self.overwrites:
                del environ["HTTP_IF_NONE_MATCH"]
        return self.app(environ, start)

    def behave(self) -> None:
        """Misbehave no more, and forget what was asked."""
        self.every, self.slow, self.overwrites = 0, 0.0, False
        self.answers.clear()
        self.asked.clear()

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of a client has to hold."""
        return {**SETTINGS, "AWS_ENDPOINT_URL": self.endpoint}

    def count(self, method: str, part: str = "") -> int:
        """Count the requests of a method whose path has a part."""
        return sum(m == method and part in path for m, path in self.asked)


def _refused(environ: dict[str, Any], start: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    content = f"<Error><Code>{code}</Code></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
    return [content]


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
            loop = zarr.core.sync._get_loop() if opened.asynchronous else fsspec.asyn.get_loop()
            fsspec.asyn.sync(loop, opened._s3.__aexit__, None, None, None)
    kind.clear_instance_cache()


@contextmanager
def bucket(settings: Mapping[str, str], test: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket of a test's own at the server that settings of the environment name; yield a URL in it."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    close()
    name = f"{BUCKET}-{abs(hash(test))}"
    fsspec.filesystem("s3").mkdir(name)
    try:
        yield f"s3://{name}/lab"
    finally:
        close()


def put_frames(folder: Path, url: str) -> None:
    """Put what lies in a folder under a URL."""
    remote = Remote(url)
    for path in sorted(folder.iterdir()):
        remote.put(path.name, path.read_bytes())


if __name__ == "__main__":
    with serving(int(sys.argv[1])) as here:
        print(here.endpoint, flush=True)  # noqa: T201
        threading.Event().wait()
