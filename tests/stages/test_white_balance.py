"""White balance: each method on mosaics whose light is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from nightisp.colorimetry import XYZ_D50_TO_ROMM, kelvin_to_xy, xy_to_xyz
from nightisp.errors import NoGroundError, WeightsMismatchError
from nightisp.image import CFA, ColorMatrix, Mosaic, Shot, Triple, Window
from nightisp.stages.white_balance import (
    STAGE,
    Sees,
    WhiteBalanceParams,
    as_seen,
    camera_to_seen,
    check,
    mix_by_trimmed_mean,
    read_sees,
    to_gains,
    white_balance,
)
from tests.strategies import DAYLIGHT, SHOT, WARM, flat, mosaic, noise
from tests.tolerance import FLOAT32

STATISTICS = ("gray_world", "shades_of_gray", "white_patch")


def gains(picture: Mosaic, networks: Any = None, **params: Any) -> Triple:
    return white_balance(picture, WhiteBalanceParams(**params), networks).balance.gains


@pytest.mark.parametrize("cfa", list(CFA))
@pytest.mark.parametrize("method", STATISTICS)
def test_statistics_find_a_flat_light(method: Any, cfa: CFA) -> None:
    picture = mosaic(flat((0.4, 0.5, 0.125), 6, 8, cfa), cfa)
    balanced = white_balance(picture, WhiteBalanceParams(method=method))
    assert balanced.balance.gains == pytest.approx((1.25, 1, 4))
    assert balanced.balance.method == method
    assert np.abs(balanced.samples - 0.5).max() < FLOAT32


@pytest.mark.parametrize("method", STATISTICS)
def test_statistics_look_at_the_visible_part_only(method: Any) -> None:
    samples = np.full((7, 9), 9.0, np.float32)
    samples[1:6, 2:9] = flat((0.4, 0.5, 0.125), 5, 7, CFA.BGGR.shifted(1, 2))
    assert gains(mosaic(samples, window=Window(1, 2, 5, 7)), method=method) == pytest.approx((1.25, 1, 4))


def test_gray_world_is_not_biased_by_noise_below_black() -> None:
    """A dark scene: half of the samples are negative. Clipped at black, red and blue would look alike."""
    light = (0.004, 0.010, 0.002)
    samples = flat(light, 200, 200) + np.random.default_rng(1).normal(0, 0.02, (200, 200)).astype(np.float32)
    assert (samples < 0).mean() > 0.3
    r, _, b = gains(mosaic(samples), method="gray_world")
    assert r == pytest.approx(2.5, rel=0.1)  # deviation of the mean of 10,000: 0.0002 of 0.004
    assert b == pytest.approx(5, rel=0.25)
    assert gains(mosaic(np.maximum(samples, 0)), method="gray_world")[0] < 1.5


def test_gray_world_by_hand() -> None:
    samples = np.array([[0.1, 0.4], [0.2, 0.6], [0.3, 0.4], [-0.2, 1.0]], np.float32)  # B G / G R, twice
    assert gains(mosaic(samples), method="gray_world") == pytest.approx((0.2 / 0.8, 1, 0.2 / 0.2))


def test_shades_of_gray_by_hand() -> None:
    samples = np.array([[0.3, 0.5], [0.5, 0.6], [0.4, 0.5], [0.5, 0.8]], np.float32)
    expected = (0.5 / 0.5**0.5, 1, 0.5 / 0.125**0.5)  # root mean squares of (0.6, 0.8) and of (0.3, 0.4)
    assert gains(mosaic(samples), method="shades_of_gray", norm=2) == pytest.approx(expected)
    samples[0, 0], samples[1, 1] = -0.4, 1.8  # clipped to 0 and 1: a power of a negative sample means nothing
    expected = (0.5 / 0.82**0.5, 1, 0.5 / 0.08**0.5)
    assert gains(mosaic(samples), method="shades_of_gray", norm=2) == pytest.approx(expected)


def test_white_patch_by_hand() -> None:
    samples = np.tile(np.array([[0.0, 0.0], [0.0, 0.0]], np.float32), (10, 10))
    samples[::2, ::2] = np.arange(100).reshape(10, 10) / 200  # blue: 0 to 0.495
    samples[1::2, 1::2] = np.arange(100).reshape(10, 10) / 100
    samples[::2, 1::2] = samples[1::2, ::2] = 0.5
    assert gains(mosaic(samples), method="white_patch", percentile=100) == pytest.approx((0.5 / 0.99, 1, 0.5 / 0.495))
    assert gains(mosaic(samples), method="white_patch", percentile=50) == pytest.approx((0.5 / 0.495, 1, 0.5 / 0.2475))


@pytest.mark.parametrize("method", STATISTICS)
@pytest.mark.parametrize("level", [0.0, -0.01])
def test_a_black_picture_is_no_ground(method: Any, level: float) -> None:
    with pytest.raises(NoGroundError, match=r"no light.*as_shot, gains or kelvin"):
        gains(mosaic(np.full((4, 4), level, np.float32)), method=method)


def test_gains_multiply_without_clipping() -> None:
    picture = mosaic(noise(6, 8, low=-0.2, high=1.5), CFA.GRBG)
    balanced = white_balance(picture, WhiteBalanceParams(method="gains", gains=(2, 0.5, 3)))
    factors = flat((2, 0.5, 3), 6, 8, CFA.GRBG)
    assert np.array_equal(balanced.samples, picture.samples * factors)
    assert balanced.balance.gains == (2, 0.5, 3)
    assert (balanced.cfa, balanced.window, balanced.shot) == (picture.cfa, picture.window, picture.shot)


def test_as_shot() -> None:
    assert gains(mosaic(noise(4, 4)), method="as_shot") == pytest.approx((1 / 0.8125, 1, 1 / 0.40625))


@pytest.mark.parametrize("method", ["as_shot", "as_shot_fc4"])
def test_as_shot_missing_names_the_others(method: Any) -> None:
    without = SHOT.model_copy(update={"as_shot_neutral": None})
    with pytest.raises(NoGroundError) as caught:
        gains(mosaic(noise(4, 4), shot=without), method=method)
    message = str(caught.value)
    assert f"white_balance.method: {method}" in message
    for other in ("fc4", "gray_world", "shades_of_gray", "white_patch", "gains", "kelvin"):
        assert other in message.split(";")[1]
    with pytest.raises(NoGroundError):  # before any pixel is computed
        check(without, WhiteBalanceParams(method=method))


def test_kelvin_goes_by_the_matrix_of_the_camera() -> None:
    """With XYZ itself as camera, a black body's gains are 1 / XYZ: at 2856 K, x = 0.4476 and y = 0.4074."""
    identity = ColorMatrix(xyz_to_camera=((1, 0, 0), (0, 1, 0), (0, 0, 1)), illuminant=17)
    picture = mosaic(noise(4, 4), shot=Shot(color_matrices=(identity,)))
    r, g, b = gains(picture, method="kelvin", kelvin=2856)
    assert (r, g, b) == pytest.approx((0.4074 / 0.4476, 1, 0.4074 / 0.1450), rel=0.005)


