"""The artifact store in an object store: any URL that fsspec knows, any number of hosts at once.

`<url>/<stage>/<key>.zarr` is the same Zarr 3 group as in a folder, as five objects: the root's metadata, consolidated,
and an array's metadata and one shard for `samples` and for `preview`. The root is written last and names every other
object with its size and SHA-256: without it there is no artifact, and objects of two writers do not pass for one. So
a hit is one request, an artifact is read with two, and nothing is ever listed for a picture.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, StoreVersionError
from nightisp.leases import LASTS_S, Lease, Leases
from nightisp.remote import Remote, is_url
from nightisp.store import ARRAYS, DIGEST, FORMAT, Entry, Store, write_group, zarr_by_cores

_ROOT = "zarr.json"
_VERSION = "store.json"


@dataclass(frozen=True, slots=True)
class ObjectEntry(Entry):
    """One artifact as it lies in an object store; `path` is its URL."""

    remote: Remote

    @property
    def name(self) -> str:
        """What its objects' names begin with, below the store's URL."""
        return f"{self.stage}/{self.key}.zarr"

    @property
    def root(self) -> dict[str, Any]:
        """Read the root's metadata: attributes, objects, and the arrays' metadata."""
        try:
            content = self.remote.get(f"{self.name}/{_ROOT}")
        except FileNotFoundError:
            raise ArtifactNotFoundError(f"{self.path}: no such artifact") from None
        try:
            root = json.loads(content)
            if root["attributes"].pop(DIGEST) != _digest(root):
                raise ArtifactDamagedError(f"{self.path}: its attributes are not those that were written")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactDamagedError(f"{self.path}: its attributes cannot be read ({error})") from error
        return dict(root)

    @property
    def attributes(self) -> dict[str, Any]:
        """Read the attributes."""
        return dict(self.root["attributes"])

    def size(self) -> int:
        """Return the bytes that the artifact takes, but for its root; 0 if it is gone."""
        try:
            return sum(size for size, _ in self.root["attributes"]["objects"].values())
        except StoreError:
            return 0

    def modified(self) -> float:
        """Return when the artifact was written, as seconds of the epoch; 0 if it is gone."""
        try:
            return self.remote.modified(f"{self.name}/{_ROOT}")
        except FileNotFoundError:
            return 0.0

    def exists(self) -> bool:
        """Tell whether any object of it is there."""
        return bool(self.remote.find(self.name))


class ObjectStore(Store):
    """Artifacts below a URL, safe for any number of readers and writers on any number of hosts.

    Parameters
    ----------
    lease
        Seconds after which others take over what a host that vanished was computing.

    Raises
    ------
    StoreVersionError
        If a newer nightisp wrote it.
    StoreError
        If it cannot be reached.
    """

    def __init__(self, url: str, lease: float = LASTS_S) -> None:
        self._remote = Remote(url)
        self._leases = Leases(self._remote, lease)
        self._version = self._read_version()
        self._is_checked = False

    @property
    def location(self) -> str:
        """Its URL."""
        return self._remote.url

    @property
    def folders(self) -> list[Path]:
        """None: nothing of it lies on this machine."""
        return []

    @property
    def is_shared(self) -> bool:
        """Whether other hosts are expected to work on it at the same time: yes."""
        return True

    def entry(self, stage: str, key: str) -> ObjectEntry:
        """Return where an artifact lies, or would."""
        return ObjectEntry(stage, key, f"{self._remote.url}/{stage}/{key}.zarr", self._remote)

    def holds(self, stage: str, key: str) -> bool:
        """Tell whether the artifact was written to its end: one request.

        Raises
        ------
        StoreError
            If that cannot be told, since the store cannot be reached: it is no reason to compute anything.
        """
        try:
            _ = self.entry(stage, key).root
        except (ArtifactNotFoundError, ArtifactDamagedError):
            return False
        return True

    def read(self, stage: str, key: str, kind: Any) -> Any:
        """Return an artifact as `kind` (a state of the picture); raises as `Store.read` does."""
        entry = self.entry(stage, key)
        root = entry.root
        return kind.restore(self._array(entry, root, "samples"), root["attributes"]["state"])

    def read_array(self, entry: Entry, name: str) -> np.ndarray[Any, Any]:
        """Return the array `samples` or `preview` of an artifact, digests verified."""
        entry = self.entry(entry.stage, entry.key)
        return self._array(entry, entry.root, name)

    def write(
        self,
        stage: str,
        key: str,
        picture: Any,
        preview: np.ndarray[Any, Any],
        record: dict[str, Any],
        stored: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Write an artifact; if it is there already, whole, that one stays. Raises as `Store.write` does."""
        if self.holds(stage, key):
            return
        attributes = {**record, "key": key, "stage": stage, "kind": type(picture).__name__, "state": picture.state()}
        contents = _as_objects(picture.stored() if stored is None else stored, preview, attributes)
        entry = self.entry(stage, key)
        self._check_creation()
        root = contents.pop(_ROOT)
        self._remote.put_all({f"{entry.name}/{name}": content for name, content in contents.items()})
        self._remote.put(f"{entry.name}/{_ROOT}", root)

    def remove(self, entry: Entry) -> None:
        """Remove an artifact, its root first, so that readers see it whole or not at all; or raise `StoreError`."""
        entry = self.entry(entry.stage, entry.key)
        self._remote.remove([f"{entry.name}/{_ROOT}"])
        self._remote.remove(self._remote.find(entry.name))

    def entries(self, stage: str | None = None) -> Iterator[Entry]:
        """Yield every artifact, or those of one stage, damaged and unfinished ones too; lists the store."""
        found = {tuple(name.split("/")[:2]) for name in self._remote.find(stage or "") if name.count("/") > 1}
        for folder, name in sorted(found):
            if not folder.startswith(".") and name.endswith(".zarr"):
                yield self.entry(folder, name.removesuffix(".zarr"))

    def verify(self, entry: Entry) -> None:
        """Read every byte of an artifact; raise `StoreError` if something is amiss."""
        entry = self.entry(entry.stage, entry.key)
        root = entry.root
        for name in ARRAYS:
            self._array(entry, root, name)

    def sweep(self) -> int:
        """Remove nothing: what a host left unfinished is written over when its key is computed."""
        return 0

    def claim(self, key: str) -> Lease:
        """Wait until no other host computes the artifact of this key, and claim it.

        Raises
        ------
        StoreError
            If the store cannot be reached, or cannot keep hosts apart.
        """
        self._check_creation()
        return self._leases.claim(key)

    def note(self, key: str, *, hit: bool) -> None:
        """Write nothing down: a request for each hit is too dear."""

    def hits(self) -> Counter[str]:
        """Return nothing: hits are not counted here."""
        return Counter()

    def in_use(self) -> set[str]:
        """Return nothing: what is removed while a run goes on is computed again."""
        return set()

    def forget(self) -> None:
        """Do nothing: there are no logs."""

    def _array(self, entry: ObjectEntry, root: Mapping[str, Any], name: str) -> np.ndarray[Any, Any]:
        zarr = zarr_by_cores()
        contents = {}
        for path, (size, digest) in root["attributes"]["objects"].items():
            if not path.startswith(f"{name}/"):
                continue
            if path == f"{name}/{_ROOT}":
                continue  # the root has it, too
            try:
                content = self._remote.get(f"{entry.name}/{path}")
            except FileNotFoundError as error:
                raise ArtifactDamagedError(f"{entry.path}: {path} is missing") from error
            if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
                raise ArtifactDamagedError(f"{entry.path}: {path} is not what was written")
            contents[path] = content
        contents[_ROOT] = json.dumps(root).encode()
        try:
            group = zarr.open_group(_memory(contents), mode="r", use_consolidated=True)
            return np.asarray(group[name][...])
        except MemoryError:
            raise
        except Exception as error:  # zarr and its codecs raise whatever they please on bad bytes
            raise ArtifactDamagedError(f"{entry.path}: {name} cannot be read ({error})") from error

    def _read_version(self) -> bytes:
        """Return what is to stand in the store of its version; raise if a newer nightisp wrote it."""
        try:
            content = self._remote.get(_VERSION)
            found = json.loads(content)["format"]
        except FileNotFoundError:
            return json.dumps({"format": FORMAT}).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.location}/{_VERSION}: cannot be read ({error}); name another --store") from error
        if not isinstance(found, int) or found > FORMAT:
            raise StoreVersionError(
                f"{self.location}: written in format {found}; this nightisp knows {FORMAT}. "
                "Install a newer nightisp, or name another --store"
            )
        return content

    def _check_creation(self) -> None:
        """Write the version if it is not there, and make sure, once, that leases can be relied upon."""
        if not self._is_checked:
            self._remote.check_creation(_VERSION, self._version)
            self._is_checked = True


