"""What the stages before refinement make of a photograph's night, and what they leave wrong about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import PHASE, apply_gains, pack, unpack
from nightisp.image import Balance, DisplayImage, LinearImage, Mosaic, Samples, Shot
from nightisp.noise import add_noise
from nightisp.stage import Networks
from nightisp.stages import color, demosaic, denoise, tone
from nightisp.stages.white_balance import to_gains
from nightisp.training.inversion import sample_mosaic
from nightisp.training.scenes import Scene, expose, light_on_sensor

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Night:
    """A scene, and what the stages before refinement leave wrong about it.

    `cast` multiplies the true gains, `left` is the share of the noise's variance that denoising left, None if the
    U-Net is to denoise, `matrix` is `color.matrix`.
    """

    scene: Scene
    cast: tuple[float, float, float]
    left: float | None
    matrix: str


def render(
    photograph: Array,
    night: Night,
    rng: np.random.Generator,
    networks: Networks | None = None,
    denoiser: str = "",
) -> Samples:
    """Return what the first six stages make of a night: display light, float32 (H, W, 3) in [0, 1].

    For white balance stand gains that are off by a cast; for denoising, where the night says so, less noise.
    """
    scene = night.scene
    if night.left is None:
        return _developed(_denoised(_exposed(photograph, scene, rng), scene, networks, denoiser), night)
    shot, read = scene.noise[1]
    light = sample_mosaic(light_on_sensor(photograph, scene), PHASE).astype(np.float32)
    return _developed(np.minimum(add_noise(light, shot * night.left, read * night.left, rng), 1), night)


def render_draft(
    photograph: Array, night: Night, rng: np.random.Generator, networks: Networks, denoiser: str
) -> tuple[Samples, Samples]:
    """Return what the first six stages make of a night that the U-Net denoises, and what they make of its draft.

    The draft is binned instead: of half the width and height. Its photograph's sides are multiples of 4.
    """
    noisy = _exposed(photograph, night.scene, rng)
    binned: Mosaic = denoise.STAGE(Mosaic(noisy, cfa=PHASE, shot=Shot()), _BIN)
    denoised = _denoised(noisy, night.scene, networks, denoiser)
    return _developed(denoised, night), _developed(binned.samples, night)


_BIN = denoise.DenoiseParams.model_validate({"method": "bin"})


def _exposed(photograph: Array, scene: Scene, rng: np.random.Generator) -> Samples:
    light = sample_mosaic(light_on_sensor(photograph, scene), PHASE).astype(np.float32)
    return unpack(expose(pack(light), scene, rng))


def _denoised(noisy: Samples, scene: Scene, networks: Networks | None, denoiser: str) -> Samples:
    mosaic = Mosaic(noisy, cfa=PHASE, shot=Shot(noise_profile=scene.noise))
    params = denoise.DenoiseParams.model_validate({"weights": denoiser, "noise": "file", "precision": "bfloat16"})
    denoised: Mosaic = denoise.STAGE(mosaic, params, networks)
    return denoised.samples


def _developed(mosaic: Samples, night: Night) -> Samples:
    """Return what white balance, demosaicing, color and tone make of a mosaic."""
    r, g, b = (gain * off for gain, off in zip(to_gains(night.scene.illuminant), night.cast, strict=True))
    gains = (r, g, b)
    balanced = Mosaic(
        apply_gains(mosaic, PHASE, gains),
        cfa=PHASE,
        shot=Shot(color_matrices=(night.scene.matrix,)),
        balance=Balance(gains=gains, method="gains"),
    )
    linear: LinearImage = demosaic.STAGE(balanced, demosaic.STAGE.params())
    linear = color.STAGE(linear, color.ColorParams.model_validate({"matrix": night.matrix}))
    rendered: DisplayImage = tone.STAGE(linear, tone.STAGE.params())
    return rendered.samples
