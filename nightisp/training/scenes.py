"""Nights that no camera saw: a photograph, the camera, the lamps and the exposure drawn at random.

One scene says how a photograph's light reached a sensor and what noise it met there. The networks learn from many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import PHASE, pack
from nightisp.cameras import Camera, all_cameras
from nightisp.colorimetry import camera_to_srgb_dng, kelvin_to_xy, xy_to_xyz
from nightisp.errors import NoGroundError
from nightisp.image import ColorMatrix, Triple
from nightisp.noise import add_noise
from nightisp.stages.tone import PUBLISHED_CURVE, ToneCurve, ToneParams
from nightisp.stages.white_balance import to_gains
from nightisp.training.inversion import invert_curve, invert_gamma, raise_highlights, sample_mosaic, srgb_to_camera

Array = NDArray[np.float32]
Noise = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Shot and read noise of R, G and B."""

KELVIN = (1800.0, 9000.0)
LEVELS = (0.004, 0.12)
ISO = (400.0, 25600.0)

_TINT = 0.012  # deviation in CIE xy of lamps from the black body: fluorescent greens, magenta LEDs
_MIXED = 0.4  # share of scenes that two kinds of lamps light
_GAINS = (0.8, 4.5)  # that a white balance may need, for red and blue; other lights are drawn again
_CODES = 65535


@dataclass(frozen=True, slots=True)
class Scene:
    """How a photograph's light reaches a sensor.

    `illuminant` is camera RGB of a neutral (green = 1). `level` is the mean of the camera's RGB once exposed, 1 being
    white level. `highlights` are knee and peak of the lamps. `noise` is shot and read noise for R, G and B, `row` the
    deviation of whole rows and `black` the error of black level, both on the scale where white is 1; `bits` counts
    the steps up to white. `finish` is how the photograph got from linear light to display light: 0 as our tone stage
    does it, 1 by sRGB's encoding alone, of which our tone stage makes a pale and flat picture.
    """

    matrix: ColorMatrix
    illuminant: Triple
    level: float
    highlights: tuple[float, float]
    iso: float
    noise: Noise
    row: float
    black: float
    bits: int
    finish: float = 0.0


def draw_scene(rng: np.random.Generator, iso: tuple[float, float] = ISO) -> Scene:
    """Draw a night: one of the measured cameras, a light that it can balance, exposure, ISO and noise.

    Parameters
    ----------
    rng
        Gives the draws.
    iso
        Bounds of the sensitivity, drawn evenly in its logarithm; cameras that were not measured there are not drawn.
    """
    cameras = _cameras()
    wanted = _log_uniform(rng, *iso)
    while True:
        camera = cameras[rng.integers(len(cameras))]
        pair = camera.noise(wanted)
        if camera.xyz_to_camera is None or pair is None:
            continue
        matrix = ColorMatrix(xyz_to_camera=camera.xyz_to_camera, illuminant=21)
        illuminant = draw_illuminant(rng, matrix)
        if illuminant is not None and _is_known(illuminant, matrix):
            break
    read = float(np.sqrt(pair[1]))
    return Scene(
        matrix=matrix,
        illuminant=illuminant,
        level=_log_uniform(rng, *LEVELS),
        highlights=(float(rng.uniform(0.5, 0.8)), _log_uniform(rng, 1, 8)),
        iso=wanted,
        noise=(pair, pair, pair),
        row=read * float(rng.uniform(0, 0.2)),
        black=read * float(rng.normal(0, 0.1)),
        bits=int(rng.choice((12, 14))),
    )


def draw_illuminant(rng: np.random.Generator, matrix: ColorMatrix) -> Triple | None:
    """Draw the light of a scene as camera RGB of a neutral, green = 1; None if no camera would meet it.

    Black bodies, evenly in reciprocal kelvin, off the locus by a normal tint; two of them mixed in some scenes.
    """
    light = _draw_lamp(rng)
    if rng.random() < _MIXED:
        share = rng.uniform(0.2, 0.8)
        light = share * light + (1 - share) * _draw_lamp(rng)
    r, g, b = (np.array(matrix.xyz_to_camera) @ light).tolist()
    if not (g > 0 and all(1 / _GAINS[1] <= v / g <= 1 / _GAINS[0] for v in (r, b))):
        return None
    return r / g, 1.0, b / g


def _is_known(illuminant: Triple, matrix: ColorMatrix) -> bool:
    """Tell whether a camera's matrix gives a light that it can render under; far off the black bodies it may not."""
    try:
        camera_to_srgb_dng([matrix], to_gains(illuminant))
    except NoGroundError:
        return False
    return True


