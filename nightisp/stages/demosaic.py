"""Demosaicing by OpenCV: from one sample per photosite to three per pixel."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightisp.image import CFA, LinearImage, Mosaic
from nightisp.stage import Params, Stage

Method = Literal["edge_aware", "bilinear"]

# OpenCV names a pattern after the photosites (1, 1) and (1, 2) of the array: the one place where that is undone.
_OPENCV_NAME = {CFA.RGGB: "BG", CFA.GRBG: "GB", CFA.GBRG: "GR", CFA.BGGR: "RG"}
_SUFFIX = {"edge_aware": "_EA", "bilinear": ""}

_PAD = 2  # edge-aware leaves the smallest mosaics black; reflection by a whole block keeps the phase


class DemosaicParams(Params):
    """Parameters of demosaicing."""

    method: Method = Field("edge_aware", description="OpenCV's edge-aware or bilinear interpolation")


def demosaic(mosaic: Mosaic, params: DemosaicParams) -> LinearImage:
    """Interpolate the two missing colors at each photosite; measured samples stay as they are, to 16 bits.

    OpenCV works on 16-bit integers. Samples are mapped to them over [0, 1], as published, or over as much more as
    the mosaic holds on either side, so that noise below black and highlights above white survive. The outermost rows
    and columns are copies of those beside them: OpenCV's way, and the published one.
    """
    low = min(0.0, float(mosaic.samples.min()))
    high = max(1.0, float(mosaic.samples.max()))
    scale = np.float32(65535 / (high - low))
    quantized = np.rint((mosaic.samples - np.float32(low)) * scale).astype(np.uint16)
    pixels = interpolate(quantized, mosaic.cfa, params.method).astype(np.float32)
    pixels /= scale
    if low < 0:
        pixels += np.float32(low)
    return LinearImage(pixels, space="camera", shot=mosaic.shot, window=mosaic.window, balance=mosaic.balance)


def interpolate(samples: NDArray[np.uint16], cfa: CFA, method: Method = "edge_aware") -> NDArray[np.uint16]:
    """Demosaic 16-bit samples of any phase: uint16 (H, W), at least 2 x 2 -> uint16 (H, W, 3), R, G, B."""
    import cv2

    code = getattr(cv2, f"COLOR_Bayer{_OPENCV_NAME[cfa]}2RGB{_SUFFIX[method]}")
    if min(samples.shape) > 2 * _PAD + 2:
        return np.asarray(cv2.cvtColor(samples, code))
    padded = np.pad(samples, _PAD, mode="reflect")
    return np.ascontiguousarray(cv2.cvtColor(padded, code)[_PAD:-_PAD, _PAD:-_PAD])


STAGE = Stage(name="demosaic", run=demosaic, takes=Mosaic, gives=LinearImage, params=DemosaicParams)
