"""Light and color as numbers: black-body locus, DNG's camera model, chromatic adaptation, sRGB."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import NoGroundError
from nightisp.image import ColorMatrix, Triple

Matrix = NDArray[np.float64]

D50_XYZ = np.array([0.9642, 1.0, 0.8249])  # ICC profile connection space
D65_XYZ = np.array([0.95047, 1.0, 1.08883])

XYZ_D65_TO_SRGB: Matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
"""IEC 61966-2-1, XYZ under D65 to linear sRGB."""

XYZ_D50_TO_ROMM: Matrix = np.array([[1.3460, -0.2556, -0.0511], [-0.5446, 1.5082, 0.0205], [0.0, 0.0, 1.2123]])
"""ISO 22028-2, XYZ to linear ROMM RGB (ProPhoto), wide enough that no lamp has a negative color in it."""

PUBLISHED_XYZ_TO_SRGB: Matrix = np.array(
    [[1.521689, -0.673763, 0.152074], [-0.145724, 1.266507, -0.120783], [-0.0397583, -0.561249, 1.60100734]]
)
"""The published system's XYZ to linear sRGB; its rows are normalized before use."""

BRADFORD: Matrix = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

# EXIF LightSource -> correlated color temperature in kelvin. Lights without a temperature of their own count as D65.
_KELVIN = {
    1: 5500,
    2: 4200,
    3: 2850,
    4: 5500,
    9: 5500,
    10: 6500,
    11: 7500,
    12: 6430,
    13: 5000,
    14: 4150,
    15: 3450,
    16: 2925,
    17: 2856,
    18: 4874,
    19: 6774,
    20: 5503,
    21: 6504,
    22: 7504,
    23: 5003,
    24: 3200,
}
KELVIN_RANGE = (1667.0, 25000.0)


def illuminant_kelvin(light_source: int) -> float:
    """Return the correlated color temperature of an EXIF LightSource code, in kelvin."""
    return float(_KELVIN.get(light_source, 6504))


def kelvin_to_xy(kelvin: float) -> tuple[float, float]:
    """Return the CIE 1931 chromaticity of a black body, to 0.001.

    Parameters
    ----------
    kelvin
        Temperature, 1667 to 25000 K.

    References
    ----------
    :cite:`kim2002planckian`.

    Examples
    --------
    >>> tuple(round(v, 3) for v in kelvin_to_xy(2856))
    (0.447, 0.408)
    """
    t = 1e3 / kelvin
    if kelvin <= 4000:
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if kelvin <= 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif kelvin <= 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    return x, y


@cache
def _locus() -> tuple[NDArray[np.float64], Matrix]:
    mired = np.linspace(1e6 / KELVIN_RANGE[1], 1e6 / KELVIN_RANGE[0], 1121)  # half a mired apart
    return mired, np.array([_xy_to_uv(*kelvin_to_xy(1e6 / m)) for m in mired])


def _xy_to_uv(x: float, y: float) -> tuple[float, float]:
    """CIE 1960 UCS, in which correlated color temperature is defined."""
    scale = -2 * x + 12 * y + 3
    return 4 * x / scale, 6 * y / scale


def xy_to_kelvin(x: float, y: float) -> float:
    """Return the correlated color temperature, within 1667 and 25000 K: the nearest black body in CIE 1960 (u, v)."""
    mired, locus = _locus()
    distance = np.hypot(*(locus - _xy_to_uv(x, y)).T)
    return float(1e6 / mired[np.argmin(distance)])


def xy_to_xyz(x: float, y: float) -> NDArray[np.float64]:
    """Return XYZ of luminance 1 with chromaticity (x, y)."""
    return np.array([x / y, 1.0, (1 - x - y) / y])


def xyz_to_camera_at(matrices: Sequence[ColorMatrix], kelvin: float) -> Matrix:
    """Interpolate ColorMatrix between its two illuminants, linearly in 1/temperature; a single one holds for all.

    References
    ----------
    :cite:`dng171`, chapter "Mapping Camera Color Space to CIE XYZ Space".
    """
    if not matrices:
        raise NoGroundError("the file holds no ColorMatrix; set color.matrix: identity to do without")
    by_kelvin = (
        sorted((illuminant_kelvin(m.illuminant), np.array(m.xyz_to_camera)) for m in matrices[:2])
        if (
            len(matrices) > 1 and illuminant_kelvin(matrices[0].illuminant) != illuminant_kelvin(matrices[1].illuminant)
        )
        else [(illuminant_kelvin(matrices[0].illuminant), np.array(matrices[0].xyz_to_camera))] * 2
    )
    (low, at_low), (high, at_high) = by_kelvin
    if kelvin <= low or low == high:
        return at_low
    if kelvin >= high:
        return at_high
    weight = (1 / kelvin - 1 / high) / (1 / low - 1 / high)
    return np.asarray(weight * at_low + (1 - weight) * at_high)


