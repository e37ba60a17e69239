"""What the U-Net learns: to take stabilized noise out of packed mosaics of nights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nightisp.anscombe import expected, restore, stabilize
from nightisp.models import build
from nightisp.stage import Params
from nightisp.training.loop import Arrays, Metrics, Schedule
from nightisp.training.photographs import Photographs, shrunk, varied
from nightisp.training.samples import EOS_700D
from nightisp.training.scenes import (
    Noise,
    Scene,
    draw_scene,
    expose,
    light_on_sensor,
    packed_light,
    plane_noise,
)

Array = NDArray[np.float32]

SENSITIVITIES = (800, 2000, 5000, 12800)
"""ISO of the held-out mosaics, on the figures of a Canon EOS 700D (:cite:`wei2020eld`)."""


class DenoiseTraining(Params):
    """How the U-Net is trained."""

    width: int = Field(64, ge=1, description="features of the network at every level")
    levels: int = Field(3, ge=1, le=6, description="resolutions of the network")
    crop: int = Field(64, ge=16, description="side of a sample, in packed pixels; a multiple of 2 ** (levels - 1)")
    scenes: int = Field(48, ge=1, description="nights in a pool")
    scale: tuple[float, float] = Field((0.35, 0.9), description="bounds of the factor that photographs are shrunk by")
    iso: tuple[float, float] = Field((400.0, 25600.0), description="bounds of the sensitivity")
    mistaken: float = Field(0.1, ge=0, description="deviation of the noise figures' logarithm from the true ones")
    brightness: float = Field(0.5, ge=0, le=1, description="share of the loss that counts light, not stabilized light")
    schedule: Schedule = Field(default_factory=lambda: Schedule.model_validate({}), description="of the optimizer")


@dataclass(frozen=True, slots=True)
class Pool:
    """Packed light of some nights, and the nights."""

    light: tuple[Array, ...]
    scenes: tuple[Scene, ...]


@dataclass
class Denoising:
    """The task of `nightisp train denoise`; see `nightisp.training.loop.Task`."""

    params: DenoiseTraining
    photographs: Photographs
    stage: str = field(default="denoise", init=False)
    network: str = field(default="denoise_unet", init=False)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What differs from the preset."""
        return {"width": self.params.width, "levels": self.params.levels}

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
        return {"sees": "stabilized"}

    def build(self) -> nn.Module:
        """Return a network that leaves mosaics nearly as they are."""
        network = build(self.network, **self.overrides)
        for name, parameter in network.named_parameters():
            if "deconv" not in name:  # He et al.'s variance for rectified features
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            if name.startswith("res_"):
                parameter.data *= 0.5
        parameter.data *= 0.1  # of the last convolution
        return network

    def pool(self, rng: np.random.Generator) -> Pool:
        """Draw nights and bring photographs to their sensors."""
        scenes, light = [], []
        for number in rng.integers(len(self.photographs.training), size=self.params.scenes):
            scene = draw_scene(rng, self.params.iso)
            photograph = varied(rng, self.photographs.training[number], *self.params.scale)
            packed = packed_light(light_on_sensor(photograph, scene))
            if min(packed.shape[:2]) < self.params.crop:
                continue
            scenes.append(scene)
            light.append(packed)
        return Pool(tuple(light), tuple(scenes))

    def draw(self, pool: Pool, rng: np.random.Generator) -> Arrays:
        """Return stabilized noisy planes, what is to become of them, and the weight of each sample."""
        side, samples = self.params.crop, []
        for number in rng.integers(len(pool.scenes), size=self.schedule.batch):
            light, scene = pool.light[number], pool.scenes[number]
            top, left = (int(rng.integers(length - side + 1)) for length in light.shape[:2])
            clean = light[top : top + side, left : left + side]
            believed = _mistaken(scene.noise, self.params.mistaken, rng)
            samples.append(self._sample(clean, expose(clean, scene, rng), believed))
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def _sample(self, clean: Array, noisy: Array, noise: Noise) -> tuple[Array, Array, Array]:
        target = _planes(expected(clean, *plane_noise(noise)))
        light = target**2
        share = self.params.brightness
        weight = 1 - share + share * np.minimum(light / max(float(light.mean()), 1e-3), 8)
        return _planes(stabilize(noisy, *plane_noise(noise))), target, weight.astype(np.float32)

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return how far the denoised planes lie from what was expected: squared when near, absolute when far."""
        noisy, target, weight = batch
        denoised = noisy + network(noisy).float()
        return (weight * F.smooth_l1_loss(denoised, target, beta=0.5, reduction="none")).mean()

    def validate(self, network: nn.Module) -> Metrics:
        """Return PSNR of held-out packed mosaics, mean and at each sensitivity."""
        device = next(network.parameters()).device
        measured: dict[str, list[float]] = {}
        for iso, clean, noisy, noise in self.held_out:
            planes = _planes(stabilize(noisy, *plane_noise(noise)))
            seen = torch.from_numpy(planes).unsqueeze(0).to(device)
            denoised = (seen + network(seen).float())[0].permute(1, 2, 0).cpu().numpy()
            restored = restore(denoised, *plane_noise(noise))
            measured.setdefault(f"psnr_iso{iso}", []).append(_psnr(restored, clean))
        means = {name: float(np.mean(values)) for name, values in measured.items()}
        return {"psnr": float(np.mean(list(means.values()))), **means}

    @cached_property
    def held_out(self) -> list[tuple[int, Array, Array, Noise]]:
        """Held-out mosaics: sensitivity, packed light, noisy planes (H, W, 4) and the true figures."""
        return list(held_out_mosaics(self.photographs, side=128))


def held_out_mosaics(photographs: Photographs, side: int) -> list[tuple[int, Array, Array, Noise]]:
    """Return the middles of all held-out photographs as noisy packed mosaics, at each of `SENSITIVITIES`.

    Always the same ones: every measurement of denoising sees these.

    Returns
    -------
    list
        ISO, light and noisy planes, float32 (side, side, 4) or smaller, and shot and read noise of R, G and B.
    """
    mosaics = []
    for number, pixels in enumerate(photographs.held_out):
        rng = np.random.default_rng((2023, number))
        drawn = draw_scene(rng)
        light = packed_light(light_on_sensor(shrunk(pixels, 0.5), drawn))
        top, left = (max(0, (length - side) // 2 // 4 * 4) for length in light.shape[:2])
        clean = light[top : top + side, left : left + side]
        clean = clean[: len(clean) // 4 * 4, : clean.shape[1] // 4 * 4]
        for iso in SENSITIVITIES:
            shot, read, _ = EOS_700D.noise(iso)
            noise = ((shot, read),) * 3
            scene = Scene(**{**_fields(drawn), "noise": noise, "row": 0.0, "black": 0.0, "bits": 14})
            mosaics.append((iso, clean, expose(clean, scene, rng), noise))
    return mosaics


def _fields(scene: Scene) -> dict[str, Any]:
    return {name: getattr(scene, name) for name in Scene.__slots__}


def _mistaken(noise: Noise, deviation: float, rng: np.random.Generator) -> Noise:
    shot, read = np.exp(rng.normal(0, deviation, 2)).tolist()
    red, green, blue = ((a * shot, b * read) for a, b in noise)
    return red, green, blue


def _planes(packed: Array) -> Array:
    return np.ascontiguousarray(packed.transpose(2, 0, 1))


def _psnr(restored: Array, clean: Array) -> float:
    return float(-10 * np.log10(np.mean((np.minimum(restored, 1).astype(np.float64) - clean) ** 2)))
