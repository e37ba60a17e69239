"""What MWISPNet learns: to make of what the first six stages give the picture that a photographer would finish."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nightisp.errors import NoGroundError, ParamsError
from nightisp.image import Samples
from nightisp.metrics import ciede2000, psnr, ssim
from nightisp.models import PRESETS, build
from nightisp.models.weights import Compute
from nightisp.stage import Params
from nightisp.training.loop import Arrays, Metrics, Schedule
from nightisp.training.pairs import Pairs
from nightisp.training.photographs import Photographs, shrunk, varied
from nightisp.training.rendering import Night, render
from nightisp.training.scenes import balanced_light, draw_scene

Array = NDArray[np.float32]
REDUCTION = 4
_STOPS = (-3.0, 1.5)  # that an exposure is at most off by


class RefineTraining(Params):
    """How MWISPNet is trained."""

    widths: tuple[int, int, int] = Field((48, 72, 96), description="features of the network at 1/8, 1/16 and 1/32")
    blocks: int = Field(8, ge=1, description="residual blocks of each of its groups")
    reduction: int = Field(8, ge=1, description="of its channel attention")
    crop: int = Field(256, ge=64, multiple_of=32, description="side of a sample")
    pictures: int = Field(24, ge=1, description="rendered pictures in a pool")
    region: int = Field(2048, ge=64, multiple_of=4, description="largest side of them; denoising takes its time")
    scale: tuple[float, float] = Field((0.25, 0.8), description="bounds of the factor that photographs are shrunk by")
    exposure_ev: tuple[float, float] = Field((-0.5, 1.0), description="mean and deviation of how wrong the exposure is")
    finish: tuple[float, float] = Field((0.0, 1.0), description="bounds of how flat the tone stage leaves them")
    cast: float = Field(0.06, ge=0, description="deviation of the logarithm of the gains of red and blue")
    noise: tuple[float, float] = Field((0.01, 0.15), description="bounds of the share of variance that denoising left")
    denoiser: str | None = Field(None, min_length=1, description="weights of the U-Net for nights; or none")
    denoised: float = Field(0.8, ge=0, le=1, description="share of nights that it denoises; the rest have white noise")
    grid: float = Field(3.0, ge=0, description="weight of the patterns of 2, 4 and 8 pixels that wavelets leave")
    schedule: Schedule = Field(default_factory=lambda: Schedule.model_validate({}), description="of the optimizer")


@dataclass
class Retouching:
    """The task of `nightisp train refine`; see `nightisp.training.loop.Task`."""

    params: RefineTraining
    photographs: Photographs
    stage: str = field(default="refine", init=False)
    network: str = field(default="mwispnet_s", init=False)
    networks: Compute | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Raise `ParamsError` if there are no weights to denoise with."""
        if self.params.denoiser and self.networks is None:
            raise ParamsError(f"denoiser: {self.params.denoiser}: expected weights to take it from, or null")

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What differs from the preset."""
        ours = {name: getattr(self.params, name) for name in ("widths", "blocks", "reduction")}
        return {name: value for name, value in ours.items() if value != PRESETS[self.network][name]}

    @property
    def schedule(self) -> Schedule:
        """Of the optimizer."""
        return self.params.schedule

    @property
    def identity(self) -> Mapping[str, Any]:
        """Parameters, digest of the photographs, and that of the U-Net if one denoises."""
        digests = {"photographs": self.photographs.digest}
        if self.params.denoiser and self.networks:
            digests["denoiser_sha256"] = self.networks.library.digest(self.params.denoiser)
        return {**self.params.model_dump(mode="json", exclude={"schedule"}), **digests}

    @property
    def card(self) -> Mapping[str, Any]:
        """What the weights expect to see."""
        return {"sees": "what tone gives"}

    def build(self) -> nn.Module:
        """Return a network that only averages 4 x 4 pixels: what is to be bettered is where it begins."""
        network = build(self.network, **self.overrides)
        _begin_as_average(network)
        return network

    def pool(self, rng: np.random.Generator) -> list[tuple[Array, Array]]:
        """Return pairs of as many photographs as a pool has; those too small for a crop are left out."""
        pairs = []
        for number in rng.integers(len(self.photographs.training), size=self.params.pictures):
            photograph = _cropped(varied(rng, self.photographs.training[number], *self.params.scale), REDUCTION)
            photograph = _part(photograph, self.params.region, rng)
            if min(photograph.shape[:2]) < self.params.crop:
                continue
            with suppress(NoGroundError):  # a cast may be of no light that the camera's matrix knows
                pairs.append(self.pair(photograph, rng))
        return pairs

    def pair(self, photograph: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return what the network sees of a night that is drawn for a photograph, and what it is to give."""
        return self.render(photograph, self.draw_night(rng, photograph), rng), _quarter(photograph)

    def draw(self, pool: list[tuple[Array, Array]], rng: np.random.Generator) -> Arrays:
        """Return crops of rendered pictures, and of the photographs at a quarter of the size."""
        side, samples = self.params.crop, []
        for number in rng.integers(len(pool), size=self.schedule.batch):
            rendered, finished = pool[number]
            top, left = (int(rng.integers((length - side) // REDUCTION + 1)) for length in rendered.shape[:2])
            seen = rendered[top * REDUCTION :, left * REDUCTION :][:side, :side]
            wanted = finished[top:, left:][: side // REDUCTION, : side // REDUCTION]
            samples.append((planes(seen), planes(wanted)))
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def draw_night(self, rng: np.random.Generator, photograph: Array) -> Night:
        """Draw what went wrong between a photograph and what the stages give."""
        scene = replace(draw_scene(rng), finish=float(rng.uniform(*self.params.finish)))
        lit = np.clip(balanced_light(photograph, scene) * np.array(scene.illuminant, np.float32), 0, 1)
        mean, deviation = self.params.exposure_ev
        level = float(lit.mean()) * 2.0 ** float(np.clip(rng.normal(mean, deviation), *_STOPS))
        red, blue = np.exp(rng.normal(0, self.params.cast, 2)).tolist()
        left: float | None = float(np.exp(rng.uniform(*np.log(self.params.noise))))
        matrix = "dng" if rng.random() < 0.7 else "published"
        if self.params.denoiser and rng.random() < self.params.denoised:
            left = None
        return Night(replace(scene, level=level), (red, 1.0, blue), left, matrix)

    def render(self, photograph: Array, night: Night, rng: np.random.Generator) -> Samples:
        """Return what the stages make of a night, see `render`."""
        return render(photograph, night, rng, self.networks, self.params.denoiser or "")

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean absolute difference to the photograph, and what of it repeats from block to block."""
        seen, wanted = batch
        difference = network(seen).float() - wanted
        return difference.abs().mean() + self.params.grid * repeated(difference)

    def validate(self, network: nn.Module) -> Metrics:
        """Return by how much held-out pictures come nearer to the photographs than what the stages gave."""
        device = next(network.parameters()).device
        rows = []
        for rendered, finished in self.held_out:
            seen = torch.from_numpy(planes(rendered)).unsqueeze(0).to(device)
            refined = np.clip(network(seen).float()[0].permute(1, 2, 0).cpu().numpy(), 0, 1)
            rows.append([*_measured(refined, finished), *_measured(_quarter(rendered), finished)])
        ours, delta, similar, before, delta_before, similar_before = np.mean(rows, axis=0).tolist()
        return {
            "gain": ours - before,
            "psnr": ours,
            "psnr_unrefined": before,
            "ciede2000": delta,
            "ciede2000_unrefined": delta_before,
            "ssim": similar,
            "ssim_unrefined": similar_before,
        }

    @cached_property
    def held_out(self) -> list[tuple[Array, Array]]:
        """Three nights of each held-out photograph at half its size, as `pair` gives them."""
        photographs = [_cropped(shrunk(pixels, 0.5), 32) for pixels in self.photographs.held_out]
        return [
            self.pair(photograph, np.random.default_rng((2023, number, night)))
            for number, photograph in enumerate(photographs)
            for night in range(3)
        ]


@dataclass
class PairRetouching(Retouching):
    """The task of `nightisp train refine --pairs`: the look of a photographer, learned from his own pictures."""

    pairs: Pairs

    @property
    def identity(self) -> Mapping[str, Any]:
        """Parameters, and digest of the pairs."""
        return {**self.params.model_dump(mode="json", exclude={"schedule"}), "pairs": self.pairs.digest}

    def pool(self, rng: np.random.Generator) -> list[tuple[Array, Array]]:  # noqa: ARG002 - pairs are made already
        """Return nothing: crops are cut from the pairs themselves."""
        return []

    def draw(self, pool: list[tuple[Array, Array]], rng: np.random.Generator) -> Arrays:  # noqa: ARG002
        """Return parts of all sizes, from a crop at full size to the whole height, shrunk and mirrored alike."""
        side, samples = self.params.crop, []
        for number in rng.integers(len(self.pairs.training), size=self.schedule.batch):
            pair = self.pairs.training[number]
            largest = min(pair.finished.shape[:2])
            part = min(largest, round(float(np.exp(rng.uniform(np.log(side // REDUCTION), np.log(largest))))))
            top, left = (int(rng.integers(length - part + 1)) for length in pair.finished.shape[:2])
            both = (
                _shrunk(p, s) for p, s in zip(pair.crop(top, left, part, part), (side, side // REDUCTION), strict=True)
            )
            mirrored = [p[:, ::-1] for p in both] if rng.integers(2) else list(both)
            samples.append((planes(mirrored[0]), planes(mirrored[1])))
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    @cached_property
    def held_out(self) -> list[tuple[Array, Array]]:
        """The pairs that are held out, whole."""
        return [pair.whole(32) for pair in self.pairs.held_out]


def repeated(difference: Tensor) -> Tensor:
    """Return how much of a difference is a pattern with a period of 2, 4 or 8 pixels.

    The network puts its picture together from Haar bands of three sizes. Where a picture is smooth their mean should be
    nought; a band that is a little off everywhere is too small for the absolute difference to see, yet shows as a grid.
    So the three detail bands of the difference are averaged over 8 x 8 coefficients, at each size, and their absolute
    values summed.

    Parameters
    ----------
    difference
        float (N, C, H, W), H and W multiples of 8.
    """
    total = difference.new_zeros(())
    for _ in range(3):
        even, odd = difference[..., 0::2, :], difference[..., 1::2, :]
        low, high = even + odd, even - odd
        sums = [band[..., 0::2] + band[..., 1::2] for band in (low, high)]
        differences = [band[..., 0::2] - band[..., 1::2] for band in (low, high)]
        details = torch.cat([sums[1], *differences], dim=1) / 4  # (N, 3 C, H/2, W/2)
        total = total + F.avg_pool2d(details, min(8, *details.shape[-2:])).abs().mean()
        difference = sums[0] / 4
    return total


def _begin_as_average(network: Any) -> None:
    """Set a fresh MWISPNet so that it gives the mean of each 4 x 4 pixels.

    The first convolution sees, for each color, the wavelet bands of four interleaved quarter-size pictures. Their mean
    over the four is what the last convolution is to give; all groups and both upper levels begin silent.
    """
    with torch.no_grad():
        entry, last = network.down1[0], network.up3[1]
        for convolution in (entry, last):
            convolution.weight.mul_(0.1)
            convolution.bias.zero_()
        for target in range(12):
            channel, band = divmod(target, 4)
            entry.weight[target].zero_()
            for interleaved in range(4):
                entry.weight[target, (channel * 4 + interleaved) * 4 + band, 1, 1] = 0.25
            last.weight[target].zero_()
            last.weight[target, target, 1, 1] = 1.0
        network.down1[1].weight.fill_(1.0)  # PReLU that lets everything pass
        for name, module in network.named_modules():
            if name.endswith(".rg"):
                module[-1].weight.mul_(0.01)
                module[-1].bias.zero_()
        for level in (network.up1[0], network.up2[1]):
            level.weight.mul_(0.01)
            level.bias.zero_()


def _cropped(photograph: Array, multiple: int) -> Array:
    height, width = (side // multiple * multiple for side in photograph.shape[:2])
    return photograph[:height, :width]


def _part(photograph: Array, side: int, rng: np.random.Generator) -> Array:
    top, left = (int(rng.integers(max(0, length - side) + 1)) for length in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def _quarter(pixels: Array) -> Array:
    height, width = (side // REDUCTION for side in pixels.shape[:2])
    blocks = pixels.reshape(height, REDUCTION, width, REDUCTION, 3)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _shrunk(pixels: Array, side: int) -> Array:
    import cv2

    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))


def planes(pixels: Array) -> Array:
    """Return (H, W, C) as (C, H, W)."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _measured(picture: Array, reference: Array) -> tuple[float, float, float]:
    return psnr(picture, reference), ciede2000(picture, reference), ssim(picture, reference)
