"""Metrics: by hand, by a slow loop, and by the published table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nightisp.errors import ImageShapeError
from nightisp.metrics import (
    angular_error,
    angular_summary,
    ciede2000,
    color_difference,
    luma,
    psnr,
    psnr_y,
    srgb_to_lab,
    ssim,
    ssim_y,
)

# Sharma, Wu and Dalal (2005), table 1: L*, a*, b* of each color, and their difference.
PAIRS = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            both = (weights * (a - ma) * (b - mb)).sum()
            values.append(
                (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)),
            )
    return float(np.mean(values))


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    reference = rng.random((23, 19, 3)).astype(np.float32)
    return np.clip(reference + 0.1 * rng.standard_normal(reference.shape), 0, 1).astype(np.float32), reference


def test_psnr_by_hand() -> None:
    reference = np.zeros((2, 2))
    picture = np.array([[0.2, 0.0], [0.0, 0.0]])  # mean square 0.01
    assert psnr(picture, reference) == pytest.approx(20.0)
    assert psnr(255 * picture, 255 * reference, peak=255) == pytest.approx(20.0)
    assert psnr(reference, reference) == math.inf


def test_ssim_is_what_a_slow_loop_gives(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    picture, reference = (p.astype(np.float64) for p in pictures)
    slow = [slow_ssim(picture[..., c], reference[..., c]) for c in range(3)]
    assert ssim(picture[..., 0], reference[..., 0]) == pytest.approx(slow[0], abs=1e-9)
    assert ssim(picture, reference) == pytest.approx(np.mean(slow), abs=1e-9)
    assert 0.3 < np.mean(slow) < 0.99


def test_ssim_of_flat_pictures_by_hand() -> None:
    flat = np.full((12, 12), 0.4), np.full((12, 12), 0.6)
    assert ssim(*flat) == pytest.approx((2 * 0.24 + 1e-4) / (0.16 + 0.36 + 1e-4))
    assert ssim(flat[0], flat[0]) == pytest.approx(1.0)


def test_luma_is_in_studio_range(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    primaries = np.eye(3)[None]  # a row of red, green, blue
    assert 255 * luma(primaries)[0] == pytest.approx([16 + 65.481, 16 + 128.553, 16 + 24.966])
    picture, reference = pictures
    ys = [16 + 65.481 * p[..., 0] + 128.553 * p[..., 1] + 24.966 * p[..., 2] for p in (picture, reference)]
    cut = [y[4:-4, 4:-4] for y in ys]
    assert psnr_y(picture, reference, border=4) == pytest.approx(psnr(cut[0], cut[1], peak=255), abs=1e-4)
    assert ssim_y(picture, reference, border=2) == pytest.approx(
        slow_ssim(ys[0][2:-2, 2:-2] / 255, ys[1][2:-2, 2:-2] / 255), abs=1e-6
    )


def test_published_color_differences() -> None:
    table = np.array([line.split() for line in PAIRS.strip().splitlines()], float)
    assert table.shape == (34, 7)
    np.testing.assert_allclose(color_difference(table[:, :3], table[:, 3:6]), table[:, 6], atol=5.1e-5)
    np.testing.assert_allclose(color_difference(table[:, 3:6], table[:, :3]), table[:, 6], atol=5.1e-5)


def test_lab_of_srgb() -> None:
    known = {  # of the sRGB primaries under D65, to a tenth, as every table of them says
        (1, 0, 0): (53.2, 80.1, 67.2),
        (0, 1, 0): (87.7, -86.2, 83.2),
        (0, 0, 1): (32.3, 79.2, -107.9),
    }
    for srgb, lab in known.items():
        assert srgb_to_lab(np.array(srgb)) == pytest.approx(lab, abs=0.1)
    grays = srgb_to_lab(np.linspace(0, 1, 5)[:, None] * np.ones(3))
    assert grays[-1] == pytest.approx([100, 0, 0])
    assert np.abs(grays[:, 1:]).max() < 1e-9
    assert grays[2, 0] == pytest.approx(53.39, abs=0.01)


def test_ciede2000_is_the_mean_over_pixels(
    pictures: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, reference = pictures
    everywhere = color_difference(srgb_to_lab(picture), srgb_to_lab(reference))
    monkeypatch.setattr("nightisp.metrics._ROWS", 7)
    assert ciede2000(picture, reference) == pytest.approx(everywhere.mean())
    assert ciede2000(reference, reference) == 0
    half = reference.copy()
    half[:, ::2] = picture[:, ::2]
    assert 0 < ciede2000(half, reference) < ciede2000(picture, reference)


def test_angles_by_hand() -> None:
    assert angular_error((2, 2, 2), (0.1, 0.1, 0.1)) == pytest.approx(0, abs=1e-6)
    assert angular_error([(1, 0, 0), (1, 1, 0)], [(0, 3, 0), (0, 1, 1)]) == pytest.approx([90, 60])
    tiny = angular_error((1, 1e-7, 0), (1, 0, 0))
    assert tiny == pytest.approx(math.degrees(1e-7), rel=1e-6)


def test_summary_by_hand() -> None:
    summary = angular_summary([8, 1, 2, 3, 4, 5, 6, 7])
    assert summary == pytest.approx({"mean": 4.5, "median": 4.5, "trimean": 4.5, "best_25": 1.5, "worst_25": 7.5})
    assert angular_summary([1, 1, 1, 9])["trimean"] == pytest.approx((1 + 2 + 3) / 4)
    assert angular_summary([3])["worst_25"] == 3


@pytest.mark.parametrize("measure", [psnr, ssim, psnr_y, ssim_y, ciede2000])
def test_other_sizes_are_refused(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageShapeError, match=r"\(12, 12, 3\).*\(12, 13, 3\)"):
        measure(np.zeros((12, 12, 3)), np.zeros((12, 13, 3)))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ImageShapeError, match="no window"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
    with pytest.raises(ImageShapeError, match="no color"):
        ciede2000(np.zeros((12, 12)), np.zeros((12, 12)))
    with pytest.raises(ImageShapeError, match="no luma"):
        psnr_y(np.zeros((12, 12)), np.zeros((12, 12)))
    with pytest.raises(ImageShapeError, match="leaves nothing"):
        psnr_y(np.zeros((12, 12, 3)), np.zeros((12, 12, 3)), border=6)
    with pytest.raises(ImageShapeError, match="no angular error"):
        angular_summary([])
