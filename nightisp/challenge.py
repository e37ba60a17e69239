"""The night photography challenge's raws: a mosaic as 16-bit PNG beside a JSON of the same stem.

The fields are those of the challenge's baseline; a number may be written as `{"Fraction": [numerator, denominator]}`, a
single value as itself or as a list of one. A field that is wrong is an error, as it would make a wrong picture. Only
as_shot_neutral, noise_profile and camera_name count as absent where they are unusable, as in a camera's raw.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import RawFileError
from nightisp.exif import as_color_matrix, as_neutral, as_noise_profile
from nightisp.image import CFA, Shot

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = "RGB"
_STANDARD_LIGHT_A, _D65 = 17, 21


def json_beside(png: Path) -> Path:
    """Return the JSON that belongs to a PNG.

    Raises
    ------
    RawFileError
        If there is none: a PNG alone does not say how to read its samples.
    """
    for suffix in (".json", ".JSON"):
        if (beside := png.with_suffix(suffix)).is_file():
            return beside
    raise RawFileError(
        f"{png}: a PNG without {png.stem}.json beside it; expected the challenge's pair of a 16-bit mosaic and a JSON "
        "with black_level, white_level and cfa_pattern. Put the JSON there, or leave the PNG out"
    )


def read(png: Path) -> tuple[NDArray[np.uint16] | NDArray[np.float32], CFA, Shot]:
    """Read the mosaic, (H, W) in sensor units, and what the JSON says of it; its linearization table is applied.

    Returns
    -------
    samples, cfa, shot
        `shot.black_level` and `shot.white_level` are those of the JSON.

    Raises
    ------
    RawFileError
        If either file is damaged, the PNG is not 16-bit single-channel, or the JSON lacks a field or holds a bad value.
    """
    fields = Fields(json_beside(png))
    check(png)
    cfa, shot = fields.cfa(), fields.shot()
    table = fields.numbers("linearization_table")
    samples = _decode(png)
    if not table:
        return samples, cfa, shot
    # As in DNG: what lies beyond the table's end has the value of its end.
    return np.asarray(table, np.float32)[np.minimum(samples, len(table) - 1)], cfa, shot


def check(png: Path) -> None:
    """See that a PNG is 16-bit and single-channel, and that every chunk of it has its right checksum.

    Raises
    ------
    RawFileError
        If it is anything else, or truncated or damaged.
    """
    content = memoryview(png.read_bytes())
    if bytes(content[:8]) != SIGNATURE:
        raise RawFileError(f"{png}: it is no PNG, although its name says so; give it the suffix of what it is")
    position = 8
    while True:
        if position + 12 > len(content):
            raise RawFileError(f"{png}: truncated, it ends after {len(content)} bytes inside a chunk; copy it again")
        (length,) = struct.unpack_from(">I", content, position)
        kind, end = bytes(content[position + 4 : position + 8]), position + 8 + length
        if end + 4 > len(content):
            raise RawFileError(
                f"{png}: truncated, it holds {len(content)} bytes and needs at least {end + 4}; copy it again"
            )
        if zlib.crc32(content[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise RawFileError(f"{png}: damaged, the checksum of its chunk {kind!r} is wrong; copy it again")
        if kind == b"IHDR":
            bits, color = struct.unpack_from(">BB", content, position + 16)
            if (bits, color) != (16, 0):
                name = {0: "gray", 2: "RGB", 3: "palette", 4: "gray and alpha", 6: "RGB and alpha"}.get(color, color)
                raise RawFileError(
                    f"{png}: a {bits}-bit {name} PNG; expected the 16-bit single-channel mosaic of a sensor. "
                    "A finished picture cannot be developed: leave it out"
                )
        if kind == b"IEND":
            return
        position = end + 4


def _decode(png: Path) -> NDArray[np.uint16]:
    import cv2

    try:
        samples = cv2.imdecode(np.fromfile(png, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        samples = None
    if samples is None or samples.dtype != np.uint16 or samples.ndim != 2:
        raise RawFileError(f"{png}: damaged, its samples cannot be decoded; copy it again")
    return np.asarray(samples)


class Fields:
    """The JSON of one mosaic, each field checked when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RawFileError(f"{path}: no valid JSON ({error}); write it again") from error
        if not isinstance(self.values, dict):
            raise self._bad("the file", "a list or a bare value", "an object with black_level, white_level, ...")

    def _bad(self, name: str, value: object, expected: str) -> RawFileError:
        return RawFileError(f"{self.path}: {name} is {value!r}; expected {expected}. Correct it in the JSON")

    def numbers(self, name: str, counts: Sequence[int] = (), *, needed: bool = False) -> list[float]:
        """Return the numbers of a field; [] if it is absent or null and not needed."""
        value = self.values.get(name)
        if value is None:
            if needed:
                raise RawFileError(f"{self.path}: {name} is missing; expected {_several(counts)}. Add it to the JSON")
            return []
        listed = value if isinstance(value, list) else [value]
        numbers = [_number(item) for item in listed]
        if any(not math.isfinite(number) for number in numbers) or (counts and len(numbers) not in counts):
            raise self._bad(name, value, _several(counts))
        return numbers

    def usable(self, name: str, counts: Sequence[int]) -> list[float]:
        """Return the numbers of a field that a picture can do without; [] if it is absent or unusable."""
        try:
            return self.numbers(name, counts)
        except RawFileError:
            return []

    def cfa(self) -> CFA:
        """Return the pattern of the top-left 2 x 2 photosites."""
        numbers = self.numbers("cfa_pattern", (4,), needed=True)
        try:
            return CFA("".join(_COLORS[[0, 1, 2].index(int(n)) if n == int(n) else 3] for n in numbers))
        except (ValueError, IndexError):
            expected = "one red (0), two green (1) on a diagonal and one blue (2), row by row, such as [2, 1, 1, 0]"
            raise self._bad("cfa_pattern", self.values["cfa_pattern"], expected) from None

    def shot(self) -> Shot:
        """Return the levels and all that the JSON says of the exposure."""
        black = self.numbers("black_level", (1, 4), needed=True) * 4
        white = self.numbers("white_level", (1,), needed=True)[0]
        if min(black) < 0:
            raise self._bad("black_level", self.values["black_level"], "no negative number")
        orientation = next(iter(self.numbers("orientation", (1,))), 1)
        if orientation not in range(1, 9):
            raise self._bad("orientation", self.values["orientation"], "an EXIF orientation, 1 to 8")
        camera = self.values.get("camera_name")
        camera = camera if isinstance(camera, str) else ""
        matrices = []
        for i, default in ((1, _STANDARD_LIGHT_A), (2, _D65)):
            if matrix := self.numbers(f"color_matrix_{i}", (9,)):
                if not any(matrix):
                    raise self._bad(f"color_matrix_{i}", self.values[f"color_matrix_{i}"], "nine numbers, not all 0")
                light = self.numbers(f"calibration_illuminant_{i}", (1,)) or [default]
                matrices.append(as_color_matrix(matrix, int(light[0])))
        return Shot(
            camera=camera,
            captured=None,
            orientation=int(orientation),
            as_shot_neutral=as_neutral(self.usable("as_shot_neutral", (3,))),
            color_matrices=tuple(matrices),
            noise_profile=self._noise_profile(),
            black_level=(black[0], black[1], black[2], black[3]),
            white_level=white,
            exif={"Exif.Image.Model": camera} if camera else {},
        )

    def _noise_profile(self) -> tuple[tuple[float, float], ...]:
        numbers = self.usable("noise_profile", (2, 6, 8))
        if len(numbers) == 8 and min(numbers) >= 0:
            # One pair a photosite of the pattern: the two greens become one plane.
            pairs, pattern = np.reshape(numbers, (4, 2)), np.array(list(self.cfa()))
            numbers = [mean for color in _COLORS for mean in pairs[pattern == color].mean(axis=0).tolist()]
        return as_noise_profile(numbers)


def _number(value: Any) -> float:
    if isinstance(value, dict) and list(value) == ["Fraction"] and isinstance(value["Fraction"], list):
        parts = [_number(part) for part in value["Fraction"]]
        return parts[0] / parts[1] if len(parts) == 2 and parts[1] else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.inf


def _several(counts: Sequence[int]) -> str:
    if tuple(counts) == (1,):
        return "one finite number"
    return f"{' or '.join(map(str, counts))} finite numbers" if counts else "finite numbers"
