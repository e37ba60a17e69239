"""Make a picture smaller by averaging areas."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def shrunk_to(samples: NDArray[Any], longest: int | None) -> NDArray[Any]:
    """Return a picture whose longer side is at most `longest`, each pixel the mean of the area that it covers.

    Nothing is enlarged: what is small enough comes back as it is.

    Parameters
    ----------
    samples
        (H, W) or (H, W, C). Means are light only if samples are proportional to it.
    longest
        In pixels, at least 1; None: no limit.

    Examples
    --------
    >>> import numpy as np
    >>> shrunk_to(np.array([[0.0, 1.0, 0.5, 0.5]], np.float32), 2)
    array([[0.5, 0.5]], dtype=float32)
    """
    import cv2

    height, width = samples.shape[:2]
    scale = longest / max(height, width) if longest else 1.0
    if scale >= 1:
        return samples
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    shrunk: NDArray[Any] = cv2.resize(samples, size, interpolation=cv2.INTER_AREA)
    return shrunk
