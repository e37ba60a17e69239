"""Light and color: against the CIE's numbers, and against the DNG specification worked out apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp import colorimetry as c
from nightisp.errors import NoGroundError
from nightisp.image import ColorMatrix, Triple
from tests.strategies import DAYLIGHT, MODEST, WARM
from tests.tolerance import BLACK_BODY_XY, FLOAT32, KELVIN, SRGB_MATRIX

A = ColorMatrix(xyz_to_camera=WARM, illuminant=17)
D65 = ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21)

# Chromaticities of black bodies by Planck's law and the CIE 1931 observer, as printed in textbooks.
BLACK_BODIES = {2000: (0.5267, 0.4133), 2856: (0.4476, 0.4074), 4000: (0.3805, 0.3768), 6500: (0.3135, 0.3237)}

# XYZ under D50 to linear sRGB, as Bruce Lindbloom prints it.
D50_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


@pytest.mark.parametrize(("kelvin", "xy"), BLACK_BODIES.items())
def test_black_bodies(kelvin: float, xy: tuple[float, float]) -> None:
    assert c.kelvin_to_xy(kelvin) == pytest.approx(xy, abs=BLACK_BODY_XY)


@pytest.mark.parametrize("joint", [2222, 4000])
def test_the_pieces_of_the_locus_meet(joint: float) -> None:
    assert c.kelvin_to_xy(joint - 0.01) == pytest.approx(c.kelvin_to_xy(joint + 0.01), abs=3e-4)


@MODEST
@given(st.floats(1700, 24000))
def test_kelvin_there_and_back(kelvin: float) -> None:
    assert c.xy_to_kelvin(*c.kelvin_to_xy(kelvin)) == pytest.approx(kelvin, rel=KELVIN)


@pytest.mark.parametrize(
    ("xy", "kelvin"), [((0.3457, 0.3585), 5003), ((0.3127, 0.3290), 6504), ((0.4476, 0.4074), 2856)]
)
def test_temperatures_of_standard_lights(xy: tuple[float, float], kelvin: float) -> None:
    assert c.xy_to_kelvin(*xy) == pytest.approx(kelvin, rel=KELVIN)


def test_temperatures_end_with_the_locus() -> None:
    assert c.xy_to_kelvin(0.7, 0.29) == pytest.approx(1667, rel=KELVIN)
    assert c.xy_to_kelvin(0.2, 0.2) == pytest.approx(25000, rel=KELVIN)


def test_light_sources() -> None:
    assert [c.illuminant_kelvin(code) for code in (17, 20, 21, 23, 24)] == [2856, 5503, 6504, 5003, 3200]
    assert c.illuminant_kelvin(0) == c.illuminant_kelvin(255) == 6504


def interpolated(kelvin: float) -> c.Matrix:
    """The DNG specification, in its words: linear in the inverse of the correlated color temperature, not beyond."""
    low, high, at = 1 / 2856, 1 / 6504, 1 / kelvin
    share = min(max((at - high) / (low - high), 0), 1)
    return np.asarray(share * np.array(WARM) + (1 - share) * np.array(DAYLIGHT))


@pytest.mark.parametrize("kelvin", [2000, 2856, 3200, 4000, 5000, 6504, 9000])
@pytest.mark.parametrize("matrices", [(A, D65), (D65, A)])
def test_two_illuminants(kelvin: float, matrices: tuple[ColorMatrix, ...]) -> None:
    assert np.allclose(c.xyz_to_camera_at(matrices, kelvin), interpolated(kelvin))


def test_one_illuminant_holds_for_all() -> None:
    for kelvin in (2000, 6504, 20000):
        assert c.xyz_to_camera_at((D65,), kelvin).tolist() == [list(row) for row in DAYLIGHT]
    same = (D65, ColorMatrix(xyz_to_camera=WARM, illuminant=21))
    assert c.xyz_to_camera_at(same, 3000).tolist() == [list(row) for row in DAYLIGHT]


def test_no_matrix() -> None:
    with pytest.raises(NoGroundError, match=r"color\.matrix: identity"):
        c.xyz_to_camera_at((), 5000)


@pytest.mark.parametrize("kelvin", [2000, 2500, 3200, 4000, 5000, 6000, 8000])
def test_the_light_behind_a_neutral(kelvin: float) -> None:
    """A light's camera RGB is computed with the matrix for its temperature; from that RGB the light is found again."""
    x, y = c.kelvin_to_xy(kelvin)
    neutral = interpolated(kelvin) @ (x / y, 1, (1 - x - y) / y)
    assert c.neutral_to_xy(tuple(neutral), (A, D65)) == pytest.approx((x, y), abs=BLACK_BODY_XY)
    assert c.kelvin_to_neutral(kelvin, (A, D65)) == pytest.approx(neutral / neutral[1])


