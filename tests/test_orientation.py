"""Orientation against EXIF's own words: where row 0 and column 0 of the stored picture are seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.image import Window
from nightisp.orientation import orient, orient_window
from tests.strategies import MODEST, orientations, upright, windows

STORED = np.array([[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_orient_by_hand(orientation: int, seen: list[list[int]]) -> None:
    assert orient(STORED, orientation).tolist() == seen
    assert upright(STORED, orientation).tolist() == seen  # what other tests compare with


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orient_keeps_channels_and_is_contiguous(orientation: int) -> None:
    pixels = np.arange(24).reshape(2, 4, 3)
    turned = orient(pixels, orientation)
    assert turned.flags.c_contiguous
    assert np.array_equal(turned[..., 1], orient(pixels[..., 1], orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orient_leaves_no_negative_stride(orientation: int) -> None:
    """Numpy calls an array of one row contiguous whichever way it runs; torch takes none that runs backwards."""
    assert min(orient(np.zeros((1, 1, 3), np.float32), orientation).strides) > 0


@MODEST
@given(st.data(), st.integers(1, 9), st.integers(1, 9), orientations)
def test_orient_window_follows_the_samples(data: st.DataObject, rows: int, columns: int, orientation: int) -> None:
    window: Window = data.draw(windows(rows, columns))
    samples = np.arange(rows * columns).reshape(rows, columns)
    moved = orient_window(window, (rows, columns), orientation)
    assert np.array_equal(orient(samples, orientation)[moved.slices], orient(samples[window.slices], orientation))


@pytest.mark.parametrize(("orientation", "back"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)])
def test_orient_there_and_back(orientation: int, back: int) -> None:
    assert np.array_equal(orient(orient(STORED, orientation), back), STORED)
