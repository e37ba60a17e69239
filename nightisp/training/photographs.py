"""Finished photographs to learn from: found in folders, kept as they are, a tenth of them held out."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import RawFileError, RawFileNotFoundError
from nightisp.publish import publish

Pixels = NDArray[np.uint8]
_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
_HELD_OUT = 10  # one in so many
_SHORTEST = 64


@dataclass(frozen=True, slots=True)
class Photographs:
    """Display-referred sRGB pictures, each uint8 (H, W, 3), in the order of their digests."""

    training: tuple[Pixels, ...]
    held_out: tuple[Pixels, ...]
    files: Mapping[str, Path]
    """Where each lies, by the SHA-256 of its file."""

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all files: what weights were trained on."""
        return hashlib.sha256("".join(sorted(self.files)).encode()).hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        """What a model card says of them."""
        return {"training": len(self.training), "held_out": len(self.held_out), "sha256": self.digest}


def read_photographs(folders: Sequence[Path], *, longest: int = 1600, untrained: bool = False) -> Photographs:
    """Read every photograph in some folders and hold out a tenth of them, by their own digest.

    Whether a photograph is held out depends on its bytes alone, not on its name or its company: what was held out
    once is never trained on later.

    Parameters
    ----------
    folders
        With JPEG, PNG, TIFF or WebP pictures, in sub-folders too.
    longest
        Larger pictures are shrunk by areas until their longer side is this.
    untrained
        Hold out all of them, since no network was trained on any.

    Raises
    ------
    RawFileNotFoundError
        If a folder is missing, or there are fewer than one photograph to train on and one to hold out.
    RawFileError
        If a file is no picture.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RawFileNotFoundError(f"{folder}: no such folder of photographs; pass --photographs FOLDER")
        for path in _pictures(folder):
            found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    parts: tuple[list[Pixels], list[Pixels]] = ([], [])
    for digest in sorted(found):
        held_out = untrained or int(digest[:8], 16) % _HELD_OUT == 0
        parts[held_out].append(_read(found[digest], longest))
    if untrained and not found:
        raise RawFileNotFoundError(f"{', '.join(map(str, folders))}: no photograph; expected at least one")
    if not untrained and not all(parts):
        raise RawFileNotFoundError(
            f"{', '.join(map(str, folders))}: {len(parts[0])} photographs to train on and {len(parts[1])} to hold out; "
            "expected at least one of each: add photographs"
        )
    return Photographs(tuple(parts[0]), tuple(parts[1]), found)


def write_sources(photographs: Photographs, table: Path, target: Path) -> dict[str, str]:
    """Write where each photograph comes from and under which license, and return what a model card says of that.

    Parameters
    ----------
    table
        Tab-separated, with columns `file` (looked up by its last part), `source` and `licence`.
    target
        The list to be written: tab-separated, a row for each photograph, by digest. Rows that are there stay: one list
        serves all weights of a folder.

    Raises
    ------
    RawFileNotFoundError
        If the table is missing, or says nothing of one of the photographs.
    """
    if not table.is_file():
        raise RawFileNotFoundError(f"{table}: no such table of sources; leave out --sources to do without")
    with table.open(encoding="utf-8", newline="") as file:
        known = {Path(row["file"]).name: row for row in csv.DictReader(file, delimiter="\t")}
    lines = target.read_text("utf-8").splitlines()[1:] if target.is_file() else []
    rows = {line.partition("\t")[0]: line for line in lines}
    for digest, path in photographs.files.items():
        if path.name not in known:
            raise RawFileNotFoundError(f"{table}: has no row for {path.name}; add its source and license")
        rows[digest] = f"{digest}\t{known[path.name]['source']}\t{known[path.name]['licence']}"
    publish("\n".join(["sha256\tsource\tlicense", *(rows[digest] for digest in sorted(rows)), ""]).encode(), target)
    return {"sources_and_licenses": target.name}


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures below a folder; links to folders are followed, hidden files passed over."""
    found = (Path(parent) / name for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(path for path in found if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))


def _read(path: Path, longest: int) -> Pixels:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise RawFileError(f"{path}: is no picture that can be read; remove it from the photographs")
    height, width = pixels.shape[:2]
    if min(height, width) < _SHORTEST:
        raise RawFileError(f"{path}: is {height} x {width} pixels; expected at least {_SHORTEST} on each side")
    if max(height, width) > longest:
        scale = longest / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(pixels[..., ::-1])


def varied(rng: np.random.Generator, photograph: Pixels, smallest: float, largest: float) -> NDArray[np.float32]:
    """Return a photograph shrunk by a random factor, mirrored and turned by a random right angle.

    Shrinking by areas takes out the photograph's own noise and JPEG blocks, which nobody is to learn.

    Parameters
    ----------
    photograph
        uint8 (H, W, 3).
    smallest, largest
        Bounds of the factor, drawn evenly in its logarithm.

    Returns
    -------
    NDArray
        float32 in [0, 1], (h, w, 3) with the sides near those of `photograph` times the factor, in either order.
    """
    scale = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    turned = np.rot90(shrunk(photograph, scale), int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.integers(2) else turned)


def shrunk(photograph: Pixels, scale: float) -> NDArray[np.float32]:
    """Return a uint8 photograph as float32 in [0, 1], its sides multiplied by `scale`, by areas."""
    import cv2

    height, width = photograph.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = photograph.astype(np.float32) * np.float32(1 / 255)
    return np.asarray(pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
