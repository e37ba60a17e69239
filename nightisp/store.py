"""The artifact store: one Zarr 3 group an artifact, found by its key. The only door to zarr.

`<store>/<stage>/<key>.zarr` holds the array `samples`, a small `preview`, and the attributes. An artifact is written
beside and renamed into place, so it is there whole or not at all. Zarr reads a chunk that is missing as zeros, so
chunks are counted, and each carries a crc32c; of what is not samples, the attributes hold a digest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nightisp import claims, usage
from nightisp.claims import Held
from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, StoreVersionError, is_transient
from nightisp.usage import Usage, is_in_use, owned_name
from nightisp.usage import beside as beside_file

FORMAT = 1
_CHUNK = 1024  # about 1 Mpx
_TEMPORARY = ".tmp"
ARRAYS = ("samples", "preview")
DIGEST = "metadata_sha256"


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact as it lies in a store."""

    stage: str
    key: str
    path: Path | str

    @property
    def attributes(self) -> dict[str, Any]:
        """Read the attributes: key, stage, params, upstream, source, versions, seconds and the picture's state."""
        try:
            return dict(json.loads((Path(self.path) / "zarr.json").read_bytes())["attributes"])
        except FileNotFoundError:
            raise ArtifactNotFoundError(f"{self.path}: no such artifact") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactDamagedError(f"{self.path}: its attributes cannot be read ({error})") from error

    def size(self) -> int:
        """Return the bytes that the artifact takes; 0 if it is gone."""
        total = 0
        for at, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another process removes it just now
                    total += (Path(at) / name).stat().st_size
        return total

    def modified(self) -> float:
        """Return when the artifact was written, as seconds of the epoch; 0 if it is gone."""
        try:
            return Path(self.path).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def exists(self) -> bool:
        """Tell whether it is there, whole or not."""
        return Path(self.path).exists()


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
        self._usage = Usage(folder)
        self._check_version()

    @property
    def location(self) -> str:
        """Where it is, as `--store` takes it."""
        return str(self.folder)

    @property
    def folders(self) -> list[Path]:
        """The folders of this machine that it takes, where no raws are to be looked for."""
        return [self.folder]

    @property
    def is_shared(self) -> bool:
        """Whether other hosts are expected to work on it at the same time."""
        return False

    def claim(self, key: str) -> Held:
        """Wait until nobody else computes the artifact of this key, and claim it."""
        return claims.claim(self.folder, key)

    def note(self, key: str, *, hit: bool) -> None:
        """Write down that an artifact was found or made."""
        self._usage.note(key, hit=hit)

    def hits(self) -> Counter[str]:
        """Count how often each key was found, in the last 30 days."""
        return usage.hits(self.folder)

    def in_use(self) -> set[str]:
        """Return the keys that other processes which still run have found or made."""
        return usage.in_use(self.folder)

    def forget(self) -> None:
        """Remove the logs of processes that ended more than 30 days ago."""
        usage.forget(self.folder)

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
        zarr = zarr_by_cores()  # what is wrong with zarr itself is nothing that is wrong with an artifact
        try:
            return np.asarray(zarr.open_array(Path(entry.path) / name, mode="r")[...])
        except PermissionError as error:
            raise StoreError(f"{entry.path}: cannot be read: {error.strerror}; name another --store") from error
        except Exception as error:  # zarr and its codecs raise whatever they please on bad bytes
            if isinstance(error, MemoryError) or is_transient(error):
                raise  # nothing is wrong with the artifact
            raise ArtifactDamagedError(f"{entry.path}: {name} cannot be read ({error})") from error

    def write(
        self,
        stage: str,
        key: str,
        picture: Any,
        preview: np.ndarray[Any, Any],
        record: dict[str, Any],
        stored: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Write an artifact; if it is there already, whole, that one stays.

        Parameters
        ----------
        picture
            What the stage gave: it has `stored()` and `state()`.
        preview
            uint8 (h, w, 3), sRGB.
        record
            Attributes besides key, stage, kind and state.
        stored
            What `picture.stored()` gives, if it is at hand.

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
            Path(entry.path).parent.mkdir(parents=True, exist_ok=True)
            beside.parent.mkdir(parents=True, exist_ok=True)
            write_group(beside, picture.stored() if stored is None else stored, preview, attributes)
            _seal(beside)
            self._place(beside, entry)
        except OSError as error:
            raise _explain(error, self.folder) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def remove(self, entry: Entry) -> None:
        """Remove an artifact at once, so that readers see it whole or not at all; or raise `StoreError`."""
        aside = self._temporary()
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                Path(entry.path).rename(aside)
        except OSError as error:
            raise _explain(error, self.folder) from error
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
        for name in ARRAYS:
            self.read_array(entry, name)

    def sweep(self) -> int:
        """Remove what processes left behind that are no more; return how many."""
        left = [path for path in self.folder.glob(f"{_TEMPORARY}/*") if not is_in_use(path)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        usage.sweep(self.folder)
        claims.sweep(self.folder)
        return len(left)

    def _temporary(self) -> Path:
        return self.folder / _TEMPORARY / owned_name()

    def _place(self, beside: Path, entry: Entry) -> None:
        for _ in range(3):
            try:
                beside.rename(entry.path)
            except OSError as error:
                if self.holds(entry.stage, entry.key):
                    return  # another's; or ours, where NFS lost the answer to a rename that was done
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                self.remove(entry)  # damaged: make room
            else:
                return
        raise StoreError(f"{entry.path}: other processes keep putting damaged artifacts in its place")

    def _check_whole(self, entry: Entry) -> None:
        attributes, metadata, size = entry.attributes, [], 0
        for name in ARRAYS:
            folder = Path(entry.path) / name
            try:
                metadata.append((folder / "zarr.json").read_bytes())
                about = json.loads(metadata[-1])
                chunk = about["chunk_grid"]["configuration"]["chunk_shape"]
                expected = math.prod(math.ceil(n / c) for n, c in zip(about["shape"], chunk, strict=True))
            except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                raise ArtifactDamagedError(f"{entry.path}: {name} cannot be read ({error})") from error
            sizes = _sizes(folder)
            if len(sizes) != expected:
                raise ArtifactDamagedError(f"{entry.path}: {name} has {len(sizes)} of {expected} chunks")
            size += sum(sizes)
        if size != attributes.get("bytes"):
            raise ArtifactDamagedError(f"{entry.path}: its chunks hold {size} bytes, not {attributes.get('bytes')}")
        if attributes.pop(DIGEST, None) != _digest(attributes, metadata):
            raise ArtifactDamagedError(f"{entry.path}: its attributes are not those that were written")

    def _check_version(self) -> None:
        try:
            found = json.loads((self.folder / "store.json").read_bytes())["format"]
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise StoreError(f"{self.folder}: is no folder; name another --store") from None
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
            beside = beside_file(path)
            beside.write_text(json.dumps({"format": FORMAT}))
            beside.replace(path)


@cache
def zarr_by_cores() -> Any:
    """Import zarr, and let no more chunks be in the making than there are cores: each takes three times its size."""
    import zarr

    cores, limit = max(2, os.cpu_count() or 1), zarr.config.get("async.concurrency")
    zarr.config.set({"async.concurrency": min(cores, limit) if limit else cores})
    return zarr


def write_group(
    where: Any, samples: np.ndarray[Any, Any], preview: np.ndarray[Any, Any], attributes: Any, *, whole: bool = False
) -> None:
    """Write an artifact's arrays and attributes as a Zarr group.

    Parameters
    ----------
    where
        A folder, or a store of zarr's.
    whole
        Whether each array is to be one file: its chunks lie in one shard.
    """
    zarr = zarr_by_cores()  # first: two threads that begin with different modules of it wait for each other
    from zarr.codecs import BloscCodec, Crc32cCodec

    group = zarr.create_group(where, zarr_format=3, attributes=attributes)
    names = {1: ("byte",), 2: ("y", "x"), 3: ("y", "x", "color")}[samples.ndim]
    shrink = [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=samples.itemsize), Crc32cCodec()]
    for name, array, dimensions, compressors in (
        ("samples", samples, names, shrink if samples.ndim > 1 else [Crc32cCodec()]),  # encoded pictures do not shrink
        ("preview", preview, ("preview_y", "preview_x", "preview_color"), shrink),
    ):
        chunk = (
            (max(1, len(array)),) if array.ndim == 1 else (*(min(_CHUNK, n) for n in array.shape[:2]), *array.shape[2:])
        )
        shards = tuple(max(1, math.ceil(n / c)) * c for n, c in zip(array.shape, chunk, strict=True))
        written = group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunk,
            shards=shards if whole else None,
            dimension_names=dimensions,
            compressors=compressors,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        written[...] = array


def _seal(path: Path) -> None:
    """Put a digest of all metadata into the attributes: a crc32c guards chunks only."""
    file = path / "zarr.json"
    about = json.loads(file.read_bytes())
    metadata = [(path / name / "zarr.json").read_bytes() for name in ARRAYS]
    about["attributes"]["bytes"] = sum(sum(_sizes(path / name)) for name in ARRAYS)
    about["attributes"][DIGEST] = _digest(about["attributes"], metadata)
    file.write_text(json.dumps(about, indent=2))


def _sizes(array: Path) -> list[int]:
    """Return the bytes of each chunk."""
    return [(Path(at) / name).stat().st_size for at, _, names in os.walk(array / "c") for name in names]


def _digest(attributes: dict[str, Any], metadata: list[bytes]) -> str:
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode() + b"".join(metadata)).hexdigest()


def _explain(error: OSError, folder: Path) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{folder}: the disk is full; free space (`nightisp cache prune`), or name another --store")
    explained = StoreError(f"{folder}: cannot be written: {error.strerror or error}; name another --store")
    explained.transient = is_transient(error)
    return explained
