"""Show any state of a picture as a small sRGB picture, to look at and not to measure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import to_half_rgb
from nightisp.export import EncodedPicture
from nightisp.icc import space_of
from nightisp.image import DisplayImage, Image, LinearImage, Mosaic, Samples, Window
from nightisp.orientation import orient
from nightisp.rgb_spaces import SpaceName, converted
from nightisp.shrink import shrunk_to

BRIGHTEST_PERCENTILE = 99.5  # this luminance is shown as 1: lamps may burn out, the street beneath is to be seen
GAMMA = 2.2
_JPEG = b"\xff\xd8"
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Y of linear sRGB


def preview(image: Image | EncodedPicture, longest: int = 320) -> NDArray[np.uint8]:
    """Return a small sRGB picture of any state, uint8 (h, w, 3), the longer side at most `longest`; see `shown`."""
    return shown(image, longest)[0]


def shown(image: Image | EncodedPicture, longest: int | None = None) -> tuple[NDArray[np.uint8], str]:
    """Return an sRGB picture of any state, and in words how its samples became light on a display.

    The visible part, upright, area-averaged down and never enlarged. A mosaic has one pixel for each 2 x 2 block.
    Linear light is scaled so that the 99.5th percentile of its luminance is 1, then shown by gamma 2.2; as long as
    no white balance is applied, the camera's as-shot one stands in for it, if known. Display light is shown as it
    is. A sample that is not a number is shown black, an infinite one white or black.

    Parameters
    ----------
    longest
        Of the sides; None shows every pixel.

    Returns
    -------
    pixels, how
        uint8 (h, w, 3), and a line such as "linear light, 7.1 EV brighter, gamma 2.2, as-shot white balance".
    """
    if isinstance(image, EncodedPicture):
        return _in_srgb(shrunk_to(_decoded(image.content, longest), longest), space_of(image.content)), "as it is"
    if isinstance(image, DisplayImage):
        return orient(_levels(_finite_and_shrunk(image.visible(), longest)), image.shot.orientation), "as it is"
    if isinstance(image, Mosaic):
        light = _half_rgb(image)  # (h/2, w/2, 3)
    elif isinstance(image, LinearImage):
        light = image.visible()
    else:
        raise TypeError(f"a {type(image).__name__} is no state of a picture")
    gains = _gains(image)
    light = _finite_and_shrunk(light, longest) * gains
    pixels, how = _brightened(light, float(np.percentile(light @ _LUMINANCE, BRIGHTEST_PERCENTILE)))
    if (gains != 1).any():
        how += ", as-shot white balance"
    return orient(pixels, image.shot.orientation), how


def shown_as_gray(mosaic: Mosaic, longest: int | None = None) -> tuple[NDArray[np.uint8], str]:
    """Return every visible photosite as a gray pixel, upright, uint8 (h, w), and in words how it is shown.

    Scaled and shown as `shown` does linear light; at full size the pattern of the color filter array is to be seen.
    """
    light = _finite_and_shrunk(mosaic.visible(), longest)
    pixels, how = _brightened(light, float(np.percentile(light, BRIGHTEST_PERCENTILE)))
    return orient(pixels, mosaic.shot.orientation), f"photosites, {how}"


def _brightened(light: Samples, brightest: float) -> tuple[NDArray[np.uint8], str]:
    if brightest > 0:
        light = light / np.float32(brightest)
    ev = -np.log2(brightest) if brightest > 0 else 0.0
    how = f"linear light, {abs(ev):.1f} EV {'brighter' if ev >= 0 else 'darker'}, gamma {GAMMA:g}"
    return _levels(np.clip(light, 0, 1) ** np.float32(1 / GAMMA)), how


def _half_rgb(mosaic: Mosaic) -> Samples:
    top, left, height, width = mosaic.window
    rows, columns = mosaic.samples.shape
    # Whole blocks only; where the window is one photosite high or wide, its neighbor outside completes the block.
    height, width = max(height // 2 * 2, 2), max(width // 2 * 2, 2)
    whole = Window(min(top, rows - height), min(left, columns - width), height, width)
    return to_half_rgb(mosaic.samples[whole.slices], mosaic.cfa.shifted(whole.top, whole.left))


def _gains(image: Image) -> Samples:
    neutral = image.shot.as_shot_neutral
    in_camera_light = isinstance(image, Mosaic) or (isinstance(image, LinearImage) and image.space == "camera")
    if not in_camera_light or image.balance.method != "none" or neutral is None or min(neutral) <= 0:
        return np.ones(3, np.float32)
    return np.array([neutral[1] / value for value in neutral], np.float32)


def _finite_and_shrunk(samples: Samples, longest: int | None) -> Samples:
    small = shrunk_to(samples, longest)
    if np.isfinite(small).all():  # looked at when small: a pass over every sample costs more than all the rest
        return small
    return shrunk_to(np.nan_to_num(samples, nan=0, posinf=1, neginf=0), longest)


def _levels(samples: Samples) -> NDArray[np.uint8]:
    return np.rint(np.clip(samples, 0, 1) * 255).astype(np.uint8)


def _decoded(content: bytes, longest: int | None) -> NDArray[np.uint8]:
    import cv2

    sizes = [cv2.IMREAD_COLOR]
    if longest and content.startswith(_JPEG):  # an eighth is decoded in an eighth of the time, and averaged as well
        sizes.insert(0, cv2.IMREAD_REDUCED_COLOR_8)
    for size in sizes:
        decoded: Any = cv2.imdecode(np.frombuffer(content, np.uint8), size | cv2.IMREAD_IGNORE_ORIENTATION)  # B, G, R
        if longest and max(decoded.shape) >= longest:
            break
    return np.ascontiguousarray(decoded[..., ::-1])


def _in_srgb(pixels: NDArray[np.uint8], space: SpaceName) -> NDArray[np.uint8]:
    """Return what a file shows, when it is small already: curves take longer than all the rest."""
    return pixels if space == "srgb" else _levels(converted(pixels * np.float32(1 / 255), space, "srgb"))
