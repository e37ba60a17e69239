"""Curves as the paths of inline SVG: numbers only, so that nothing needs to be escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nightisp.image import Samples
from nightisp.report.distribution import Distribution
from nightisp.stages.tone import ToneCurve, ToneParams, encode_gamma

TONE_STOPS = (-10, 2)
"""EV of scene light against white that the tone curve is drawn over."""
_STEPS = 180


@dataclass(frozen=True, slots=True)
class Plot:
    """A tone curve to draw, in units of 100: x from the left, y from the top."""

    curve: str
    straight: str
    middle: float


def histogram(measured: Distribution, height: float = 40) -> Mapping[str, str]:
    """Return for each color the outline of its histogram, one unit a bin wide.

    Heights are roots of shares, the highest of all being `height`: a night is mostly dark, and the lamps are to be
    seen too.
    """
    roots = {color: np.sqrt(shares) for color, shares in measured.shares.items()}
    highest = max(float(root.max()) for root in roots.values()) or 1.0
    return {color: _outline(height - height * root / highest, height) for color, root in roots.items()}


def tone_plot(params: ToneParams) -> Plot:
    """Return what these parameters make of scene light, over `TONE_STOPS`, and what sRGB's own encoding would.

    `middle` is where 18 % of white, a gray card, comes out, from 0 to 1.
    """
    stops = np.linspace(*TONE_STOPS, _STEPS + 1)
    scene = np.asarray(2.0**stops, np.float32)
    x = 100 * (stops - TONE_STOPS[0]) / (TONE_STOPS[1] - TONE_STOPS[0])
    straight = np.clip(scene, 0, 1)
    srgb = np.where(straight <= 0.0031308, 12.92 * straight, 1.055 * straight ** (1 / 2.4) - 0.055)
    middle = float(_rendered(np.array([0.18], np.float32), params)[0])
    return Plot(_line(x, 100 - 100 * _rendered(scene, params)), _line(x, 100 - 100 * srgb), middle)


def _rendered(scene: Samples, params: ToneParams) -> Samples:
    """Do what `tone` does to a sample."""
    return encode_gamma(ToneCurve(params.curve)(scene * np.float32(2.0**params.exposure_ev)), params.gamma)


def _line(x: Iterable[float], y: Iterable[float]) -> str:
    return "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in zip(x, y, strict=True))


def _outline(tops: Iterable[float], bottom: float) -> str:
    steps = "".join(f"V{top:.2f}h1" for top in tops)
    return f"M0 {bottom:g}{steps}V{bottom:g}Z"
