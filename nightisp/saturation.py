"""Where a sensor clips, seen in the samples: many a camera does so below the white level that its file states.

What clips below the stated level is taken for colored light: lamps come out pink or blue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.image import CFA

_BINS = 256  # between black and white
_SEEN = 0.5  # of the range: what lies below is not looked at
_LOWEST = 0.7  # of the range: nothing clips below
_PILE = 2  # bins to each side of the fullest that belong to a pile: read noise, columns that differ
_BELOW = slice(-40, -4)  # bins, from the fullest, whose filling is what the scene alone would give
_STEEP = 8  # times as full as those
_ABOVE = 0.01  # share of a pile that may lie above it: hot pixels
_FEWEST, _MOST = 50, 0.5  # samples in a pile, and its share of the plane; a flat field is no pile
_APART = 0.05  # of the range, between the piles of two colors
_EDGE = 0.02  # quantile of a pile that counts as its foot


def saturation(samples: NDArray[Any], cfa: CFA, black: tuple[float, ...], white: float) -> float:
    """Return the level at which a sensor clips: `white`, unless its samples pile up below.

    A pile is a narrow heap of samples with a scene below it and nothing above. It counts if two colors at least have
    one, all at about the same level: a white wall piles up too, but red, green and blue at levels of their own.

    Parameters
    ----------
    samples
        (H, W), visible area, in sensor units.
    cfa
        From the top-left sample.
    black
        Per position of the 2 x 2 block at the top-left, in reading order.
    white
        As stated, in sensor units, above every black level.

    Returns
    -------
    float
        In sensor units: the lowest foot of the piles, so that all that is in them clips; at most `white`.
    """
    planes = [samples[i // 2 :: 2, i % 2 :: 2] for i in range(4)]
    feet = [_foot(plane, level, white) for plane, level in zip(planes, black, strict=True)]
    found = {color: foot for color, foot in zip(cfa.value, feet, strict=True) if foot is not None}
    levels = [foot for foot in feet if foot is not None]
    if len(found) < 2 or max(levels) - min(levels) > _APART * (white - min(black)):
        return white
    return min(white, *levels)


def _foot(plane: NDArray[Any], black: float, white: float) -> float | None:
    """Return where the pile of one plane begins, in sensor units; None if it has none."""
    unit = (white - black) / _BINS
    bright = plane[plane >= black + _SEEN * (white - black)]
    if bright.size < _FEWEST:
        return None
    number = np.minimum((bright - black) / unit, 2 * _BINS).astype(np.int64)
    counts = np.bincount(number, minlength=2 * _BINS + 1)
    lowest = int(_LOWEST * _BINS)
    fullest = lowest + int(counts[lowest:].argmax())
    first, last = fullest - _PILE, fullest + _PILE
    pile = counts[first : last + 1].sum()
    scene = np.median(counts[fullest + _BELOW.start : fullest + _BELOW.stop])
    is_pile = (
        _FEWEST <= pile <= _MOST * plane.size
        and scene >= 1
        and counts[fullest] >= _STEEP * scene
        and counts[last + 1 :].sum() <= _ABOVE * pile
    )
    if not is_pile:
        return None
    return float(np.quantile(bright[(number >= first) & (number <= last)], _EDGE, method="lower"))
