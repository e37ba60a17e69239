"""Pictures about pictures: a contact sheet of the stages, and where two pictures differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import ImageShapeError
from nightisp.export import EncodedPicture
from nightisp.image import DisplayImage, Image, Samples
from nightisp.metrics import ciede2000, psnr, ssim
from nightisp.picture_files import srgb_pixels

Pixels = NDArray[np.uint8]

_PAPER, _INK = 24, 224  # dark, so that a night is not judged against white
_MARGIN, _LINE = 12, 22
_BRIGHT = 99.9  # percentile of the differences that becomes white
_SIZE = 0.45  # of the letters


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two pictures of one stage are from each other.

    `largest`, `mean` and `psnr` are on the samples' own scale, where 1 is white; `ssim` and `ciede2000` are None for
    linear light, which they are not made for. `picture` shows both and their difference times `amplified`.
    """

    psnr: float
    largest: float
    mean: float
    ssim: float | None
    ciede2000: float | None
    amplified: float
    picture: Pixels


def contact_sheet(tiles: Sequence[tuple[Pixels, Sequence[str]]], columns: int = 3, width: int = 480) -> Pixels:
    """Lay pictures side by side, each with lines of text under it.

    Parameters
    ----------
    tiles
        uint8 (h, w, 3) or (h, w), and the lines, empty ones left out, what does not fit cut off. Letters beyond ASCII
        are shown as question marks.
    columns, width
        Pictures in a row, and how wide each is made; none is made higher than that.

    Returns
    -------
    Pixels
        uint8 (H, W, 3).
    """
    import cv2

    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    painted = []
    for row in rows:
        small = [(_fitted(pixels, width), [line for line in lines if line]) for pixels, lines in row]
        height = max(len(pixels) for pixels, _ in small)
        text = max(len(lines) for _, lines in small)
        canvas = np.full((height + _LINE * text + 2 * _MARGIN, columns * (width + _MARGIN), 3), _PAPER, np.uint8)
        for place, (pixels, lines) in enumerate(small):
            left = place * (width + _MARGIN) + _MARGIN // 2
            canvas[_MARGIN : _MARGIN + len(pixels), left : left + pixels.shape[1]] = pixels
            for number, line in enumerate(lines):
                at = (left, _MARGIN + height + _LINE * (number + 1) - 6)
                plain = _cut(line.encode("ascii", "replace").decode(), width)
                cv2.putText(canvas, plain, at, cv2.FONT_HERSHEY_SIMPLEX, _SIZE, (_INK,) * 3, 1, cv2.LINE_AA)
        painted.append(canvas)
    return np.concatenate(painted)


def difference(one: Image | EncodedPicture, other: Image | EncodedPicture) -> Difference:
    """Compare two pictures of the same stage.

    Raises
    ------
    ImageShapeError
        If they are not of the same size.
    """
    ours, theirs = _comparable(one), _comparable(other)
    if ours.shape != theirs.shape:
        raise ImageShapeError(
            f"the pictures are {_size(ours)} and {_size(theirs)}; expected one size: compare an earlier stage",
            expected=str(ours.shape),
            actual=theirs.shape,
        )
    for_eyes = isinstance(one, DisplayImage | EncodedPicture)
    apart = np.abs(ours - theirs)
    brightest = float(np.percentile(apart, _BRIGHT)) or float(apart.max())
    amplified = 1 / brightest if brightest else 1.0
    shown = np.rint(255 * np.clip(apart * np.float32(amplified), 0, 1)).astype(np.uint8)
    return Difference(
        psnr=psnr(ours, theirs),
        largest=float(apart.max()),
        mean=float(apart.mean(dtype=np.float64)),
        ssim=ssim(ours, theirs) if for_eyes else None,
        ciede2000=ciede2000(ours, theirs) if for_eyes else None,
        amplified=amplified,
        picture=shown,
    )


def _cut(line: str, width: int) -> str:
    import cv2

    while line and cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, _SIZE, 1)[0][0] > width:
        line = line[:-1]
    return line


def _fitted(pixels: Pixels, width: int) -> Pixels:
    import cv2

    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    scale = min(width / pixels.shape[1], width / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
    )


def _comparable(image: Image | EncodedPicture) -> Samples:
    if isinstance(image, EncodedPicture):
        return srgb_pixels(image)
    return image.visible()


def _size(samples: Samples) -> str:
    return f"{samples.shape[1]} x {samples.shape[0]}"
