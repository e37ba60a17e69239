"""A photographer's own pairs: raws, and the pictures that were made of them by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import NightispError, RawFileError, RawFileNotFoundError
from nightisp.image import DisplayImage, Samples
from nightisp.orientation import orient
from nightisp.params import for_frame, read_yaml
from nightisp.picture_files import read_picture
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.raw import RawFile
from nightisp.sources import find
from nightisp.stage import Networks

Array = NDArray[np.float32]

FINISHED = (".tif", ".tiff", ".jpg", ".jpeg", ".png")
"""Suffixes of finished pictures, the first that lies beside a raw being taken."""

_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another
_SIDE = 512  # pictures are laid over one another at this size
_ALIKE = 0.75  # least correlation of the edges of two pictures of one scene
_ASPECT = 0.03  # by which the proportions may differ: more has been cropped
_HELD_OUT = 10
_CODES = np.float32(65535)


@dataclass(frozen=True, slots=True)
class Pair:
    """A raw as the first six stages render it, and the finished picture laid over it.

    `rendered` is uint16 (H, W, 3), as the sensor lay; `finished` uint16 (H // 4, W // 4, 3); both display sRGB.
    """

    rendered: NDArray[np.uint16]
    finished: NDArray[np.uint16]

    def crop(self, top: int, left: int, height: int, width: int) -> tuple[Array, Array]:
        """Return both parts, float32 in [0, 1]; all four numbers count pixels of `finished`."""
        seen = self.rendered[top * 4 : (top + height) * 4, left * 4 : (left + width) * 4]
        wanted = self.finished[top : top + height, left : left + width]
        return np.asarray(seen / _CODES, np.float32), np.asarray(wanted / _CODES, np.float32)

    def whole(self, multiple: int) -> tuple[Array, Array]:
        """Return both from their top-left, the sides of `rendered` cut to a multiple."""
        height, width = (side * 4 // multiple * multiple // 4 for side in self.finished.shape[:2])
        return self.crop(0, 0, height, width)


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a folder; `digest` stands for the files, and for how they were rendered."""

    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    digest: str
    refused: tuple[str, ...]
    """What was left out, and why."""


def read_pairs(
    folder: Path, keep: Path, params: Path | None, networks: Networks, tell: Callable[[str], None] = lambda _: None
) -> Pairs:
    """Render every raw of a folder that a finished picture lies beside, and lay that over it.

    Parameters
    ----------
    folder
        With raws and finished pictures of the same stems; of any size, proportions as the raw's.
    keep
        Where rendered pairs are kept for the next time, and mapped from: they need not fit into memory.
    params
        Parameters of the first six stages; None for the defaults.
    networks
        What these stages need of networks.
    tell
        Called with the name of each raw before it is rendered.

    Raises
    ------
    RawFileNotFoundError
        If fewer than two pairs are usable.
    """
    tree = read_yaml(params) if params else {}
    usable: dict[str, Path] = {}
    refused: list[str] = []
    for raw in find([folder], recursive=True):
        finished = _finished(raw)
        if finished is None:
            continue
        digest = _digest(raw, finished, repr(sorted(tree.items())))
        path = keep / f"{digest[:16]}.npy"
        try:
            if not path.is_file():
                tell(raw.name)
                _keep(path, *_pair(raw, finished, tree, networks))
        except NightispError as error:
            refused.append(str(error) if str(raw) in str(error) else f"{raw}: {error}")
        else:
            usable[digest] = path
    if len(usable) < 2:
        raise RawFileNotFoundError(
            f"{folder}: {len(usable)} usable pairs of a raw and a finished picture of the same stem "
            f"({', '.join(FINISHED)}); expected two or more" + "".join(f"\n{line}" for line in refused)
        )
    pairs = [_load(usable[digest]) for digest in sorted(usable)]
    held_out = max(1, len(pairs) // _HELD_OUT)
    whole = hashlib.sha256("".join(sorted(usable)).encode()).hexdigest()
    return Pairs(tuple(pairs[held_out:]), tuple(pairs[:held_out]), whole, tuple(refused))


def align(finished: Array, rendered: Array, where: str = "the pair") -> Array:
    """Lay a finished picture over a rendered one, at a quarter of the rendered one's size.

    Size, a few degrees of rotation, a slight crop and a lens correction that is near to a scale are made up for.

    Parameters
    ----------
    finished
        Display sRGB, float32 (h, w, 3), of any size, standing as `rendered` does.
    rendered
        Display sRGB, float32 (H, W, 3).

    Returns
    -------
    Array
        float32 (H // 4, W // 4, 3) in [0, 1].

    Raises
    ------
    RawFileError
        If the proportions differ, or what the two show.
    """
    import cv2

    height, width = rendered.shape[:2]
    aspect = (finished.shape[1] / finished.shape[0]) / (width / height)
    if abs(np.log(aspect)) > _ASPECT:
        raise RawFileError(
            f"{where}: the finished picture is {finished.shape[1]} x {finished.shape[0]}, the raw {width} x {height}: "
            "cropped, or turned; expected the same proportions. Export it without a crop"
        )
    scale = _SIDE / max(height, width)
    small = max(16, round(width * scale)), max(16, round(height * scale))
    ours, theirs = (_edges(cv2.resize(p, small, interpolation=cv2.INTER_AREA)) for p in (rendered, finished))
    warp = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-5)
    try:
        alike, found = cv2.findTransformECC(ours, theirs, warp, cv2.MOTION_AFFINE, criteria, np.empty(0), 5)
    except cv2.error:
        alike, found = 0.0, warp
    if alike < _ALIKE:
        raise RawFileError(
            f"{where}: raw and finished picture do not show the same (their edges correlate by {alike:.2f}; expected "
            f"{_ALIKE:g} or more); check that they belong together and that nothing was warped"
        )
    quarter = width // 4, height // 4
    finer = max(1, round(finished.shape[1] / quarter[0]))  # laid over so much finer, then averaged: nothing aliases
    fine = quarter[0] * finer, quarter[1] * finer
    to_finished = np.diag([finished.shape[1] / small[0], finished.shape[0] / small[1], 1.0])
    to_small = np.diag([small[0] / fine[0], small[1] / fine[1], 1.0])
    # Centers of pixels, not their corners, lie at whole numbers.
    center, back = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]), np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    whole = back @ to_finished @ center @ np.vstack([found, (0, 0, 1)]) @ back @ to_small @ center
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(finished, whole[:2], fine, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(cv2.resize(laid, quarter, interpolation=cv2.INTER_AREA), 0, 1), np.float32)


