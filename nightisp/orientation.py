"""EXIF orientation: turn and mirror an array so that it stands upright."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nightisp.image import Window

# EXIF 2.32, tag 0x0112, by what must be done to the stored array: transposed first, then rows, then columns reversed.
_TRANSPOSED = {5, 6, 7, 8}
_ROWS_REVERSED = {3, 4, 7, 8}
_COLUMNS_REVERSED = {2, 3, 6, 7}


def orient(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return `samples`, (H, W) or (H, W, C), as they stand upright; contiguous, width and height swapped for 5 to 8.

    Examples
    --------
    >>> orient(np.array([[1, 2], [3, 4]]), 6)  # the camera was held with its right side down: turn clockwise
    array([[3, 1],
           [4, 2]])

    References
    ----------
    :cite:`exif232`, tag Orientation.
    """
    if orientation in _TRANSPOSED:
        samples = samples.swapaxes(0, 1)
    if orientation in _ROWS_REVERSED:
        samples = samples[::-1]
    if orientation in _COLUMNS_REVERSED:
        samples = samples[:, ::-1]
    return samples.copy(order="C")  # ascontiguousarray leaves a negative stride where a side is 1, which torch refuses


def orient_window(window: Window, shape: tuple[int, int], orientation: int) -> Window:
    """Return where `window` of an array of `shape` (rows, columns) lies once that array is oriented."""
    top, left, height, width = window
    rows, columns = shape
    if orientation in _TRANSPOSED:
        top, left, height, width, rows, columns = left, top, width, height, columns, rows
    if orientation in _ROWS_REVERSED:
        top = rows - top - height
    if orientation in _COLUMNS_REVERSED:
        left = columns - left - width
    return Window(top, left, height, width)
