"""Make pictures small: as benchmarks of super-resolution are made, and as refinement leaves them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SCALE = 4
"""By how much width and height shrink, and HAT enlarges them."""


def as_refined(pixels: Array, blur: float, noise: float, rng: np.random.Generator) -> Array:
    """Return a picture as refinement leaves it: a quarter of its sides by areas, a little blurred and noisy.

    Parameters
    ----------
    pixels
        float32 (4 H, 4 W, 3) in [0, 1].
    blur
        Deviation of the Gaussian, in small pixels.
    noise
        Deviation of the noise; white = 1.

    Returns
    -------
    NDArray
        float32 (H, W, 3).
    """
    import cv2

    height, width = (length // SCALE for length in pixels.shape[:2])
    small = pixels.reshape(height, SCALE, width, SCALE, 3).mean(axis=(1, 3), dtype=np.float32)
    if blur > 0.05:  # a narrower Gaussian has weight on its middle alone
        small = np.asarray(cv2.GaussianBlur(small, (5, 5), blur, borderType=cv2.BORDER_REFLECT))
    return np.asarray(small + np.float32(noise) * rng.standard_normal(small.shape, np.float32))


def bicubic(pixels: Array, size: tuple[int, int]) -> Array:
    """Return a picture of another size by cubic convolution, as benchmarks of super-resolution are made.

    Where it shrinks, the kernel is widened by the factor, so that nothing aliases. Pixels beyond the border are those
    within it, mirrored, the last one repeated. Nothing is clipped.

    Parameters
    ----------
    pixels
        float32 (H, W, 3).
    size
        Height and width to come.

    References
    ----------
    :cite:`keys1981cubic`, with its parameter at -1/2.

    Examples
    --------
    >>> bicubic(np.eye(2, dtype=np.float32)[..., None], (1, 1)).ravel().tolist()
    [0.5]
    """
    down, across = _weights(pixels.shape[0], size[0]), _weights(pixels.shape[1], size[1])
    return np.asarray(np.matmul(across, np.tensordot(down, pixels, axes=(1, 0))), np.float32)


@lru_cache(maxsize=64)
def _weights(length: int, target: int) -> Array:
    """Return what each of `length` samples counts in each of `target` ones: (target, length), rows adding up to 1."""
    scale = target / length
    narrow = min(scale, 1.0)
    place = ((np.arange(target) + 0.5) / scale - 0.5)[:, None]
    reach = int(np.ceil(2 / narrow))
    source = np.floor(place).astype(np.int64) + np.arange(-reach, reach + 2)
    weight = _cubic((place - source) * narrow)
    source %= 2 * length
    weights = np.zeros((target, length))
    rows = np.broadcast_to(np.arange(target)[:, None], source.shape)
    np.add.at(weights, (rows, np.minimum(source, 2 * length - 1 - source)), weight)
    found: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    found.flags.writeable = False
    return found


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0)))
