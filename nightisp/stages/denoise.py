"""Denoising in the Bayer domain by the published blind residual U-Net."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nightisp.bayer import pack, unpack
from nightisp.image import Mosaic, Samples
from nightisp.stage import Networks, Params, Stage

_TILE = 512  # of the half-size planes; tiling is exact, so this is no parameter
_MULTIPLE = 4  # two poolings of 2 x 2


class DenoiseParams(Params):
    """Parameters of denoising."""

    method: Literal["unet", "none"] = Field("none", description="the U-Net, or leave the noise as it is")
    weights: str = Field("denoise_unet", min_length=1, description="weights of the U-Net")
    strength: float = Field(1.0, ge=0, le=1, description="share of the denoised mosaic in the result")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="what the network computes in")


def denoise(mosaic: Mosaic, params: DenoiseParams, networks: Networks | None = None) -> Mosaic:
    """Subtract what the U-Net takes for noise, on the mosaic packed to four half-size planes.

    Takes and gives linear samples, (H, W). The network is blind to the noise level. As published it sees samples
    clipped to [0, max(3 x mean, 0.9)], and its result is clipped to [0, 1]; `method: none` clips nothing.

    References
    ----------
    :cite:`ntire2023night`.
    """
    if params.method == "none" or params.strength == 0:
        return mosaic
    assert networks is not None, "the U-Net needs networks"
    from nightisp.models import denoise_unet  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.tiling import exact

    packed = pack(mosaic.samples, mosaic.cfa)  # (H/2, W/2, 4)
    planes = np.ascontiguousarray(np.moveaxis(_as_seen(packed), -1, 0))
    residual = exact(
        networks(params.weights), planes, tile=_TILE, multiple=_MULTIPLE, precision=params.precision
    )  # (4, H/2, W/2)
    denoised = np.clip(packed + np.moveaxis(residual, 0, -1), 0, 1)
    blended = packed + np.float32(params.strength) * (denoised - packed)
    return mosaic.with_samples(unpack(blended, mosaic.cfa))


def _as_seen(packed: Samples) -> Samples:
    return np.clip(packed, 0, max(3 * float(packed.mean(dtype=np.float64)), 0.9)).astype(np.float32)


def _weights(params: DenoiseParams) -> tuple[str, ...]:
    return (params.weights,) if params.method == "unet" else ()


STAGE = Stage(
    name="denoise",
    run=denoise,
    takes=Mosaic,
    gives=Mosaic,
    params=DenoiseParams,
    device="gpu",
    weights=_weights,
    cite=("ntire2023night",),
)