def test_a_neutral_that_is_none() -> None:
    odd = ColorMatrix(xyz_to_camera=((1, -2, 0), (0, 1, 0), (0, 0, 1)))
    with pytest.raises(NoGroundError, match="3200 K"):
        c.kelvin_to_neutral(3200, (odd,))


def bradford(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.asarray(np.linalg.inv(cone) @ np.diag(cone @ target / (cone @ source)) @ cone)


def test_adaptation_takes_white_to_white() -> None:
    d50 = np.array([0.96422, 1, 0.82521])
    assert np.allclose(c.adaptation(c.D65_XYZ, d50) @ c.D65_XYZ, d50)
    # Printed by Bruce Lindbloom for D65 to D50.
    printed = [
        [1.0478112, 0.0228866, -0.0501270],
        [0.0295424, 0.9904844, -0.0170491],
        [-0.0092345, 0.0150436, 0.7521316],
    ]
    assert np.allclose(c.adaptation(c.D65_XYZ, d50), printed, atol=1e-4)


@pytest.mark.parametrize("kelvin", [2500, 3200, 4500, 6000])
def test_dng_chain(kelvin: float) -> None:
    """As the specification has it, by way of D50, with another's matrices; ours goes straight to D65."""
    x, y = c.kelvin_to_xy(kelvin)
    white = np.array([x / y, 1, (1 - x - y) / y])
    xyz_to_camera = interpolated(kelvin)
    neutral = xyz_to_camera @ white
    r, g, b = neutral
    camera_to_d50 = bradford(white, np.array([0.96422, 1, 0.82521])) @ np.linalg.inv(xyz_to_camera)
    expected = D50_TO_SRGB @ camera_to_d50 @ np.diag(neutral)
    found = c.camera_to_srgb_dng((A, D65), (g / r, 1.0, g / b))
    assert np.abs(found - expected).max() < SRGB_MATRIX


@MODEST
@given(st.floats(1.2, 3.5), st.floats(0.5, 2.0), st.floats(1.2, 3.5))
def test_dng_chain_keeps_neutrals(red: float, green: float, blue: float) -> None:
    matrix = c.camera_to_srgb_dng((A, D65), (red * green, green, blue * green))
    assert matrix @ np.ones(3) == pytest.approx(np.ones(3), abs=FLOAT32)
    assert np.allclose(matrix, c.camera_to_srgb_dng((A, D65), (red, 1.0, blue)))  # a gain for all is no color


@pytest.mark.parametrize("gains", [(0.05, 1.0, 20.0), (20.0, 1.0, 0.05), (8.0, 1.0, 8.0), (0.3, 1.0, 0.3)])
def test_dng_chain_refuses_gains_of_no_light(gains: Triple) -> None:
    with pytest.raises(NoGroundError, match=r"no light that.*color\.matrix: published"):
        c.camera_to_srgb_dng((A, D65), gains)


def test_published_chain_by_hand() -> None:
    """A camera whose sensors are XYZ: what is left is the published matrix with rows of sum 1."""
    identity = ColorMatrix(xyz_to_camera=((2, 0, 0), (0, 1, 0), (0, 0, 5)))
    expected = [
        [1.521689 / 1.0, -0.673763 / 1.0, 0.152074 / 1.0],
        [-0.145724 / 1.0, 1.266507 / 1.0, -0.120783 / 1.0],
        [-0.0397583 / 1.0, -0.561249 / 1.0, 1.60100734 / 1.0],
    ]
    assert np.allclose(c.camera_to_srgb_published(identity), expected, atol=1e-5)
    assert c.camera_to_srgb_published(D65) @ np.ones(3) == pytest.approx(np.ones(3))


def test_rows_to_one() -> None:
    assert c.rows_to_one(np.array([[1.0, 3.0], [-1.0, 3.0]])).tolist() == [[0.25, 0.75], [-0.5, 1.5]]


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), np.ones((3, 3)), np.diag([1, 1, 1e-4]), np.diag([1, 1, np.nan]), np.eye(3) * 1e-310],
    ids=str,
)
def test_invert_refuses(matrix: c.Matrix) -> None:
    with pytest.raises(NoGroundError, match=r"cannot be inverted; set color\.matrix: identity"):
        c.invert(matrix)


def test_invert() -> None:
    assert np.allclose(c.invert(np.diag([2.0, 4.0, 5.0])), np.diag([0.5, 0.25, 0.2]))