def open_store(location: str) -> Store:
    """Open the store at a URL, or in a folder.

    NIGHTISP_LEASE is how many seconds a lease of a store at a URL lasts; it has to be the same on all hosts.
    """
    if not is_url(location):
        return Store(Path(location))
    given = os.environ.get("NIGHTISP_LEASE", LASTS_S)
    try:
        lasts = float(given)
    except ValueError:
        lasts = 0.0
    if not 0.5 <= lasts < math.inf:
        raise StoreError(f"NIGHTISP_LEASE={given}: expected seconds, 0.5 or more; {LASTS_S:.0f} if it is not set")
    return ObjectStore(location, lasts)


def _as_objects(
    samples: np.ndarray[Any, Any], preview: np.ndarray[Any, Any], attributes: dict[str, Any]
) -> dict[str, bytes]:
    """Return the objects of an artifact by their names within it, root included, which holds the digests of all."""
    memory = _memory({})
    write_group(memory, samples, preview, attributes, whole=True)
    contents = {name: buffer.to_bytes() for name, buffer in memory._store_dict.items()}
    root = json.loads(contents.pop(_ROOT))
    # Consolidated as zarr does it, which warns each time that the specification does not know of it yet.
    arrays = {name: json.loads(contents[f"{name}/{_ROOT}"]) for name in ARRAYS}
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": arrays}
    root["attributes"]["objects"] = {
        name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in sorted(contents.items())
    }
    root["attributes"]["bytes"] = sum(map(len, contents.values()))
    root["attributes"][DIGEST] = _digest(root)
    return {**contents, _ROOT: json.dumps(root, indent=2).encode()}


def _memory(contents: Mapping[str, bytes]) -> Any:
    zarr_by_cores()
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    return MemoryStore({name: Buffer.from_bytes(content) for name, content in contents.items()})


def _digest(root: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a root without its digest."""
    return hashlib.sha256(json.dumps(root, sort_keys=True).encode()).hexdigest()
