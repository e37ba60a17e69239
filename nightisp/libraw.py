"""LibRaw: the only door to rawpy. What it reads of a camera's raw, in the process that calls.

LibRaw and exiv2 take files from anyone, and a damaged one may end a process or keep it for ever: whoever is to
outlive that calls through `nightisp.decoding`. Lens corrections and gain maps that a DNG asks for are left out; LibRaw
has applied a raw's own linearization table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp import exif
from nightisp.colorimetry import xy_to_kelvin, xy_to_xyz, xyz_to_camera_at
from nightisp.image import CFA, ColorMatrix, Shot, Triple
from nightisp.refusals import check_size, not_bayer, readable, refusal, truncated

Levels = tuple[float, float, float, float]
Room = Callable[[int], None]
"""Is told the photosites of a sensor before they are unpacked."""

# LibRaw's flip has a bit each for left-right mirrored (1), upside down mirrored (2) and transposed (4).
_FLIP_TO_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
_ABOVE_WHITE = 0.001


@dataclass(frozen=True, slots=True)
class Decoded:
    """A raw's samples, (H, W), visible area, sensor units, in its own `cfa`; None where only the rest was asked for."""

    samples: NDArray[Any] | None
    height: int
    width: int
    cfa: CFA
    shot: Shot


def _any_room(_photosites: int) -> None:
    return None


def decode(path: Path, room: Room = _any_room) -> Decoded:
    """Decode a raw.

    Raises
    ------
    RawFileError, UnsupportedSensorError
    """
    with _opened(path, room) as (libraw, tags):
        cfa, colors = _pattern(libraw, tags, path)
        samples = np.array(libraw.raw_image_visible)
        height, width = samples.shape
        return Decoded(samples, height, width, cfa, _shot(libraw, tags, samples, colors))


@contextmanager
def _opened(path: Path, room: Room) -> Iterator[tuple[Any, exif.Tags]]:
    """Open a camera's raw with LibRaw and exiv2, every fault told as a `RawFileError`."""
    import rawpy

    with readable(path):
        tags = exif.read(path)
        if path.stat().st_size < tags.end_of_samples():
            raise truncated(path, path.stat().st_size, tags.end_of_samples())
        try:
            with rawpy.imread(os.fspath(path)) as libraw:
                if libraw.num_colors != 3:
                    raise not_bayer(path, f"its sensor has {libraw.num_colors} colors ({_letters(libraw)})")
                check_size(path, libraw.sizes.raw_height, libraw.sizes.raw_width)
                room(libraw.sizes.raw_height * libraw.sizes.raw_width)
                yield libraw, tags
        except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
            raise refusal(path, tags.compression(), type(error).__name__, str(error)) from error


def _letters(libraw: Any) -> str:
    return str(libraw.color_desc.decode("ascii", "replace"))


def _pattern(libraw: Any, tags: exif.Tags, path: Path) -> tuple[CFA, list[int]]:
    """Return the pattern from the top-left visible photosite, and LibRaw's color index at its four positions."""
    import rawpy

    if libraw.raw_type != rawpy.RawType.Flat:
        raise not_bayer(path, "it holds several samples a pixel (sRAW, Foveon, or already demosaiced)")
    planes = tags.numbers(*(f"{folder}.CFAPlaneColor" for folder in tags.raw_folders()))
    if planes and planes != [0, 1, 2]:
        raise not_bayer(path, f"its color filters are {planes} by DNG's CFAPlaneColor, not red, green and blue")
    top, left = libraw.sizes.top_margin, libraw.sizes.left_margin
    block = np.array([[libraw.raw_color(top + y, left + x) for x in range(12)] for y in range(12)])
    names = _letters(libraw)
    if (block >= len(names)).any():
        raise not_bayer(path, "its sensor is monochrome")
    if (block != np.tile(block[:2, :2], (6, 6))).any():
        six = (block == np.tile(block[:6, :6], (2, 2))).all()
        raise not_bayer(path, f"its color filter array is {'6 x 6 (X-Trans)' if six else 'larger than 2 x 2'}")
    colors = block[:2, :2].ravel().tolist()
    pattern = "".join(names[color] for color in colors)
    if pattern not in list(CFA):
        raise not_bayer(path, f"its color filter array is {pattern}")
    return CFA(pattern), colors


