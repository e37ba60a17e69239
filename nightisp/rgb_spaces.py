"""The color spaces that a finished picture may be written in, and the way from one to another through linear light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightisp.colorimetry import Matrix, xy_to_xyz
from nightisp.image import Samples
from nightisp.rows import in_rows

SpaceName = Literal["srgb", "display_p3", "adobe_rgb"]

WHITE_XY = (0.3127, 0.3290)
"""Chromaticity of D65, the white of every space here."""


@dataclass(frozen=True, slots=True)
class RGBSpace:
    """Three primaries and a transfer curve, white D65.

    Parameters
    ----------
    title
        As the color profile calls it.
    primaries
        CIE 1931 (x, y) of red, green and blue.
    gamma
        light = value ** gamma; None: the curve of sRGB.
    """

    title: str
    primaries: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    gamma: float | None = None

    def to_xyz(self) -> Matrix:
        """Return the matrix from linear RGB to XYZ under D65; (1, 1, 1) becomes white of luminance 1."""
        primaries = np.stack([xy_to_xyz(x, y) for x, y in self.primaries], axis=1)
        return np.asarray(primaries * np.linalg.solve(primaries, xy_to_xyz(*WHITE_XY)))

    def decoded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return linear light of values in [0, 1]."""
        if self.gamma is not None:
            return values**self.gamma
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    def encoded(self, light: NDArray[Any]) -> NDArray[Any]:
        """Return the values of linear light in [0, 1]."""
        if self.gamma is not None:
            return light ** (1 / self.gamma)
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


_RED, _BLUE = (0.64, 0.33), (0.15, 0.06)

SPACES: Mapping[SpaceName, RGBSpace] = {
    "srgb": RGBSpace("sRGB IEC61966-2-1", (_RED, (0.30, 0.60), _BLUE)),
    "display_p3": RGBSpace("Display P3", ((0.680, 0.320), (0.265, 0.690), _BLUE)),
    "adobe_rgb": RGBSpace("Compatible with Adobe RGB (1998)", (_RED, (0.21, 0.71), _BLUE), 563 / 256),
}
"""sRGB; DCI-P3's primaries with sRGB's white and curve; Adobe RGB (1998). Both others hold all of sRGB."""


def to_light(values: Samples, space: SpaceName) -> Samples:
    """Return linear light, (H, W, 3) float32, of encoded values; these are clipped to [0, 1]."""
    return in_rows(_decoder(space), values)


def from_light(light: Samples, space: SpaceName, to: SpaceName) -> Samples:
    """Encode linear light of the primaries of `space` in the space `to`, (H, W, 3) float32 in [0, 1].

    What lies outside `to` is clipped, channel by channel.
    """
    return in_rows(_encoder(space, to), light)


def converted(values: Samples, space: SpaceName, to: SpaceName) -> Samples:
    """Return encoded values, (H, W, 3) float32, in another space; in the same one they come back as they are.

    References
    ----------
    :cite:`srgb`, :cite:`dcip3`, :cite:`adobergb`.

    Examples
    --------
    >>> red = np.array([[[1, 0, 0]]], np.float32)
    >>> converted(red, "srgb", "display_p3").round(3)
    array([[[0.917, 0.2  , 0.139]]], dtype=float32)
    """
    if to == space:
        return values
    decode, encode = _decoder(space), _encoder(space, to)
    return in_rows(lambda part: encode(decode(part)), values)


def _decoder(space: SpaceName) -> Callable[[Samples], Samples]:
    return lambda values: SPACES[space].decoded(np.clip(values, 0, 1))


def _encoder(space: SpaceName, to: SpaceName) -> Callable[[Samples], Samples]:
    if to == space:
        return lambda light: SPACES[to].encoded(np.clip(light, 0, 1))
    matrix = (np.linalg.inv(SPACES[to].to_xyz()) @ SPACES[space].to_xyz()).T.astype(np.float32)
    return lambda light: SPACES[to].encoded(np.clip(light @ matrix, 0, 1))
