"""Tone: the published curve's facts, no banding, curves that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nightisp.errors import ImageTypeError
from nightisp.image import DisplayImage, LinearImage, Samples
from nightisp.stages.tone import PUBLISHED_CURVE, ToneCurve, ToneParams, encode_gamma, monotone_cubic, tone
from tests.strategies import MODEST, SHOT, noise
from tests.tolerance import FLOAT32, PUBLISHED_FOOT
from tests.tolerance import PUBLISHED_CURVE as AT_SAMPLES

# Read off the published curve at k / 16, and at three places of its foot.
SAMPLES = (
    *(0, 0.1043, 0.2596, 0.4039, 0.5207, 0.6144, 0.6904, 0.7529, 0.8049),
    *(0.8482, 0.8845, 0.9148, 0.9399, 0.9604, 0.9770, 0.9901, 1),
)
FOOT = {0.001: 0.00078, 0.01: 0.00806, 0.05: 0.07668}
STRAIGHT = ((0.0, 0.0), (1.0, 1.0))


def render(pixels: Samples, **params: Any) -> Samples:
    return tone(LinearImage(pixels, space="srgb", shot=SHOT), ToneParams.model_validate(params)).samples


def test_the_published_samples() -> None:
    found = ToneCurve(PUBLISHED_CURVE)(np.arange(17, dtype=np.float32) / 16)
    assert np.abs(found - SAMPLES).max() < AT_SAMPLES
    assert found.dtype == np.float32


@pytest.mark.parametrize(("linear", "published"), FOOT.items())
def test_the_published_foot(linear: float, published: float) -> None:
    assert ToneCurve(PUBLISHED_CURVE)(np.float32([linear]))[0] == pytest.approx(published, rel=PUBLISHED_FOOT)


def test_no_banding() -> None:
    """A ramp far finer than the control points, and than 16 bits, has no two equal neighbors and no jump."""
    ramp = np.linspace(0, 1, (1 << 18) + 1, dtype=np.float32)
    steps = np.diff(ToneCurve(PUBLISHED_CURVE)(ramp).astype(np.float64)) * (1 << 18)
    assert steps.min() > 0.1  # the curve's least slope is 0.158, at the top
    assert steps.max() < 3  # and its greatest 2.6
    after_gamma = np.diff(render(ramp[None, :, None].repeat(3, axis=2))[0, :, 0])
    assert after_gamma.min() > 0


@MODEST
@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 100)), max_size=8, unique_by=lambda point: point[0]))
def test_every_curve_is_monotone_and_meets_its_points(inner: list[tuple[int, int]]) -> None:
    inner = list(zip(sorted(x for x, _ in inner), sorted(y for _, y in inner), strict=True))
    curve = ((0.0, 0.0), *((x / 100, y / 100) for x, y in inner), (1.0, 1.0))
    x, y = np.array(ToneParams(curve=curve).curve).T
    values = monotone_cubic(x, y, np.linspace(0, 1, 2001))
    assert np.diff(values).min() > -1e-12
    assert values.min() >= -1e-12
    assert values.max() <= 1 + 1e-12
    assert np.abs(monotone_cubic(x, y, x) - y).max() < 1e-12
    assert np.abs(ToneCurve(curve)(x.astype(np.float32)) - y).max() < 1e-4  # between two entries of the table


def test_cubic_by_hand() -> None:
    """Points on a line give the line; a level stretch stays level, with no overshoot before it."""
    at = np.array([0.1, 0.25, 0.6, 0.9])
    assert np.allclose(monotone_cubic(np.array([0, 0.3, 1]), np.array([0, 0.3, 1]), at), at)
    level = monotone_cubic(np.array([0, 0.5, 1]), np.array([0, 1, 1]), np.array([0.25, 0.5, 0.75, 1.0]))
    assert np.allclose(level, [0.625, 1, 1, 1])  # Hermite from slope 2 to slope 0: 0.5 + 0.125 x 0.5 x 2


def test_the_table_is_as_good_as_the_cubic() -> None:
    at = np.linspace(0, 1, 100_003)
    exact = monotone_cubic(*np.array(PUBLISHED_CURVE).T, at)
    assert np.abs(ToneCurve(PUBLISHED_CURVE)(at.astype(np.float32)) - exact).max() < FLOAT32


def test_clips_to_display_light() -> None:
    pixels = np.float32([[[-0.5, 0, 1], [1.5, 100, 0.5]]])
    found = render(pixels, curve=STRAIGHT, gamma=2)
    assert found.ravel() == pytest.approx([0, 0, 1, 1, 1, 0.5**0.5])


@pytest.mark.parametrize(("stops", "gain"), [(-2, 0.25), (0, 1), (1, 2), (1.5, 2**1.5)])
def test_exposure_is_in_stops(stops: float, gain: float) -> None:
    pixels = noise(4, 6, 3, high=0.3)
    assert np.abs(render(pixels, exposure_ev=stops, curve=STRAIGHT, gamma=1) - pixels * gain).max() < FLOAT32


def test_gamma_has_no_toe() -> None:
    values = np.float32([0, 1e-4, 0.25, 1])
    assert encode_gamma(values, 3.2) == pytest.approx([0, 1e-4 ** (1 / 3.2), 0.25 ** (1 / 3.2), 1])
    assert encode_gamma(values, 1).tolist() == values.tolist()


def test_many_rows_are_as_few() -> None:
    pixels = noise(517, 3, 3)
    assert np.array_equal(render(pixels)[300], render(pixels[300:301])[0])


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ([[0, 0]], "at least 2"),
        ([[0.1, 0], [1, 1]], "begin at 0"),
        ([[0, 0], [0.9, 1]], "end at 1"),
        ([[0, 0], [0.5, 0.2], [0.5, 0.3], [1, 1]], "go up"),
        ([[0, 0], [0.6, 0.2], [0.5, 0.3], [1, 1]], "go up"),
        ([[0, 0], [0.5, 0.6], [0.7, 0.5], [1, 1]], "never go down"),
        ([[0, -0.1], [1, 1]], "0 to 1"),
        ([[0, 0], [1, 1.1]], "0 to 1"),
        ([[0, 0], [0.5, float("nan")], [1, 1]], "finite"),
        ([[0, 0], [1, 1, 1]], "at most 2"),
        ([[k / 256, k / 256] for k in range(257)], "at most 256"),
    ],
)
def test_curves_that_cannot_be(curve: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ToneParams(curve=curve)


def test_takes_linear_srgb_only() -> None:
    with pytest.raises(ImageTypeError, match="run color first"):
        tone(LinearImage(noise(2, 2, 3), space="camera"), ToneParams())


def test_what_rides_along() -> None:
    picture = LinearImage(noise(4, 6, 3), space="srgb", shot=SHOT)
    found = tone(picture, ToneParams())
    assert isinstance(found, DisplayImage)
    assert (found.shot, found.window, found.balance, found.reduction) == (SHOT, picture.window, picture.balance, 1)
