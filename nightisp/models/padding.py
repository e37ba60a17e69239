"""Grow pictures by mirroring, whatever their size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mirrored(size: int, length: int) -> NDArray[np.int64]:
    """Return, for an axis of `size` samples grown at its end to `length`, which sample stands at each place.

    The last sample is the mirror and is not repeated (numpy's "reflect"). Unlike torch's reflection, the mirror goes
    back and forth as often as needed, so that even one sample can be grown.

    Examples
    --------
    >>> mirrored(3, 8).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1]
    >>> mirrored(1, 4).tolist()
    [0, 0, 0, 0]
    """
    period = max(2 * size - 2, 1)
    index = np.arange(length) % period
    return np.minimum(index, period - index)


def grown(size: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below `size`."""
    return -(-size // multiple) * multiple


def cut(planes: NDArray[np.float32], rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
    """Return part of the planes, as a view if it lies inside; what lies beyond bottom and right is mirrored."""
    _, height, width = planes.shape
    inside = np.asarray(planes[:, slice(*rows), slice(*columns)], np.float32)
    if rows[1] <= height and columns[1] <= width:
        return inside
    down = mirrored(height, rows[1])[rows[0] :]
    across = mirrored(width, columns[1])[columns[0] :]
    part = np.empty_like(inside, shape=(len(planes), len(down), len(across)))  # in memory as the planes lie
    _, bottom, right = inside.shape
    part[:, :bottom, :right] = inside
    part[:, :bottom, right:] = planes[:, down[:bottom, None], across[right:]]
    part[:, bottom:] = planes[:, down[bottom:, None], across]
    return part