def test_kelvin_lower_means_more_blue() -> None:
    warm, cool = (gains(mosaic(noise(4, 4)), method="kelvin", kelvin=k) for k in (2500, 8000))
    assert warm[2] > 1.5 * cool[2]
    assert warm[0] < cool[0]


def test_kelvin_needs_a_matrix() -> None:
    with pytest.raises(NoGroundError, match=r"ColorMatrix.*gains"):
        gains(mosaic(noise(4, 4), shot=Shot()), method="kelvin", kelvin=3200)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "kelvin"}, "white_balance.kelvin"),
        ({"method": "gains"}, "white_balance.gains"),
        ({"method": "gains", "gains": (0, 1, 1)}, "0.05"),
        ({"method": "gains", "gains": (1, 1, 21)}, "20"),
        ({"method": "kelvin", "kelvin": 1000}, "1667"),
        ({"weights": ()}, "at least 1"),
    ],
)
def test_params_that_cannot_be(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WhiteBalanceParams(**params)


def test_to_gains() -> None:
    assert to_gains((0.25, 0.5, 2)) == (2, 1, 0.25)
    for nothing in ((0, 1, 1), (1, 0, 1), (1, 1, -1), (1, 1, float("nan")), (float("inf"), 1, 1)):
        with pytest.raises(NoGroundError):
            to_gains(nothing)


@pytest.mark.parametrize(
    ("votes", "mixed"),
    [
        # The published successor: as-shot and three networks. Red 1.5, 1.6, 1.7 of four; blue 2.2, 2.5, 2.8 of four.
        ([(1.7, 1, 2.2), (1.5, 1, 2.8), (2.9, 1, 1.1), (1.6, 1, 2.5)], (1.6, 1, 2.5)),
        ([(1.7, 1, 2.2), (1.5, 1, 2.8)], (1.5, 1, 2.8)),
        ([(1.7, 1, 2.2)], (1.7, 1, 2.2)),
    ],
)
def test_trimmed_mean_by_hand(votes: list[Triple], mixed: Triple) -> None:
    assert mix_by_trimmed_mean(votes) == pytest.approx(mixed)
    assert mix_by_trimmed_mean(votes[::-1]) == pytest.approx(mixed)


@pytest.fixture
def networks() -> Any:
    """Networks that see a light of their own each, and keep what they saw."""
    torch = pytest.importorskip("torch")

    class Light(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, *light: float) -> None:
            super().__init__()
            self.light = torch.tensor([light])
            self._all_seen: list[Any] = []

        @property
        def seen(self) -> Any:
            """What was seen last."""
            return self._all_seen[-1]

        def __deepcopy__(self, memo: Any) -> Any:
            """As for float64: what the copy sees is seen."""
            return self

        def forward(self, rgb: Any) -> Any:
            self._all_seen.append(rgb.numpy())
            return self.light, rgb, rgb[:, :1]

    known = {"a": Light(0.5, 1.0, 0.25), "b": Light(0.25, 0.5, 0.25), "c": Light(0.2, 0.8, 0.2), "dark": Light(0, 0, 0)}
    return known.__getitem__


def test_fc4_asks_the_network(networks: Any) -> None:
    picture = mosaic(flat((0.25, 0.5, 0.125), 6, 8, CFA.RGGB), CFA.RGGB)
    picture.samples[0, 0], picture.samples[1, 1] = -0.2, 1.6
    assert gains(picture, networks, method="fc4", weights=("a",)) == (2, 1, 4)
    seen = networks("a").seen
    assert seen.shape == (1, 3, 3, 4)
    assert seen[0, :, 1, 1] == pytest.approx(np.array([0.25, 0.5, 0.125]) ** (1 / 2.2), abs=FLOAT32)
    assert seen[0, :, 0, 0] == pytest.approx([0, 0.5 ** (1 / 2.2), 1], abs=FLOAT32)


def test_fc4_averages_the_gains_of_several(networks: Any) -> None:
    found = gains(mosaic(noise(6, 8)), networks, method="fc4", weights=("a", "b", "c"))
    assert found == pytest.approx(((2 + 2 + 4) / 3, 1, (4 + 2 + 4) / 3))


def test_fc4_with_as_shot(networks: Any) -> None:
    """Red gains are 1.23, 2, 2, 4 and blue ones 2.46, 4, 2, 4: red without 4, blue without 2."""
    found = gains(mosaic(noise(6, 8)), networks, method="as_shot_fc4", weights=("a", "b", "c"))
    assert found == pytest.approx(((1 / 0.8125 + 2 + 2) / 3, 1, (1 / 0.40625 + 4 + 4) / 3))


def test_fc4_that_sees_no_light(networks: Any) -> None:
    with pytest.raises(NoGroundError, match="no light"):
        gains(mosaic(noise(6, 8)), networks, method="fc4", weights=("dark",))


def test_fc4_with_a_card_sees_a_small_bright_picture(networks: Any) -> None:
    """80 x 120 photosites are 40 x 60 pixels; 60 wide is shrunk to 36. Red is brightest: it becomes 1."""
    networks("a").card = {"sees": {"longest": 36, "brightness": "normalized"}}
    assert gains(mosaic(flat((0.04, 0.01, 0.02), 80, 120)), networks, method="fc4", weights=("a",)) == (2, 1, 4)
    seen = networks("a").seen
    assert seen.shape == (1, 3, 24, 36)
    expected = np.array([1, 0.25, 0.5]) ** (1 / 2.2)
    assert np.abs(seen[0] - expected[:, None, None]).max() < FLOAT32


def test_fc4_with_a_card_averages_noise_before_it_clips_at_black(networks: Any) -> None:
    networks("a").card = {"sees": {"longest": 40}}
    samples = flat((0.01, 0.01, 0.01), 640, 640)
    samples += np.random.default_rng(3).normal(0, 0.02, samples.shape).astype(np.float32)
    gains(mosaic(samples), networks, method="fc4", weights=("a",))
    averaged = networks("a").seen[0, 0] ** 2.2  # 64 photosites each: a deviation of 0.0025
    assert averaged.mean() == pytest.approx(0.01, abs=0.0005)


def test_without_a_card_the_picture_is_the_published_one_to_the_bit() -> None:
    rgb = np.random.default_rng(4).normal(0.3, 0.4, (300, 401, 3)).astype(np.float32)
    published = np.moveaxis(np.clip(rgb, 0, 1) ** np.float32(1 / 2.2), -1, 0)
    assert np.array_equal(as_seen(rgb, read_sees("fc4", {})), published)


def test_each_fc4_sees_what_its_own_card_says(networks: Any) -> None:
    networks("a").card = {"sees": {"longest": 40}}
    networks("b").card = {}
    gains(mosaic(noise(120, 160)), networks, method="fc4", weights=("a", "b"))
    assert networks("a").seen.shape == (1, 3, 30, 40)
    assert networks("b").seen.shape == (1, 3, 60, 80)


def test_fc4_that_sees_romm_answers_in_romm(networks: Any) -> None:
    """A gray scene under a lamp: seen by the matrix it has ROMM's color of that lamp, and so has the answer."""
    networks("a").card = {"sees": {"space": "romm"}}
    for matrix in (DAYLIGHT, WARM):
        shot = Shot(color_matrices=(ColorMatrix(xyz_to_camera=matrix, illuminant=21),))
        lamp = np.array(matrix) @ xy_to_xyz(*kelvin_to_xy(3000))
        picture = mosaic(flat(tuple(0.2 * lamp / lamp.max()), 8, 8), shot=shot)
        found = gains(picture, networks, method="fc4", weights=("a",))
        seen = networks("a").seen[0, :, 0, 0] ** 2.2
        romm = XYZ_D50_TO_ROMM @ xy_to_xyz(*kelvin_to_xy(3000))  # the same whatever the camera
        assert seen / seen.max() == pytest.approx(romm / romm.max(), abs=1e-4)
        answer = np.array(matrix) @ np.linalg.inv(XYZ_D50_TO_ROMM) @ (0.5, 1.0, 0.25)  # what "a" always says
        assert found == pytest.approx((answer[1] / answer[0], 1, answer[1] / answer[2]), rel=1e-4)


def test_a_pair_of_matrices_is_interpolated_halfway() -> None:
    pair = (ColorMatrix(xyz_to_camera=WARM, illuminant=17), ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21))
    found = camera_to_seen(pair, Sees(space="romm"))
    middle = (np.array(DAYLIGHT) + np.array(WARM)) / 2
    assert found == pytest.approx(XYZ_D50_TO_ROMM @ np.linalg.inv(middle), abs=1e-5)


