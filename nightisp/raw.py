"""Raw file to `Mosaic`: every 2 x 2 Bayer raw that LibRaw decodes, and the challenge's PNG with its JSON.

A camera's raw is decoded in a child process (`nightisp.decoding`), the challenge's PNG in this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightisp import challenge, decoding
from nightisp.bayer import to_phase
from nightisp.errors import RawFileError
from nightisp.image import CFA, Mosaic, Samples, Shot
from nightisp.libraw import Decoded, Levels
from nightisp.refusals import readable
from nightisp.rows import in_rows
from nightisp.saturation import saturation
from nightisp.stage import Params, Stage


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
    """What a raw is: size and color filter array of its visible area, and what is known of the shot."""

    path: Path
    height: int
    width: int
    cfa: CFA
    shot: Shot

    @classmethod
    def of_artifact(cls, path: Path, state: dict[str, Any]) -> RawSummary:
        """Return what the mosaic that was made of this raw tells by its `state`, without opening either."""
        mosaic = Mosaic.parsed(state)
        window = mosaic["window"]
        return cls(path, window.height, window.width, mosaic["cfa"], mosaic["shot"])

    @property
    def megapixels(self) -> float:
        """Millions of visible photosites."""
        return self.height * self.width / 1e6


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
    samples = decoded.samples
    assert samples is not None
    black, white = _levels(decoded.shot, params, f"{raw.path}: ")
    shot = decoded.shot
    if params.saturation == "seen" and params.white_level is None:
        shot, white = _seen_to_clip(decoded, samples, black, white)
    placed, window = to_phase(samples, decoded.cfa, CFA.BGGR)  # while they are small
    moved = [(y + window.top) % 2 * 2 + (x + window.left) % 2 for y in (0, 1) for x in (0, 1)]
    linear = linearize(placed, (black[moved[0]], black[moved[1]], black[moved[2]], black[moved[3]]), white)
    shot = shot.model_copy(update={"black_level": black, "white_level": white})
    return Mosaic(linear, shot=shot, window=window, cfa=CFA.BGGR)


def _seen_to_clip(decoded: Decoded, samples: NDArray[Any], black: Levels, white: float) -> tuple[Shot, float]:
    """Return the white level by what clips, and the shot with the file's figures of noise on that scale."""
    seen = saturation(samples, decoded.cfa, black, white)
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

    def above_black(rows: NDArray[Any]) -> Samples:  # begins with an even row
        linear = rows.astype(np.float32)
        for i, level in enumerate(black):
            plane = linear[i // 2 :: 2, i % 2 :: 2]
            plane -= np.float32(level)
            plane /= np.float32(white - level)
        return linear

    return in_rows(above_black, samples)


def inspect(path: Path) -> RawSummary:
    """Look at a raw: decode it, which finds all that may be wrong with it, and say what it is.

    Raises
    ------
    RawFileError, UnsupportedSensorError
        As `ingest` does.
    """
    decoded = _decode(path, samples=False)
    return RawSummary(path, decoded.height, decoded.width, decoded.cfa, decoded.shot)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _decode(path: Path, *, samples: bool = True) -> Decoded:
    """Decode a raw; its samples may be left out where they come from a child process, to save the way."""
    if _is_png(path):
        with readable(path):
            png, cfa, shot = challenge.read(path)
            decoded = Decoded(png, png.shape[0], png.shape[1], cfa, shot)
    else:
        decoded = decoding.decode(path) if samples else decoding.facts(path)
    if min(decoded.height, decoded.width) < 2:
        raise RawFileError(f"{path}: it is {decoded.height} x {decoded.width}; expected 2 x 2 photosites at least")
    return decoded


INGEST = Stage(
    name="ingest", run=ingest, takes=RawFile, gives=Mosaic, params=IngestParams, check=check, cite=("dng171",)
)
