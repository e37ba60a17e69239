"""Make a sensor's noise the same everywhere, and undo it: the generalized Anscombe transform.

Samples are linear, 0 = black level, 1 = white level, with variance = shot_noise x signal + read_noise, as in
`nightisp.noise`. Stabilized, the noise has variance 1 at every brightness, ISO and camera, so that one denoiser fits
all. Black stays 0: a constant is subtracted that the usual form leaves in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]

_ROOT = float(np.sqrt(1.5))
_DARKEST = 2 * float(np.sqrt(3 / 8))  # where the closed form reaches 0 without read noise; it turns around below
_LEAST_GAIN = 1e-4  # of a photoelectron, in deviations of read noise: below it the noise counts as all read noise


def _electrons(shot_noise: ArrayLike, read_noise: ArrayLike) -> tuple[Array, Array]:
    """Return what one photoelectron is, and twice the root of 3/8 + read variance in photoelectrons."""
    shot, read = np.asarray(shot_noise, np.float64), np.asarray(read_noise, np.float64)
    electron = np.maximum(np.maximum(shot, _LEAST_GAIN * np.sqrt(read)), 1e-12)
    return electron.astype(np.float32), (2 * np.sqrt(3 / 8 + read / electron**2)).astype(np.float32)


def stabilize(samples: Array, shot_noise: ArrayLike, read_noise: ArrayLike) -> Array:
    """Return samples whose noise has variance 1; 0 stays 0.

    Parameters
    ----------
    samples
        float32, any shape, linear; negative ones too.
    shot_noise, read_noise
        Variances of 0 or more that broadcast against `samples`.

    Returns
    -------
    Array
        float32, the shape of `samples`; up to about 2 / sqrt(shot_noise).

    References
    ----------
    :cite:`starck1998anscombe`, :cite:`makitalo2013gat`.

    Examples
    --------
    >>> [round(float(z), 2) for z in stabilize(np.float32([0, 1]), 0.01, 0.0)]
    [0.0, 18.81]
    """
    electron, zero = _electrons(shot_noise, read_noise)
    electrons = np.maximum(samples / electron, -zero * zero / 4)
    # The difference of two roots, written so that nothing cancels where read noise is large.
    return np.asarray(4 * electrons / (np.sqrt(4 * electrons + zero * zero) + zero), np.float32)


def restore(stabilized: Array, shot_noise: ArrayLike, read_noise: ArrayLike) -> Array:
    """Return the light that denoised stabilized samples stand for, without bias.

    The root bends what it averages over: the mean of stabilized samples is not the stabilized mean. This closed form
    of the exact inverse makes up for it; squaring would leave shadows too dark.

    Parameters
    ----------
    stabilized
        float32, any shape, as `stabilize` gives them, without noise.
    shot_noise, read_noise
        As in `stabilize`.

    Returns
    -------
    Array
        float32, linear, the shape of `stabilized`; not clipped.

    References
    ----------
    :cite:`makitalo2013gat`, equation 10.
    """
    electron, zero = _electrons(shot_noise, read_noise)
    return np.asarray(electron * _light(stabilized, zero)[0], np.float32)


def expected(samples: Array, shot_noise: ArrayLike, read_noise: ArrayLike) -> Array:
    """Return what a perfect denoiser makes of stabilized samples: the inverse of `restore`.

    Parameters
    ----------
    samples
        float32, any shape, the light without noise, 0 or more.
    shot_noise, read_noise
        As in `stabilize`.

    Returns
    -------
    Array
        float32, stabilized, the shape of `samples`; `restore` gives `samples` back to 1e-5 of white.
    """
    electron, zero = _electrons(shot_noise, read_noise)
    electrons = samples / electron
    stabilized = stabilize(samples, shot_noise, read_noise)
    for _ in range(4):
        light, slope = _light(stabilized, zero)
        stabilized = np.asarray(stabilized - (light - electrons) / slope, np.float32)
    return stabilized


def _light(stabilized: Array, zero: Array) -> tuple[Array, Array]:
    """Return photoelectrons of stabilized samples, and by how many they grow with them."""
    above = np.maximum(stabilized, np.float32(_DARKEST) - zero)
    root = above + zero
    part = 1 / root
    light = above * (above + 2 * zero) / 4 + 1 / 4 + part * (_ROOT / 4 + part * (-11 / 8 + part * 5 * _ROOT / 8))
    slope = root / 2 - part**2 * (_ROOT / 4 + part * (-11 / 4 + part * 15 * _ROOT / 8))
    return light, slope
