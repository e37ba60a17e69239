"""Which files are to be developed: find them, name their frames, look at each before any pixel is computed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nightisp import mirror, sidecar
from nightisp.challenge import json_beside
from nightisp.errors import NightispError, RawFileError, RawFileNotFoundError
from nightisp.publish import is_published
from nightisp.raw import RawSummary, inspect
from nightisp.refusals import readable
from nightisp.remote import as_path, is_url

_DECODABLE = """
3fr ari arw bay cap cr2 cr3 crw cs1 dc2 dcr dng drf dsc eip erf fff iiq k25 kc2 kdc mdc mef mfw mos mrw nef nrw obm
orf ori pef ptx pxn qtk raf raw rdc rw2 rwl rwz sr2 srf srw sti
"""
RAW_SUFFIXES = frozenset(f".{suffix}" for suffix in _DECODABLE.split())
"""Suffixes of camera raws that LibRaw decodes, lower case; the content may still be refused (X-Trans in a RAF)."""

UNDECODABLE_SUFFIXES = frozenset({".gpr", ".x3f", ".crm", ".r3d", ".braw", ".nraw", ".ariraw"})
"""Suffixes of raws that are known and refused: candidates all the same, so that they are reported, not passed over."""

_PNG = ".png"
_CANDIDATES = RAW_SUFFIXES | UNDECODABLE_SUFFIXES | {_PNG}
_SHORT = 8
# Decoding takes memory: a 50-megapixel raw some 200 MB.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Source:
    """A raw that can be developed: its frame's name, its content, and the parameters that its `sidecar` sets.

    The sidecar is named as it lies beside the raw, '' if there is none.
    `picture` is the name of its picture without suffix, '' for the frame's; if it `yields`, another raw of the run
    comes first where that name is free (`nightisp.naming`). `url` is where it was brought from, '' for one of here.
    """

    frame: str
    path: Path
    digest: str
    overrides: dict[str, Any] = field(default_factory=dict)
    picture: str = ""
    yields: bool = False
    sidecar: str = ""
    url: str = ""

    @property
    def tells(self) -> Path:
        """Return the file that a fault of the parameters is to be looked for in: the sidecar, or the raw."""
        return self.path.with_name(self.sidecar) if self.sidecar else self.path


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that cannot be developed, and why."""

    path: Path
    error: NightispError


