"""Back to full size: HAT x4, or Lanczos."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nightisp.errors import WeightsMismatchError
from nightisp.image import DisplayImage, Samples
from nightisp.rows import in_rows
from nightisp.stage import PRECISION, Networks, Params, Stage

_WINDOW = 16  # HAT's: tiles start at its multiples


class SuperResolutionParams(Params):
    """Parameters of super-resolution."""

    method: Literal["hat", "lanczos", "none"] = Field(
        "hat", description="HAT, Lanczos interpolation, or the picture at the size that refinement left it"
    )
    weights: str = Field("hat", min_length=1, description="weights of HAT")
    tile: int = Field(512, ge=32, le=4096, multiple_of=_WINDOW, description="side of HAT's tiles before enlarging")
    overlap: int = Field(
        16,
        ge=0,
        le=256,
        multiple_of=_WINDOW,
        description="what a tile sees beyond its seams",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description=PRECISION)


def super_resolution(
    image: DisplayImage, params: SuperResolutionParams, networks: Networks | None = None
) -> DisplayImage:
    """Enlarge by the factor that refinement made the picture smaller, and crop to its exact size.

    Takes and gives display light in [0, 1], (H, W, 3). A picture of full size passes through.

    Raises
    ------
    WeightsMismatchError
        If the weights enlarge by another factor.

    References
    ----------
    :cite:`chen2023hat`.
    """
    if params.method == "none" or image.reduction == 1:
        return image
    enlarged = _hat(image, params, networks) if params.method == "hat" else _lanczos(image.samples, image.reduction)
    pixels = in_rows(lambda part: np.clip(part, 0, 1), enlarged[image.window.slices])
    return DisplayImage(pixels, shot=image.shot, balance=image.balance)


def _lanczos(pixels: Samples, scale: int) -> Samples:
    import cv2

    return np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4))


def _hat(image: DisplayImage, params: SuperResolutionParams, networks: Networks | None) -> Samples:
    assert networks is not None, "HAT needs networks"
    from nightisp.models import hat  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.tiling import blended

    network = networks(params.weights)
    if network.upscale != image.reduction:
        raise WeightsMismatchError(
            f"weights {params.weights} enlarge x{network.upscale}; the picture needs x{image.reduction}. "
            "Import those of HAT x4: `nightisp weights import super_resolution FILE`"
        )
    planes = np.ascontiguousarray(np.moveaxis(image.samples, -1, 0))
    enlarged = blended(
        network,
        planes,
        tile=params.tile,
        overlap=params.overlap,
        multiple=_WINDOW,
        scale=image.reduction,
        precision=params.precision,
    )  # (3, 4H, 4W)
    return np.moveaxis(enlarged, 0, -1)


def _weights(params: SuperResolutionParams) -> tuple[str, ...]:
    return (params.weights,) if params.method == "hat" else ()


STAGE = Stage(
    name="super_resolution",
    run=super_resolution,
    takes=DisplayImage,
    gives=DisplayImage,
    params=SuperResolutionParams,
    device="gpu",
    weights=_weights,
    cite=("chen2023hat",),
)
