"""Refinement towards hand-retouched pictures by MWISPNet, and the turn to upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from nightisp.image import DisplayImage, Samples, Window
from nightisp.orientation import orient, orient_window
from nightisp.stage import PRECISION, Networks, Params, Stage

SHIPPED = "mwispnet"
REDUCTION = 4
_BIN = 2
_MULTIPLE = 32  # three wavelet levels below an eighth of the size


class RefineParams(Params):
    """Parameters of refinement."""

    method: Literal["mwispnet", "none"] = Field(
        "mwispnet", description="MWISPNet, which gives a quarter of width and height; or the picture as it is"
    )
    weights: str = Field(SHIPPED, min_length=1, description="weights of MWISPNet")
    draft_weights: str | None = Field(
        "mwispnet_draft",
        min_length=1,
        description=f"narrower weights that stand for {SHIPPED} in a draft; null: it stands for itself",
    )
    binned: bool = Field(
        False, description="whether denoise.method was bin, MWISPNet's own first step: it gives half the size then"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description=PRECISION)


def refine(image: DisplayImage, params: RefineParams, networks: Networks | None = None) -> DisplayImage:
    """Crop to the visible area, let MWISPNet retouch it at a quarter of its size, and turn it upright.

    Takes display light in [0, 1], (H, W, 3); gives the same, (ceil(h/4), ceil(w/4), 3) of the h x w that are visible,
    or h x w with `method: none`. What the quarters hold beyond the picture lies outside `window`, on whichever
    side the turn puts it. If the mosaic was binned, MWISPNet halves it only.

    References
    ----------
    :cite:`ntire2023night`, :cite:`ignatov2020aim`, :cite:`exif232`.
    """
    pixels, reduction = image.visible(), 1
    height, width = pixels.shape[:2]
    if params.method == "mwispnet":
        assert networks is not None, "MWISPNet needs networks"
        reduction = REDUCTION // (_BIN if params.binned else 1)
        pixels = _retouched(pixels, reduction, params, networks)
    shape = (pixels.shape[0] * reduction, pixels.shape[1] * reduction)
    return DisplayImage(
        orient(pixels, image.shot.orientation),
        shot=image.shot.model_copy(update={"orientation": 1}),
        window=orient_window(Window(0, 0, height, width), shape, image.shot.orientation),
        balance=image.balance,
        reduction=reduction,
    )


def _retouched(pixels: Samples, reduction: int, params: RefineParams, networks: Networks) -> Samples:
    from nightisp.models import mwispnet  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.tiling import whole

    (weights,) = _weights(params)
    planes = np.moveaxis(pixels, -1, 0)  # a view: the network takes its pixels as they lie
    retouched = whole(
        networks(weights),
        planes,
        multiple=_MULTIPLE * reduction // REDUCTION,
        scale=Fraction(1, reduction),
        precision=params.precision,
        **({"binned": True} if params.binned else {}),
    )  # (3, ceil(H/4), ceil(W/4)); of what was binned half
    return np.clip(np.moveaxis(retouched, 0, -1), 0, 1)


def _weights(params: RefineParams) -> tuple[str, ...]:
    if params.method == "none":
        return ()
    if params.binned and params.draft_weights and params.weights == SHIPPED:
        return (params.draft_weights,)
    return (params.weights,)


STAGE = Stage(
    name="refine",
    run=refine,
    takes=DisplayImage,
    gives=DisplayImage,
    params=RefineParams,
    device="gpu",
    weights=_weights,
    cite=("ntire2023night", "ignatov2020aim", "exif232"),
)
