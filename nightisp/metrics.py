"""How far a picture is from its reference: PSNR, SSIM, CIEDE2000, and the angle between two illuminants.

Pictures are float arrays (H, W) or (H, W, C), 0 = black, 1 = white; nothing is clipped or rounded here, so that a file
of 8 bits is measured as it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightisp.colorimetry import XYZ_D65_TO_SRGB
from nightisp.errors import ImageShapeError

Array = NDArray[np.floating[Any]]
Exact = NDArray[np.float64]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_ROWS = 32  # at a time: CIEDE2000 takes some thirty arrays of what it works on, which are to fit into a cache
_LUMA = np.array([65.481, 128.553, 24.966]) / 255
_LUMA_OFFSET = 16 / 255


def psnr(picture: Array, reference: Array, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in decibels; infinite where nothing differs.

    Parameters
    ----------
    picture, reference
        Any shape, the same for both.
    peak
        The value of white.

    Raises
    ------
    ImageShapeError
        If the shapes differ.

    Examples
    --------
    >>> round(psnr(np.full((4, 4), 0.6), np.full((4, 4), 0.5)), 6)
    20.0
    """
    _check_alike(picture, reference)
    error = float(np.mean(np.square(np.subtract(picture, reference, dtype=np.float64))))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(picture: Array, reference: Array) -> float:
    """Return the mean structural similarity, 1 where nothing differs, over windows that lie inside the picture.

    A Gaussian window of 11 x 11 and a deviation of 1.5, K1 = 0.01 and K2 = 0.03 for white = 1, at full size; of several
    channels the mean.

    Parameters
    ----------
    picture, reference
        (H, W) or (H, W, C), at least 11 x 11, in [0, 1].

    Raises
    ------
    ImageShapeError
        If the shapes differ, or a side is shorter than the window.

    References
    ----------
    :cite:`wang2004ssim`.
    """
    _check_alike(picture, reference)
    if picture.ndim not in (2, 3) or min(picture.shape[:2]) < _WINDOW:
        raise ImageShapeError(
            f"a picture of {picture.shape} has no window of SSIM; expected (H, W) or (H, W, C), "
            f"at least {_WINDOW} x {_WINDOW}",
            expected=(_WINDOW, _WINDOW),
            actual=picture.shape,
        )
    planes = np.atleast_3d(picture), np.atleast_3d(reference)
    return float(np.mean([_ssim_of_plane(planes[0][..., c], planes[1][..., c]) for c in range(planes[0].shape[2])]))


