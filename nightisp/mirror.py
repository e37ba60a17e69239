"""Raws under a URL, brought to this machine: a folder in the user's cache that follows what lies at the URL.

A raw is read whole in any case, for its digest is the root of all keys. What was brought once and has not changed at
its place is not brought again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from nightisp.errors import RawFileNotFoundError
from nightisp.remote import Remote
from nightisp.usage import beside

_INDEX = ".nightisp-mirror.json"
_CONNECTIONS = 8
_STATES = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created", "size")


def cache_folder() -> Path:
    """Return the user's cache of nightisp: NIGHTISP_CACHE, or `nightisp` where XDG has caches."""
    if named := os.environ.get("NIGHTISP_CACHE"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nightisp"


def local(url: str, wanted: Callable[[str], bool], *, recursive: bool) -> Path:
    """Bring what lies at a URL, an object or all below a prefix, and return where it lies here: a file or a folder.

    Parameters
    ----------
    wanted
        Whether a file of this name is a raw, or belongs to one.

    Raises
    ------
    RawFileNotFoundError
        If nothing wanted lies at a URL.
    StoreError
        If it cannot be reached.
    """
    remote, single = Remote(url), ""
    listed = remote.find()
    if set(listed) == {""}:  # one object, not a prefix
        folder, _, single = remote.url.rpartition("/")
        remote = Remote(folder)
        stem = PurePosixPath(single).stem
        found = {name: a for name, a in remote.find().items() if PurePosixPath(name).stem.partition(".")[0] == stem}
        listed = {name: about for name, about in found.items() if "/" not in name}
    listed = {
        name: about
        for name, about in listed.items()
        if (recursive or "/" not in name)
        and wanted(name.rpartition("/")[2])
        and not any(part.startswith(".") for part in name.split("/"))
    }
    if not listed:
        where = "or below it" if recursive else "(below it: --recursive)"
        raise RawFileNotFoundError(f"{url}: no raw photograph there {where}; check --input")
    folder_here = cache_folder() / "inputs" / hashlib.sha256(remote.url.encode()).hexdigest()[:16]
    _follow(folder_here, remote, listed, prune=not single)
    return folder_here / single if single else folder_here


def origin(path: Path) -> str:
    """Return the URL that a file of this machine was brought from, '' for one that was not."""
    if not path.is_relative_to(cache_folder()):
        return ""
    for folder in path.parents:
        if (folder / _INDEX).is_file():
            url: str = json.loads((folder / _INDEX).read_bytes())["url"]
            return f"{url}/{path.relative_to(folder).as_posix()}"
    return ""


def bring(url: str) -> Path:
    """Bring one raw by itself, as a worker does that was sent its name only, and return where it lies here.

    Raises
    ------
    RawFileNotFoundError
        If it is there no more.
    """
    folder, _, name = url.rpartition("/")
    remote, suffix = Remote(folder), PurePosixPath(name).suffix
    path = cache_folder() / "inputs" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix.lower() == ".png":
                beside_it = name.removesuffix(suffix) + ".json"
                _write(path.with_name(beside_it), remote.get(beside_it))
            _write(path, remote.get(name))
    except FileNotFoundError as error:
        raise RawFileNotFoundError(f"{url}: is not there any more; run again") from error
    return path


def _follow(folder: Path, remote: Remote, listed: Mapping[str, Mapping[str, Any]], *, prune: bool) -> None:
    """Bring what is new or has changed, and forget what is gone."""
    index = folder / _INDEX
    before = json.loads(index.read_bytes())["files"] if index.is_file() else {}
    states = {name: "|".join(str(about[key]) for key in _STATES if key in about) for name, about in listed.items()}

    def one(name: str) -> None:
        path = folder / name
        if before.get(name) == states[name] and path.is_file() and path.stat().st_size == listed[name].get("size"):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, remote.get(name))

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="mirror") as pool:
        list(pool.map(one, listed))
    if prune:
        for name in before.keys() - states.keys():
            (folder / name).unlink(missing_ok=True)
    kept = states if prune else {**before, **states}
    _write(index, json.dumps({"url": remote.url, "files": kept}).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = beside(path)
    temporary.write_bytes(content)
    temporary.replace(path)
