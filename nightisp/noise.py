"""Noise of a sensor: shot, read, row, quantization.

Samples are linear, 0 = black level, 1 = white level, as in `Mosaic`. Variances are on that scale: variance = shot x
signal + read, the two numbers of DNG's NoiseProfile :cite:`dng171`. What is left out: fixed patterns, banding that
moves with time, hot photosites, and the correlation between neighbors that a camera's own denoising leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightisp.errors import ParamsError

Array = NDArray[np.floating[Any]]


def _variance(name: str, value: ArrayLike) -> NDArray[np.float64]:
    variance = np.asarray(value, dtype=np.float64)
    impossible = variance[~(np.isfinite(variance) & (variance >= 0))]
    if impossible.size:
        raise ParamsError(
            f"{name} is {impossible[0]:g}; expected a finite variance of 0 or more. "
            "Fitted profiles may be negative at low ISO: clip them at 0 first"
        )
    return variance


def add_noise(samples: Array, shot_noise: ArrayLike, read_noise: ArrayLike, rng: np.random.Generator) -> Array:
    """Add shot and read noise: the variance becomes `shot_noise` x signal + `read_noise`.

    Shot noise is drawn from a Poisson distribution of the photoelectrons, 1 / `shot_noise` of them being white level,
    so that it is skewed in the dark as a sensor's is; read noise is Gaussian. The mean is kept.

    Parameters
    ----------
    samples
        The light, any shape, float; linear, 0 = black level. What is below 0 gets read noise only.
    shot_noise, read_noise
        Variances of 0 or more that broadcast against `samples`: numbers, or one for each photosite.
    rng
        Gives the draws; the same seed gives the same noise.

    Returns
    -------
    Array
        Same shape and dtype; not clipped: negative where the noise is.

    Raises
    ------
    ParamsError
        If a variance is negative or not finite.

    References
    ----------
    :cite:`foi2008`.
    """
    shot, read = _variance("shot_noise", shot_noise), _variance("read_noise", read_noise)
    per_electron = np.where(shot > 0, shot, 1.0)
    electrons = np.where(shot > 0, np.maximum(samples, 0) / per_electron, 0.0)
    of_light = (rng.poisson(electrons) - electrons) * per_electron
    of_reading = rng.standard_normal(samples.shape) * np.sqrt(read)
    return np.asarray(samples + of_light + of_reading, dtype=samples.dtype)


def add_row_noise(samples: Array, row_noise: float, rng: np.random.Generator) -> Array:
    """Add one Gaussian offset of variance `row_noise` to each row of (H, W); same dtype, not clipped."""
    deviation = np.sqrt(_variance("row_noise", row_noise))
    offsets = rng.standard_normal((samples.shape[0], 1)) * deviation
    return np.asarray(samples + offsets, dtype=samples.dtype)


def quantize(
    samples: Array, black_level: Sequence[float], white_level: float, largest: int | None = None
) -> NDArray[np.uint16]:
    """Turn linear samples into the integers of a raw file.

    Parameters
    ----------
    samples
        (H, W), 0 = black level, 1 = white level; negative samples reach below black level.
    black_level
        One for each position of the 2 x 2 block, in reading order from the top-left of `samples`.
    white_level
        Of all positions.
    largest
        Where the integers end: the white level (a sensor that saturates there) if it is None.

    Returns
    -------
    NDArray
        uint16 (H, W), rounded to the nearest and clipped to 0 ... `largest`.

    Raises
    ------
    ParamsError
        If white level is not above every black level, or a level does not fit into 16 bits.

    Examples
    --------
    >>> quantize(np.array([[0.0, 1.0], [-0.01, 2.0]]), (64, 65, 66, 67), 1023)
    array([[  64, 1023],
           [  56, 1023]], dtype=uint16)
    """
    largest = int(white_level) if largest is None else largest
    if len(black_level) != 4 or min(black_level) < 0 or not max(black_level) < white_level <= largest <= 65535:
        raise ParamsError(
            f"black_level {tuple(black_level)}, white_level {white_level}, largest value {largest}; "
            "expected four black levels of 0 or more, all below the white level, and that within 16 bits"
        )
    values = np.empty(samples.shape, np.uint16)
    for position, black in enumerate(black_level):
        of_position = np.s_[position // 2 :: 2, position % 2 :: 2]
        counts = samples[of_position].astype(np.float64) * (white_level - black) + black
        values[of_position] = np.clip(np.rint(counts), 0, largest)
    return values
