"""Denoising in the Bayer domain by a residual U-Net: told how much noise there is, or blind as published."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from nightisp.anscombe import restore, stabilize
from nightisp.bayer import binned, pack, unpack
from nightisp.cameras import find_camera
from nightisp.errors import NoGroundError, WeightsMismatchError
from nightisp.image import Mosaic, NoiseFigures, Samples, Shot
from nightisp.noise_estimate import estimate_noise
from nightisp.rows import in_rows
from nightisp.stage import PRECISION, Networks, Params, Stage

_MULTIPLE = 4  # two poolings of 2 x 2
_OTHERS = "choose denoise.noise: auto, which asks file, camera and the mosaic itself in turn, or {}"


class DenoiseParams(Params):
    """Parameters of denoising."""

    method: Literal["unet", "bin", "none"] = Field(
        "unet", description="the U-Net; or average 2 x 2 photosites of a color, to half the size; or leave the noise"
    )
    weights: str = Field("denoise_unet", min_length=1, description="weights of the U-Net")
    noise: Literal["auto", "file", "camera", "estimate", "blind"] = Field(
        "auto",
        description="figures of noise from the file, the camera's table or the mosaic; auto: the first that there are",
    )
    strength: float = Field(1.0, ge=0, le=1, description="share of the denoised mosaic in the result")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description=PRECISION)


def denoise(mosaic: Mosaic, params: DenoiseParams, networks: Networks | None = None) -> Mosaic:
    """Subtract what the U-Net takes for noise, on the mosaic packed to four half-size planes.

    Takes and gives linear samples, (H, W). Weights that were trained for it see noise of variance 1 everywhere: the
    planes are stabilized first and restored after, nothing is clipped, and `noise` of the result says whose figures
    were used. What reaches white level had at least that much light, and is never made darker. Weights of a blind
    network, as published, see samples clipped to [0, max(3 x mean, 0.9)], and their result is clipped to [0, 1].
    `method: none` clips nothing. `method: bin` gives (H // 4 * 2, W // 4 * 2).

    Raises
    ------
    NoGroundError
        If the noise is not known in the way that was asked for.
    WeightsMismatchError
        If the weights are blind and are to be told, or the reverse.

    References
    ----------
    :cite:`ntire2023night`, :cite:`makitalo2013gat`.
    """
    if params.method == "bin":
        samples, window = binned(mosaic.samples, mosaic.window)
        return Mosaic(samples, cfa=mosaic.cfa, shot=mosaic.shot, window=window, balance=mosaic.balance)
    if params.method == "none" or params.strength == 0:
        return mosaic
    assert networks is not None, "the U-Net needs networks"
    network = networks(params.weights)
    noise = _noise(mosaic, params, network)
    packed = pack(mosaic.samples, mosaic.cfa)  # (H/2, W/2, 4)
    denoised = _blind(packed, networks, params) if noise.source == "blind" else _told(packed, noise, networks, params)
    strength = np.float32(params.strength)
    blended = in_rows(lambda part, clean: part + strength * (clean - part), packed, denoised)
    return Mosaic(
        unpack(blended, mosaic.cfa),
        cfa=mosaic.cfa,
        shot=mosaic.shot,
        window=mosaic.window,
        balance=mosaic.balance,
        noise=noise,
    )


def check(shot: Shot, params: DenoiseParams) -> None:
    """Raise `NoGroundError` if the shot does not hold the figures of noise that are asked for."""
    if params.method == "unet" and params.noise in ("file", "camera"):
        _known(shot, params.noise)


def _noise(mosaic: Mosaic, params: DenoiseParams, network: Any) -> NoiseFigures:
    """Find the figures of noise, in the way that was asked for and that the weights were trained for."""
    card = getattr(network, "card", None)
    told = card is None or card.get("sees") == "stabilized"
    if params.noise == "auto" and not told:
        return NoiseFigures(source="blind")
    if card is not None and told == (params.noise == "blind"):
        asked = "told the noise: set denoise.noise: auto" if told else "blind: set denoise.noise: blind or auto"
        raise WeightsMismatchError(f"{params.weights}: denoise.noise is {params.noise}, but these weights are {asked}")
    match params.noise:
        case "blind":
            return NoiseFigures(source="blind")
        case "file" | "camera":
            return _known(mosaic.shot, params.noise)
        case "auto" if _in_file(mosaic.shot):
            return _known(mosaic.shot, "file")
        case "auto" if _of_camera(mosaic.shot):
            return _known(mosaic.shot, "camera")
    return NoiseFigures(source="estimate", figures=(estimate_noise(mosaic.samples, mosaic.cfa, mosaic.window),) * 3)


def _known(shot: Shot, source: Literal["file", "camera"]) -> NoiseFigures:
    if source == "file":
        figures = _in_file(shot)
        if not figures:
            raise NoGroundError(
                "the file holds no usable NoiseProfile, which denoise.noise: file needs; "
                + _OTHERS.format("camera, estimate")
            )
        return NoiseFigures(source="file", figures=figures)
    pair = _of_camera(shot)
    if pair is None:
        raise NoGroundError(
            f"nobody measured the noise of {shot.camera or 'an unnamed camera'} at ISO {shot.iso or 'unknown'}; "
            + _OTHERS.format("file, estimate")
        )
    return NoiseFigures(source="camera", figures=(pair,) * 3)


def _in_file(shot: Shot) -> tuple[tuple[float, float], ...]:
    """Return the file's figures for R, G and B; () if it has none that stand for noise."""
    figures = shot.noise_profile * 3 if len(shot.noise_profile) == 1 else shot.noise_profile
    return figures if len(figures) == 3 and all(sum(pair) > 0 for pair in figures) else ()


def _of_camera(shot: Shot) -> tuple[float, float] | None:
    camera = find_camera(shot.camera)
    return camera.noise(shot.iso) if camera and shot.iso else None


def _told(packed: Samples, noise: NoiseFigures, networks: Networks, params: DenoiseParams) -> Samples:
    shot, read = np.array([noise.figures[channel] for channel in (0, 1, 2, 1)], np.float32).T  # of R, G, B, G
    stabilized = in_rows(lambda part: stabilize(part, shot, read), packed)
    residual = _residual(stabilized, networks, params)

    def cleaned(part: Samples, more: Samples, given: Samples) -> Samples:
        light = restore(part + more, shot, read)
        return np.where(given >= 1, np.maximum(light, given), light)  # a lamp's light is not noise

    return in_rows(cleaned, stabilized, residual, packed)


def _blind(packed: Samples, networks: Networks, params: DenoiseParams) -> Samples:
    seen = np.clip(packed, 0, max(3 * float(packed.mean(dtype=np.float64)), 0.9)).astype(np.float32)
    return np.asarray(np.clip(packed + _residual(seen, networks, params), 0, 1))


def _residual(seen: Samples, networks: Networks, params: DenoiseParams) -> Samples:
    """Return what the network adds to planes (H/2, W/2, 4)."""
    from nightisp.models import denoise_unet  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.tiling import MEMORY, exact

    planes = np.ascontiguousarray(np.moveaxis(seen, -1, 0))
    memory = getattr(networks, "memory", MEMORY)  # tiling is exact, so this is no parameter
    network, precision = networks(params.weights), params.precision
    residual = exact(network, planes, memory=memory, multiple=_MULTIPLE, precision=precision)  # (4, H/2, W/2)
    return np.moveaxis(residual, 0, -1)


def _weights(params: DenoiseParams) -> tuple[str, ...]:
    return (params.weights,) if params.method == "unet" else ()


STAGE = Stage(
    name="denoise",
    run=denoise,
    takes=Mosaic,
    gives=Mosaic,
    params=DenoiseParams,
    device="gpu",
    weights=_weights,
    check=check,
    cite=("ntire2023night", "makitalo2013gat"),
)