def neutral_to_xy(neutral: Triple, matrices: Sequence[ColorMatrix]) -> tuple[float, float]:
    """Return the chromaticity of the light under which a neutral has this camera RGB.

    The matrix depends on the light, so the two are found in turn, from D50 on, as the DNG specification says.
    """
    x, y = 0.3457, 0.3585
    for _ in range(30):
        camera_to_xyz = invert(xyz_to_camera_at(matrices, xy_to_kelvin(x, y)))
        xyz = camera_to_xyz @ np.array(neutral)
        last, (x, y) = (x, y), xyz[:2] / xyz.sum()
        if abs(x - last[0]) + abs(y - last[1]) < 1e-7:
            break
    return float(x), float(y)


def kelvin_to_neutral(kelvin: float, matrices: Sequence[ColorMatrix]) -> Triple:
    """Return the camera RGB of a neutral lit by a black body, green = 1."""
    r, g, b = xyz_to_camera_at(matrices, kelvin) @ xy_to_xyz(*kelvin_to_xy(kelvin))
    if min(r, g, b) <= 0:
        raise NoGroundError(f"at {kelvin:g} K the file's ColorMatrix gives a neutral of ({r:.3f}, {g:.3f}, {b:.3f})")
    return float(r / g), 1.0, float(b / g)


def adaptation(from_xyz: NDArray[np.float64], to_xyz: NDArray[np.float64]) -> Matrix:
    """Return the linear Bradford adaptation: `to = M @ from`.

    References
    ----------
    :cite:`lam1985bradford`.
    """
    gains = (BRADFORD @ to_xyz) / (BRADFORD @ from_xyz)
    return np.asarray(np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD)


def rows_to_one(matrix: Matrix) -> Matrix:
    """Scale each row to sum 1, so that (1, 1, 1) stays (1, 1, 1)."""
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def invert(matrix: Matrix) -> Matrix:
    """Invert a color matrix.

    Raises
    ------
    NoGroundError
        If it is singular, or so near to it that noise would be blown up a thousandfold.
    """
    # Sane matrices hold numbers near 1; beside 1e-300 even a well-conditioned one has no inverse that floats can hold.
    if not np.all(np.isfinite(matrix)) or not 1e-6 < np.abs(matrix).max() < 1e6 or np.linalg.cond(matrix) > 1e3:
        raise NoGroundError(f"the ColorMatrix {matrix.tolist()} cannot be inverted; set color.matrix: identity")
    return np.asarray(np.linalg.inv(matrix))


def camera_to_srgb_published(matrix: ColorMatrix) -> Matrix:
    """Return the published chain for white-balanced camera RGB: rows of both matrices scaled to sum 1."""
    camera_to_xyz = invert(rows_to_one(np.array(matrix.xyz_to_camera)))
    return rows_to_one(PUBLISHED_XYZ_TO_SRGB) @ camera_to_xyz


def camera_to_srgb_dng(matrices: Sequence[ColorMatrix], gains: Triple) -> Matrix:
    """Return the DNG specification's chain for camera RGB already multiplied by `gains`.

    Camera to XYZ by the ColorMatrix interpolated for the light that `gains` neutralize, adapted from that light to
    D65 by linear Bradford, then to linear sRGB; (1, 1, 1) stays (1, 1, 1).
    """
    neutral = (gains[1] / gains[0], 1.0, gains[1] / gains[2])
    x, y = neutral_to_xy(neutral, matrices)
    camera_to_xyz = invert(xyz_to_camera_at(matrices, xy_to_kelvin(x, y)))
    white = camera_to_xyz @ np.array(neutral)
    if not (BRADFORD @ white).min() > 0:  # NaN too
        raise NoGroundError(
            f"gains of ({', '.join(f'{g:.3f}' for g in gains)}) stand for no light that the file's ColorMatrix knows; "
            "set color.matrix: published, or give other gains (white_balance.method: as_shot, gains or kelvin)"
        )
    to_d65 = adaptation(white / white[1], D65_XYZ)
    return rows_to_one(XYZ_D65_TO_SRGB @ to_d65 @ camera_to_xyz @ np.diag(neutral) / white[1])
