"""Work on large arrays a few rows at a time, on all cores; what is needed on the way stays small and in the caches."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ROWS = 64


def in_rows(
    work: Callable[..., Any], *arrays: NDArray[Any], dtype: DTypeLike = np.float32, into: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Apply what works pixel by pixel to arrays of the same height.

    Parameters
    ----------
    work
        Takes as many parts of ROWS rows as there are arrays, and gives one of the first one's shape.
    arrays
        (H, ...).
    dtype
        Of the result: what `work` gives is cast to it.
    into
        Where the result goes, of its shape and type; a new array if not given.

    Returns
    -------
    ndarray
        The shape of the first array, C-contiguous.

    Examples
    --------
    >>> in_rows(lambda part, more: part + more, np.ones((600, 2)), np.full((600, 2), 2.0)).sum()
    np.float32(3600.0)
    """
    result = np.empty(arrays[0].shape, dtype) if into is None else into

    def step(top: int) -> None:
        part = slice(top, top + ROWS)
        result[part] = work(*(array[part] for array in arrays))

    tops = range(0, len(result), ROWS)
    if len(tops) < 2:
        for top in tops:
            step(top)
        return result
    # NumPy lets go of the interpreter's lock while it computes.
    with ThreadPoolExecutor(min(len(tops), os.cpu_count() or 1)) as threads:
        list(threads.map(step, tops))  # the list raises what a step raised
    return result
