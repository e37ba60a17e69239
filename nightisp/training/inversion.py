"""The pipeline backwards: from a finished sRGB photograph to the mosaic that a sensor would have given.

Pure functions, one for each step of `tone`, `color`, `white_balance` and `demosaic`, in the reverse order. Developing
the result without mosaic and noise gives the photograph back to within 1/255 where nothing clips. The idea, and the
brightening of highlights, follow :cite:`brooks2019unprocessing`; noise is added by `nightisp.noise`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import positions
from nightisp.colorimetry import Matrix, invert
from nightisp.errors import ImageShapeError, ParamsError
from nightisp.image import CFA, Triple

Array = NDArray[np.floating[Any]]
Curve = Callable[[NDArray[np.float32]], NDArray[Any]]

ENTRIES = 65537
"""Places at which a curve is sampled: with `ToneCurve`, its own, so that nothing is lost between them."""


def invert_gamma(display: Array, gamma: float) -> Array:
    """Return `display ** gamma`, for display light in [0, 1] of any shape."""
    return np.asarray(display**gamma)


def invert_curve(curve: Curve, display: Array, entries: int = ENTRIES) -> Array:
    """Return the linear light that a tone curve maps to `display`, by straight lines between samples of the curve.

    Parameters
    ----------
    curve
        Takes float32 in [0, 1] to values that never go down.
    display
        What the curve gave, before gamma, any shape; values that it cannot give become its nearest end. Where it is
        level, one of the inputs is taken.
    entries
        How many samples of the curve, evenly spaced; 65536 or more keep the error below an 8-bit step at the foot.

    Returns
    -------
    Array
        float64 in [0, 1], the shape of `display`.

    Raises
    ------
    ParamsError
        If the curve goes down somewhere.
    """
    linear = np.linspace(0, 1, entries)
    curved = np.asarray(curve(linear.astype(np.float32)), dtype=np.float64)
    if np.any(np.diff(curved) < 0):
        raise ParamsError("the tone curve goes down somewhere; only one that never does can be inverted")
    return np.interp(display, curved, linear)


def raise_highlights(linear: Array, knee: float, peak: float) -> Array:
    """Give lamps back the light that the finished photograph clipped.

    Pixels whose mean lies above `knee` are multiplied by a factor that grows with the square of the excess, from 1 to
    `peak` for white: hue is kept, and the sensor clips them as it does in a real night. The mean, as a single channel
    clips over whole walls that a lamp lights, and ends there in a hard edge.

    Parameters
    ----------
    linear
        Linear sRGB, (H, W, 3), in [0, 1].
    knee
        Where it begins, in [0, 1).
    peak
        Factor for pixels that were white, at least 1.

    Returns
    -------
    Array
        (H, W, 3), from 0 to `peak`.
    """
    if not 0 <= knee < 1 or peak < 1:
        raise ParamsError(f"knee {knee} and peak {peak}: expected a knee from 0 to below 1 and a peak of 1 or more")
    excess = np.maximum(linear.mean(axis=-1, keepdims=True) - knee, 0) / (1 - knee)  # (H, W, 1)
    return np.asarray(linear * (1 + (peak - 1) * excess**2))


def srgb_to_camera(linear: Array, camera_to_srgb: Matrix) -> Array:
    """Return white-balanced camera RGB of linear sRGB; white stays white.

    Parameters
    ----------
    linear
        (H, W, 3).
    camera_to_srgb
        `camera_to_srgb_published` is undone exactly by the pipeline's default; `camera_to_srgb_dng` gives what a real
        camera would have seen, which the published chain renders paler.

    Returns
    -------
    Array
        (H, W, 3), not clipped; colors beyond what the camera can see are negative.
    """
    return np.asarray(linear @ invert(camera_to_srgb).T)


def unbalance(camera: Array, illuminant: Triple, exposure_ev: float = 0.0) -> Array:
    """Light white-balanced camera RGB by an illuminant and expose it: the inverse of gains and of `exposure_ev`.

    Parameters
    ----------
    camera
        (H, W, 3), linear; a neutral has three equal values.
    illuminant
        Camera RGB of a neutral, green = 1: the reciprocal of the gains.
    exposure_ev
        Stops by which the development is to be brightened: the sensor gets as many fewer.

    Returns
    -------
    Array
        (H, W, 3), linear, not clipped.

    Examples
    --------
    >>> unbalance(np.array([[[0.5, 0.5, 0.5]]]), (0.5, 1.0, 0.25), exposure_ev=1)
    array([[[0.125 , 0.25  , 0.0625]]])
    """
    return np.asarray(camera * np.array(illuminant) * 2.0**-exposure_ev)


def sample_mosaic(camera: Array, cfa: CFA) -> Array:
    """Keep of each pixel the color of its photosite: (H, W, 3) -> (H, W), same dtype, any size.

    Examples
    --------
    >>> sample_mosaic(np.arange(12.0).reshape(2, 2, 3), CFA.GRBG)
    array([[ 1.,  3.],
           [ 8., 10.]])
    """
    if camera.ndim != 3 or camera.shape[2] != 3:
        raise ImageShapeError(
            f"pixels are {camera.shape}; expected (H, W, 3)", expected="(H, W, 3)", actual=camera.shape
        )
    samples = np.empty(camera.shape[:2], camera.dtype)
    for channel, color in enumerate("RGB"):
        for row, column in positions(cfa, color):
            samples[row::2, column::2] = camera[row::2, column::2, channel]
    return samples


def invert_rendering(
    photograph: Array,
    *,
    curve: Curve,
    gamma: float,
    camera_to_srgb: Matrix,
    illuminant: Triple,
    exposure_ev: float = 0.0,
    highlights: tuple[float, float] | None = None,
) -> Array:
    """Return the light on the sensor that develops into a photograph.

    Parameters
    ----------
    photograph
        Display sRGB, (H, W, 3), in [0, 1].
    curve, gamma
        Those of the `tone` stage.
    camera_to_srgb
        See `srgb_to_camera`.
    illuminant, exposure_ev
        See `unbalance`.
    highlights
        Knee and peak of `raise_highlights`; None leaves the photograph's clipped lamps at 1.

    Returns
    -------
    Array
        Camera RGB, (H, W, 3), linear, 1 = white level; not clipped.
    """
    linear = invert_curve(curve, invert_gamma(photograph, gamma))
    if highlights is not None:
        linear = raise_highlights(linear, *highlights)
    return unbalance(srgb_to_camera(linear, camera_to_srgb), illuminant, exposure_ev)
