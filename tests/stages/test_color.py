"""Color: the second white balance, white lamps, the camera models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightisp.errors import ImageTypeError, NoGroundError
from nightisp.image import Balance, ColorMatrix, LinearImage, Samples, Shot, Triple, Window
from nightisp.stages.color import ColorParams, check, color, shades_of_gray
from nightisp.stages.demosaic import DemosaicParams, demosaic
from nightisp.stages.tone import ToneParams, tone
from nightisp.stages.white_balance import WhiteBalanceParams, white_balance
from tests.strategies import SHOT, flat, mosaic, noise
from tests.tolerance import EDGE_AWARE_GAINS, FLOAT32, GOLDEN_COLOR

METHODS = ("fc4", "gray_world", "shades_of_gray", "white_patch", "as_shot", "as_shot_fc4", "gains", "kelvin")
IDENTITY = {"matrix": "identity"}


def linear(pixels: Samples, method: str = "gray_world", gains: Triple = (1, 1, 1), shot: Shot = SHOT) -> LinearImage:
    return LinearImage(pixels, space="camera", shot=shot, balance=Balance(gains=gains, method=method))


def params(**given: Any) -> ColorParams:
    return ColorParams.model_validate(given)


def test_shades_of_gray_by_hand() -> None:
    pixels = np.array([[[0.6, 0.5, 0.1], [0.8, 0.5, 0.7]]], np.float32)  # root mean squares: 0.5**0.5, 0.5, 0.5
    assert shades_of_gray(pixels, 2) == pytest.approx((2 * 0.5**0.5, 1, 1))
    assert shades_of_gray(pixels, 1) == pytest.approx((1.4, 1, 0.8))


def test_shades_of_gray_needs_every_color() -> None:
    with pytest.raises(NoGroundError, match="second_white_balance: none"):
        color(linear(noise(4, 4, 3) * np.float32([1, 1, 0])), params(**IDENTITY))


@pytest.mark.parametrize("strength", [0, 0.25, 0.5, 1])
def test_strength_is_the_share_in_stops(strength: float) -> None:
    pixels = np.tile(np.float32([0.1, 0.4, 0.2]), (4, 4, 1))
    found = color(linear(pixels), params(strength=strength, **IDENTITY))
    assert found.balance.gains == pytest.approx((4**strength, 1, 2**strength))
    assert found.samples[0, 0] == pytest.approx([0.1 * 4**strength, 0.4, 0.2 * 2**strength], rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_auto_leaves_a_white_balance_that_was_chosen(method: str) -> None:
    picture = linear(noise(6, 6, 3, low=0.1, high=0.4) * np.float32([1, 0.5, 0.25]), method)
    found, none, full = (
        color(picture, params(second_white_balance=second, **IDENTITY)).samples
        for second in ("auto", "none", "shades_of_gray")
    )
    chosen = method in ("as_shot", "as_shot_fc4", "fc4", "gains", "kelvin")
    assert np.array_equal(found, none if chosen else full)
    assert not np.array_equal(none, full)


def test_only_what_is_visible_counts() -> None:
    pixels = np.tile(np.float32([0.1, 0.4, 0.2]), (6, 6, 1))
    pixels[0], pixels[:, -2:] = (0.9, 0.1, 0.5), (0.3, 0.9, 0.9)
    picture = LinearImage(pixels, space="camera", shot=SHOT, window=Window(1, 0, 5, 4))
    assert color(picture, params(**IDENTITY)).balance.gains == pytest.approx((4, 1, 2))


@pytest.mark.parametrize("before", [(2.0, 1.0, 1.6), (0.7, 1.0, 1.3), (1.1, 0.8, 0.6)])
@pytest.mark.parametrize("method", ["bilinear", "edge_aware"])
def test_full_strength_cancels_gains_before_demosaicing(before: Triple, method: Any) -> None:
    picture = mosaic(noise(24, 32, low=0.02, high=0.3))
    found = [
        color(
            demosaic(
                white_balance(picture, WhiteBalanceParams(method="gains", gains=gains)), DemosaicParams(method=method)
            ),
            params(second_white_balance="shades_of_gray", matrix="published"),
        )
        for gains in ((1.0, 1.0, 1.0), before)
    ]
    # Gains that make green darker make the whole picture darker; its color is the same.
    level = found[1].samples[..., 1].mean() / found[0].samples[..., 1].mean()
    assert np.abs(found[1].samples / level - found[0].samples).max() < 8 * EDGE_AWARE_GAINS


@pytest.mark.parametrize("gains", [(2, 1, 1.5), (0.6, 1, 1.8), (0.5, 1, 0.4), (1, 1, 1), (1.5, 0.7, 2)])
@pytest.mark.parametrize("second", ["none", "shades_of_gray"])
@pytest.mark.parametrize("matrix", ["identity", "published", "dng"])
def test_a_saturated_lamp_comes_out_white(gains: Triple, second: str, matrix: str) -> None:
    pixels = noise(8, 8, 3, low=0.05, high=0.3)
    pixels[2:4, 2:4] = 1
    balanced = linear(pixels * np.float32(gains), "gains", gains)
    found = color(balanced, params(second_white_balance=second, strength=0.7, matrix=matrix)).samples
    assert np.abs(found[2:4, 2:4] - 1).max() < 5 * FLOAT32


def test_published_highlights_keep_their_cast() -> None:
    gains = (0.5, 1, 0.4)
    pixels = np.ones((4, 4, 3), np.float32) * np.float32(gains)
    found = color(
        linear(pixels, "gains", gains), params(second_white_balance="none", highlights="published", **IDENTITY)
    )
    assert np.abs(found.samples - gains).max() < FLOAT32


def test_highlights_by_hand() -> None:
    """Red has a gain of 0.5: everything is doubled, so that red at saturation is white; the rest clips."""
    gains = (0.5, 1, 2)
    pixels = np.float32([[[0.25, 0.3, 0.4], [0.5, 1.0, 2.0], [-0.1, 0.1, 0.0]]])
    found = color(linear(pixels, "gains", gains), params(**IDENTITY))
    assert found.samples[0].ravel() == pytest.approx([0.5, 0.6, 0.8, 1, 1, 1, 0, 0.2, 0])
    assert found.balance.gains == gains


def test_identity_changes_nothing_within_range() -> None:
    pixels = noise(5, 7, 3)
    picture = linear(pixels, "gains", shot=Shot())  # without any matrix
    found = color(picture, params(**IDENTITY))
    assert np.abs(found.samples - pixels).max() < FLOAT32
    assert found.space == "srgb"


@pytest.mark.parametrize("matrix", ["dng", "published"])
def test_missing_matrix_names_the_choice(matrix: Any) -> None:
    shot = Shot(camera="Obscura 1")
    with pytest.raises(NoGroundError, match=r"ColorMatrix for Obscura 1.*color\.matrix: identity"):
        color(linear(noise(4, 4, 3), shot=shot), params(matrix=matrix))
    with pytest.raises(NoGroundError):  # before any pixel is computed
        check(shot, params(matrix=matrix))
    check(shot, params(**IDENTITY))


@pytest.mark.parametrize("matrix", ["dng", "published"])
def test_singular_matrix_names_the_choice(matrix: Any) -> None:
    singular = ColorMatrix(xyz_to_camera=((1, 2, 3), (2, 4, 6), (1, 0, 1)))
    with pytest.raises(NoGroundError, match=r"cannot be inverted.*color\.matrix: identity"):
        color(linear(noise(4, 4, 3), shot=Shot(color_matrices=(singular,))), params(matrix=matrix))


@pytest.mark.parametrize("matrix", ["dng", "published"])
@pytest.mark.parametrize("gains", [(2.0, 1.0, 1.5), (1.2, 1.0, 2.6), (2.4, 1.1, 1.3)])
def test_balanced_neutrals_are_gray_in_srgb(matrix: Any, gains: Triple) -> None:
    gray = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 4, 3)[..., :1].repeat(3, axis=2)
    found = color(linear(gray, "gains", gains), params(matrix=matrix)).samples
    assert np.abs(found - gray).max() < GOLDEN_COLOR


def test_colors_outside_srgb_are_not_clipped() -> None:
    found = color(linear(np.float32([[[0.0, 1.0, 0.0]]]), "gains"), params(matrix="published")).samples[0, 0]
    assert found.min() < -0.05
    assert found[1] > 1


def test_takes_camera_rgb_once() -> None:
    done = color(linear(noise(4, 4, 3)), params())
    with pytest.raises(ImageTypeError, match="camera RGB"):
        color(done, params())


def rendered(method: str, **given: Any) -> Samples:
    """Render a gray card and a color chart under the light of the as-shot neutral."""
    neutral = np.array(SHOT.as_shot_neutral, np.float32)
    samples = np.concatenate([flat(tuple(0.3 * neutral), 8, 16), noise(8, 16, low=0.02, high=0.3)])
    balanced = white_balance(mosaic(samples), WhiteBalanceParams.model_validate({"method": method, **given}))
    return tone(color(demosaic(balanced, DemosaicParams()), ColorParams()), ToneParams()).samples


def test_as_shot_and_kelvin_give_different_pictures() -> None:
    as_shot, warm, cool = rendered("as_shot"), rendered("kelvin", kelvin=3200), rendered("kelvin", kelvin=7500)
    card = (slice(2, 6), slice(2, 14))
    assert np.ptp(as_shot[card].mean(axis=(0, 1))) < 0.001  # the card is gray
    assert np.abs(warm - as_shot).mean() > 0.01
    # A higher temperature takes more blue for granted: the picture comes out warmer.
    assert (warm[card][..., 2] - warm[card][..., 0]).mean() > (cool[card][..., 2] - cool[card][..., 0]).mean() + 0.05


def test_what_rides_along() -> None:
    picture = linear(noise(4, 6, 3), "as_shot", (2, 1, 1.5))
    found = color(picture, params(**IDENTITY))
    assert (found.window, found.shot) == (picture.window, picture.shot)
    assert found.balance == picture.balance
