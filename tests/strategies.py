"""Pictures for tests: made by hand, and drawn by hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nightisp.bayer import to_phase
from nightisp.image import CFA, ColorMatrix, DisplayImage, LinearImage, Mosaic, Samples, Shot, Window

MODEST = settings(derandomize=True, max_examples=40, deadline=None, database=None)
"""The same examples every time, few enough for every run."""

WARM = ((1.0405, -0.3755, -0.1270), (-0.5461, 1.3787, 0.1793), (-0.1040, 0.2015, 0.6785))
DAYLIGHT = ((0.9020, -0.2890, -0.0715), (-0.4535, 1.2436, 0.2348), (-0.0934, 0.1919, 0.7086))
SHOT = Shot(
    camera="nightisp tester",
    iso=3200,
    captured="2024-12-28T21:07:45",
    as_shot_neutral=(0.8125, 1.0, 0.40625),
    color_matrices=(ColorMatrix(xyz_to_camera=WARM, illuminant=17), ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21)),
    noise_profile=((8.5e-4, 4e-7),),
    black_level=(512, 512, 512, 512),
    white_level=16383,
    exif={"Exif.Image.Make": "nightisp"},
)

cfas = st.sampled_from(list(CFA))
orientations = st.integers(1, 8)
sides = st.integers(1, 40)


def noise(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 5) -> Samples:
    """Draw uniform samples, float32."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def flat(color: tuple[float, float, float], height: int, width: int, cfa: CFA = CFA.BGGR) -> Samples:
    """Return the samples of a mosaic that sees one color everywhere."""
    value = dict(zip("RGB", color, strict=True))
    return np.array([[value[cfa.color_at(y, x)] for x in range(width)] for y in range(height)], np.float32)


def mosaic(samples: Samples, cfa: CFA = CFA.BGGR, shot: Shot = SHOT, **attributes: Any) -> Mosaic:
    return Mosaic(samples, cfa=cfa, shot=shot, **attributes)


def as_ingested(samples: Samples, cfa: CFA, shot: Shot = SHOT) -> Mosaic:
    """Bring a mosaic to the pipeline's phase and to even sizes, as ingest does."""
    padded, window = to_phase(samples, cfa)
    return Mosaic(padded, cfa=CFA.BGGR, shot=shot, window=window)


def upright(samples: Samples, orientation: int) -> Samples:
    """Orient by what EXIF says of the sides: which one row 0 and column 0 of the stored array are to be seen at."""
    rows, columns = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    if rows in ("left", "right"):
        samples, rows, columns = np.swapaxes(samples, 0, 1), columns, rows
    samples = np.flipud(samples) if rows == "bottom" else samples
    return np.fliplr(samples) if columns == "right" else samples


@st.composite
def samples_of_mosaics(draw: st.DrawFn, low: float = -0.125, high: float = 1.25, smallest: int = 2) -> Samples:
    """Draw (H, W), float32, sides from `smallest` to 12, in steps of 1 / 256, so that sums are exact."""
    height, width = draw(st.integers(smallest, 12)), draw(st.integers(smallest, 12))
    steps = st.integers(round(low * 256), round(high * 256))
    drawn = draw(arrays.arrays(np.int64, (height, width), elements=steps))
    return (drawn / 256).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn, rows: int, columns: int) -> Window:
    """Draw a window inside an array."""
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    return Window(top, left, draw(st.integers(1, rows - top)), draw(st.integers(1, columns - left)))


@st.composite
def images(draw: st.DrawFn) -> Mosaic | LinearImage | DisplayImage:
    """Draw a picture in any state, with any window."""
    plane = draw(samples_of_mosaics())
    shot = SHOT.model_copy(update={"orientation": draw(orientations)})
    reduction = draw(st.sampled_from([1, 4]))
    rows, columns = plane.shape
    match draw(st.sampled_from(["mosaic", "linear", "display"])):
        case "mosaic":
            return Mosaic(plane, cfa=draw(cfas), shot=shot, window=draw(windows(rows, columns)))
        case "linear":
            space = draw(st.sampled_from(["camera", "srgb"]))
            pixels = np.stack([plane, 2 * plane, -plane], axis=-1)
            return LinearImage(pixels, space=space, shot=shot, window=draw(windows(rows, columns)))  # type: ignore[arg-type]
    pixels = np.clip(np.stack([plane, 1 - plane, plane**2], axis=-1), 0, 1)
    window = draw(windows(rows * reduction, columns * reduction))
    return DisplayImage(pixels, shot=shot, window=window, reduction=reduction)
