"""How the samples of a picture are distributed, and how many are lost in black and white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nightisp.bayer import colors_in
from nightisp.export import EncodedPicture
from nightisp.image import DisplayImage, Image, Mosaic, Samples
from nightisp.picture_files import decode_picture

STOPS = (-12.0, 1.0)
"""EV against white that are drawn of linear light; a sensor of 12 bits ends at the left."""
BINS = 78


@dataclass(frozen=True, slots=True)
class Distribution:
    """The visible samples of a picture, color by color.

    Attributes
    ----------
    scale
        "stops": bins over `STOPS`, of linear light; "display": bins over [0, 1].
    shares
        Color -> share of its samples in each of `BINS` bins, from dark to bright.
    black, white
        Color -> share of its samples at 0 or below, and at 1 or above.
    """

    scale: Literal["stops", "display"]
    shares: Mapping[str, tuple[float, ...]]
    black: Mapping[str, float]
    white: Mapping[str, float]

    def at_black(self) -> float:
        """Return the share of all samples at black, each color counted alike."""
        return float(np.mean(list(self.black.values())))

    def at_white(self) -> float:
        """Return the share of all samples at white, each color counted alike."""
        return float(np.mean(list(self.white.values())))


def distribution(picture: Image | EncodedPicture) -> Distribution:
    """Measure the visible samples of any state of a picture, all of them.

    A mosaic is measured by photosites: 1 is its white level, also after white balance, whose gains lift colors above
    it; a finished file by its own samples, in whatever space it is. Samples that are not numbers count nowhere.
    """
    linear = isinstance(picture, Image) and not isinstance(picture, DisplayImage)
    shares, black, white = {}, {}, {}
    for color, planes in _colors(picture).items():
        count = sum(plane.size for plane in planes)
        shares[color] = tuple(sum(_counts(plane, stops=linear) for plane in planes) / count)
        black[color] = sum(np.count_nonzero(plane <= 0) for plane in planes) / count
        white[color] = sum(np.count_nonzero(plane >= 1) for plane in planes) / count
    return Distribution("stops" if linear else "display", shares, black, white)


def _colors(picture: Image | EncodedPicture) -> Mapping[str, Sequence[Samples]]:
    if isinstance(picture, Mosaic):
        return colors_in(picture.samples, picture.cfa, picture.window)
    if isinstance(picture, EncodedPicture):
        samples = decode_picture(picture.content, Path(f"picture{picture.suffix}"))
    else:
        samples = picture.visible()
    return {color: [samples[..., channel]] for channel, color in enumerate("RGB")}


def _counts(plane: Samples, *, stops: bool) -> Any:
    if stops:
        low, high = STOPS
        # Scaled and cut off in float32, so that what lies beyond an end is left to `black` and `white`.
        plane = (np.log2(plane[plane > 0]) - np.float32(low)) / np.float32(high - low)
    counts, _ = np.histogram(plane, BINS, (0, 1))
    return counts
