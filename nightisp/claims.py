"""One process at a time computes an artifact: a lock per key beside the artifacts, which ends with whoever holds it.

The lock is the kernel's (flock), so that a process that is killed holds nothing any more, whatever lies on the disk.
Where there is none (Windows, file systems without locks, a store that cannot be written) every claim is granted: then
two processes may compute the same artifact, and the first stays, which is correct and costs time only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows
    fcntl = importlib.import_module("fcntl")

FOLDER = ".claims"
_LOOK_S = (0.01, 0.25)
"""How long to wait before looking again, at first and at most."""


class Held(Protocol):
    """What a store gives to whoever may compute an artifact."""

    def release(self) -> None:
        """Let others compute it; a second call does nothing."""
        ...


class Claim:
    """The right to compute an artifact, until `release`; it may be released by another thread."""

    def __init__(self, path: Path, held: int | None) -> None:
        self._path = path
        self._held = held

    def release(self) -> None:
        """Let others compute it; a second call does nothing."""
        held, self._held = self._held, None
        if held is not None:
            # Removed while it is held: whoever opened it before finds that it is not the one on the disk any more.
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(held)


def claim(store: Path, key: str, sleep: Callable[[float], None] = time.sleep) -> Claim:
    """Wait until no other process computes the artifact of this key, and claim it.

    Nobody waits for somebody who waits for them as long as those who claim several keys go from later stages to
    earlier ones, which is how ancestors that are missing are computed.

    Parameters
    ----------
    store
        Folder of the artifacts.
    """
    path, wait = store / FOLDER / key, _LOOK_S[0]
    if fcntl is None:
        return Claim(path, None)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return Claim(path, None)  # it cannot be written: what is computed says so when it is
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            sleep(wait)
            wait = min(2 * wait, _LOOK_S[1])
            continue
        except OSError:  # a file system without locks
            os.close(held)
            return Claim(path, None)
        if _is_on_disk(path, held):
            return Claim(path, held)
        os.close(held)  # who held it before has removed it: there is another by now, or none


def sweep(store: Path) -> None:
    """Remove the files of claims that nobody holds: those of processes that were killed."""
    if fcntl is None:
        return
    for path in (store / FOLDER).glob("*"):
        with contextlib.suppress(OSError):
            held = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_on_disk(path, held):
                    path.unlink()
            finally:
                os.close(held)


def _is_on_disk(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(held))
    except FileNotFoundError:
        return False
