"""Second white balance on RGB, then from the camera's color space to linear sRGB."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nightisp.colorimetry import Matrix, camera_to_srgb_dng, camera_to_srgb_published, invert
from nightisp.errors import ImageTypeError, NoGroundError
from nightisp.image import Balance, LinearImage, Samples, Shot, Triple
from nightisp.rows import in_rows
from nightisp.stage import Params, Stage

_FINAL = {"as_shot", "as_shot_fc4", "fc4", "gains", "kelvin"}  # methods that `auto` leaves as they are


class ColorParams(Params):
    """Parameters of color."""

    second_white_balance: Literal["auto", "shades_of_gray", "none"] = Field(
        "auto",
        description="Shades of Gray on RGB; auto: not after FC4, as-shot, gains or kelvin",
    )
    strength: float = Field(1.0, ge=0, le=1, description="share of the second white balance that is applied")
    norm: float = Field(2.2, ge=1, le=20, description="p of its Minkowski norm")
    highlights: Literal["neutral", "published"] = Field(
        "neutral",
        description="neutral: what saturates the sensor comes out white; published: clip to [0, 1] after each balance",
    )
    matrix: Literal["dng", "published", "identity"] = Field(
        "dng", description="camera to sRGB: as the DNG specification has it, as published, or not at all"
    )


def color(image: LinearImage, params: ColorParams) -> LinearImage:
    """Neutralize what cast is left, clip highlights to white, and convert camera RGB to linear sRGB.

    Takes camera RGB, (H, W, 3); gives linear sRGB, (H, W, 3), not clipped: colors outside sRGB are negative or
    above 1, for `tone` to deal with. Shades of Gray at full strength cancels any gains applied before, but for
    what clips.

    Raises
    ------
    NoGroundError
        If the file holds no ColorMatrix, or a singular one, and `matrix` is not identity.

    References
    ----------
    :cite:`finlayson2004shades`, :cite:`dng171`, :cite:`srgb`.
    """
    if image.space != "camera":
        raise ImageTypeError(f"color takes camera RGB, not {image.space}")
    check(image.shot, params)
    second = _second_gains(image, params)
    (r, g, b), (r2, g2, b2) = image.balance.gains, second
    total = (r * r2, g * g2, b * b2)
    matrix = _camera_to_srgb(image.shot, params, total)
    return LinearImage(
        in_rows(lambda part: _converted(_balanced(part, second, total, params.highlights), matrix), image.samples),
        space="srgb",
        shot=image.shot,
        window=image.window,
        balance=Balance(gains=total, method=image.balance.method),
    )


def check(shot: Shot, params: ColorParams) -> None:
    """Raise `NoGroundError` if the shot has no matrix and one is asked for."""
    if params.matrix != "identity" and not shot.color_matrices:
        raise NoGroundError(
            f"neither the file nor LibRaw has a ColorMatrix for {shot.camera or 'this camera'}, which color.matrix: "
            f"{params.matrix} needs; set color.matrix: identity to render camera RGB as it is"
        )
    if params.matrix != "identity":
        for matrix in shot.color_matrices:
            invert(np.array(matrix.xyz_to_camera))


def shades_of_gray(pixels: Samples, norm: float) -> Triple:
    """Estimate the illuminant as the Minkowski mean of each channel of [0, 1] RGB, green = 1.

    References
    ----------
    :cite:`finlayson2004shades`.
    """
    r, g, b = (float(np.mean(pixels[..., c].astype(np.float64) ** norm) ** (1 / norm)) for c in range(3))
    if min(r, g, b) <= 0:
        raise NoGroundError(
            "a color of this picture is black throughout: Shades of Gray has nothing to judge by; "
            "set color.second_white_balance: none"
        )
    return r / g, 1.0, b / g


def _second_gains(image: LinearImage, params: ColorParams) -> Triple:
    method = params.second_white_balance
    if method == "auto":
        method = "none" if image.balance.method in _FINAL else "shades_of_gray"
    if method == "none":
        return 1.0, 1.0, 1.0
    r, g, b = shades_of_gray(np.clip(image.visible(), 0, 1), params.norm)
    return r**-params.strength, g, b**-params.strength


def _balanced(pixels: Samples, gains: Triple, total: Triple, highlights: str) -> Samples:
    """Apply `gains` and clip to [0, 1].

    A sensor that saturates holds `total` after all gains. If that is below 1 for some channel, clipping at 1 would
    leave a cast in every lamp: everything is scaled up until the smallest of them is white.
    """
    if highlights == "published":
        return np.asarray(np.clip(np.clip(pixels, 0, 1) * np.array(gains, np.float32), 0, 1))
    return np.asarray(np.clip(pixels * np.float32(np.array(gains) / min(1.0, *total)), 0, 1))


def _converted(pixels: Samples, matrix: Matrix) -> Samples:
    import cv2

    return np.asarray(cv2.transform(pixels, matrix.astype(np.float32)), np.float32)


def _camera_to_srgb(shot: Shot, params: ColorParams, gains: Triple) -> Matrix:
    match params.matrix:
        case "published":
            return camera_to_srgb_published(shot.color_matrices[0])
        case "dng":
            return camera_to_srgb_dng(shot.color_matrices, gains)
    return np.eye(3)


STAGE = Stage(
    name="color",
    run=color,
    takes=LinearImage,
    gives=LinearImage,
    params=ColorParams,
    check=check,
    cite=("finlayson2004shades", "dng171", "srgb"),
)
