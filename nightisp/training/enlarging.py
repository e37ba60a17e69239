"""What HAT learns: to give small pictures back the detail that shrinking took, by four in width and height."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nightisp.errors import ParamsError
from nightisp.metrics import psnr_y
from nightisp.models import build
from nightisp.stage import Params
from nightisp.training.loop import Arrays, Metrics, Schedule
from nightisp.training.photographs import Photographs, shrunk, varied
from nightisp.training.shrinking import SCALE, as_refined, bicubic

Array = NDArray[np.float32]

_HELD_OUT_SIDE = 96 * SCALE
_COLORS = range(3)


class EnlargeTraining(Params):
    """How HAT is trained."""

    network: Literal["hat_light", "hat_s", "hat"] = Field("hat_light", description="the preset")
    overrides: dict[str, float | int | tuple[int, ...]] = Field(
        default_factory=dict, description="what differs from the preset"
    )
    crop: int = Field(32, ge=8, description="side of a sample before it is enlarged; best a multiple of the window")
    regions: int = Field(96, ge=1, description="parts of photographs in a pool")
    region: int = Field(512, ge=32, description="side of such a part, at most")
    scale: tuple[float, float] = Field((0.35, 1.0), description="bounds of the factor that photographs are shrunk by")
    bicubic: float = Field(0.6, ge=0, le=1, description="share made small as benchmarks are; the rest as by refinement")
    rounded: float = Field(0.6, ge=0, le=1, description="share rounded to 8 bits once it is small")
    blur: float = Field(0.5, ge=0, description="largest deviation of what blurs the rest, in small pixels")
    noise: float = Field(0.008, ge=0, description="largest deviation of the noise left in the rest; white = 1")
    softness: float = Field(0.004, ge=0, description="errors below this count squared, those above by their size")
    schedule: Schedule = Field(default_factory=lambda: Schedule.model_validate({}), description="of the optimizer")


@dataclass(frozen=True, slots=True)
class Pair:
    """A part of a photograph, and what is left of it at a quarter of its sides."""

    small: Array
    """float32 (H, W, 3) in [0, 1]."""
    large: NDArray[np.uint8]
    """uint8 (4 H, 4 W, 3)."""


@dataclass
class Enlarging:
    """The task of `nightisp train super_resolution`; see `nightisp.training.loop.Task`."""

    params: EnlargeTraining
    photographs: Photographs
    stage: str = field(default="super_resolution", init=False)

    @property
    def network(self) -> str:
        """The preset."""
        return self.params.network

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What differs from the preset."""
        return self.params.overrides

    @property
    def schedule(self) -> Schedule:
        """Of the optimizer."""
        return self.params.schedule

    @property
    def identity(self) -> Mapping[str, Any]:
        """Parameters and digest of the photographs."""
        return {**self.params.model_dump(mode="json", exclude={"schedule"}), "photographs": self.photographs.digest}

    @property
    def card(self) -> Mapping[str, Any]:
        """What the weights expect to see."""
        return {"sees": "display"}

    def build(self) -> nn.Module:
        """Return a network that interpolates.

        Raises
        ------
        ParamsError
            If the overrides make no network, or one that does not enlarge by four.
        """
        network = build(self.network, **self.overrides)
        if network.upscale != SCALE:
            raise ParamsError(f"overrides.upscale: {network.upscale}; training takes {SCALE} only: leave it out")
        start_from_interpolation(network)
        return network

    def pool(self, rng: np.random.Generator) -> tuple[Pair, ...]:
        """Cut parts out of photographs and make them small.

        Raises
        ------
        ParamsError
            If the photographs are too small for `crop`.
        """
        pairs, least = [], SCALE * self.params.crop
        for number in rng.integers(len(self.photographs.training), size=self.params.regions):
            photograph = self.photographs.training[number]
            smallest, largest = self.params.scale
            smallest = max(smallest, (least + 1) / min(photograph.shape[:2]))
            if smallest > largest:
                continue
            large = _part(varied(rng, photograph, smallest, largest), self.params.region, rng)
            pairs.append(Pair(self._small(large, rng), large))
        if not pairs:
            raise ParamsError(
                f"crop: {self.params.crop}; expected photographs of more than {least} pixels on each side once shrunk: "
                "lower crop, or add larger photographs"
            )
        return tuple(pairs)

    def draw(self, pool: tuple[Pair, ...], rng: np.random.Generator) -> Arrays:
        """Return small samples and what they were, float32 (N, 3, crop, crop) and (N, 3, 4 crop, 4 crop)."""
        small, large, side = [], [], self.params.crop
        for number in rng.integers(len(pool), size=self.schedule.batch):
            pair = pool[number]
            top, left = _busier(pair.small, side, rng)
            low = pair.small[top : top + side, left : left + side]
            high = pair.large[SCALE * top : SCALE * (top + side), SCALE * left : SCALE * (left + side)]
            if rng.integers(2):
                low, high = low[::-1], high[::-1]
            small.append(low.transpose(2, 0, 1))
            large.append(high.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
        return np.stack(small), np.stack(large)

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return how far the enlarged pictures lie from what they were."""
        small, large = batch
        return F.smooth_l1_loss(network(small).float(), large, beta=self.params.softness)

    def validate(self, network: nn.Module) -> Metrics:
        """Return by how much PSNR of held-out photographs exceeds bicubic interpolation's, in decibels of luma.

        `gain`, `psnr` and `bicubic` are of pictures made small as benchmarks are, `refined_` ones as by refinement.
        """
        device = next(network.parameters()).device
        measured: dict[str, list[float]] = {name: [] for name in ("gain", "psnr", "bicubic")}
        measured |= {f"refined_{name}": [] for name in ("gain", "psnr")}
        for benchmark, pair in self.held_out:
            seen = torch.from_numpy(np.ascontiguousarray(pair.small.transpose(2, 0, 1)[None])).to(device)
            enlarged = network(seen).float().clamp(0, 1)[0].permute(1, 2, 0).cpu().numpy()
            large = pair.large.astype(np.float32) / np.float32(255)
            simple = np.clip(bicubic(pair.small, large.shape[:2]), 0, 1)
            ours, theirs = psnr_y(enlarged, large, SCALE), psnr_y(simple, large, SCALE)
            values = {"gain": ours - theirs, "psnr": ours, "bicubic": theirs}
            for name in values if benchmark else ("gain", "psnr"):
                measured[name if benchmark else f"refined_{name}"].append(values[name])
        return {name: float(np.mean(values)) for name, values in measured.items()}

    @cached_property
    def held_out(self) -> list[tuple[bool, Pair]]:
        """Middles of held-out photographs made small in both ways; True for the benchmarks' way."""
        pairs = []
        for number, photograph in enumerate(self.photographs.held_out[:10]):
            pixels = shrunk(photograph, max(0.5, min(1.0, _HELD_OUT_SIDE / min(photograph.shape[:2]))))
            corner = [max(0, (length - _HELD_OUT_SIDE) // 2) for length in pixels.shape[:2]]
            large = _whole_blocks(pixels, corner, _HELD_OUT_SIDE)
            size = large.shape[0] // SCALE, large.shape[1] // SCALE
            pixels = large.astype(np.float32) / np.float32(255)
            pairs.append((True, Pair(_in_8_bits(bicubic(pixels, size)), large)))
            rng = np.random.default_rng((2023, number))
            pairs.append((False, Pair(as_refined(pixels, self.params.blur / 2, self.params.noise / 2, rng), large)))
        return pairs

    def _small(self, large: NDArray[np.uint8], rng: np.random.Generator) -> Array:
        pixels = large.astype(np.float32) / np.float32(255)
        if rng.random() < self.params.bicubic:
            small = bicubic(pixels, (large.shape[0] // SCALE, large.shape[1] // SCALE))
        else:
            blur, noise = rng.uniform(0, self.params.blur), rng.uniform(0, self.params.noise)
            small = as_refined(pixels, float(blur), float(noise), rng)
        return _in_8_bits(small) if rng.random() < self.params.rounded else np.clip(small, 0, 1)


def start_from_interpolation(network: nn.Module) -> None:
    """Set HAT's first and last convolutions so that, untrained, it gives nearly what interpolation gives.

    Colors go through in six features, three of them negated, which together pass a leaky rectifier unharmed; the
    other features begin with little weight. So a short training is spent on detail, not on the picture.
    """
    tail: Any = network
    first, after, before = tail.conv_first, tail.conv_after_body, tail.conv_before_upsample[0]
    once, twice, last = tail.upsample[0], tail.upsample[2], tail.conv_last
    both = 1 + tail.conv_before_upsample[1].negative_slope
    parabola = torch.tensor([0.15625, 0.9375, -0.09375])  # through three samples, at -1/4
    kernel = torch.stack(
        [torch.outer(a, b) for a in (parabola, parabola.flip(0)) for b in (parabola, parabola.flip(0))]
    )
    with torch.no_grad():
        for layer in (first, after, before):
            layer.weight[:6] = 0
            layer.bias[:6] = 0
        for layer in (once, twice):
            layer.weight[:12] = 0
            layer.bias[:12] = 0
        last.weight *= 0.1
        last.weight[:, :3] = 0
        last.bias.zero_()
        for color in _COLORS:
            first.weight[color, color, 1, 1] = 1
            first.weight[color + 3, color, 1, 1] = -1
            for feature in (color, color + 3):
                before.weight[feature, feature, 1, 1] = 1
            places = slice(4 * color, 4 * color + 4)  # a color's four pixels: 0 0, 0 1, 1 0, 1 1
            once.weight[places, color] = kernel / both
            once.weight[places, color + 3] = -kernel / both
            twice.weight[places, color] = kernel
            last.weight[color, color, 1, 1] = 1


def _busier(picture: Array, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the corner of the busier of two random squares: there is little to learn from a flat one."""
    corners = [
        (int(rng.integers(picture.shape[0] - side + 1)), int(rng.integers(picture.shape[1] - side + 1)))
        for _ in range(2)
    ]
    return max(corners, key=lambda c: float(picture[c[0] : c[0] + side, c[1] : c[1] + side, 1].std()))


def _part(pixels: Array, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    corner = [int(rng.integers(max(0, length - side) + 1)) for length in pixels.shape[:2]]
    return _whole_blocks(pixels, corner, side)


def _whole_blocks(pixels: Array, corner: list[int], side: int) -> NDArray[np.uint8]:
    part = pixels[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    height, width = (length // SCALE * SCALE for length in part.shape[:2])
    return np.rint(255 * np.clip(part[:height, :width], 0, 1)).astype(np.uint8)


def _in_8_bits(pixels: Array) -> Array:
    return (np.rint(255 * np.clip(pixels, 0, 1)) / 255).astype(np.float32)
