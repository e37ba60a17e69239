"""The artifact store: one Zarr 3 group an artifact, found by its key. The only door to zarr.

`<store>/<stage>/<key>.zarr` holds the array `samples`, a small `preview`, and the attributes. An artifact is written
beside and renamed into place, so it is there whole or not at all. Zarr reads a chunk that is missing as zeros, so
chunks are counted, and each carries a crc32c.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, StoreVersionError

FORMAT = 1
_CHUNK = 1024  # about 1 Mpx
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact as it lies on disk."""

    stage: str
    key: str
    path: Path

    @property
    def attributes(self) -> dict[str, Any]:
        """Read the attributes: key, stage, params, upstream, source, versions, seconds and the picture's state."""
        try:
            return dict(json.loads((self.path / "zarr.json").read_bytes())["attributes"])
        except FileNotFoundError:
            raise ArtifactNotFoundError(f"{self.path}: no such artifact") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactDamagedError(f"{self.path}: its attributes cannot be read ({error})") from error

    def size(self) -> int:
        """Return the bytes that the artifact takes."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


class Store:
    """A folder of artifacts, safe for any number of readers and writers at once.

    Parameters
    ----------
    folder
        Made when the first artifact is written.

    Raises
    ------
    StoreVersionError
        If a newer nightisp wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._check_version()

    def entry(self, stage: str, key: str) -> Entry:
        """Return where an artifact lies, or would."""
        return Entry(stage, key, self.folder / stage / f"{key}.zarr")

    def holds(self, stage: str, key: str) -> bool:
        """Tell whether the artifact is there with all its chunks; reads metadata only."""
        try:
            self._check_whole(self.entry(stage, key))
        except StoreError:
            return False
        return True

    def read(self, stage: str, key: str, kind: Any) -> Any:
        """Return an artifact as `kind` (a state of the picture).

        Raises
        ------
        ArtifactNotFoundError
            If there is none.
        ArtifactDamagedError
            If a chunk is missing or fails its checksum.
        """
        entry = self.entry(stage, key)
        self._check_whole(entry)
        return kind.restore(self.read_array(entry, "samples"), entry.attributes["state"])

    def read_array(self, entry: Entry, name: str) -> np.ndarray[Any, Any]:
        """Return the array `samples` or `preview` of an artifact, checksums verified."""
        import zarr

        try:
            return np.asarray(zarr.open_array(entry.path / name, mode="r")[...])
        except Exception as error:  # zarr and its codecs raise whatever they please on bad bytes
            if isinstance(error, PermissionError):
                raise StoreError(f"{entry.path}: cannot be read: {error.strerror}") from error
            raise ArtifactDamagedError(f"{entry.path}: {name} cannot be read ({error})") from error

    def write(self, stage: str, key: str, picture: Any, preview: np.ndarray[Any, Any], record: dict[str, Any]) -> None:
        """Write an artifact; if it is there already, whole, that one stays.

        Parameters
        ----------
        picture
            What the stage gave: it has `stored()` and `state()`.
        preview
            uint8 (h, w, 3), sRGB.
        record
            Attributes besides key, stage, kind and state.

        Raises
        ------
        StoreError
            If it cannot be written: disk full, no permission.
        """
        entry = self.entry(stage, key)
        attributes = {**record, "key": key, "stage": stage, "kind": type(picture).__name__, "state": picture.state()}
        beside = self._temporary()
        try:
            self._write_version()
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            beside.parent.mkdir(parents=True, exist_ok=True)
            _write_group(beside, picture.stored(), preview, attributes)
            self._place(beside, entry)
        except OSError as error:
            raise _explain(error, self.folder) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def remove(self, entry: Entry) -> None:
        """Remove an artifact at once: readers see it whole or not at all."""
        aside = self._temporary()
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            entry.path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def entries(self, stage: str | None = None) -> Iterator[Entry]:
        """Yield every artifact, or those of one stage, damaged ones too."""
        folders = [self.folder / stage] if stage else sorted(self.folder.glob("[!.]*/"))
        for folder in folders:
            for path in sorted(folder.glob("*.zarr")):
                yield Entry(folder.name, path.stem, path)

    def verify(self, entry: Entry) -> None:
        """Read every byte of an artifact; raise `StoreError` if something is amiss."""
        self._check_whole(entry)
        for name in ("samples", "preview"):
            self.read_array(entry, name)

    def sweep(self) -> int:
        """Remove what processes left behind that are no more; return how many."""
        left = [path for path in self.folder.glob(f"{_TEMPORARY}/*") if not _is_alive(path.name)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return len(left)

    def _temporary(self) -> Path:
        return self.folder / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(8)}"

    def _place(self, beside: Path, entry: Entry) -> None:
        for _ in range(3):
            try:
                beside.rename(entry.path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                if self.holds(entry.stage, entry.key):
                    return
                self.remove(entry)  # damaged: make room
            else:
                return
        raise StoreError(f"{entry.path}: other processes keep putting damaged artifacts in its place")

    def _check_whole(self, entry: Entry) -> None:
        _ = entry.attributes
        for name in ("samples", "preview"):
            folder = entry.path / name
            try:
                about = json.loads((folder / "zarr.json").read_bytes())
                chunk = about["chunk_grid"]["configuration"]["chunk_shape"]
                expected = math.prod(math.ceil(n / c) for n, c in zip(about["shape"], chunk, strict=True))
            except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                raise ArtifactDamagedError(f"{entry.path}: {name} cannot be read ({error})") from error
            there = sum(len(files) for _, _, files in os.walk(folder / "c"))
            if there != expected:
                raise ArtifactDamagedError(f"{entry.path}: {name} has {there} of {expected} chunks")

    def _check_version(self) -> None:
        try:
            found = json.loads((self.folder / "store.json").read_bytes())["format"]
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder / 'store.json'}: cannot be read ({error}); name another --store") from error
        if not isinstance(found, int) or found > FORMAT:
            raise StoreVersionError(
                f"{self.folder}: written in format {found}; this nightisp knows {FORMAT}. "
                "Install a newer nightisp, or name another --store"
            )

    def _write_version(self) -> None:
        path = self.folder / "store.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".store-{os.getpid()}-{secrets.token_hex(4)}.json")
            beside.write_text(json.dumps({"format": FORMAT}))
            beside.replace(path)


def _write_group(path: Path, samples: np.ndarray[Any, Any], preview: np.ndarray[Any, Any], attributes: Any) -> None:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    names = {1: ("byte",), 2: ("y", "x"), 3: ("y", "x", "color")}[samples.ndim]
    shrink = [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=samples.itemsize), Crc32cCodec()]
    for name, array, dimensions, compressors in (
        ("samples", samples, names, shrink if samples.ndim > 1 else [Crc32cCodec()]),  # encoded pictures do not shrink
        ("preview", preview, ("preview_y", "preview_x", "preview_color"), shrink),
    ):
        chunk = (
            (max(1, len(array)),) if array.ndim == 1 else (*(min(_CHUNK, n) for n in array.shape[:2]), *array.shape[2:])
        )
        written = group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunk,
            dimension_names=dimensions,
            compressors=compressors,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        written[...] = array


def _explain(error: OSError, folder: Path) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{folder}: the disk is full; free space (`nightisp cache prune`), or name another --store")
    return StoreError(f"{folder}: cannot be written: {error.strerror or error}; name another --store")


def _is_alive(name: str) -> bool:
    pid = name.partition("-")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
