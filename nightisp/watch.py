"""Which raws of a folder are new and completely written: a hot folder, looked at again and again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nightisp import sidecar, sources
from nightisp.challenge import json_beside
from nightisp.errors import RawFileError, RawFileNotFoundError

Look = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and inode of a raw and of what belongs to it."""


@dataclass
class Watch:
    """Remembers what it saw and what it gave out.

    Nothing is asked of the file system but names, sizes and times, so that folders on a network work like others.

    Parameters
    ----------
    folders
        Where raws arrive.
    recursive
        Whether to look into sub-folders.
    exclude
        Folders below them that are passed over.
    settled_s
        How long a raw, its JSON and its sidecar must stay as they are to count as completely written, in seconds.
    """

    folders: Sequence[Path]
    recursive: bool = False
    exclude: Sequence[Path] = ()
    settled_s: float = 2.0
    _seen: dict[Path, tuple[Look, float]] = field(default_factory=dict)
    _given: dict[Path, Look] = field(default_factory=dict)

    def ready(self, now: float) -> list[Path]:
        """Return the raws that are complete and were not given out before as they are now, sorted.

        One whose bytes, JSON or sidecar change later is given out again.

        Parameters
        ----------
        now
            Seconds of a clock that never goes back.
        """
        found = []
        for path in self._candidates():
            look = _look(path)
            if look is None:
                self._seen.pop(path, None)
                continue
            before, since = self._seen.get(path, (None, now))
            self._seen[path] = (look, since if look == before else now)
            if look == before and now - since >= self.settled_s and self._given.get(path) != look:
                self._given[path] = look
                found.append(path)
        return found

    def _candidates(self) -> list[Path]:
        found: list[Path] = []
        for folder in self.folders:
            with contextlib.suppress(RawFileNotFoundError):  # nothing has arrived yet
                found += sources.find([folder], recursive=self.recursive, exclude=self.exclude)
        return sorted(set(found))


def _look(path: Path) -> Look | None:
    """Return what a raw is like now; None if it is gone, empty, or a PNG whose JSON has not arrived."""
    try:
        beside = [json_beside(path)] if path.suffix.lower() == ".png" else []
        found = [(each.name, each.stat()) for each in (path, *beside)]
        complete = all(at.st_size for _, at in found)
        found += [(each.name, each.lstat()) for each in sidecar.paths(path) if os.path.lexists(each)]
    except (OSError, RawFileError):
        return None
    if not complete:
        return None
    return tuple((name, at.st_size, at.st_mtime_ns, at.st_ino) for name, at in found)