def _ssim_of_plane(picture: Array, reference: Array) -> float:
    x, y = np.asarray(picture, np.float64), np.asarray(reference, np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    products = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    covariance = _windowed(x * y) - products
    variances = _windowed(x * x + y * y) - squares
    similar = (2 * products + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
    return float(similar.mean())


def _windowed(plane: Exact) -> Exact:
    """Return the Gaussian mean of every whole window: (H, W) -> (H - 10, W - 10)."""
    import cv2

    weights = cv2.getGaussianKernel(_WINDOW, _SIGMA, cv2.CV_64F)
    half = _WINDOW // 2
    filtered = cv2.sepFilter2D(np.ascontiguousarray(plane), cv2.CV_64F, weights, weights)
    return np.asarray(filtered[half:-half, half:-half])


def luma(picture: Array) -> Exact:
    """Return Y of BT.601 in studio range, as papers on super-resolution measure it: (H, W, 3) in [0, 1] -> (H, W).

    References
    ----------
    :cite:`bt601`.

    Examples
    --------
    >>> [round(float(255 * luma(np.full((1, 1, 3), v))[0, 0])) for v in (0.0, 1.0)]
    [16, 235]
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ImageShapeError(
            f"a picture of {picture.shape} has no luma; expected (H, W, 3)", expected="(H, W, 3)", actual=picture.shape
        )
    return np.asarray(picture.astype(np.float64) @ _LUMA + _LUMA_OFFSET)


def psnr_y(picture: Array, reference: Array, border: int = 0) -> float:
    """Return the PSNR of `luma` in decibels, `border` pixels at each side left out."""
    _check_alike(picture, reference)
    return psnr(_inner(luma(picture), border), _inner(luma(reference), border))


def ssim_y(picture: Array, reference: Array, border: int = 0) -> float:
    """Return the mean structural similarity of `luma`, `border` pixels at each side left out."""
    _check_alike(picture, reference)
    return ssim(_inner(luma(picture), border), _inner(luma(reference), border))


def _inner(plane: Exact, border: int) -> Exact:
    if border < 0 or min(plane.shape) <= 2 * border:
        raise ImageShapeError(
            f"a border of {border} leaves nothing of {plane.shape}; expected from 0 to less than half a side",
            expected=border,
            actual=plane.shape,
        )
    return plane[border : plane.shape[0] - border, border : plane.shape[1] - border]


def ciede2000(picture: Array, reference: Array) -> float:
    """Return the mean color difference of two pictures, 0 where nothing differs; about 1 is just seen side by side.

    Parameters
    ----------
    picture, reference
        sRGB, (H, W, 3), encoded for display, in [0, 1].

    Raises
    ------
    ImageShapeError
        If the shapes differ, or are not (H, W, 3).

    References
    ----------
    :cite:`sharma2005ciede2000`, :cite:`srgb`.
    """
    _check_alike(picture, reference)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ImageShapeError(
            f"a picture of {picture.shape} has no color; expected (H, W, 3)", expected="(H, W, 3)", actual=picture.shape
        )
    total = 0.0
    for top in range(0, len(picture), _ROWS):
        rows = slice(top, top + _ROWS)
        total += float(color_difference(srgb_to_lab(picture[rows]), srgb_to_lab(reference[rows])).sum())
    return total / (len(picture) * picture[0, :, 0].size)


def srgb_to_lab(srgb: Array) -> Exact:
    """Return CIELAB of sRGB (..., 3) in [0, 1]; sRGB's own white is L* = 100, and grays have no color.

    References
    ----------
    :cite:`srgb`.
    """
    values = np.clip(np.asarray(srgb, np.float64), 0, None)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.linalg.inv(XYZ_D65_TO_SRGB)
    xyz = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T  # of white: (1, 1, 1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def color_difference(lab: ArrayLike, reference: ArrayLike) -> Exact:
    """Return CIEDE2000 between CIELAB colors, kL = kC = kH = 1: (..., 3), (..., 3) -> (...).

    References
    ----------
    :cite:`sharma2005ciede2000`, whose equations (2) to (22) it follows.

    Examples
    --------
    >>> round(float(color_difference((50, 2.6772, -79.7751), (50, 0, -82.7485))), 4)
    2.0425
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(c, np.float64), -1, 0) for c in (lab, reference))
    grow = 1.5 - 0.5 * _colorful((_length(a1, b1) + _length(a2, b2)) / 2)
    a1, a2 = a1 * grow, a2 * grow
    c1, c2 = _length(a1, b1), _length(a2, b2)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)

    colorless = c1 * c2 == 0
    turn = h2 - h1
    turn = np.where(colorless, 0.0, turn - 360 * (turn > 180) + 360 * (turn < -180))
    d_lightness, d_chroma = l2 - l1, c2 - c1
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))

    lightness, chroma, total = (l1 + l2) / 2, (c1 + c2) / 2, h1 + h2
    around = np.where(total < 360, (total + 360) / 2, (total - 360) / 2)
    hue = np.where(colorless, total, np.where(np.abs(h1 - h2) <= 180, total / 2, around))
    t = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63)
    s_lightness = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    s_chroma, s_hue = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = -2 * _colorful(chroma) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    of_chroma, of_hue = d_chroma / s_chroma, d_hue / s_hue
    squared = (d_lightness / s_lightness) ** 2 + of_chroma**2 + of_hue**2 + rotation * of_chroma * of_hue
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _length(a: Exact, b: Exact) -> Exact:
    return np.asarray(np.sqrt(a * a + b * b))


def _hue(a: Exact, b: Exact) -> Exact:
    degrees = np.degrees(np.arctan2(b, a))
    return np.asarray(degrees + 360 * (degrees < 0))


def _colorful(chroma: Exact) -> Exact:
    """Return from 0 for grays to 1 for strong colors."""
    third = chroma * chroma * chroma  # NumPy's power is ten times as slow
    seventh = third * third * chroma
    return np.asarray(np.sqrt(seventh / (seventh + 25.0**7)))


def _cos(degrees: Exact) -> Exact:
    return np.asarray(np.cos(np.radians(degrees)))


def angular_error(estimate: ArrayLike, truth: ArrayLike) -> Exact:
    """Return the angle between illuminants in degrees, whatever their brightness: (..., 3), (..., 3) -> (...).

    Examples
    --------
    >>> float(angular_error((1, 1, 0), (1, 0, 0)).round(6))
    45.0
    """
    a, b = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    # Not by arccos, which loses half of the digits where the angle is small.
    across, along = np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)
    return np.asarray(np.degrees(np.arctan2(across, along)))


def angular_summary(errors: Sequence[float] | Array) -> dict[str, float]:
    """Return mean, median, trimean, best and worst quarter of angular errors, as papers on white balance do.

    The trimean weighs the quartiles 1 : 2 : 1; a quarter is the mean of n // 4 errors, of one at least.

    Raises
    ------
    ImageShapeError
        If there is no error at all.

    Examples
    --------
    >>> angular_summary([1, 2, 3, 4, 10])["mean"]
    4.0
    """
    ordered = np.sort(np.asarray(errors, np.float64).ravel())
    if not ordered.size:
        raise ImageShapeError("no angular error to sum up; expected one or more", expected=1, actual=0)
    low, middle, high = np.percentile(ordered, (25, 50, 75))
    quarter = max(1, ordered.size // 4)
    return {
        "mean": float(ordered.mean()),
        "median": float(middle),
        "trimean": float((low + 2 * middle + high) / 4),
        "best_25": float(ordered[:quarter].mean()),
        "worst_25": float(ordered[-quarter:].mean()),
    }


def _check_alike(picture: Array, reference: Array) -> None:
    if picture.shape != reference.shape or not picture.size:
        raise ImageShapeError(
            f"a picture of {picture.shape} cannot be measured against a reference of {reference.shape}; "
            "expected the same size and channels",
            expected=reference.shape,
            actual=picture.shape,
        )