def _edges(picture: Array) -> Array:
    """Return how steep the brightness is, evened out: what a look, a curve or a cast leaves as it is."""
    import cv2

    gray = cv2.GaussianBlur(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    steep = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    return np.asarray(steep / (cv2.GaussianBlur(steep, (0, 0), 25) + 1e-3), np.float32)


def _pair(raw: Path, finished: Path, tree: dict[str, object], networks: Networks) -> tuple[Samples, Array]:
    shown = read_picture(finished)
    if shown.ndim != 3:
        raise RawFileError(f"{finished}: has {shown.ndim} axes; expected a color picture")
    image: object = RawFile(raw)
    params = for_frame(tree, {}, str(raw))
    for stage in PIPELINE[: NAMES.index("tone") + 1]:
        image = stage(image, params[stage.name], networks)
    assert isinstance(image, DisplayImage)
    rendered = image.visible()
    lying = orient(shown, _BACK[image.shot.orientation])
    return rendered, align(lying, rendered, str(raw))


def _finished(raw: Path) -> Path | None:
    beside = (raw.with_suffix(suffix) for suffix in (*FINISHED, *(suffix.upper() for suffix in FINISHED)))
    return next((path for path in beside if path.is_file() and path != raw), None)


def _digest(raw: Path, finished: Path, how: str) -> str:
    whole = hashlib.sha256(how.encode())
    for path in (raw, finished):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _keep(path: Path, rendered: Samples, finished: Array) -> None:
    """Keep a pair as two arrays that can be mapped; the second is written last and tells that both are whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, pixels in ((_rendered(path), rendered), (path, finished)):
        beside = target.with_suffix(".partial")
        with beside.open("wb") as file:
            np.save(file, np.rint(np.clip(pixels, 0, 1) * _CODES).astype(np.uint16))
        beside.replace(target)


def _load(path: Path) -> Pair:
    return Pair(np.load(_rendered(path), mmap_mode="r"), np.load(path, mmap_mode="r"))


def _rendered(path: Path) -> Path:
    return path.with_name(f"{path.stem}-rendered.npy")
