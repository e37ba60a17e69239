"""What FC4 learns: the color of the light from small pictures of nights, lit by one kind of lamp or by two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from nightisp.bayer import PHASE, to_half_rgb, unpack
from nightisp.image import Mosaic, Shot, Triple, Window
from nightisp.models import build
from nightisp.stage import Params
from nightisp.stages.white_balance import Method, Sees, WhiteBalanceParams, as_seen, camera_to_seen, white_balance
from nightisp.training.loop import Arrays, Metrics, Schedule
from nightisp.training.photographs import Photographs, Pixels, shrunk
from nightisp.training.scenes import Scene, balanced_light, draw_illuminant, draw_scene, expose, packed_light

Array = NDArray[np.float32]

ASPECTS = (1.0, 0.75, 0.6667, 0.5625)
"""Shorter by longer side of the pictures; a batch has one of them, upright or lying."""

BASELINES: tuple[Method, ...] = ("gray_world", "shades_of_gray")
"""Methods of the stage that FC4 is measured against."""

_OVERSAMPLED = 2  # light is drawn so much finer than the picture, for lamps to clip before they are averaged
_AVERAGED = 8  # largest side, in photosites of a color, of what shrinking averages
_HELD_OUT_SCENES = 4  # of each kind for each held-out photograph


class WhiteBalanceTraining(Params):
    """How FC4 is trained."""

    longest: int = Field(128, ge=33, le=512, description="longer side of the pictures that the network sees")
    normalized: bool = Field(True, description="whether all pictures are made equally bright")
    space: Literal["camera", "romm"] = Field("romm", description="RGB that the network sees")
    scenes: int = Field(64, ge=1, description="photographs in a pool")
    mixed: float = Field(0.4, ge=0, le=1, description="share of scenes with another lamp in another place")
    finish: tuple[float, float] = Field((0.0, 1.0), description="bounds of `Scene.finish`: night to day")
    level: tuple[float, float] = Field((0.004, 0.35), description="bounds of the mean light, 1 being white level")
    window: float = Field(0.5, gt=0, le=1, description="smallest share of a photograph's sides that is seen")
    saturation: tuple[float, float] = Field((0.6, 1.15), description="bounds of the factor on photographs' saturation")
    stem: int = Field(64, ge=1, description="features of the first convolution")
    squeeze: tuple[int, ...] = Field((16, 16, 32, 32, 48, 48, 64), description="features of the seven fire modules")
    head: int = Field(64, ge=1, description="features before the last convolution")
    schedule: Schedule = Field(default_factory=lambda: Schedule.model_validate({}), description="of the optimizer")

    @property
    def sees(self) -> Sees:
        """How the stage is to prepare pictures."""
        brightness: Literal["normalized", "as_is"] = "normalized" if self.normalized else "as_is"
        return Sees(longest=self.longest, brightness=brightness, space=self.space)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out picture: what the network sees, the true light, its kind, and what the baselines say.

    `illuminant` is camera RGB, to which the matrix `to_camera` brings what the network answers.
    """

    planes: Array
    illuminant: Array
    to_camera: Array
    mixed: bool
    baselines: Mapping[str, Triple]


