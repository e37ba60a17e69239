"""Tell a sensor's noise from the mosaic alone: where the picture is flat, what is left is noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import colors_in
from nightisp.errors import NoGroundError
from nightisp.image import CFA, Samples, Window

Array = NDArray[np.float64]

_SIDES = (16, 8)  # of a block; the smaller where a plane has few of the larger
_ENOUGH = 400  # blocks of the four planes together
_BINS, _IN_BIN = 24, 40  # of brightness, at most; blocks in each, at least
_QUANTILE = 0.05  # of the blocks of a bin, by variance: the flattest
_BRIGHT = 0.9  # samples above it may be clipped, which takes their noise away
_MASK_POWER = 36.0  # sum of squares of the mask
_LEAST = 1e-10


def estimate_noise(samples: Samples, cfa: CFA, window: Window) -> tuple[float, float]:
    """Return shot and read noise of a mosaic, one pair for all colors, as one amplifier serves them.

    Second differences along both axes leave noise and little else. Their power in small blocks is compared among
    blocks of like brightness: the flattest twentieth is taken for noise alone, and made up for being the least of
    many. A line through the brightnesses gives the two figures.

    Parameters
    ----------
    samples
        float32 (H, W), linear, 0 = black level, 1 = white level.
    cfa
        Of `samples`.
    window
        What was visible; the rest is not looked at.

    Returns
    -------
    shot_noise, read_noise
        Variance = shot_noise x signal + read_noise.

    Raises
    ------
    NoGroundError
        If too little of the mosaic is below white, or it is too small.

    References
    ----------
    :cite:`immerkaer1996noise`, :cite:`foi2008`.
    """
    planes = [plane for parts in colors_in(samples, cfa, window).values() for plane in parts]
    for side in _SIDES:
        found = [_blocks(plane.astype(np.float64), side) for plane in planes]
        mean, power = (np.concatenate([block[part] for block in found]) for part in (0, 1))
        if len(mean) >= _ENOUGH:
            break
    if len(mean) < 16:
        raise NoGroundError(
            f"the mosaic has {len(mean)} blocks below white to tell its noise from; expected 16 or more: set "
            "denoise.noise: camera or file, or denoise.method: none"
        )
    return _line(*_flattest(mean, power, side))


def _blocks(plane: Array, side: int) -> tuple[Array, Array]:
    """Return mean and noise power of the blocks of a plane that hold nothing near white."""
    rows, columns = ((length - 2) // side for length in plane.shape)
    if min(rows, columns) < 1:
        return np.empty(0), np.empty(0)
    down = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    across = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]  # (H - 2, W - 2)
    inside = plane[1:-1, 1:-1]

    def split(values: Array) -> Array:
        cut = values[: rows * side, : columns * side]
        return cut.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side)

    light, differences = split(inside), split(across)
    dim = light.max(axis=1) < _BRIGHT
    return light[dim].mean(axis=1), (differences[dim] ** 2).mean(axis=1) / _MASK_POWER


def _flattest(mean: Array, power: Array, side: int) -> tuple[Array, Array, Array]:
    """Return brightness, noise variance and number of blocks of each bin of brightness."""
    order = np.argsort(mean)
    parts = [part for part in np.array_split(order, max(1, min(_BINS, len(order) // _IN_BIN))) if len(part)]
    rows = []
    for part in parts:
        least = np.quantile(power[part], _QUANTILE)
        flat = part[power[part] <= least]
        rows.append((mean[flat].mean(), least / _of_noise(side), len(part)))
    bright, variance, count = np.array(rows, np.float64).T
    return bright, variance, count


def _of_noise(side: int) -> float:
    """Return the quantile of the power of pure noise of variance 1: below 1, as it is taken of the flattest blocks."""
    samples = np.random.default_rng(0).standard_normal((side * 60 + 2, side * 60 + 2)) * 0.1
    return float(np.quantile(_blocks(samples, side)[1], _QUANTILE)) / 0.01


def _line(bright: Array, variance: Array, count: Array) -> tuple[float, float]:
    """Fit variance = shot x brightness + read, both positive, to relative errors; bins that stick out count less."""
    shot, read = max(float(np.median(variance / np.maximum(bright, 1e-4))), _LEAST), _LEAST
    for _ in range(30):
        fitted = np.maximum(shot * bright + read, _LEAST)
        excess = variance / fitted - 1
        # What texture adds lies above the line only.
        weight = count / fitted**2 / np.where(excess > 0, 1 + (excess / 0.15) ** 2, 1.0)
        design = np.stack([bright, np.ones_like(bright)], axis=1)
        normal, right = design.T @ (design * weight[:, None]), design.T @ (variance * weight)
        try:
            shot, read = np.linalg.solve(normal, right).tolist()
        except np.linalg.LinAlgError:
            shot, read = 0.0, float(np.average(variance, weights=weight))
        if read < _LEAST:
            shot, read = float((weight * bright * variance).sum() / (weight * bright**2).sum()), _LEAST
        if shot < _LEAST:
            shot, read = _LEAST, float(np.average(variance, weights=weight))
    return shot, read
