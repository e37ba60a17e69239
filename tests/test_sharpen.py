"""Sharpening: steeper edges, no halos, no hue, no seams."""

import cv2
import numpy as np
import pytest

from nightisp.export import EXPORT, ExportParams, export
from nightisp.image import DisplayImage
from nightisp.sharpen import _ROWS, sharpened

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def scene(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def ramp() -> np.ndarray:
    """A soft edge between two flat halves, the same in each row."""
    edge = cv2.GaussianBlur(np.repeat([[0.2] * 20 + [0.7] * 20], 8, 0).astype(np.float32), (0, 0), 1.2)
    return np.repeat(edge[..., None], 3, axis=2)


def test_an_edge_gets_steeper_without_rings() -> None:
    soft = ramp()
    sharp = sharpened(soft, 1.0)
    assert np.abs(np.diff(sharp[4, :, 1])).max() > 1.2 * np.abs(np.diff(soft[4, :, 1])).max()
    assert sharp.min() >= soft.min() - 1e-6
    assert sharp.max() <= soft.max() + 1e-6


def test_a_flat_picture_stays() -> None:
    assert sharpened(np.full((9, 9, 3), 0.3, np.float32), 3.0) == pytest.approx(0.3, abs=1e-6)


def test_all_channels_get_the_same() -> None:
    picture = scene()
    added = sharpened(picture, 0.8) - picture
    assert added[..., 0] == pytest.approx(added[..., 1], abs=1e-6)
    assert added[..., 0] == pytest.approx(added[..., 2], abs=1e-6)
    assert np.abs(added).max() > 0.005


def test_against_an_independent_computation() -> None:
    picture = scene(23, 31).astype(np.float64)
    y = np.pad(picture @ LUMINANCE, 3, mode="reflect")
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = np.empty(picture.shape)
    for row in range(23):
        for column in range(31):
            around = y[row : row + 7, column : column + 7]
            near = (picture @ LUMINANCE)[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            value = around[3, 3] + 0.7 * (around[3, 3] - (around * kernel).sum())
            expected[row, column] = picture[row, column] + np.clip(value, near.min(), near.max()) - around[3, 3]
    assert sharpened(picture.astype(np.float32), 0.7) == pytest.approx(expected, abs=2e-6)


def test_no_seam_where_strips_meet() -> None:
    picture = scene(_ROWS + 50, 16)
    whole = sharpened(picture, 1.0)
    around = slice(_ROWS - 30, _ROWS + 30)
    assert whole[_ROWS - 20 : _ROWS + 20] == pytest.approx(sharpened(picture[around], 1.0)[10:50], abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_tiny(shape: tuple[int, int]) -> None:
    assert np.isfinite(sharpened(scene(*shape), 1.0)).all()


def test_nothing_unless_asked_for() -> None:
    image = DisplayImage(scene())
    plain = export(image, ExportParams(format="png"))
    assert EXPORT.params().sharpen == 0
    assert export(image, ExportParams(format="png", sharpen=0)).content == plain.content
    assert export(image, ExportParams(format="png", sharpen=0.5)).content != plain.content