def find(inputs: Sequence[str | Path], *, recursive: bool = False, exclude: Sequence[Path] = ()) -> list[Path]:
    """List the files to develop, sorted, each once.

    A file that is named is always one of them. Of a folder these are the files with a raw's suffix, also one known to
    be undecodable, and `.png`; in silence it passes over all others, hidden files and folders, and the excluded folders
    below it. A folder that is named itself is searched even if it is excluded. What lies under a URL is brought to this
    machine first.

    Raises
    ------
    RawFileNotFoundError
        If an input does not exist, or is a folder without a candidate.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        path = mirror.local(str(given), _is_wanted, recursive=recursive) if is_url(given) else as_path(given)
        if os.path.isdir(path):  # noqa: PTH112, is_dir() raises what a name too long makes
            candidates = list(_candidates(path, recursive, {folder.resolve() for folder in exclude}, set()))
            if not candidates:
                where = "in it or its sub-folders" if recursive else "in it (sub-folders: --recursive)"
                raise RawFileNotFoundError(
                    f"{path}: no raw photograph {where}; looked for {' '.join(sorted(_CANDIDATES))}"
                )
        elif os.path.lexists(path):
            candidates = [path]
        else:
            raise RawFileNotFoundError(f"{path}: no such file or folder; check --input")
        for candidate in candidates:
            found.setdefault(os.path.abspath(candidate), candidate)  # noqa: PTH100, resolve() would follow links
    return [found[key] for key in sorted(found)]


def _is_wanted(name: str) -> bool:
    """Tell whether a file of this name is a candidate, or lies beside one to say more of it."""
    return Path(name).suffix.lower() in _CANDIDATES | {".json"} or name.endswith(sidecar.SUFFIX)


def _candidates(folder: Path, recursive: bool, excluded: set[Path], seen: set[Path]) -> Iterator[Path]:
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    try:
        inside = sorted(folder.iterdir())
    except PermissionError as error:
        raise RawFileError(f"{folder}: it may not be listed; give yourself the right (chmod u+rx)") from error
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if recursive and path.resolve() not in excluded:
                yield from _candidates(path, recursive, excluded, seen)
        elif path.suffix.lower() in _CANDIDATES and not is_published(path):
            yield path


def digest(path: Path) -> str:
    """Return the SHA-256, in hexadecimal, of a raw's bytes; of a PNG, that of its own digest and its JSON's.

    Raises
    ------
    RawFileError
        If the file cannot be read, or a PNG has no JSON beside it.
    """
    with readable(path):
        if path.suffix.lower() != _PNG:
            return _sha256(path).hex()
        return hashlib.sha256(_sha256(path) + _sha256(json_beside(path))).hexdigest()


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def here(source: Source) -> Path:
    """Return where a raw lies on this machine; one that another brought from a URL is brought here, too."""
    return mirror.bring(source.url) if source.url and not source.path.exists() else source.path


def name_frames(paths: Sequence[Path]) -> dict[Path, str]:
    """Name the frame of each file: its stem, or where stems collide, stem, suffix and short digest of every one.

    Names are unique also where a file system does not tell upper from lower case. A file that cannot be read has a name
    too, for it has yet to be reported.

    Examples
    --------
    `a/IMG_1.CR2` and `b/IMG_1.dng` become `IMG_1-cr2-3fa9c1d2` and `IMG_1-dng-07be55a0`.
    """
    stems = Counter(path.stem.casefold() for path in paths)
    names = {path: path.stem for path in paths if stems[path.stem.casefold()] == 1}
    taken = {name.casefold() for name in names.values()}
    for path in paths:
        if path in names:
            continue
        name = first = f"{path.stem}-{path.suffix[1:].lower()}-{_short_digest(path)}"
        copies = 1
        while name.casefold() in taken:
            copies += 1
            name = f"{first}-{copies}"
        taken.add(name.casefold())
        names[path] = name
    return {path: names[path] for path in paths}


def _short_digest(path: Path) -> str:
    try:
        return digest(path)[:_SHORT]
    except (RawFileError, OSError):
        return "unread"


def preflight(
    names: Mapping[Path, str], known: Callable[[Source], RawSummary | None]
) -> tuple[list[tuple[Source, RawSummary]], list[Refusal]]:
    """Look at every file before the first pixel is computed: what can be developed, and what cannot and why.

    Parameters
    ----------
    names
        Files as `find` gives them, with the names of their frames as `name_frames` gives them.
    known
        Tells of a file that was developed before what decoding it would tell; of any other None.

    Returns
    -------
    looked, refusals
        Each in the order of `names`.
    """

    def look_at(path: Path) -> tuple[Source, RawSummary] | NightispError:
        try:
            beside = sidecar.read(path)
            source = Source(names[path], path, digest(path), url=mirror.origin(path))
            if beside:
                source = replace(source, overrides=beside.tree, sidecar=beside.path.name)
            return source, known(source) or inspect(path)
        except NightispError as error:
            return error
        except OSError as error:
            return RawFileError(f"{path}: it cannot be read ({error.strerror or error}); check the disk and try again")
        except Exception as error:  # one file that nobody thought of must not stop the others
            return NightispError(f"{path}: a fault of nightisp, {type(error).__name__}: {error}; please report it")

    # Threads, not processes: LibRaw's and Zarr's threads do not survive a fork, and rawpy releases the GIL.
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="preflight") as pool:
        looks = dict(zip(names, pool.map(look_at, names), strict=True))
    refusals = [Refusal(path, look) for path, look in looks.items() if isinstance(look, NightispError)]
    return [look for look in looks.values() if not isinstance(look, NightispError)], refusals
