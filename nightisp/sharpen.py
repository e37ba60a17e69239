"""Sharpening for a display or a print: contrast at edges, without the rings of an unsharp mask around lamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGMA = 1.0
_REACH = 3
"""Pixels that the blur sees on each side; the neighborhood that bounds the result sees fewer."""
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_ROWS = 512


def sharpened(samples: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """Add `amount` times what a blur of 1 pixel takes away from the luminance, to all three channels alike.

    The sharpened luminance stays between the least and the greatest of its 5 x 5 neighborhood: an edge becomes
    steeper, and neither side of it gets darker or brighter than it was nearby.

    Parameters
    ----------
    samples
        Display light, (H, W, 3), of the size at which it will be looked at.
    amount
        0 changes nothing, 0.5 is moderate, 1 strong.

    Returns
    -------
    NDArray
        float32 (H, W, 3); it may leave [0, 1] where one channel of a color is near its end.
    """
    result = np.empty(samples.shape, np.float32)
    for top in range(0, len(samples), _ROWS):
        first, last = max(top - _REACH, 0), min(top + _ROWS + _REACH, len(samples))
        part = samples[first:last]
        inner = slice(top - first, min(top + _ROWS, len(samples)) - first)
        result[top : top + _ROWS] = part[inner] + _gain(part, np.float32(amount))[inner, :, None]
    return result


def _gain(part: NDArray[np.float32], amount: np.float32) -> NDArray[np.float32]:
    """Return what sharpening adds to the luminance, (h, w)."""
    import cv2

    luminance = part @ _LUMINANCE
    blurred = cv2.GaussianBlur(luminance, (2 * _REACH + 1,) * 2, _SIGMA, borderType=cv2.BORDER_REFLECT_101)
    near = np.ones((5, 5), np.uint8)
    wanted = luminance + amount * (luminance - blurred)
    bounded: NDArray[np.float32] = np.clip(wanted, cv2.erode(luminance, near), cv2.dilate(luminance, near))
    return bounded - luminance
