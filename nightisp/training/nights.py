"""Raws of nights whose finished picture is known: what `nightisp evaluate` measures against."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import PHASE, pack, unpack
from nightisp.dng import write_dng
from nightisp.image import Mosaic, Shot
from nightisp.publish import publish
from nightisp.training.inversion import sample_mosaic
from nightisp.training.photographs import Photographs, shrunk
from nightisp.training.scenes import Scene, balanced_light, draw_scene, expose, light_on_sensor

Array = NDArray[np.float32]

_BLACK, _WHITE = 512, 15871  # of 14 bits: as much room on both sides as noise takes
_LONGEST = 1200


def write_nights(
    photographs: Photographs, folder: Path, *, count: int, seed: int = 1, exposure_ev: float = -0.5
) -> list[Path]:
    """Write raws made of held-out photographs, and beside them what they should become.

    `folder/raws/NAME.dng` is the raw; `folder/references/NAME.png` the photograph that it was made of, and
    `NAME.truth.json` with `NAME.npy` the illuminant and the mosaic without noise.

    Parameters
    ----------
    photographs
        Only those held out are used, in turn.
    count
        How many raws; more than photographs gives each another night.
    seed
        Of the nights.
    exposure_ev
        By how many stops the raw is brighter than the photograph; photographers expose nights below what they show.

    Returns
    -------
    list of Path
        The raws.
    """
    written = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        pixels = photographs.held_out[number % len(photographs.held_out)]
        photograph = shrunk(pixels, min(0.75, _LONGEST / max(pixels.shape[:2])))
        height, width = (side // 4 * 4 for side in photograph.shape[:2])
        path = folder / "raws" / f"night_{number:02d}.dng"
        write_night(photograph[:height, :width], _as_photographed(photograph, rng, exposure_ev), path, rng)
        written.append(path)
    return written


def write_night(photograph: Array, scene: Scene, path: Path, rng: np.random.Generator) -> None:
    """Write one raw, its reference and its truth; `photograph` is display sRGB (H, W, 3) in [0, 1], of even sizes."""
    import cv2

    light = sample_mosaic(light_on_sensor(photograph, scene), PHASE).astype(np.float32)
    noisy = unpack(expose(pack(light), scene, rng))
    shot = Shot(
        camera="nightisp synthetic night",
        iso=round(scene.iso),
        exposure_s=0.1,
        as_shot_neutral=scene.illuminant,
        color_matrices=(scene.matrix,),
        noise_profile=(scene.noise[1],),
        exif={"Exif.Image.Make": "nightisp", "Exif.Image.Model": "synthetic night"},
    )
    write_dng(Mosaic(noisy, cfa=PHASE, shot=shot), path, black_level=_BLACK, white_level=_WHITE, bits=14)
    beside = path.parent.parent / "references" / path.stem
    codes = np.rint(photograph[..., ::-1] * 65535).astype(np.uint16)
    publish(bytes(cv2.imencode(".png", codes)[1]), beside.with_suffix(".png"))
    clean = BytesIO()
    np.save(clean, light)
    publish(clean.getvalue(), beside.with_suffix(".npy"))
    truth = {"illuminant": list(scene.illuminant), "clean_mosaic": f"{path.stem}.npy"}
    publish((json.dumps(truth, indent=1) + "\n").encode(), beside.with_suffix(".truth.json"))


def _as_photographed(photograph: Array, rng: np.random.Generator, exposure_ev: float) -> Scene:
    scene = draw_scene(rng, (800.0, 12800.0))
    lit = np.clip(balanced_light(photograph, scene) * np.array(scene.illuminant, np.float32), 0, 1)
    return replace(scene, level=float(lit.mean()) * 2.0**exposure_ev)
