"""The only door from scene-referred to display-referred light: exposure, tone curve, gamma."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from nightisp.errors import ImageTypeError
from nightisp.image import DisplayImage, LinearImage, Samples
from nightisp.rows import in_rows
from nightisp.stage import Params, Stage

# Read off the published curve; denser at the foot, where it bends and where gamma 3.2 shows every error.
PUBLISHED_CURVE = (
    *((0.0, 0.0), (0.001, 0.00078), (0.0039, 0.00314), (0.01, 0.0082), (0.0156, 0.01485), (0.0234, 0.02643)),
    *((0.0313, 0.04002), (0.041, 0.05868), (0.05, 0.0771), (0.0625, 0.1043), (0.0938, 0.179), (0.125, 0.2596)),
    *((0.1563, 0.3353), (0.1875, 0.4039), (0.25, 0.5207), (0.3125, 0.6144), (0.375, 0.6904), (0.4375, 0.7529)),
    *((0.5, 0.8049), (0.5625, 0.8482), (0.625, 0.8845), (0.6875, 0.9148), (0.75, 0.9399), (0.8125, 0.9604)),
    *((0.875, 0.977), (0.9375, 0.9901), (1.0, 1.0)),
)
_TABLE = 1 << 16


class ToneParams(Params):
    """Parameters of tone."""

    exposure_ev: float = Field(0.0, ge=-10, le=10, description="exposure in stops, before the curve")
    curve: tuple[tuple[float, float], ...] = Field(
        PUBLISHED_CURVE,
        min_length=2,
        max_length=256,
        description="control points (linear light, display light before gamma) from 0 to 1, interpolated monotonically",
    )
    gamma: float = Field(3.2, ge=1, le=10, description="display value = curve ** (1 / gamma)")

    @field_validator("curve")
    @classmethod
    def _monotone(cls, curve: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        x, y = np.array(curve).T
        if x[0] != 0 or x[-1] != 1 or np.any(np.diff(x) <= 0):
            raise ValueError("control points must begin at 0, end at 1 and go up in the first number")
        if np.any(np.diff(y) < 0) or y[0] < 0 or y[-1] > 1:
            raise ValueError("the second number of the control points must never go down, nor leave 0 to 1")
        return curve


def tone(image: LinearImage, params: ToneParams) -> DisplayImage:
    """Expose, clip to [0, 1], bend by the tone curve, encode with gamma.

    Takes linear sRGB, (H, W, 3); gives display light in [0, 1], (H, W, 3).

    References
    ----------
    :cite:`fritsch1980monotone`.
    """
    if image.space != "srgb":
        raise ImageTypeError(f"tone takes linear sRGB, not {image.space}: run color first")
    gain = np.float32(2.0**params.exposure_ev)
    curve = ToneCurve(params.curve)
    display = in_rows(lambda linear: encode_gamma(curve(linear * gain), params.gamma), image.samples)
    return DisplayImage(display, shot=image.shot, window=image.window, balance=image.balance)


class ToneCurve:
    """A monotone cubic through control points, tabulated finely enough that reading between two entries is exact.

    65,537 entries joined by straight lines: the error is below 1e-6 for slopes that change as fast as the published
    curve's, and no two inputs that differ fall on one step, so there is no banding.

    Examples
    --------
    >>> ToneCurve(PUBLISHED_CURVE)(np.array([-1.0, 0.0, 0.5, 1.0, 7.0], np.float32)).round(4)
    array([0.    , 0.    , 0.8049, 1.    , 1.    ], dtype=float32)
    """

    def __init__(self, points: tuple[tuple[float, float], ...]) -> None:
        x, y = np.array(points, np.float64).T
        table = monotone_cubic(x, y, np.linspace(0, 1, _TABLE + 1))
        self._table = np.append(table, table[-1]).astype(np.float32)

    def __call__(self, linear: Samples) -> Samples:
        """Map linear light, clipped to [0, 1], to display light before gamma; same shape, float32."""
        place = np.clip(linear, 0, 1) * np.float32(_TABLE)
        entry = place.astype(np.int32)
        below = self._table[entry]
        return below + (place - entry.astype(np.float32)) * (self._table[entry + 1] - below)


def encode_gamma(curved: Samples, gamma: float) -> Samples:
    """Return `curved ** (1 / gamma)`, float32 in [0, 1]; no linear toe."""
    return np.power(curved, np.float32(1 / gamma))


def monotone_cubic(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate points by a cubic that goes up and down only where they do.

    Inner slopes are the weighted harmonic mean of the secants on both sides, zero where these disagree in sign; the
    end slopes are those of the end secants.

    References
    ----------
    :cite:`fritsch1980monotone`, with Brodlie's harmonic mean of slopes.
    """
    h, secant = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.concatenate([secant[:1], np.zeros(len(x) - 2), secant[-1:]])
    left, right = secant[:-1], secant[1:]
    same = left * right > 0
    w_left, w_right = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    slope[1:-1][same] = ((w_left + w_right)[same]) / (w_left[same] / left[same] + w_right[same] / right[same])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(h) - 1)
    t = (at - x[i]) / h[i]
    return np.asarray(
        (1 + 2 * t) * (1 - t) ** 2 * y[i]
        + t * (1 - t) ** 2 * h[i] * slope[i]
        + t**2 * (3 - 2 * t) * y[i + 1]
        + t**2 * (t - 1) * h[i] * slope[i + 1]
    )


STAGE = Stage(
    name="tone",
    run=tone,
    takes=LinearImage,
    gives=DisplayImage,
    params=ToneParams,
    cite=("fritsch1980monotone",),
)
