"""Write a mosaic as a DNG that other raw converters develop.

Of DNG 1.4 what a Bayer mosaic needs: the visible photosites, uncompressed, in one directory. No preview, no profile,
no lens correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightisp import exif
from nightisp.errors import NoGroundError, OutputError, StageError
from nightisp.image import CFA, Mosaic, Shot
from nightisp.noise import quantize
from nightisp.publish import publish

Levels = tuple[int, int, int, int]

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL, _DOUBLE = 1, 2, 3, 4, 5, 10, 12
_COLOR_FILTER_ARRAY = 32803
_DENOMINATOR = 10**6  # finer than any camera's own matrices, and every product stays within 32 bits


def write_dng(
    mosaic: Mosaic,
    path: Path,
    *,
    white_level: int | None = None,
    black_level: int | Levels | None = None,
    bits: Literal[14, 16] = 16,
) -> None:
    """Write the visible part of a mosaic as DNG, with what is known of the shot.

    Samples are rounded to integers of `bits` bits (kept in 16) and clipped to their ends, not at white level: below
    black and above white there is as much room as the levels leave.

    Parameters
    ----------
    mosaic
        Linear, 0 = black level, 1 = white level, any window and phase; not white-balanced yet.
    path
        Written beside and renamed into place: what stood there is replaced, or stays whole.
    white_level
        What sample 1 becomes; 31/32 of the range if it is None.
    black_level
        What sample 0 becomes, or one for each position of the 2 x 2 block in reading order from the visible top-left;
        1/32 of the range if it is None, so that the noise below black is kept.
    bits
        14 or 16: the integers end at 16383 or 65535.

    Raises
    ------
    NoGroundError
        If the shot holds no ColorMatrix, which every DNG of a color sensor must have.
    StageError
        If white balance has been applied already, or a sample is not a number.
    ParamsError
        If the levels contradict each other.
    OutputError
        If the file cannot be written.

    References
    ----------
    :cite:`dng171`.
    """
    largest = 2**bits - 1
    room = 2**bits // 32
    white = largest - room if white_level is None else white_level
    black = room if black_level is None else black_level
    per_position = (black,) * 4 if isinstance(black, int) else black
    _check(mosaic, path)
    phase = mosaic.cfa.shifted(mosaic.window.top, mosaic.window.left)
    values = quantize(mosaic.visible(), per_position, white, largest)
    content = _with_exif(
        _layout(values, _tags(mosaic.shot, phase, per_position, white, values.shape)), mosaic.shot, path
    )
    publish(content, path)


def _check(mosaic: Mosaic, path: Path) -> None:
    if not mosaic.shot.color_matrices:
        raise NoGroundError(
            f"{path}: the shot of {mosaic.shot.camera or 'an unnamed camera'} holds no ColorMatrix, and a DNG must "
            "have one; keep the samples in the store, or give the shot a matrix"
        )
    if mosaic.balance.gains != (1.0, 1.0, 1.0):
        raise StageError(
            f"{path}: the mosaic has been white-balanced by {mosaic.balance.gains}; a DNG holds what the sensor saw. "
            "Export the mosaic of a stage before white_balance"
        )
    if np.isnan(np.min(mosaic.visible())):
        raise StageError(f"{path}: the mosaic holds samples that are not numbers (NaN); a DNG holds integers only")


def _tags(shot: Shot, phase: CFA, black: Sequence[int], white: int, shape: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """Return what tifffile calls extratags: (code, type, count, value, False)."""
    tags: list[tuple[int, int, Sequence[Any] | str]] = [
        (274, _SHORT, [shot.orientation]),
        (33421, _SHORT, [2, 2]),  # CFARepeatPatternDim
        (33422, _BYTE, ["RGB".index(color) for color in phase.value]),  # CFAPattern
        (50706, _BYTE, [1, 4, 0, 0]),  # DNGVersion
        (50707, _BYTE, [1, 1, 0, 0]),  # DNGBackwardVersion: nothing here is newer that a reader must know of
        (50708, _ASCII, shot.camera or "unknown"),  # UniqueCameraModel
        (50713, _SHORT, [2, 2]),  # BlackLevelRepeatDim
        (50714, _SHORT, list(black)),
        (50717, _LONG, [white]),
        (50829, _LONG, [0, 0, *shape]),  # ActiveArea
    ]
    # Two matrices are all that a DNG 1.4 holds.
    for matrix, code, code_of_light in zip(shot.color_matrices, (50721, 50722), (50778, 50779), strict=False):
        numbers = [number for row in matrix.xyz_to_camera for number in row]
        tags += [(code, _SRATIONAL, _rationals(numbers)), (code_of_light, _SHORT, [matrix.illuminant])]
    if shot.as_shot_neutral:
        tags.append((50728, _RATIONAL, _rationals(shot.as_shot_neutral)))
    if shot.noise_profile:
        tags.append((51041, _DOUBLE, [number for pair in shot.noise_profile for number in pair]))
    per_value = {_RATIONAL: 2, _SRATIONAL: 2}
    return [
        (code, kind, len(value) // per_value.get(kind, 1) + (kind == _ASCII), value, False)
        for code, kind, value in sorted(tags, key=lambda tag: tag[0])
    ]


def _rationals(numbers: Sequence[float]) -> list[int]:
    pairs = [Fraction(number).limit_denominator(_DENOMINATOR) for number in numbers]
    return [part for pair in pairs for part in (pair.numerator, pair.denominator)]


def _layout(values: NDArray[np.uint16], tags: list[tuple[Any, ...]]) -> bytes:
    import tifffile

    file = BytesIO()
    tifffile.imwrite(
        file,
        values,
        byteorder="<",
        photometric=_COLOR_FILTER_ARRAY,
        subfiletype=0,
        extratags=tags,
        metadata=None,
        software=False,
    )
    return file.getvalue()


def _with_exif(content: bytes, shot: Shot, path: Path) -> bytes:
    import exiv2

    tags = exif.to_carry_over(exif.Tags(shot.exif), shot)
    file = exiv2.ImageFactory.open(content)
    try:
        file.readMetadata()
        written = file.exifData()
        for key, text in tags.items():
            written[key] = text
        written["Exif.Photo.ExifVersion"] = "48 50 51 48"
        file.writeMetadata()
    except (exiv2.Exiv2Error, ValueError) as error:
        raise OutputError(
            f"{path}: exiv2 cannot write the shot's EXIF ({error}); leave out of it what it names"
        ) from error
    finished = file.io()
    try:
        return bytes(finished.mmap())
    finally:
        finished.munmap()
