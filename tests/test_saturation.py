"""Where a sensor clips: seen where its samples pile up, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nightisp.dng import write_dng
from nightisp.image import CFA, Mosaic, Window
from nightisp.raw import IngestParams, RawFile, ingest
from nightisp.saturation import saturation
from tests.strategies import SHOT

BLACK, WHITE = (128.0, 128.0, 128.0, 128.0), 4095.0
SIDE = 400
Array = NDArray[np.float64]


def lamps(gains: tuple[float, ...] = (0.9, 1.0, 1.0, 0.5), scale: float = 700, lit: float = 0.03) -> Array:
    """Return an unclipped night in sensor units: most of it dim, lamps brighter than any sensor holds."""
    rng = np.random.default_rng(0)
    light = rng.exponential(scale, (SIDE, SIDE))
    blocks = rng.random((SIDE // 4, SIDE // 4)) < lit
    light += np.kron(blocks * rng.uniform(500, 20000, blocks.shape), np.ones((4, 4)))
    for i, gain in enumerate(gains):
        light[i // 2 :: 2, i % 2 :: 2] *= gain
    return light + 128


def clipped(light: Array, level: float, noise: float = 8.0) -> NDArray[np.uint16]:
    """Clip before the read noise is added, as sensors do that never reach the converter's last value."""
    read = np.random.default_rng(1).normal(0, noise, light.shape)
    return np.clip(np.rint(np.minimum(light, level) + read), 0, WHITE).astype(np.uint16)


def seen(samples: NDArray[np.uint16]) -> float:
    return saturation(samples, CFA.RGGB, BLACK, WHITE)


@pytest.mark.parametrize("level", [3000.0, 3400.0, 3820.0, 4000.0])
@pytest.mark.parametrize("noise", [0.0, 8.0, 14.0])
def test_clipping_below_the_stated_level_is_seen(level: float, noise: float) -> None:
    samples = clipped(lamps(), level, noise)
    assert level - 2.5 * noise - 16 <= seen(samples) <= level  # 16: a 256th of the range
    assert (samples >= seen(samples)).mean() >= 0.97 * (lamps() >= level).mean()


def test_sensor_that_clips_where_it_says_is_believed() -> None:
    assert seen(clipped(lamps(), WHITE, 0)) == WHITE
    assert seen(clipped(lamps(), 10**6)) == WHITE, "the converter clips"


def test_the_lowest_color_counts() -> None:
    light = lamps()
    light[0::2, 1::2] = np.minimum(light[0::2, 1::2], 3990)
    light[1::2, 0::2] = np.minimum(light[1::2, 0::2], 3985)
    assert 3960 < seen(clipped(light, 4095, 3)) <= 3985


def wall(red: float, green: float, blue: float) -> NDArray[np.uint16]:
    """Return a night with a lit wall of one color in a corner, below which all else lies."""
    light = lamps()
    light[light > min(red, green, blue)] = 300
    for i, level in enumerate((red, green, green, blue)):
        light[i // 2 : 100 : 2, i % 2 : 100 : 2] = level
    return clipped(light, WHITE)


def test_a_white_wall_is_no_clipping() -> None:
    assert seen(wall(3300, 3900, 3500)) == WHITE
    assert seen(wall(3700, 3720, 3710)) < WHITE, "one that is gray to the sensor cannot be told from clipping"


def test_one_color_alone_is_no_clipping() -> None:
    light = lamps()
    light[0::2, 0::2] = np.minimum(light[0::2, 0::2], 3200)
    light[0::2, 1::2] = light[1::2, 0::2] = light[1::2, 1::2] = 300
    assert seen(clipped(light, WHITE)) == WHITE


@pytest.mark.parametrize(
    "samples",
    [
        clipped(np.full((SIDE, SIDE), 3500.0), WHITE),  # a flat field
        clipped(lamps(scale=200, lit=0), WHITE),  # nothing bright
        clipped(lamps()[:8, :8], 3500),  # too little to tell
        np.full((SIDE, SIDE), 4095, np.uint16),
        np.zeros((2, 2), np.uint16),
    ],
)
def test_what_shows_no_pile_is_believed(samples: NDArray[np.uint16]) -> None:
    assert seen(samples) == WHITE


def test_hot_pixels_hide_nothing() -> None:
    samples = clipped(lamps(), 3500)
    samples[::100, ::100] = 4095
    assert 3450 < seen(samples) <= 3500


def test_ingest_takes_what_it_sees(tmp_path: Path) -> None:
    samples = clipped(lamps(), 3500, 4)
    shot = SHOT.model_copy(update={"black_level": BLACK, "white_level": WHITE, "noise_profile": ((2e-4, 1e-6),)})
    linear = (samples - np.float32(128)) / np.float32(WHITE - 128)
    mosaic = Mosaic(linear, cfa=CFA.RGGB, shot=shot, window=Window(0, 0, SIDE, SIDE))
    write_dng(mosaic, tmp_path / "lamps.dng")
    found = ingest(RawFile(tmp_path / "lamps.dng"), IngestParams())
    stated = ingest(RawFile(tmp_path / "lamps.dng"), IngestParams(saturation="stated"))
    chosen = ingest(RawFile(tmp_path / "lamps.dng"), IngestParams(white_level=stated.shot.white_level))
    assert np.array_equal(stated.samples, chosen.samples)
    assert stated.shot.black_level is not None
    assert found.shot.white_level is not None
    grown = (WHITE - 128) / (3490 - 128)
    assert found.samples.max() / stated.samples.max() == pytest.approx(grown, rel=0.005)
    assert (found.samples >= 1).mean() > 0.97 * (lamps() >= 3500).mean()
    assert found.shot.noise_profile[0] == pytest.approx((2e-4 * grown, 1e-6 * grown**2), rel=0.01)
    assert stated.shot.noise_profile[0] == pytest.approx((2e-4, 1e-6), rel=1e-3)
