"""The states of one picture: `Mosaic`, `LinearImage`, `DisplayImage`, and what rides along.

The type is the state. No stage takes a `DisplayImage` for a `LinearImage`, so nothing is gamma-encoded twice.
Samples are in memory exactly what the artifact store gives back (`stored`), so a hit and a miss have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nightisp.errors import ImageShapeError
from nightisp.rows import in_rows

Samples = NDArray[np.float32]
Triple = tuple[float, float, float]


class CFA(StrEnum):
    """Color filter array, in reading order from the top-left photosite of the array at hand."""

    RGGB = "RGGB"
    GRBG = "GRBG"
    GBRG = "GBRG"
    BGGR = "BGGR"

    def color_at(self, row: int, column: int) -> Literal["R", "G", "B"]:
        """Return the color of the photosite at `row`, `column` (any integers, negative ones too)."""
        return self.value[2 * (row % 2) + column % 2]  # type: ignore[return-value]

    def shifted(self, rows: int, columns: int) -> CFA:
        """Return the pattern seen from a top-left corner moved by `rows` down and `columns` right."""
        return CFA("".join(self.color_at(rows + y, columns + x) for y in (0, 1) for x in (0, 1)))


class Window(NamedTuple):
    """The visible part of an array; all that lies outside is padding."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the window."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColorMatrix(_Record):
    """DNG ColorMatrix: XYZ to camera, `camera = xyz_to_camera @ xyz`, with the light it was measured under."""

    xyz_to_camera: tuple[Triple, Triple, Triple]
    illuminant: int = Field(default=21, description="EXIF LightSource code; 21 is D65, 17 standard light A")


class Shot(_Record):
    """What is known of the exposure: constant from raw file to picture."""

    camera: str = ""
    lens: str = ""
    iso: float | None = None
    exposure_s: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    captured: str | None = Field(default=None, description="local time of capture, ISO 8601 without zone")
    orientation: int = Field(default=1, ge=1, le=8, description="EXIF orientation of the sensor array")
    as_shot_neutral: Triple | None = Field(
        default=None, description="camera RGB of a neutral, green = 1; None if unusable"
    )
    color_matrices: tuple[ColorMatrix, ...] = ()
    noise_profile: tuple[tuple[float, float], ...] = Field(
        default=(),
        description="(shot, read) per color plane or one pair for all: variance = shot x signal + read on [0, 1]",
    )
    black_level: tuple[float, float, float, float] | None = Field(
        default=None, description="per CFA position in reading order, in sensor units"
    )
    white_level: float | None = None
    exif: dict[str, str] = Field(default_factory=dict, description="exiv2 key -> exiv2 text, carried into the picture")


class Balance(_Record):
    """The white balance applied so far: `gains` are cumulative, green = 1 unless a stage says otherwise."""

    gains: Triple = (1.0, 1.0, 1.0)
    method: str = "none"


class NoiseFigures(_Record):
    """The noise that denoising reckoned with, and how it knew."""

    source: Literal["unknown", "blind", "file", "camera", "estimate"] = "unknown"
    figures: tuple[tuple[float, float], ...] = Field(
        default=(), description="(shot, read) of R, G and B: variance = shot x signal + read on [0, 1]"
    )


