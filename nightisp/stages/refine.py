"""Refinement towards hand-retouched pictures by MWISPNet, and the turn to upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from nightisp.image import DisplayImage, Samples, Window
from nightisp.orientation import orient, orient_window
from nightisp.stage import PRECISION, Networks, Params, Stage

REDUCTION = 4
_BIN = 2
_MULTIPLE = 32  # three wavelet levels below an eighth of the size


class RefineParams(Params):
    """Parameters of refinement."""

    method: Literal["mwispnet", "none"] = Field(
        "mwispnet", description="MWISPNet, which gives a quarter of width and height; or the picture as it is"
    )
    weights: str = Field("mwispnet", min_length=1, description="weights of MWISPNet")
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
        if params.binned:  # what MWISPNet's own averaging of 2 x 2 gives back
            pixels = np.repeat(np.repeat(pixels, _BIN, axis=0), _BIN, axis=1)
        pixels, reduction = _retouched(pixels, params, networks), REDUCTION // (_BIN if params.binned else 1)
    shape = (pixels.shape[0] * reduction, pixels.shape[1] * reduction)
    return DisplayImage(
        orient(pixels, image.shot.orientation),
        shot=image.shot.model_copy(update={"orientation": 1}),
        window=orient_window(Window(0, 0, height, width), shape, image.shot.orientation),
        balance=image.balance,
        reduction=reduction,
    )


def _retouched(pixels: Samples, params: RefineParams, networks: Networks) -> Samples:
    from nightisp.models import mwispnet  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.tiling import whole

    planes = np.moveaxis(pixels, -1, 0)  # a view: the network takes its pixels as they lie
    retouched = whole(
        networks(params.weights),
        planes,
        multiple=_MULTIPLE,
        scale=Fraction(1, REDUCTION),
        precision=params.precision,
    )  # (3, ceil(H/4), ceil(W/4))
    return np.clip(np.moveaxis(retouched, 0, -1), 0, 1)


def _weights(params: RefineParams) -> tuple[str, ...]:
    return (params.weights,) if params.method == "mwispnet" else ()


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
