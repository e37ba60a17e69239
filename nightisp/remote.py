"""Objects under a URL (`s3://bucket/prefix`, `gs://`, `memory://`, ...), through fsspec: few calls, each tried again.

Nothing here lists unless it is asked to. Credentials come from where the protocol's own tools look: for S3 that is the
environment (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, ...), `~/.aws` and the machine's role; never from a URL or a parameter.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from nightisp.errors import StoreError

WAITS_S = (0.1, 0.3, 1.0, 3.0)
"""Seconds to wait before each further attempt; each is stretched by up to a half, so that hosts do not come at once."""

_CONNECTIONS = 4
"""How many objects of those given at once are written or removed at the same time."""

_EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}

_S3 = {
    "max_concurrency": 1,  # or each object would be asked for its size before it is read
    "config_kwargs": {"retries": {"total_max_attempts": 1}},  # we try again by ourselves
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}

_FILE = "file://"

_THERE = ("PreconditionFailed", "412")
"""What S3 servers answer when an object that they are to create is there; s3fs knows only how Amazon words it."""

_UNABLE = ("NotImplemented", "501")
"""What S3 servers answer that cannot create an object exclusively, if they say so."""

T = TypeVar("T")


def is_url(location: object) -> bool:
    """Tell whether a location is a URL of something else than this machine's files."""
    return isinstance(location, str) and "://" in location and not location.startswith(_FILE)


def as_path(location: str | Path) -> Path:
    """Return the path that a location names which is no URL, or one of this machine's files (`file:///nights`)."""
    if isinstance(location, str) and location.startswith(_FILE):
        from urllib.request import url2pathname

        return Path(url2pathname(location.removeprefix(_FILE)))
    return Path(location)


class Remote:
    """The objects whose names begin with a URL; a name is what follows it.

    Raises
    ------
    StoreError
        If the protocol is unknown, or the package that speaks it is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise StoreError(f"{protocol}://...: holds credentials; give them by the environment or a profile instead")
        try:
            self._files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **_OPTIONS.get(protocol, {}))
        except ImportError as error:
            package = _EXTRAS.get(protocol, f"the one that fsspec needs for {protocol}")
            raise StoreError(f"{url}: {package} is not installed; pip install {package}") from error
        except ValueError as error:
            raise StoreError(f"{url}: {error}; expected for example s3://bucket/prefix") from error
        self._root = root.rstrip("/")

    def get(self, name: str) -> bytes:
        """Return an object's content, or raise `FileNotFoundError`."""
        content: bytes = self._asked(lambda: self._files.cat_file(self._path(name)), name)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Write an object, in the place of one that there is."""
        try:
            self._asked(lambda: self._files.pipe_file(self._path(name), content), name)
        except FileNotFoundError as error:  # an object needs no folder, but a bucket
            raise self._no_bucket(error) from error

    def put_all(self, contents: Mapping[str, bytes]) -> None:
        """Write objects, several at a time."""
        _each(lambda name: self.put(name, contents[name]), contents)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one, which one caller of many can do; tell whether it was this one."""
        if self._creates(name, content):
            return True
        try:
            return self.get(name) == content  # ours, if an answer was lost and the call made again
        except FileNotFoundError:
            return False

    def check_creation(self, name: str, content: bytes) -> None:
        """Have an object there, and make sure that none can be created in its place.

        Raises
        ------
        StoreError
            If the server writes over it all the same.
        """
        for _ in range(2):  # what the first may write is there for the second
            if not self._creates(name, content):
                return
        raise StoreError(self._not_exclusive)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, several at a time; those that are gone already are no fault."""

        def gone(path: str) -> None:
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                return

        _each(lambda name: self._asked(lambda: gone(self._path(name)), name), names)

    def find(self, prefix: str = "") -> dict[str, Mapping[str, Any]]:
        """List the objects below a prefix, with what fsspec tells of each (`size`): slow, and never for a picture."""
        path = self._path(prefix) if prefix else self._root
        try:
            found = self._asked(lambda: self._files.find(path, detail=True), prefix)
        except FileNotFoundError:
            return {}
        return {name[len(self._root) :].lstrip("/"): about for name, about in found.items()}

    def about(self, name: str) -> Mapping[str, Any]:
        """Return what fsspec tells of an object, or raise `FileNotFoundError`."""
        told: Mapping[str, Any] = self._asked(lambda: self._files.info(self._path(name)), name)
        return told

    def modified(self, name: str) -> float:
        """Return when an object was written, as seconds of the epoch, or raise `FileNotFoundError`."""
        return float(self._asked(lambda: self._files.modified(self._path(name)), name).timestamp())

    def _creates(self, name: str, content: bytes) -> bool:
        """Write an object; tell whether there was none."""

        def call() -> None:
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except OSError as error:
                if (code := _code(error)) in _THERE:
                    raise FileExistsError(name) from error
                if code in _UNABLE:
                    raise StoreError(self._not_exclusive) from error
                raise

        try:
            self._asked(call, name)
        except FileExistsError:
            return False
        except FileNotFoundError as error:  # an object needs no folder, but a bucket
            raise self._no_bucket(error) from error
        return True

    @property
    def _not_exclusive(self) -> str:
        return (
            f"{self.url}: the server does not create an object only where there is none (If-None-Match), so that two "
            "hosts would do the same work; use another server, or a folder as --store"
        )

    def _no_bucket(self, error: FileNotFoundError) -> StoreError:
        return StoreError(f"{self.url}: cannot be written: {error}; make the bucket, or name another")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, call: Callable[[], T], name: str) -> T:
        """Call, and again after a fault that may pass."""
        for wait in (*WAITS_S, None):
            try:
                return call()
            except (FileNotFoundError, FileExistsError, StoreError):
                raise
            except PermissionError as error:
                raise StoreError(f"{self.url}: refused ({error}); check the credentials and their rights") from error
            except Exception as error:  # each protocol has exceptions of its own
                if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
                    raise StoreError(
                        f"{self.url}: {error}; give credentials by the environment or a profile"
                    ) from error
                if wait is None:
                    told = f"{self.url}/{name}: cannot be reached ({type(error).__name__}: {error}); check the network"
                    lasting = StoreError(told)
                    lasting.transient = True
                    raise lasting from error
            time.sleep(wait * random.uniform(1, 1.5))  # noqa: S311 - no secret
        raise AssertionError("unreachable")


def _each(work: Callable[[str], object], names: Iterable[str]) -> None:
    """Work on several names at a time; when all have ended, raise what the first that failed raised."""
    with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="remote") as pool:
        list(pool.map(work, names))  # the list raises what one raised


def _code(error: BaseException) -> str:
    """Return the code by which an S3 server named a fault, "" if it gave none."""
    told = getattr(error.__cause__, "response", None)
    return str(told["Error"].get("Code", "")) if told else ""
