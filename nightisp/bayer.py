"""Bayer mosaics as arrays: phase, packing, gains per color."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import ImageShapeError
from nightisp.image import CFA, Samples, Triple, Window

PHASE = CFA.BGGR
"""The phase that every mosaic is brought to: the one that the published U-Net sees."""


def to_phase(samples: NDArray[Any], cfa: CFA, target: CFA = PHASE) -> tuple[NDArray[Any], Window]:
    """Bring a mosaic to another phase and to even sizes, by reflection that keeps every color in its place.

    Reflection without repeating the edge moves a photosite by an even number of rows or columns, so that what is
    added has the right color, and no measured sample is moved, lost or changed.

    Parameters
    ----------
    samples
        Real (H, W), at least 2 x 2, any range.
    cfa, target
        The phase at hand and the one wanted.

    Returns
    -------
    samples, window
        As they came, of even sizes, at most one row and column larger on each side, and the input itself where nothing
        is added; where the input lies in it.

    Raises
    ------
    ImageShapeError
        If a side is shorter than 2.
    """
    height, width = samples.shape
    if min(height, width) < 2:
        raise ImageShapeError(
            f"a mosaic of {height} x {width} photosites has no whole 2 x 2 block",
            expected="2 x 2",
            actual=samples.shape,
        )
    top, left = next((y, x) for y in (0, 1) for x in (0, 1) if cfa.shifted(y, x) == target)
    bottom, right = (height + top) % 2, (width + left) % 2
    if top or bottom or left or right:
        samples = np.pad(samples, ((top, bottom), (left, right)), mode="reflect")
    return samples, Window(top, left, height, width)


def positions(cfa: CFA, color: str) -> list[tuple[int, int]]:
    """Return the places (row, column) of `color` in the 2 x 2 block, in reading order.

    Examples
    --------
    >>> positions(CFA.BGGR, "G")
    [(0, 1), (1, 0)]
    """
    return [(y, x) for y in (0, 1) for x in (0, 1) if cfa.color_at(y, x) == color]


def _planes(cfa: CFA) -> list[tuple[int, int]]:
    red, (green, other_green), blue = positions(cfa, "R")[0], positions(cfa, "G"), positions(cfa, "B")[0]
    return [red, green, blue, other_green]


def pack(samples: Samples, cfa: CFA = PHASE) -> Samples:
    """Gather a mosaic of even sizes into planes R, G, B, G of half its size, the greens in reading order.

    (H, W) -> (H/2, W/2, 4), same dtype and range. Undone by `unpack`.
    """
    if samples.shape[0] % 2 or samples.shape[1] % 2:
        raise ImageShapeError(f"a mosaic of {samples.shape} cannot be packed", expected="even", actual=samples.shape)
    return np.stack([samples[y::2, x::2] for y, x in _planes(cfa)], axis=-1)


def unpack(packed: Samples, cfa: CFA = PHASE) -> Samples:
    """Spread planes R, G, B, G over a mosaic of twice their size: (H/2, W/2, 4) -> (H, W)."""
    height, width, _ = packed.shape
    samples = np.empty((2 * height, 2 * width), packed.dtype)
    for plane, (y, x) in enumerate(_planes(cfa)):
        samples[y::2, x::2] = packed[..., plane]
    return samples


def binned(samples: Samples, window: Window) -> tuple[Samples, Window]:
    """Average each 2 x 2 photosites of a color: a mosaic of half the size with two fifths of the noise's variance.

    Along each axis the two count 3 : 1, the one nearer to where the new photosite lies more, so that the colors stay
    in their places: 1 : 1 would move them apart by half a photosite.

    Parameters
    ----------
    samples
        (H, W), any phase and range; what does not divide by 4 is cut off at the bottom and right.
    window
        The visible part.

    Returns
    -------
    samples, window
        (H // 4 * 2, W // 4 * 2), same dtype and phase; and whole new photosites of the visible part.
    """
    height, width = (side // 4 * 4 for side in samples.shape)
    if not height or not width:
        raise ImageShapeError(f"a mosaic of {samples.shape} is too small to bin", expected="4x4", actual=samples.shape)
    blocks = samples[:height, :width].reshape(height // 4, 2, 2, width // 4, 2, 2)  # (y, pair, phase, x, pair, phase)
    weights = np.array([[0.75, 0.25], [0.25, 0.75]], samples.dtype)  # (pair, phase)
    mean = np.einsum("ypqxrs,pq,rs->yqxs", blocks, weights, weights, optimize=True)
    top, left = -(-window.top // 2), -(-window.left // 2)
    bottom = min((window.top + window.height) // 2, height // 2)
    right = min((window.left + window.width) // 2, width // 2)
    if bottom <= top or right <= left:
        raise ImageShapeError(
            f"the visible {window.width} x {window.height} photosites are too few to bin", expected="2x2", actual=window
        )
    return np.ascontiguousarray(mean.reshape(height // 2, width // 2)), Window(top, left, bottom - top, right - left)


def to_half_rgb(samples: Samples, cfa: CFA = PHASE) -> Samples:
    """Give every 2 x 2 block one RGB pixel, green being the mean of the two: (H, W) -> (H/2, W/2, 3)."""
    packed = pack(samples, cfa)
    green = (packed[..., 1] + packed[..., 3]) * np.float32(0.5)
    return np.stack([packed[..., 0], green, packed[..., 2]], axis=-1)


def apply_gains(samples: Samples, cfa: CFA, gains: Triple) -> Samples:
    """Multiply each photosite by the gain of its color; (H, W), linear, not clipped."""
    balanced = np.empty_like(samples)
    for color, gain in zip("RGB", gains, strict=True):
        for y, x in positions(cfa, color):
            np.multiply(samples[y::2, x::2], np.float32(gain), out=balanced[y::2, x::2])
    return balanced


def colors_in(samples: Samples, cfa: CFA, window: Window) -> dict[str, list[Samples]]:
    """Return the visible photosites by color: views of (about H/2, W/2), two for green."""
    seen, phase = samples[window.slices], cfa.shifted(window.top, window.left)
    return {color: [seen[y::2, x::2] for y, x in positions(phase, color)] for color in "RGB"}