@dataclass
class WhiteBalancing:
    """The task of `nightisp train white_balance`; see `nightisp.training.loop.Task`."""

    params: WhiteBalanceTraining
    photographs: Photographs
    stage: str = field(default="white_balance", init=False)
    network: str = field(default="fc4", init=False)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What differs from the preset."""
        return {"stem": self.params.stem, "squeeze": list(self.params.squeeze), "head": self.params.head}

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
        return {"sees": self.params.sees.model_dump()}

    def build(self) -> nn.Module:
        """Return a network that takes every light for a warm one, with the same confidence everywhere."""
        network = build(self.network, **self.overrides)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
                last = module
        last.weight.data *= 0.1  # or the rectifier after it would shut off some colors for good
        last.bias.data[:] = torch.tensor([0.5, 0.8, 0.4, 0.5])
        return network

    def pool(self, rng: np.random.Generator) -> list[Pixels]:
        """Shrink some photographs to what the largest windows need."""
        numbers = rng.integers(len(self.photographs.training), size=self.params.scenes)
        shorter = _OVERSAMPLED * self.params.longest / self.params.window
        chosen = (self.photographs.training[number] for number in numbers)
        small = (shrunk(pixels, min(1.0, shorter / min(pixels.shape[:2]))) for pixels in chosen)
        return [np.rint(pixels * 255).astype(np.uint8) for pixels in small]

    def draw(self, pool: list[Pixels], rng: np.random.Generator) -> Arrays:
        """Draw a night and a window for each picture of a batch."""
        height, width = self.params.longest, max(33, round(self.params.longest * float(rng.choice(ASPECTS))))
        if rng.integers(2):
            height, width = width, height
        samples = [
            self._sample(pool[rng.integers(len(pool))], (height, width), rng) for _ in range(self.schedule.batch)
        ]
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def _sample(self, pixels: Pixels, size: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array, Array]:
        window = _window(pixels, (size[1] * _OVERSAMPLED, size[0] * _OVERSAMPLED), self.params.window, rng)
        photograph = saturated(window, float(rng.uniform(*self.params.saturation)))
        level, finish = float(np.exp(rng.uniform(*np.log(self.params.level)))), float(rng.uniform(*self.params.finish))
        scene = replace(draw_scene(rng), level=level, finish=finish)
        other = draw_other(scene, rng) if rng.random() < self.params.mixed else None
        light, illuminant = lit(photograph, scene, other, rng)
        small = cv2.resize(light, size[::-1], interpolation=cv2.INTER_AREA)
        averaged = int(2 ** rng.integers(1 + int(np.log2(_AVERAGED))))
        noisy = expose(np.ascontiguousarray(small[..., [0, 1, 2, 1]]), _averaged(scene, averaged), rng)
        seen, to_camera = _seen(unpack(noisy), scene, self.params.sees)
        return seen, illuminant, to_camera

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean angle between estimates and truth in camera RGB, in radians."""
        seen, illuminants, to_camera = batch
        estimates = torch.einsum("nij, nj -> ni", to_camera, network(seen)[0].float())
        return angle(nn.functional.normalize(estimates, dim=1), illuminants).mean()

    def validate(self, network: nn.Module) -> Metrics:
        """Return angular errors in degrees on held-out pictures; the first measure is minus their mean."""
        device = next(network.parameters()).device
        errors = []
        with torch.autocast(device.type, enabled=False):
            for picture in self.held_out:
                estimate = network(torch.from_numpy(picture.planes).unsqueeze(0).to(device))[0][0]
                errors.append(degrees(picture.to_camera @ estimate.cpu().numpy(), picture.illuminant))
        means = {"mean_single": np.array([not picture.mixed for picture in self.held_out])}
        means["mean_mixed"] = ~means["mean_single"]
        theirs = {
            f"mean_{method}": float(np.mean([degrees(p.baselines[method], p.illuminant) for p in self.held_out]))
            for method in BASELINES
        }
        ours = {name: float(np.mean(np.array(errors)[part])) for name, part in means.items()}
        return {"minus_mean": -float(np.mean(errors)), **summary(errors), **ours, **theirs}

    @cached_property
    def held_out(self) -> list[HeldOut]:
        """Held-out pictures: half of them lit by one kind of lamp, half by two; always the same ones."""
        return held_out_pictures(self.photographs, self.params.sees)


def held_out_pictures(photographs: Photographs, sees: Sees) -> list[HeldOut]:
    """Return whole held-out photographs as noisy mosaics, prepared as the stage does, with the baselines' answers."""
    pictures = []
    for number, pixels in enumerate(photographs.held_out):
        photograph = shrunk(pixels, min(1.0, 4 * (sees.longest or 256) / max(pixels.shape[:2])))
        for variant in range(2 * _HELD_OUT_SCENES):
            rng = np.random.default_rng((2017, number, variant))
            scene = draw_scene(rng)
            other = draw_other(scene, rng) if variant % 2 else None
            light, illuminant = lit(photograph, scene, other, rng)
            samples = unpack(expose(packed_light(light), scene, rng))
            baselines: dict[str, Triple] = {method: _answer(samples, method) for method in BASELINES}
            seen, to_camera = _seen(samples, scene, sees)
            pictures.append(HeldOut(seen, illuminant, to_camera, other is not None, baselines))
    return pictures


def draw_other(scene: Scene, rng: np.random.Generator) -> Triple:
    """Draw a second lamp for a scene, as camera RGB of a neutral, green = 1."""
    while (other := draw_illuminant(rng, scene.matrix)) is None:
        pass
    return other


