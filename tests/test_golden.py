"""The published system's numbers, through the pure functions and through the stages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from nightisp.bayer import pack, unpack
from nightisp.colorimetry import camera_to_srgb_published, invert, rows_to_one
from nightisp.image import CFA, ColorMatrix, LinearImage, Mosaic, Shot
from nightisp.stages import color, demosaic, tone
from tests.tolerance import FLOAT16, FLOAT32, GOLDEN_COLOR, GOLDEN_GAMMA, GOLDEN_TONE

Golden = Mapping[str, NDArray[np.float64]]
by_cfa = pytest.mark.parametrize("cfa", list(CFA))
PUBLISHED = color.ColorParams(second_white_balance="shades_of_gray", matrix="published", highlights="published")


def shot(classical: Golden) -> Shot:
    rows = classical["color_matrix_1"].reshape(3, 3)
    return Shot(color_matrices=(ColorMatrix.model_validate({"xyz_to_camera": rows.tolist()}),))


def linear(classical: Golden, name: str, space: str) -> LinearImage:
    pixels = classical[name].astype(np.float32)
    return LinearImage(pixels, space=space, shot=shot(classical))  # type: ignore[arg-type]


@by_cfa
def test_pack(classical: Golden, cfa: CFA) -> None:
    name = cfa.value.lower()
    assert np.array_equal(pack(classical[f"{name}_mosaic"], cfa), classical[f"{name}_packed"])
    assert np.array_equal(unpack(classical[f"{name}_packed"], cfa), classical[f"{name}_mosaic"])


@by_cfa
def test_demosaic_function_is_bit_exact(classical: Golden, cfa: CFA) -> None:
    name = cfa.value.lower()
    quantized = np.rint(classical[f"{name}_mosaic"] * 65535).astype(np.uint16)
    expected = np.rint(classical[f"{name}_demosaic_ea_rgb"] * 65535).astype(np.uint16)
    assert np.array_equal(demosaic.interpolate(quantized, cfa), expected)


@by_cfa
def test_demosaic_stage(classical: Golden, cfa: CFA) -> None:
    name = cfa.value.lower()
    mosaic = Mosaic(classical[f"{name}_mosaic"].astype(np.float32), cfa=cfa)
    found = demosaic.STAGE(mosaic, demosaic.DemosaicParams())
    expected = classical[f"{name}_demosaic_ea_rgb"]
    assert np.abs(found.samples - expected).max() < 1e-7
    assert np.all(np.abs(found.rounded().samples - expected) <= FLOAT16 * expected + 1e-7)


def test_shades_of_gray(classical: Golden) -> None:
    found = color.shades_of_gray(classical["bggr_demosaic_ea_rgb"].astype(np.float32), 2.2)
    assert found == pytest.approx(classical["sog_illuminant"] / classical["sog_illuminant"][1], abs=GOLDEN_COLOR)


def test_second_white_balance_stage(classical: Golden) -> None:
    """The stage without a matrix."""
    params = PUBLISHED.model_copy(update={"matrix": "identity"})
    found = color.STAGE(linear(classical, "bggr_demosaic_ea_rgb", "camera"), params)
    assert np.abs(found.samples - classical["sog_wb"]).max() < GOLDEN_COLOR


def test_camera_to_xyz(classical: Golden) -> None:
    camera_to_xyz = invert(rows_to_one(classical["color_matrix_1"].reshape(3, 3)))
    assert np.abs(classical["sog_wb"] @ camera_to_xyz.T - classical["cst"]).max() < FLOAT32


def test_camera_to_srgb(classical: Golden) -> None:
    matrix = camera_to_srgb_published(shot(classical).color_matrices[0])
    assert np.abs(classical["sog_wb"] @ matrix.T - classical["srgb_linear"]).max() < FLOAT32


@pytest.mark.parametrize("highlights", ["published", "neutral"])  # nothing saturates here
def test_color_stage(classical: Golden, highlights: str) -> None:
    params = PUBLISHED.model_copy(update={"highlights": highlights})
    found = color.STAGE(linear(classical, "bggr_demosaic_ea_rgb", "camera"), params)
    assert np.abs(found.samples - classical["srgb_linear"]).max() < GOLDEN_COLOR


def test_tone_curve(classical: Golden) -> None:
    found = tone.ToneCurve(tone.PUBLISHED_CURVE)(classical["srgb_linear"].astype(np.float32))
    assert np.abs(found - classical["tone"]).max() < GOLDEN_TONE


def test_gamma(classical: Golden) -> None:
    found = tone.encode_gamma(classical["tone"].astype(np.float32), 3.2)
    assert np.abs(found - classical["gamma"]).max() < GOLDEN_GAMMA


def test_tone_stage(classical: Golden) -> None:
    found = tone.STAGE(linear(classical, "srgb_linear", "srgb"), tone.ToneParams())
    assert np.abs(found.samples**3.2 - classical["tone"]).max() < GOLDEN_TONE
    straight = tone.ToneParams(gamma=1)
    assert np.abs(tone.STAGE(linear(classical, "srgb_linear", "srgb"), straight).samples - classical["tone"]).max() < (
        GOLDEN_TONE
    )


def test_from_mosaic_to_display_light_through_storage(classical: Golden) -> None:
    """Each stage takes what the store gives back."""
    mosaic = Mosaic(classical["bggr_mosaic"].astype(np.float32), cfa=CFA.BGGR, shot=shot(classical)).rounded()
    camera = demosaic.STAGE(mosaic, demosaic.DemosaicParams()).rounded()
    srgb = color.STAGE(camera, PUBLISHED).rounded()
    found = tone.STAGE(srgb, tone.ToneParams()).rounded().samples
    assert np.abs(found**3.2 - classical["tone"]).max() < GOLDEN_TONE
    assert np.abs(srgb.samples - classical["srgb_linear"]).max() < 4 * FLOAT16
