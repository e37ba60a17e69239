"""The pictures that raws should become, and what else is known of the raws.

Beside a reference may lie its truth, `STEM.truth.json`: `illuminant` (camera RGB of a neutral) and `clean_mosaic` (the
name of an NPY of the visible photosites without noise, float32 (H, W), in the raw's own CFA).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from nightisp.errors import RawFileError, RawFileNotFoundError
from nightisp.image import Samples, Triple
from nightisp.picture_files import read_picture

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a raw: the picture that it should become and, where it was made, light and clean mosaic."""

    reference: Path
    picture: Samples
    illuminant: Triple | None = None
    clean: Samples | None = None


def read_truth(references: Path, stem: str) -> Truth:
    """Read the reference called `stem` and what lies beside it.

    Raises
    ------
    RawFileError
        If there is none, or more than one, or a file is damaged or says what cannot be.
    """
    found = sorted(p for p in references.glob(f"{escape(stem)}.*") if p.stem == stem and p.suffix.lower() in SUFFIXES)
    if not found:
        raise RawFileNotFoundError(
            f"{references / stem}: no reference; expected it to end in one of {', '.join(SUFFIXES)}. "
            "Put it there, or leave the raw out with --frames"
        )
    if len(found) > 1:
        raise RawFileError(f"{found[0]}: {found[1].name} is a reference of the same name; leave one")
    picture = read_picture(found[0])
    if picture.ndim != 3:
        raise RawFileError(f"{found[0]}: is gray; expected an RGB picture")
    beside = found[0].with_name(f"{stem}.truth.json")
    if not beside.is_file():
        return Truth(found[0], picture)
    try:
        fields = json.loads(beside.read_text("utf-8"))
        light = fields.get("illuminant")
        illuminant = None if light is None else _illuminant([float(value) for value in light])
        name = fields.get("clean_mosaic")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RawFileError(
            f"{beside}: {error}; expected an object with illuminant, three numbers above 0, and clean_mosaic, a name"
        ) from error
    return Truth(found[0], picture, illuminant, read_picture(beside.with_name(str(name))) if name else None)


def _illuminant(light: list[float]) -> Triple:
    if len(light) != 3 or not all(math.isfinite(value) and value > 0 for value in light):
        raise ValueError(f"illuminant is {light}")
    return light[0], light[1], light[2]