def _draw_lamp(rng: np.random.Generator) -> NDArray[np.float64]:
    kelvin = 1 / rng.uniform(1 / KELVIN[1], 1 / KELVIN[0])
    x, y = kelvin_to_xy(kelvin)
    return xy_to_xyz(x + rng.normal(0, _TINT / 2), y + rng.normal(0, _TINT))


def light_on_sensor(photograph: Array, scene: Scene) -> Array:
    """Return the light that a scene's camera gets, before its color filters.

    Parameters
    ----------
    photograph
        Display sRGB, float32 (H, W, 3) in [0, 1].

    Returns
    -------
    Array
        Camera RGB, float32 (H, W, 3), linear, from 0 to 1: white level clips it.

    Raises
    ------
    NoGroundError
        If the camera's matrix knows no such light.
    """
    balanced = balanced_light(photograph, scene)
    lit = np.maximum(balanced * np.array(scene.illuminant, np.float32), 0)
    mean = float(np.mean(np.minimum(lit, 1), dtype=np.float64))
    return np.asarray(np.minimum(lit * np.float32(scene.level / max(mean, 1e-6)), 1))


def balanced_light(photograph: Array, scene: Scene) -> Array:
    """Return a photograph's light in a scene's camera RGB after a perfect white balance; not clipped, not exposed."""
    linear = _unfinished(scene.finish)[np.rint(photograph * np.float32(_CODES)).astype(np.int32)]  # (H, W, 3)
    lamps = raise_highlights(linear, *scene.highlights)
    camera_to_srgb = camera_to_srgb_dng([scene.matrix], to_gains(scene.illuminant))
    return srgb_to_camera(lamps, camera_to_srgb).astype(np.float32)


def plane_noise(noise: Noise) -> tuple[Array, Array]:
    """Return shot and read noise of the planes R, G, B, G: two arrays of shape (4,)."""
    figures = np.array([noise[channel] for channel in (0, 1, 2, 1)], np.float32)
    return figures[:, 0], figures[:, 1]


def expose(packed: Array, scene: Scene, rng: np.random.Generator) -> Array:
    """Return what the sensor reads: shot, read and row noise, an error of black level, steps, white level.

    Parameters
    ----------
    packed
        Planes R, G, B, G, float32 (H, W, 4), in [0, 1], of a mosaic in phase BGGR.

    Returns
    -------
    Array
        float32 (H, W, 4), linear; at most 1, below 0 where noise is.
    """
    noisy = add_noise(packed, *plane_noise(scene.noise), rng)
    rows = rng.normal(0, scene.row, (2, len(packed), 1)).astype(np.float32)
    noisy += rows[[1, 0, 0, 1]].transpose(1, 2, 0)  # red and the second green share the odd rows
    noisy += np.float32(scene.black)
    steps = np.float32(2**scene.bits - 1)
    return np.asarray(np.minimum(np.rint(noisy * steps) / steps, 1))


def packed_light(camera: Array) -> Array:
    """Return the planes R, G, B, G that a BGGR sensor gets of camera RGB (H, W, 3): (H/2, W/2, 4); odd rows are cut."""
    height, width = (side - side % 2 for side in camera.shape[:2])
    return np.asarray(pack(sample_mosaic(camera[:height, :width], PHASE).astype(np.float32)))


@cache
def _cameras() -> tuple[Camera, ...]:
    cameras = tuple(camera for camera in all_cameras() if camera.xyz_to_camera is not None)
    if not cameras:
        raise NoGroundError("the table of cameras holds none with a ColorMatrix; install nightisp again")
    return cameras


def _unfinished(finish: float) -> Array:
    """Return linear light by display code, the geometric mean of two ways back, weighted by `Scene.finish`."""
    if finish == 0:
        return _unrendered()
    return np.asarray(_unrendered() ** np.float32(1 - finish) * _unencoded() ** np.float32(finish))


@cache
def _unrendered() -> Array:
    """Return linear light by display code: inverse gamma and inverse curve at once."""
    display = invert_gamma(np.linspace(0, 1, _CODES + 1), ToneParams.model_validate({}).gamma)
    return invert_curve(ToneCurve(PUBLISHED_CURVE), display).astype(np.float32)


@cache
def _unencoded() -> Array:
    """Return linear light by display code as sRGB has it."""
    display = np.linspace(0, 1, _CODES + 1)
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