@dataclass(frozen=True, slots=True)
class Image:
    """What the three states share; `samples` is float32, never modified in place but by `settled`."""

    CHANNELS: ClassVar[int | None] = None
    STORAGE: ClassVar[type[np.generic]] = np.float16

    samples: Samples
    shot: Shot = field(default_factory=Shot, kw_only=True)
    window: Window = field(default=Window(0, 0, 0, 0), kw_only=True)  # all zero: the whole array
    balance: Balance = field(default_factory=Balance, kw_only=True)

    def __post_init__(self) -> None:
        rows, columns = self.check_shape()
        if self.window == (0, 0, 0, 0):
            object.__setattr__(self, "window", Window(0, 0, rows, columns))
        top, left, height, width = self.window
        if min(top, left) < 0 or min(height, width) < 1 or top + height > rows or left + width > columns:
            raise ImageShapeError(f"window {tuple(self.window)} does not lie in an array of {(rows, columns)}")

    def check_shape(self) -> tuple[int, int]:
        """Return the rows and columns that `window` counts in, or raise `ImageShapeError`."""
        expected = "(H, W)" if self.CHANNELS is None else f"(H, W, {self.CHANNELS})"
        shape, dtype = self.samples.shape, self.samples.dtype
        if (
            dtype != np.float32
            or len(shape) != 2 + (self.CHANNELS is not None)
            or shape[2:] not in ((), (self.CHANNELS,))
        ):
            raise ImageShapeError(
                f"samples are {dtype} {shape}; expected float32 {expected}", expected=expected, actual=shape
            )
        return shape[0], shape[1]

    def with_samples(self, samples: Samples) -> Self:
        """Return the same picture with other samples of the same shape."""
        return replace(self, samples=samples)

    def visible(self) -> Samples:
        """Return the part of the samples inside the window."""
        return self.samples[self.window.slices]

    def stored(self) -> NDArray[Any]:
        """Return the samples as the store keeps them: float16, or uint16 for [0, 1] (docs/decisions/0002)."""
        if self.STORAGE is np.uint16:
            return in_rows(lambda part: np.rint(np.clip(part, 0, 1) * np.float32(65535)), self.samples, dtype=np.uint16)
        return in_rows(lambda part: np.clip(part, -65504, 65504), self.samples, dtype=np.float16)

    def state(self) -> dict[str, Any]:
        """Return everything but the samples, as JSON values."""
        return {f.name: _to_json(getattr(self, f.name)) for f in fields(self) if f.name != "samples"}

    @classmethod
    def restore(cls, stored: NDArray[Any], state: dict[str, Any], into: Samples | None = None) -> Self:
        """Undo `stored` and `state`; the samples go into memory that is given, if it is."""
        whole = stored.dtype == np.uint16
        samples = in_rows(lambda part: part * np.float32(1 / 65535) if whole else part, stored, into=into)
        return cls(samples, **cls.parsed(state))

    @staticmethod
    def parsed(state: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a `state` by name."""
        return {name: _FROM_JSON[name](value) for name, value in state.items()}

    def rounded(self) -> Self:
        """Return the picture as the store would give it back: a hit and a miss have the same bits."""
        return self.restore(self.stored(), self.state())

    def settled(self, stored: NDArray[Any], source: object) -> Self:
        """Return what `rounded` does, from what `stored` gave; this picture is not to be used any more.

        Its samples are overwritten where they are its own: not where it has them from `source`, which it was made from.
        """
        theirs = source.samples if isinstance(source, Image) else None
        own = self.samples.flags.writeable and self.samples.flags.c_contiguous
        own = own and (theirs is None or not np.may_share_memory(self.samples, theirs))
        return self.restore(stored, self.state(), self.samples if own else None)


@dataclass(frozen=True, slots=True)
class Mosaic(Image):
    """One sample per photosite, (H, W), linear: 0 is black level, 1 is white level, nothing clipped."""

    cfa: CFA = field(kw_only=True)
    noise: NoiseFigures = field(default=NoiseFigures(), kw_only=True)


@dataclass(frozen=True, slots=True)
class LinearImage(Image):
    """Scene-referred linear light, (H, W, 3), in camera RGB or linear sRGB; not clipped, may be negative."""

    CHANNELS: ClassVar[int | None] = 3

    space: Literal["camera", "srgb"] = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class DisplayImage(Image):
    """Display-referred light in [0, 1], (H, W, 3), sRGB primaries.

    `reduction` tells how many times smaller than the photograph the array is (1 or 4); `window` counts in pixels
    of the full size, so that it can cut off what does not divide by `reduction`.
    """

    CHANNELS: ClassVar[int | None] = 3
    STORAGE: ClassVar[type[np.generic]] = np.uint16

    reduction: int = field(default=1, kw_only=True)

    def check_shape(self) -> tuple[int, int]:
        """Return the rows and columns that `window` counts in, or raise `ImageShapeError`."""
        rows, columns = Image.check_shape(self)
        return rows * self.reduction, columns * self.reduction

    def visible(self) -> Samples:
        """Return the part of the samples inside the window; whole pixels at a reduction above 1."""
        top, left, height, width = self.window
        r = self.reduction
        return self.samples[top // r : -(-(top + height) // r), left // r : -(-(left + width) // r)]


def _to_json(value: Any) -> Any:
    if isinstance(value, _Record):
        return value.model_dump(mode="json", exclude_defaults=True)
    return list(value) if isinstance(value, Window) else value


_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "shot": Shot.model_validate,
    "balance": Balance.model_validate,
    "window": lambda value: Window(*value),
    "cfa": CFA,
    "noise": NoiseFigures.model_validate,
    "space": str,
    "reduction": int,
}