def test_white_level_clips_before_the_matrix() -> None:
    rgb = np.full((40, 40, 3), 5, np.float32)
    seen = as_seen(rgb, Sees(space="romm"), 0.25 * np.ones((3, 3)))
    assert seen == pytest.approx(np.full((3, 40, 40), 0.75 ** (1 / 2.2)), abs=FLOAT32)


def test_fc4_that_sees_romm_needs_a_matrix(networks: Any) -> None:
    networks("a").card = {"sees": {"space": "romm"}}
    picture = mosaic(flat((0.2, 0.2, 0.2), 8, 8), shot=Shot(camera="Nameless 1"))
    with pytest.raises(NoGroundError, match=r"a judges .* neither the file nor LibRaw has one for Nameless 1; choose"):
        gains(picture, networks, method="fc4", weights=("a",))


@pytest.mark.parametrize(
    "sees", [{"space": "xyz"}, {"longest": 8}, {"brightness": "dazzling"}, {"widest": 128}, "stabilized"]
)
def test_a_card_that_asks_for_something_else_is_refused(networks: Any, sees: Any) -> None:
    networks("a").card = {"sees": sees}
    with pytest.raises(WeightsMismatchError, match=r"a: its card says sees: .*expected longest"):
        gains(mosaic(noise(6, 8)), networks, method="fc4", weights=("a",))


def test_black_stays_black_when_brightness_is_normalized() -> None:
    assert not as_seen(np.full((4, 4, 3), -0.01, np.float32), Sees(brightness="normalized")).any()


def test_weights_are_those_of_the_chosen_method() -> None:
    assert STAGE.weights(WhiteBalanceParams(method="gray_world")) == ()
    for method in ("fc4", "as_shot_fc4"):
        assert STAGE.weights(WhiteBalanceParams(method=method, weights=("a", "b"))) == ("a", "b")


def test_daylight_matrix_balances_daylight() -> None:
    """Under D65, whose XYZ the matrix maps to camera RGB, kelvin 6504 gives nearly that neutral's gains."""
    shot = Shot(color_matrices=(ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21),))
    r, g, b = np.array(DAYLIGHT) @ (0.95047, 1.0, 1.08883)
    found = gains(mosaic(noise(4, 4), shot=shot), method="kelvin", kelvin=6504)
    assert found == pytest.approx((g / r, 1, g / b), rel=0.04)  # daylight lies a little off the black bodies
