"""Mosaics as arrays: values by hand, and what must hold for every size and phase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from nightisp.bayer import PHASE, apply_gains, binned, colors_in, pack, positions, to_half_rgb, to_phase, unpack
from nightisp.errors import ImageShapeError
from nightisp.image import CFA, Samples, Window
from tests.strategies import MODEST, cfas, flat, samples_of_mosaics

FOUR = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]], np.float32)


def test_positions_in_reading_order() -> None:
    assert {cfa: positions(cfa, "G") for cfa in CFA} == {
        CFA.RGGB: [(0, 1), (1, 0)],
        CFA.GRBG: [(0, 0), (1, 1)],
        CFA.GBRG: [(0, 0), (1, 1)],
        CFA.BGGR: [(0, 1), (1, 0)],
    }
    assert [positions(cfa, "R") for cfa in CFA] == [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]]
    assert [positions(cfa, "B") for cfa in CFA] == [[(1, 1)], [(1, 0)], [(0, 1)], [(0, 0)]]


@pytest.mark.parametrize(
    ("cfa", "first_block"),
    [(CFA.RGGB, [1, 2, 6, 5]), (CFA.GRBG, [2, 1, 5, 6]), (CFA.GBRG, [5, 1, 2, 6]), (CFA.BGGR, [6, 2, 1, 5])],
)
def test_pack_orders_planes_red_green_blue_green(cfa: CFA, first_block: list[int]) -> None:
    packed = pack(FOUR, cfa)
    assert packed.shape == (2, 2, 4)
    assert packed[0, 0].tolist() == first_block
    assert packed[1, 1].tolist() == [value + 10 for value in first_block]


def test_to_half_rgb_averages_the_greens() -> None:
    assert to_half_rgb(FOUR, CFA.BGGR)[0, 0].tolist() == [6, 3.5, 1]
    assert to_half_rgb(FOUR, CFA.GRBG)[0, 1].tolist() == [4, 5.5, 7]


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (3, 3)])
def test_pack_refuses_odd_sizes(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageShapeError) as caught:
        pack(np.zeros(shape, np.float32))
    assert (caught.value.expected, caught.value.actual) == ("even", shape)


def test_apply_gains_by_color_without_clipping() -> None:
    samples = np.array([[-0.5, 1.0], [0.25, 2.0]], np.float32)
    assert apply_gains(samples, CFA.GBRG, (2, 3, 4)).tolist() == [[-1.5, 4.0], [0.5, 6.0]]
    assert samples.tolist() == [[-0.5, 1.0], [0.25, 2.0]]


def test_to_phase_by_hand() -> None:
    samples = np.array([[1, 2, 3], [4, 5, 6]], np.float32)  # R G R / G B G: blue is at (1, 1)
    padded, window = to_phase(samples, CFA.RGGB)
    assert padded.tolist() == [[5, 4, 5, 6], [2, 1, 2, 3], [5, 4, 5, 6], [2, 1, 2, 3]]
    assert window == Window(1, 1, 2, 3)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1)])
def test_to_phase_refuses_what_has_no_block(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageShapeError, match=f"{shape[0]} x {shape[1]} photosites"):
        to_phase(np.zeros(shape, np.float32), CFA.RGGB)


@MODEST
@given(samples=samples_of_mosaics(), cfa=cfas, target=cfas)
def test_to_phase_keeps_samples_and_colors(samples: Samples, cfa: CFA, target: CFA) -> None:
    padded, window = to_phase(samples, cfa, target)
    height, width = samples.shape
    assert np.array_equal(padded[window.slices], samples)
    assert target.shifted(window.top, window.left) == cfa
    assert padded.shape[0] % 2 == padded.shape[1] % 2 == 0
    assert padded.shape[0] <= height + 2
    assert padded.shape[1] <= width + 2
    # What is added has the color of its place: a mosaic of one color stays one.
    colors = flat((1, 2, 3), height, width, cfa)
    assert np.array_equal(to_phase(colors, cfa, target)[0], flat((1, 2, 3), *padded.shape, target))


@MODEST
@given(samples=samples_of_mosaics(), cfa=cfas)
def test_unpack_undoes_pack(samples: Samples, cfa: CFA) -> None:
    even = samples[: samples.shape[0] // 2 * 2, : samples.shape[1] // 2 * 2]
    assert np.array_equal(unpack(pack(even, cfa), cfa), even)


@MODEST
@given(samples=samples_of_mosaics(smallest=4), cfa=cfas)
def test_colors_in_counts_every_visible_photosite_once(samples: Samples, cfa: CFA) -> None:
    window = Window(1, 1, samples.shape[0] - 1, samples.shape[1] - 2)
    colors = colors_in(flat((1, 2, 3), *samples.shape, cfa), cfa, window)
    for color, value in zip("RGB", (1, 2, 3), strict=True):
        assert all(np.all(plane == value) for plane in colors[color])
    assert [len(colors[color]) for color in "RGB"] == [1, 2, 1]
    seen = np.concatenate([plane.ravel() for planes in colors_in(samples, cfa, window).values() for plane in planes])
    assert sorted(seen) == sorted(samples[window.slices].ravel())


@pytest.mark.parametrize("slope", [(1, 0), (0, 1), (2, -3)])
def test_binning_leaves_every_color_in_its_place(slope: tuple[int, int]) -> None:
    """Of a plane, new photosite n lies at 2 n + 1/2 on each axis, whatever its color."""
    y, x = np.mgrid[:16, :12].astype(np.float32)
    small, window = binned(slope[0] * y + slope[1] * x, Window(0, 0, 16, 12))
    v, u = np.mgrid[:8, :6]
    np.testing.assert_allclose(small, slope[0] * (2 * v + 0.5) + slope[1] * (2 * u + 0.5), atol=1e-5)
    assert window == Window(0, 0, 8, 6)


def test_binning_lowers_noise_and_mixes_no_colors() -> None:
    noise = np.random.default_rng(0).standard_normal((400, 600)).astype(np.float32)
    assert binned(noise, Window(0, 0, 400, 600))[0].var() == pytest.approx((9 + 1) ** 2 / 16**2, rel=0.03)
    red_only = np.zeros((8, 8), np.float32)
    red_only[::2, ::2] = 4
    assert binned(red_only, Window(0, 0, 8, 8))[0].tolist() == [[4, 0] * 2, [0, 0] * 2] * 2


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(1, 3, 8, 8), Window(1, 2, 3, 3)),
        (Window(2, 2, 9, 7), Window(1, 1, 3, 3)),
        (Window(0, 0, 11, 13), Window(0, 0, 4, 6)),
    ],
)
def test_binning_keeps_the_visible_part(window: Window, expected: Window) -> None:
    small, visible = binned(np.zeros((11, 13), np.float32), window)
    assert small.shape == (4, 6)
    assert visible == expected


def test_too_small_to_bin() -> None:
    with pytest.raises(ImageShapeError, match="too small"):
        binned(np.zeros((2, 8), np.float32), Window(0, 0, 2, 8))


def test_the_phase_is_the_published_one() -> None:
    assert PHASE == CFA.BGGR


@pytest.mark.parametrize("window", [Window(0, 0, 1, 1), Window(1, 1, 2, 2), Window(3, 0, 1, 8)])
def test_a_window_without_a_whole_binned_photosite_is_refused(window):
    with pytest.raises(ImageShapeError, match="too few to bin"):
        binned(np.zeros((8, 8), np.float32), window)