def lit(photograph: Array, scene: Scene, other: Triple | None, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the light on the sensor and the illuminant that a single white balance should find.

    With a second lamp, each place is lit by a share of both, the shares changing smoothly over the picture. The
    illuminant is then the mean over all places, each counting by the green light that the sensor gets from it: both
    lamps give a neutral the same green, so that this weight does not depend on which of them shines there.

    Parameters
    ----------
    photograph
        Display sRGB, float32 (H, W, 3) in [0, 1]. What was neutral there is taken for neutral in the scene.
    other
        Camera RGB of a neutral under the second lamp, green = 1.

    Returns
    -------
    light, illuminant
        Camera RGB, float32 (H, W, 3), linear, from 0 to 1; camera RGB of a neutral, float32 (3,), of length 1.
    """
    balanced = balanced_light(photograph, scene)
    first = np.array(scene.illuminant, np.float32)
    share = np.zeros((1, 1, 1), np.float32) if other is None else _smooth(balanced.shape[:2], rng)
    lamps = first + share * (np.array(other or first, np.float32) - first)  # (H, W, 3), or (1, 1, 3)
    light = np.maximum(balanced * lamps, 0)
    mean = float(np.mean(np.minimum(light, 1), dtype=np.float64))
    light = np.minimum(light * np.float32(scene.level / max(mean, 1e-6)), 1)
    weight = light[..., 1:2]
    illuminant = (weight * lamps).sum(axis=(0, 1), dtype=np.float64) / max(
        float(np.sum(weight, dtype=np.float64)), 1e-9
    )
    return light, np.asarray(illuminant / np.linalg.norm(illuminant), np.float32)


def saturated(photograph: Array, factor: float) -> Array:
    """Return a display sRGB picture with its distance from gray multiplied; clipped to [0, 1]."""
    gray = photograph @ np.array([[0.2126], [0.7152], [0.0722]], np.float32)
    return np.asarray(np.clip(gray + np.float32(factor) * (photograph - gray), 0, 1))


def angle(estimates: Tensor, illuminants: Tensor) -> Tensor:
    """Return the angles between vectors of length 1, in radians: (N, 3), (N, 3) -> (N,).

    By half the chord, whose gradient stays finite where the arc cosine's does not; 0 where they agree.
    """
    softening = 1e-4
    squared = (estimates.float() - illuminants).square().sum(dim=1)
    chord = squared / (torch.sqrt(squared + softening**2) + softening)
    return 2 * torch.asin((chord / 2).clamp(max=0.999))


def degrees(estimate: Sequence[float] | NDArray[Any], illuminant: Sequence[float] | NDArray[Any]) -> float:
    """Return the angle between two illuminants, whatever their lengths; 90 if one of them is none.

    Examples
    --------
    >>> round(degrees((1, 1, 0), (0, 2, 0)), 6)
    45.0
    """
    a, b = np.asarray(estimate, np.float64), np.asarray(illuminant, np.float64)
    if not (a.any() and b.any()):
        return 90.0
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def summary(errors: Sequence[float]) -> Metrics:
    """Return mean, median, trimean, and means of the best and worst quarter of angular errors.

    Examples
    --------
    >>> summary([1, 2, 3, 4, 10])
    {'mean': 4.0, 'median': 3.0, 'trimean': 3.0, 'best25': 1.0, 'worst25': 10.0}
    """
    ordered = np.sort(np.asarray(errors, np.float64))
    low, middle, high = np.percentile(ordered, (25, 50, 75))
    quarter = max(1, len(ordered) // 4)
    best, worst = ordered[:quarter].mean(), ordered[-quarter:].mean()
    figures = ordered.mean(), middle, (low + 2 * middle + high) / 4, best, worst
    return dict(zip(("mean", "median", "trimean", "best25", "worst25"), map(float, figures), strict=True))


def _seen(samples: Array, scene: Scene, sees: Sees) -> tuple[Array, Array]:
    """Return what the network sees of a mosaic, and the matrix that brings its answer to camera RGB."""
    matrix = camera_to_seen([scene.matrix], sees)
    back = np.eye(3) if matrix is None else np.linalg.inv(matrix)
    return as_seen(to_half_rgb(samples), sees, matrix), back.astype(np.float32)


def _answer(samples: Array, method: Method) -> Triple:
    mosaic = Mosaic(samples, cfa=PHASE, shot=Shot(), window=Window(0, 0, *samples.shape))
    red, green, blue = white_balance(mosaic, WhiteBalanceParams(method=method)).balance.gains
    return 1 / red, 1 / green, 1 / blue


def _averaged(scene: Scene, side: int) -> Scene:
    """Return the scene as averaging `side` by `side` photosites of a color would see it."""
    red, green, blue = ((shot / side**2, read / side**2) for shot, read in scene.noise)
    return replace(scene, noise=(red, green, blue), row=scene.row / side, bits=scene.bits + int(np.log2(side)))


def _smooth(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """Draw the share of the second lamp: smooth, (H, W, 1), from 0 to 1."""
    coarse = rng.normal(0, rng.uniform(1, 4), (3, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(1 / (1 + np.exp(-smooth)), np.float32)[..., None]


def _window(pixels: Pixels, size: tuple[int, int], smallest: float, rng: np.random.Generator) -> Array:
    """Cut a random window of the wanted (width, height) out, mirrored or turned as cameras are held, and resize it."""
    pixels = np.rot90(pixels, rng.choice((0, 0, 1, 3)))
    if rng.integers(2):
        pixels = pixels[:, ::-1]
    scale = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1]) * rng.uniform(smallest, 1)
    width, height = int(size[0] * scale), int(size[1] * scale)
    top, left = (rng.integers(rest + 1) for rest in (pixels.shape[0] - height, pixels.shape[1] - width))
    seen = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(seen, size, interpolation=how), np.float32) * np.float32(1 / 255)
