"""Raw file to `Mosaic`: every 2 x 2 Bayer raw that LibRaw decodes, and the challenge's PNG with its JSON.

The only door to rawpy. Lens corrections and gain maps that a DNG asks for are left out; LibRaw has applied a raw's own
linearization table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightisp import challenge, exif
from nightisp.bayer import to_phase
from nightisp.colorimetry import xy_to_kelvin, xy_to_xyz, xyz_to_camera_at
from nightisp.errors import RawFileError
from nightisp.image import CFA, ColorMatrix, Mosaic, Samples, Shot, Triple
from nightisp.refusals import not_bayer, readable, refusal, truncated
from nightisp.saturation import saturation
from nightisp.stage import Params, Stage

Levels = tuple[float, float, float, float]

# LibRaw's flip has a bit each for left-right mirrored (1), upside down mirrored (2) and transposed (4).
_FLIP_TO_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
_ABOVE_WHITE = 0.001


class IngestParams(Params):
    """How a raw is read; what is empty is as the file says."""

    black_level: float | None = Field(None, ge=0, le=65535, description="black of all photosites, in sensor units")
    white_level: float | None = Field(None, gt=0, le=65535, description="white level, in sensor units")
    saturation: Literal["seen", "stated"] = Field(
        "seen", description="white level where the samples are seen to clip below the stated one; or as stated"
    )


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw photograph on disk: a camera's file, or the challenge's PNG with its JSON beside it."""

    path: Path


@dataclass(frozen=True, slots=True)
class RawSummary:
    """What a look at a raw tells; of a camera's raw, `cfa` and `shot` are None unless it was decoded."""

    path: Path
    camera: str
    height: int
    width: int
    cfa: CFA | None = None
    shot: Shot | None = None

    @property
    def megapixels(self) -> float:
        """Millions of visible photosites."""
        return self.height * self.width / 1e6


@dataclass(frozen=True, slots=True)
class _Decoded:
    samples: NDArray[Any]  # (H, W), visible area, sensor units
    cfa: CFA
    shot: Shot


def ingest(raw: RawFile, params: IngestParams) -> Mosaic:
    """Decode a raw file to a mosaic with black at 0 and white at 1, in phase BGGR.

    Only the visible area. Nothing is clipped: noise around black stays symmetric, and what exceeds white stays too.
    Phase and even sizes come by reflection; `window` is what was visible.

    Returns
    -------
    Mosaic
        float32 (H, W), BGGR, even sizes. Its shot tells the levels used, in the reading order of the visible area.

    Raises
    ------
    RawFileError
        If the file is missing, no raw, damaged, or its white level is not above its black level.
    UnsupportedSensorError
        If its photosites are not a 2 x 2 Bayer mosaic.

    References
    ----------
    :cite:`dng171`, chapter "Mapping Raw Values to Linear Reference Values".
    """
    decoded = _decode(raw.path)
    black, white = _levels(decoded.shot, params, f"{raw.path}: ")
    shot = decoded.shot
    if params.saturation == "seen" and params.white_level is None:
        shot, white = _seen_to_clip(decoded, black, white)
    samples, window = to_phase(linearize(decoded.samples, black, white), decoded.cfa, CFA.BGGR)
    shot = shot.model_copy(update={"black_level": black, "white_level": white})
    return Mosaic(samples, shot=shot, window=window, cfa=CFA.BGGR)


def _seen_to_clip(decoded: _Decoded, black: Levels, white: float) -> tuple[Shot, float]:
    """Return the white level by what clips, and the shot with the file's figures of noise on that scale."""
    seen = saturation(decoded.samples, decoded.cfa, black, white)
    grown = (white - min(black)) / (seen - min(black))  # samples become so much larger
    profile = tuple((shot * grown, read * grown**2) for shot, read in decoded.shot.noise_profile)
    return decoded.shot.model_copy(update={"noise_profile": profile}), seen


def check(shot: Shot, params: IngestParams) -> None:
    """Raise what `ingest` would if a raw's levels, or those set in their place, make no picture.

    Raises
    ------
    RawFileError
        If the white level is not above the black level, or either is not known.
    """
    _levels(shot, params)


def _levels(shot: Shot, params: IngestParams, where: str = "") -> tuple[Levels, float]:
    black = shot.black_level if params.black_level is None else (params.black_level,) * 4
    white = shot.white_level if params.white_level is None else params.white_level
    if black is None or white is None:
        raise RawFileError(f"{where}it states no black or white level; set ingest.black_level and .white_level")
    if white <= max(black):
        raise RawFileError(
            f"{where}white level {white:g} is not above black level {max(black):g}; "
            "set ingest.white_level and ingest.black_level, in the raw's own units"
        )
    return black, white


def linearize(samples: NDArray[Any], black: Levels, white: float) -> Samples:
    """Map black level to 0 and white level to 1, each position of the 2 x 2 block by its own black; not clipped.

    Parameters
    ----------
    samples
        (H, W), in sensor units.
    black
        Per position of the 2 x 2 block at the top-left, in reading order.
    white
        Above every black level.

    Returns
    -------
    Samples
        float32 (H, W).

    Examples
    --------
    >>> linearize(np.array([[64, 1023], [0, 64]]), (64, 64, 0, 64), 1023).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    linear = samples.astype(np.float32)
    for i, level in enumerate(black):
        plane = linear[i // 2 :: 2, i % 2 :: 2]
        plane -= np.float32(level)
        plane /= np.float32(white - level)
    return linear


def inspect(path: Path, *, decode: bool = False) -> RawSummary:
    """Look at a raw: what it is and whether it can be developed.

    Without `decode` only the header and the place of the samples are looked at, which takes milliseconds and finds
    most of what is wrong. Decoding finds the rest: damaged samples, and a sensor that is not Bayer.

    Raises
    ------
    RawFileError, UnsupportedSensorError
        As `ingest` does.
    """
    if decode:
        decoded = _decode(path)
        height, width = decoded.samples.shape
        return RawSummary(path, decoded.shot.camera, height, width, decoded.cfa, decoded.shot)
    if _is_png(path):
        with readable(path):
            fields = challenge.Fields(challenge.json_beside(path))
            cfa, shot = fields.cfa(), fields.shot()
            return RawSummary(path, shot.camera, *challenge.check(path), cfa, shot)
    with _opened(path) as (libraw, tags):
        return RawSummary(path, exif.camera(tags), libraw.sizes.height, libraw.sizes.width)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _decode(path: Path) -> _Decoded:
    if _is_png(path):
        with readable(path):
            samples, cfa, shot = challenge.read(path)
    else:
        with _opened(path) as (libraw, tags):
            cfa, colors = _pattern(libraw, tags, path)
            samples = np.array(libraw.raw_image_visible)
            shot = _shot(libraw, tags, samples, colors)
    if min(samples.shape) < 2:
        raise RawFileError(f"{path}: it is {samples.shape[0]} x {samples.shape[1]}; expected 2 x 2 photosites at least")
    return _Decoded(samples, cfa, shot)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, exif.Tags]]:
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


INGEST = Stage(
    name="ingest", run=ingest, takes=RawFile, gives=Mosaic, params=IngestParams, check=check, cite=("dng171",)
)
