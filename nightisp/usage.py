"""Which artifacts runs have used, and which are used now: one log a process, beside the artifacts."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FOLDER = ".use"
KEPT_S = 30 * 86400
"""How long the log of a process that has ended is kept, and with it the hits that it counts."""

_BESIDE = ".nightisp-"
_ABANDONED_S = 86400  # nothing that a process of another machine began takes a day


class Usage:
    """The log of this process.

    Parameters
    ----------
    store
        Folder of the artifacts.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / FOLDER / f"{owned_name()}.log"

    def note(self, key: str, *, hit: bool) -> None:
        """Write down that an artifact was found or made; a store that cannot be written has no log."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"{'hit' if hit else 'made'} {key}\n")


def hits(store: Path) -> Counter[str]:
    """Count how often each key was found in the store, in the last 30 days."""
    return Counter(key for path in _logs(store) for what, key in _lines(path) if what == "hit")


def in_use(store: Path) -> set[str]:
    """Return the keys that other processes which still run have found or made."""
    others = (path for path in _logs(store) if is_in_use(path) and not path.name.startswith(f"{os.getpid()}-"))
    return {key for path in others for _, key in _lines(path)}


def forget(store: Path) -> None:
    """Remove the logs of processes that ended more than 30 days ago."""
    for path in _logs(store):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > KEPT_S and not is_in_use(path):
                path.unlink()


def owned_name() -> str:
    """Return a name for a file or folder of this process, which no other one takes."""
    return f"{os.getpid()}-{secrets.token_hex(8)}@{platform.node()}"


def beside(path: Path) -> Path:
    """Return a temporary file of this process in the folder of `path`, which `sweep` knows."""
    return path.with_name(f"{_BESIDE}{owned_name()}.tmp")


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes were killed; those of live ones stay."""
    for path in folder.glob(f"{_BESIDE}*.tmp"):
        if not is_in_use(path):
            with contextlib.suppress(OSError):
                path.unlink()


def is_in_use(path: Path) -> bool:
    """Tell whether the process still runs that gave a file or folder its name by `owned_name`."""
    owner, _, host = path.name.removeprefix(_BESIDE).removesuffix(".log").removesuffix(".tmp").partition("@")
    pid = owner.partition("-")[0]
    if not pid.isdigit():
        return False
    if host and host != platform.node():  # of a container or another machine, whose processes cannot be seen
        return path.exists() and time.time() - path.stat().st_mtime < _ABANDONED_S
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _logs(store: Path) -> Iterator[Path]:
    yield from sorted((store / FOLDER).glob("*.log"))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a log says; its last line may be half-written."""
    with contextlib.suppress(OSError):
        for line in path.read_text("ascii", errors="replace").splitlines():
            what, _, key = line.partition(" ")
            if len(key) == 64:  # SHA-256 in hexadecimal
                yield what, key