def _shot(libraw: Any, tags: exif.Tags, samples: NDArray[Any], colors: list[int]) -> Shot:
    matrices = exif.color_matrices(tags) if tags.is_dng else ()
    if not matrices and np.any(libraw.rgb_xyz_matrix[:3]):
        matrices = (exif.as_color_matrix(libraw.rgb_xyz_matrix[:3].astype(np.float64).round(6), 21),)
    other = libraw.other
    stamp = other.timestamp.replace(microsecond=0)
    shot = Shot(
        camera=exif.camera(tags),
        lens=tags.text("Exif.Photo.LensModel") or libraw.lens.model,
        iso=other.iso_speed if other.iso_speed > 0 else _positive(tags, "ISOSpeedRatings", None),
        exposure_s=_positive(tags, "ExposureTime", other.shutter_speed),
        f_number=_positive(tags, "FNumber", other.aperture),
        focal_length_mm=_positive(tags, "FocalLength", other.focal_length),
        captured=exif.captured(tags) or (stamp.isoformat() if stamp.year > 1970 else None),
        orientation=_orientation(libraw, tags),
        as_shot_neutral=_as_shot_neutral(libraw, tags, matrices),
        color_matrices=matrices,
        noise_profile=exif.noise_profile(tags) if tags.is_dng else (),
        black_level=_black_level(libraw, tags, colors),
        white_level=_white_level(libraw, samples),
    )
    return shot.model_copy(update={"exif": exif.to_carry_over(tags, shot)})


def _positive(tags: exif.Tags, name: str, otherwise: float | None) -> float | None:
    # LibRaw makes 1 s and f/1 of a tag that says nothing, so a tag that is there is believed before LibRaw.
    value = next(iter(tags.numbers(f"Exif.Photo.{name}", f"Exif.Image.{name}")), otherwise)
    return float(value) if value is not None and value > 0 else None


def _orientation(libraw: Any, tags: exif.Tags) -> int:
    # LibRaw takes the last three bits of a tag that is out of bounds.
    stated = tags.numbers("Exif.Image.Orientation")
    if stated and stated[0] not in range(1, 9):
        return 1
    return _FLIP_TO_ORIENTATION.get(libraw.sizes.flip, 1)


def _as_shot_neutral(libraw: Any, tags: exif.Tags, matrices: tuple[ColorMatrix, ...]) -> Triple | None:
    if tags.is_dng:
        white = tags.numbers("Exif.Image.AsShotWhiteXY")
        if neutral := tags.numbers("Exif.Image.AsShotNeutral"):
            return exif.as_neutral(neutral)
        if len(white) == 2 and min(white) > 0 and matrices:
            return exif.as_neutral(list(xyz_to_camera_at(matrices, xy_to_kelvin(*white)) @ xy_to_xyz(*white)))
    red, green, blue, second_green = libraw.camera_whitebalance
    if second_green > 0 and green > 0:
        green = (green + second_green) / 2
    return exif.as_neutral([1 / gain if gain > 0 else 0.0 for gain in (red, green, blue)])


def _black_level(libraw: Any, tags: exif.Tags, colors: list[int]) -> Levels:
    block = np.array([libraw.black_level_per_channel[color] for color in colors], np.float64).reshape(2, 2)
    active = tags.numbers(*(f"{folder}.ActiveArea" for folder in tags.raw_folders()))
    if tags.is_dng and len(active) == 4:
        # LibRaw rounds the margins of a DNG's active area up to even ones, and leaves the black levels behind.
        shift = (libraw.sizes.top_margin - int(active[0]), libraw.sizes.left_margin - int(active[1]))
        block = np.roll(block, (-shift[0], -shift[1]), axis=(0, 1))
    first, second, third, fourth = block.ravel().tolist()
    return (first, second, third, fourth)


def _white_level(libraw: Any, samples: NDArray[Any]) -> float:
    overall = libraw.white_level
    per_color = [level for level in libraw.camera_white_level_per_channel or () if level > 0]
    lowest = min([overall, *per_color])
    return float(overall if np.count_nonzero(samples > lowest) > _ABOVE_WHITE * samples.size else lowest)
