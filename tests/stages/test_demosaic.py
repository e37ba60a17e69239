"""Demosaicing: the smallest sizes, all phases, samples outside [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.image import CFA, Samples
from nightisp.stages.demosaic import DemosaicParams, demosaic, interpolate
from tests.strategies import MODEST, cfas, flat, mosaic, noise, samples_of_mosaics
from tests.tolerance import FLOAT32, UINT16

METHODS = ("edge_aware", "bilinear")
SMALL = [(h, w) for h in range(2, 10) for w in range(2, 10)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cfa", list(CFA))
def test_a_flat_color_stays_at_every_size(method: Any, cfa: CFA) -> None:
    for height, width in SMALL:
        color = (0.75, 0.25, 0.5)
        found = demosaic(mosaic(flat(color, height, width, cfa), cfa), DemosaicParams(method=method)).samples
        assert found.shape == (height, width, 3)
        assert np.abs(found - color).max() < UINT16, (height, width)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_no_size_gives_black(method: Any, shape: tuple[int, int]) -> None:
    samples = np.random.default_rng(3).integers(1000, 65535, shape).astype(np.uint16)
    for cfa in CFA:
        assert interpolate(samples, cfa, method).min() >= 1000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cfa", list(CFA))
def test_measured_samples_stay(method: Any, cfa: CFA) -> None:
    samples = noise(23, 18)
    found = demosaic(mosaic(samples, cfa), DemosaicParams(method=method)).samples
    for y in range(1, 22):
        for x in range(1, 17):
            assert abs(found[y, x, "RGB".index(cfa.color_at(y, x))] - samples[y, x]) < UINT16


def test_bilinear_by_hand() -> None:
    samples = np.zeros((9, 9), np.uint16)
    samples[4, 4] = 4000  # red, among black
    red = interpolate(samples, CFA.RGGB, "bilinear")[..., 0]
    assert red[3:6, 3:6].tolist() == [[1000, 2000, 1000], [2000, 4000, 2000], [1000, 2000, 1000]]


def test_edge_aware_interpolates_green_along_an_edge() -> None:
    """Left half dark, right half bright: at a red beside the edge, green comes from above and below."""
    samples = np.full((10, 12), 1000, np.uint16)
    samples[:, 6:] = 9000
    green = interpolate(samples, CFA.RGGB, "edge_aware")[..., 1]
    assert set(green[2:-2, :6].ravel()) == {1000}
    assert set(green[2:-2, 6:].ravel()) == {9000}
    assert len(np.unique(interpolate(samples, CFA.RGGB, "bilinear")[2:-2, 5:7, 1])) > 2


@pytest.mark.parametrize("method", METHODS)
def test_noise_below_black_and_highlights_survive(method: Any) -> None:
    samples = noise(20, 24, low=-0.08, high=1.6)
    samples[10, 10], samples[11, 13] = -0.1, 2.5
    found = demosaic(mosaic(samples), DemosaicParams(method=method)).samples
    step = 2.6 / 65535
    assert abs(found[10, 10, 2] - -0.1) < step
    assert abs(found[11, 13, 0] - 2.5) < step
    assert found.min() >= -0.1 - step
    assert found.max() <= 2.5 + step
    # The mean of a color is kept too: nothing is cut off on either side.
    assert abs(found[1:-1, 1:-1, 1].mean() - samples[1:-1, 1:-1][flat((0, 1, 0), 18, 22, CFA.RGGB) == 1].mean()) < 0.03


@MODEST
@given(samples=samples_of_mosaics(smallest=8), cfa=cfas, method=st.sampled_from(METHODS))
def test_rolled_mosaic_of_rolled_phase_is_the_rolled_picture(samples: Samples, cfa: CFA, method: Any) -> None:
    picture = demosaic(mosaic(samples, cfa), DemosaicParams(method=method)).samples
    for down, right in ((0, 1), (1, 0), (1, 1)):
        rolled = np.roll(samples, (down, right), (0, 1))
        found = demosaic(mosaic(rolled, cfa.shifted(-down, -right)), DemosaicParams(method=method)).samples
        expected = np.roll(picture, (down, right), (0, 1))
        inner = slice(2 + 1, -2)
        assert np.abs(found - expected)[inner, inner].max() < FLOAT32


@MODEST
@given(samples=samples_of_mosaics(smallest=8), cfa=cfas, method=st.sampled_from(METHODS))
def test_mirrored_mosaic_is_the_mirrored_picture(samples: Samples, cfa: CFA, method: Any) -> None:
    """Reversing columns of even number puts the other phase first."""
    samples = samples[:, : samples.shape[1] // 2 * 2]
    picture = demosaic(mosaic(samples, cfa), DemosaicParams(method=method)).samples
    mirrored = demosaic(mosaic(samples[:, ::-1].copy(), cfa.shifted(0, 1)), DemosaicParams(method=method)).samples
    assert np.abs(mirrored[2:-2, 2:-2] - picture[2:-2, ::-1][:, 2:-2]).max() < 1.01 * (1.375 / 65535)  # integer means


def test_what_rides_along() -> None:
    picture = mosaic(noise(6, 8), CFA.GBRG)
    found = demosaic(picture, DemosaicParams())
    assert found.space == "camera"
    assert (found.window, found.shot, found.balance) == (picture.window, picture.shot, picture.balance)
