"""Noise figures from the mosaic alone, against those that the noise was made with."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from nightisp.bayer import unpack
from nightisp.errors import NoGroundError
from nightisp.image import CFA, Window
from nightisp.noise import add_noise
from nightisp.noise_estimate import estimate_noise

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
FIGURES = [(2e-4, 1e-7), (5e-4, 1e-6), (1.5e-3, 5e-6), (4e-3, 4e-5)]


def whole(samples: np.ndarray) -> Window:
    return Window(0, 0, *samples.shape)


def ratios(samples: np.ndarray, shot: float, read: float, found: tuple[float, float]) -> np.ndarray:
    """Estimated variance over the true one, at brightnesses that the mosaic has."""
    light = np.quantile(samples, (0.1, 0.5, 0.9))
    return (found[0] * light + found[1]) / (shot * light + read)


def texture(height: int, width: int) -> np.ndarray:
    """Soft light from 0.002 to 0.3, a third of it covered with fine stripes."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = np.exp(np.log(0.002) + (np.log(0.3) - np.log(0.002)) * x / width)
    stripes = np.where(y < height / 3, 1 + 0.3 * np.sin(x * 1.3) * np.sin(y * 0.9), 1)
    return (light * stripes).astype(np.float32)


@pytest.mark.parametrize(("shot", "read"), FIGURES)
@pytest.mark.parametrize("cfa", [CFA.BGGR, CFA.GRBG])
def test_estimated_noise_is_the_noise_that_was_added(shot: float, read: float, cfa: CFA) -> None:
    clean = texture(600, 800)
    noisy = add_noise(clean, shot, read, np.random.default_rng(1))
    found = estimate_noise(noisy, cfa, whole(noisy))
    np.testing.assert_allclose(ratios(clean, shot, read, found), 1, atol=0.12)


def test_only_what_is_visible_counts() -> None:
    noisy = add_noise(texture(300, 400), 1e-3, 1e-6, np.random.default_rng(1))
    framed = np.pad(noisy, 40, mode="constant", constant_values=0.5)
    framed[:40] += np.random.default_rng(2).normal(0, 0.3, framed[:40].shape)
    found = estimate_noise(framed, CFA.BGGR, Window(40, 40, 300, 400))
    assert found == pytest.approx(estimate_noise(noisy, CFA.BGGR, whole(noisy)))


def test_clipped_light_is_passed_over() -> None:
    """Lamps that saturate have no noise: half the picture is one."""
    clean = texture(600, 800)
    noisy = add_noise(clean, 1e-3, 1e-6, np.random.default_rng(1))
    noisy[:, 400:] = 1.0
    found = estimate_noise(noisy, CFA.BGGR, whole(noisy))
    np.testing.assert_allclose(ratios(clean[:, :400], 1e-3, 1e-6, found), 1, atol=0.15)


def test_read_noise_alone() -> None:
    noisy = add_noise(np.full((200, 200), 0.01, np.float32), 0.0, 1e-5, np.random.default_rng(3))
    shot, read = estimate_noise(noisy, CFA.BGGR, whole(noisy))
    assert shot * 0.01 + read == pytest.approx(1e-5, rel=0.15)
    assert min(shot, read) > 0


@pytest.mark.parametrize("samples", [np.ones((200, 200), np.float32), np.zeros((12, 12), np.float32)])
def test_nothing_to_judge_by(samples: np.ndarray) -> None:
    with pytest.raises(NoGroundError, match="blocks below white"):
        estimate_noise(samples, CFA.BGGR, whole(samples))


def test_a_mosaic_without_noise_has_nearly_none() -> None:
    shot, read = estimate_noise(np.full((100, 100), 0.1, np.float32), CFA.BGGR, Window(0, 0, 100, 100))
    assert 0 < shot * 0.1 + read < 1e-8


def test_night_photographs() -> None:
    """Real texture, at ISO 800 to 12,800: the middle picture within 30 %, nine of ten within 60 %."""
    folder = SHARED / "data" / "night"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (NIGHTISP_SHARED)")
    off = []
    for number, path in enumerate(sorted(folder.glob("*.jpg"))[::10]):
        picture = cv2.resize(
            cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA
        )
        light = ((picture / np.float32(255)) ** 3 * 0.6).astype(np.float32)[: picture.shape[0] // 2 * 2]
        planes = np.stack([light[y::2, x : light.shape[1] // 2 * 2 : 2] for y in (0, 1) for x in (0, 1)], axis=-1)
        clean = unpack(planes)
        for shot, read in FIGURES:
            noisy = np.minimum(add_noise(clean, shot, read, np.random.default_rng(number)), 1)
            off.append(np.abs(np.log(ratios(clean, shot, read, estimate_noise(noisy, CFA.BGGR, whole(noisy))))).max())
    assert np.median(off) < np.log(1.3)
    assert np.quantile(off, 0.9) < np.log(1.6)
