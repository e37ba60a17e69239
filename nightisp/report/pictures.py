"""Pictures inside a page: small enough, encoded, and written as `data:` addresses."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightisp.image import Samples
from nightisp.shrink import shrunk_to

_QUALITY = 90
_SMALL_QUALITY = 84  # of thumbnails, of which there are many


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture in a page: its address, and its width and height in pixels."""

    address: str
    width: int
    height: int


def embedded(samples: Samples | NDArray[np.uint8], longest: int = 0, *, small: bool = False) -> Embedded:
    """Encode a picture as a JPEG that a page carries.

    Encoded anew even if it was a JPEG: a page is passed on, and must not carry a raw's EXIF (place, serial number).

    Parameters
    ----------
    samples
        sRGB (H, W, 3): float32 in [0, 1], or uint8.
    longest
        The longer side is shrunk to it by averaging; 0: as it is. Nothing is enlarged.
    small
        Whether a lower quality will do.
    """
    import cv2

    shrunk = shrunk_to(samples, longest)
    if shrunk.dtype != np.uint8:
        shrunk = np.rint(np.clip(shrunk, 0, 1) * 255).astype(np.uint8)
    chosen = [cv2.IMWRITE_JPEG_QUALITY, _SMALL_QUALITY if small else _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(shrunk[..., ::-1]), chosen)  # OpenCV counts B, G, R
    assert done
    address = "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode("ascii")
    return Embedded(address, shrunk.shape[1], shrunk.shape[0])
