"""Mosaics as DNG, with LibRaw and exiv2 as judges; the noise that the sample raws are made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightisp.bayer import positions
from nightisp.dng import write_dng
from nightisp.errors import NoGroundError, OutputError, ParamsError, StageError
from nightisp.image import CFA, Balance, ColorMatrix, Mosaic, Shot, Window
from nightisp.noise import add_noise, add_row_noise, quantize
from nightisp.raw import INGEST, RawFile

rawpy = pytest.importorskip("rawpy")

MATRIX = ((0.9020, -0.2890, -0.0715), (-0.4535, 1.2436, 0.2348), (-0.0934, 0.1919, 0.7086))
WARM = ((1.0405, -0.3755, -0.1270), (-0.5461, 1.3787, 0.1793), (-0.1040, 0.2015, 0.6785))
SHOT = Shot(
    camera="nightisp tester",
    lens="35mm f/1.8",
    iso=3200,
    exposure_s=1 / 40,
    f_number=1.8,
    focal_length_mm=35,
    captured="2024-12-28T21:07:45",
    orientation=6,
    as_shot_neutral=(0.8125, 1.0, 0.40625),
    color_matrices=(ColorMatrix(xyz_to_camera=WARM, illuminant=17), ColorMatrix(xyz_to_camera=MATRIX, illuminant=21)),
    noise_profile=((8.5e-4, 4e-7),),
    exif={
        "Exif.Image.Make": "nightisp",
        "Exif.Image.Model": "tester",
        "Exif.GPSInfo.GPSLatitudeRef": "N",
        "Exif.GPSInfo.GPSLatitude": "56/1 10/1 0/1",
    },
)


def mosaic(cfa: CFA) -> Mosaic:
    """Samples from below black to above white, some of them outside a window of odd sizes."""
    samples = np.random.default_rng(5).uniform(-0.02, 1.02, (43, 57)).astype(np.float32)
    return Mosaic(samples, cfa=cfa, shot=SHOT, window=Window(1, 2, 41, 53))


@pytest.mark.parametrize("cfa", list(CFA))
def test_write_dng_libraw_reads_the_visible_part(tmp_path: Path, cfa: CFA) -> None:
    taken, path = mosaic(cfa), tmp_path / "night.dng"
    black, white = (512, 515, 513, 511), 16000
    write_dng(taken, path, black_level=black, white_level=white, bits=14)
    with rawpy.imread(str(path)) as raw:
        assert raw.raw_image.shape == raw.raw_image_visible.shape == (41, 53)
        letters = "".join("RGBG"[color] for color in raw.raw_pattern.ravel())
        assert letters == cfa.shifted(1, 2).value
        assert tuple(raw.black_level_per_channel[color] for color in raw.raw_pattern.ravel()) == black
        assert raw.white_level == white
        red, green, blue, _ = raw.camera_whitebalance
        assert (green / red, green / blue) == pytest.approx((0.8125, 0.40625), abs=1e-5)
        assert raw.sizes.flip == 6
        values = raw.raw_image_visible.astype(np.float64)
    level = np.tile(np.reshape(black, (2, 2)), (21, 27))[:41, :53]
    expected = taken.visible() * (white - level) + level
    assert np.abs(values - np.clip(expected, 0, 16383)).max() <= 0.502


@pytest.mark.parametrize("cfa", list(CFA))
def test_write_dng_comes_back_through_ingest(tmp_path: Path, cfa: CFA) -> None:
    taken, path = mosaic(cfa), tmp_path / "night.dng"
    write_dng(taken, path)
    back = INGEST.run(RawFile(path), INGEST.params())
    assert np.abs(back.visible() - taken.visible()).max() <= 0.51 / (63487 - 2048)
    assert back.visible().min() < -0.015
    assert back.visible().max() > 1.015
    assert back.cfa.shifted(back.window.top, back.window.left) == cfa.shifted(1, 2)
    for name in Shot.model_fields:
        if name not in ("exif", "black_level", "white_level", "as_shot_neutral", "exposure_s", "f_number"):
            assert getattr(back.shot, name) == getattr(SHOT, name), name
    assert back.shot.as_shot_neutral == pytest.approx(SHOT.as_shot_neutral)
    assert (back.shot.exposure_s, back.shot.f_number) == pytest.approx((1 / 40, 1.8))
    assert (back.shot.black_level, back.shot.white_level) == ((2048,) * 4, 63487)
    assert SHOT.exif.items() <= back.shot.exif.items()


def test_write_dng_noise_profile_of_three_planes(tmp_path: Path) -> None:
    profile = ((2e-4, 1e-7), (1e-4, 2e-7), (3e-4, 3e-7))
    taken = mosaic(CFA.RGGB)
    write_dng(replace(taken, shot=SHOT.model_copy(update={"noise_profile": profile})), tmp_path / "a.dng")
    assert INGEST.run(RawFile(tmp_path / "a.dng"), INGEST.params()).shot.noise_profile == profile


def test_write_dng_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a.dng", "b.dng"):
        write_dng(mosaic(CFA.GBRG), tmp_path / name)
    assert (tmp_path / "a.dng").read_bytes() == (tmp_path / "b.dng").read_bytes()


def test_write_dng_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(b"before")
    with pytest.raises(ParamsError, match="white_level 100"):
        write_dng(mosaic(CFA.RGGB), path, black_level=512, white_level=100)
    assert path.read_bytes() == b"before"
    write_dng(mosaic(CFA.RGGB), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dng"]
    assert path.read_bytes()[:4] == b"II*\0"


def test_write_dng_refuses(tmp_path: Path) -> None:
    taken, path = mosaic(CFA.RGGB), tmp_path / "a.dng"
    with pytest.raises(NoGroundError, match="no ColorMatrix"):
        write_dng(replace(taken, shot=Shot(camera="nameless")), path)
    with pytest.raises(StageError, match="white-balanced"):
        write_dng(replace(taken, balance=Balance(gains=(2.0, 1.0, 1.5), method="as_shot")), path)
    holed = taken.samples.copy()
    holed[20, 20] = np.nan
    with pytest.raises(StageError, match="NaN"):
        write_dng(taken.with_samples(holed), path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_dng(taken, tmp_path / "file" / "a.dng")
    assert not path.exists()


@pytest.mark.parametrize(("signal", "shot", "read"), [(0.0, 1e-3, 1e-5), (0.004, 2e-3, 1e-6), (0.5, 1e-4, 1e-6)])
def test_add_noise_mean_and_variance(signal: float, shot: float, read: float) -> None:
    count = 400_000
    noisy = add_noise(np.full(count, signal), shot, read, np.random.default_rng(11))
    variance = shot * signal + read
    assert abs(noisy.mean() - signal) < 4.5 * np.sqrt(variance / count)
    assert noisy.var() == pytest.approx(variance, rel=0.02)  # its own deviation is below 0.5 %


def test_add_noise_is_poisson_in_the_dark() -> None:
    """Two photoelectrons: skewness 1 / sqrt(2), which no Gaussian has."""
    noisy = add_noise(np.full(400_000, 0.02), 0.01, 0.0, np.random.default_rng(12))
    skewness = np.mean((noisy - noisy.mean()) ** 3) / noisy.std() ** 3
    assert skewness == pytest.approx(2**-0.5, abs=0.03)
    assert np.unique(np.rint(noisy / 0.01)).size == np.unique(noisy.round(9)).size


def test_add_noise_per_photosite_and_below_black() -> None:
    samples = np.full((2, 100_000), -0.01, np.float32)
    noisy = add_noise(samples, 1e-3, np.array([[0.0], [1e-4]]), np.random.default_rng(13))
    assert noisy.dtype == np.float32
    assert np.array_equal(noisy[0], samples[0])
    assert noisy[1].var() == pytest.approx(1e-4, rel=0.02)
    assert noisy[1].mean() == pytest.approx(-0.01, abs=2e-4)


@pytest.mark.parametrize("bad", [-1e-9, np.nan, np.inf])
def test_add_noise_refuses_impossible_variance(bad: float) -> None:
    with pytest.raises(ParamsError, match="read_noise"):
        add_noise(np.zeros((2, 2)), 0.0, bad, np.random.default_rng(0))


def test_add_row_noise_is_one_offset_a_row() -> None:
    noisy = add_row_noise(np.zeros((20_000, 3)), 4e-6, np.random.default_rng(14))
    assert np.all(np.ptp(noisy, axis=1) == 0)
    assert noisy[:, 0].var() == pytest.approx(4e-6, rel=0.04)


def test_quantize_by_position_and_to_the_ends() -> None:
    samples = np.array([[0.0, 1.0, 0.5], [-0.01, 2.0, 0.0], [-1.0, 0.0, 1.0]])
    expected = [[64, 1023, 544], [56, 1023, 66], [0, 65, 1023]]
    assert quantize(samples, (64, 65, 66, 67), 1023).tolist() == expected
    assert quantize(np.array([[2.0]]), (0, 0, 0, 0), 1000, 4095).tolist() == [[2000]]
    with pytest.raises(ParamsError, match="black_level"):
        quantize(samples, (64, 65, 66, 1100), 1023)


def test_quantize_noise_is_a_twelfth() -> None:
    samples = np.random.default_rng(15).uniform(0.2, 0.8, (500, 500))
    error = (quantize(samples, (64,) * 4, 1023) - 64.0) / 959 - samples
    assert error.var() * 959**2 == pytest.approx(1 / 12, rel=0.02)


def test_positions_agree_with_the_mosaic_written(tmp_path: Path) -> None:
    """A mosaic whose reds alone are bright is bright where LibRaw says red."""
    samples = np.zeros((30, 40), np.float32)  # LibRaw takes no side below 22
    for row, column in positions(CFA.GBRG, "R"):
        samples[row::2, column::2] = 0.5
    write_dng(Mosaic(samples, cfa=CFA.GBRG, shot=SHOT), tmp_path / "red.dng")
    with rawpy.imread(str(tmp_path / "red.dng")) as raw:
        bright = raw.raw_image_visible > 10_000
        assert np.array_equal(bright, raw.raw_colors_visible == 0)
