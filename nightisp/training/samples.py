"""Make the sample raws of `data/` again: `python -m nightisp.training.samples --help`.

Each is a freely licensed photograph of a Debian package, taken back through the pipeline to the light on a sensor,
then exposed, clipped, made noisy and quantized with the figures of a camera. The same photograph and seed give the same
file, byte for byte; where the photographs come from and what their licenses are stands in `data/README.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.colorimetry import camera_to_srgb_dng, kelvin_to_neutral
from nightisp.dng import Levels, write_dng
from nightisp.errors import NightispError, RawFileError, RawFileNotFoundError
from nightisp.image import CFA, ColorMatrix, Mosaic, Shot, Triple, Window
from nightisp.noise import add_noise, add_row_noise, quantize
from nightisp.orientation import orient
from nightisp.publish import publish
from nightisp.stages.tone import ToneCurve, ToneParams
from nightisp.stages.white_balance import to_gains
from nightisp.training.inversion import invert_rendering, sample_mosaic

# How a picture that stands upright is to be turned so that its orientation turns it back.
_LYING = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@dataclass(frozen=True, slots=True)
class Sensor:
    """Figures of a camera: its color matrix as LibRaw has it, its noise as :cite:`wei2020eld` fitted it.

    `gain` is raw values per photoelectron at ISO 100. Read and row noise are deviations in raw values, log-linear in
    the gain: `exp(slope * log(gain) + bias)`.
    """

    model: str
    xyz_to_camera: tuple[Triple, Triple, Triple]
    gain: float
    read: tuple[float, float]
    row: tuple[float, float]
    black_level: Levels
    white_level: int

    def noise(self, iso: float) -> tuple[float, float, float]:
        """Return the variances of shot, read and row noise, on the scale where white level is 1."""
        gain = self.gain * iso / 100
        span = self.white_level - max(self.black_level)
        read, row = (math.exp(slope * math.log(gain) + bias) / span for slope, bias in (self.read, self.row))
        return gain / span, read**2, row**2


# fmt: off
D850 = Sensor(
    "Nikon D850", ((1.0405, -0.3755, -0.1270), (-0.5461, 1.3787, 0.1793), (-0.1040, 0.2015, 0.6785)),
    gain=0.4150, read=(0.5635, 0.7994), row=(0.4483, -1.7977), black_level=(400, 400, 400, 400), white_level=15520,
)
EOS_5D4 = Sensor(
    "Canon EOS 5D Mark IV", ((0.6446, -0.0366, -0.0864), (-0.4436, 1.2204, 0.2513), (-0.0952, 0.2496, 0.6348)),
    gain=0.2182, read=(0.6771, 1.5122), row=(0.4713, -0.8079), black_level=(512, 515, 513, 511), white_level=16200,
)
EOS_700D = Sensor(
    "Canon EOS 700D", ((0.6602, -0.0841, -0.0939), (-0.4472, 1.2458, 0.2247), (-0.0975, 0.2039, 0.6148)),
    gain=0.4476, read=(0.6525, 2.0799), row=(0.6221, -0.7756), black_level=(2048, 2048, 2048, 2048), white_level=15000,
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Source:
    """A photograph of a Debian package; `path` is relative to the root of installed files."""

    package: str
    path: str
    sha256: str
    credit: str
    license: str


BRIDGE = Source(
    "palapeli-data",
    "usr/share/palapeli/collection/cincinnati-bridge.jpg",
    "09772d09318b34a5c5edd58ee86ff462bcd2907006f31cc8e0704310f8e9ab60",
    "Derek Jensen",
    "Public domain",
)
ROOM = Source(
    "lomiri-wallpapers-16.04",
    "usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg",
    "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74",
    "Jakub Mede, 2018",
    "CC BY 4.0",
)
SUMMIT = Source(
    "lomiri-wallpapers-16.04",
    "usr/share/backgrounds/sunset_by_Aitzol_Berasategi.jpg",
    "474dab6a4b9f94dc76c29dfe30e9f5db4af0fd2e33fe5d695f8152b371efca18",
    "Aitzol Berasategi, 2018",
    "CC BY 4.0",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One sample raw: what is photographed, in which light, by what.

    `crop` lies in the photograph; `size` is rows and columns of the upright picture. `lights` are the black bodies
    (kelvin, share) that mix to the illuminant, `as_shot_kelvin` is what the camera takes it for. `darker_ev` is how
    many stops darker than the photograph the scene is, `highlights` are knee and peak of its lamps.
    """

    name: str
    source: Source
    sensor: Sensor
    crop: Window
    size: tuple[int, int]
    cfa: CFA
    iso: int
    seed: int
    exposure_s: float
    f_number: float
    focal_length_mm: float
    captured: str
    lights: tuple[tuple[float, float], ...]
    as_shot_kelvin: float
    highlights: tuple[float, float]
    darker_ev: float
    orientation: int = 1


# fmt: off
SCENES = (
    Scene(
        "bridge_iso1600.png", BRIDGE, EOS_700D, Window(0, 0, 952, 1300), (952, 1300), CFA.GBRG, 1600, 1,
        exposure_s=0.5, f_number=4.0, focal_length_mm=24, captured="2024-11-16T18:42:10",
        lights=((2100, 0.55), (4800, 0.45)), as_shot_kelvin=3200, highlights=(0.5, 6.0), darker_ev=0.0,
    ),
    Scene(
        "room_iso3200.dng", ROOM, D850, Window(0, 0, 3837, 2558), (1080, 720), CFA.RGGB, 3200, 2,
        exposure_s=1 / 40, f_number=1.8, focal_length_mm=35, captured="2024-12-28T21:07:45",
        lights=((2700, 1.0),), as_shot_kelvin=2900, highlights=(0.7, 3.0), darker_ev=0.7, orientation=6,
    ),
    Scene(
        "summit_iso800.dng", SUMMIT, EOS_5D4, Window(0, 0, 2847, 4271), (801, 1201), CFA.BGGR, 800, 3,
        exposure_s=1 / 125, f_number=8.0, focal_length_mm=17, captured="2025-01-05T18:01:30",
        lights=((4200, 0.7), (9000, 0.3)), as_shot_kelvin=4900, highlights=(0.5, 3.0), darker_ev=0.8,
    ),
    Scene(
        "river_iso12800.dng", BRIDGE, D850, Window(253, 338, 700, 964), (700, 964), CFA.GRBG, 12800, 4,
        exposure_s=1 / 30, f_number=2.8, focal_length_mm=50, captured="2024-11-16T18:55:02",
        lights=((2000, 0.8), (4000, 0.2)), as_shot_kelvin=2500, highlights=(0.5, 6.0), darker_ev=0.5,
    ),
)
# fmt: on


def render(scene: Scene, photograph: NDArray[np.float64]) -> Mosaic:
    """Photograph a scene: from display sRGB, (H, W, 3) in [0, 1], to a noisy mosaic, clipped at white level."""
    sensor, tone = scene.sensor, ToneParams.model_validate({})
    matrix = ColorMatrix(xyz_to_camera=sensor.xyz_to_camera, illuminant=21)
    illuminant = _mixed(scene.lights, matrix)
    light = invert_rendering(
        orient(photograph, _LYING[scene.orientation]),
        curve=ToneCurve(tone.curve),
        gamma=tone.gamma,
        camera_to_srgb=camera_to_srgb_dng([matrix], to_gains(illuminant)),
        illuminant=illuminant,
        exposure_ev=scene.darker_ev,
        highlights=scene.highlights,
    )
    # Rounded so that the last bits, in which processors differ, do not change what the generator draws.
    exact = np.rint(np.maximum(sample_mosaic(light, scene.cfa), 0) * 2.0**20) / 2.0**20  # (H, W)
    shot, read, row = sensor.noise(scene.iso)
    rng = np.random.default_rng(scene.seed)
    samples = add_row_noise(add_noise(exact, shot, read, rng), row, rng)
    return Mosaic(np.minimum(samples, 1).astype(np.float32), cfa=scene.cfa, shot=_shot(scene, matrix, shot, read))


def _mixed(lights: tuple[tuple[float, float], ...], matrix: ColorMatrix) -> Triple:
    total = sum(share for _, share in lights)
    mixed = sum(share / total * np.array(kelvin_to_neutral(kelvin, [matrix])) for kelvin, share in lights)
    red, green, blue = np.asarray(mixed).tolist()
    return red, green, blue


def _shot(scene: Scene, matrix: ColorMatrix, shot_noise: float, read_noise: float) -> Shot:
    source = scene.source
    return Shot(
        camera=f"nightisp synthetic, figures of {scene.sensor.model}",
        iso=scene.iso,
        exposure_s=scene.exposure_s,
        f_number=scene.f_number,
        focal_length_mm=scene.focal_length_mm,
        captured=scene.captured,
        orientation=scene.orientation,
        as_shot_neutral=_mixed(((scene.as_shot_kelvin, 1.0),), matrix),
        color_matrices=(matrix,),
        noise_profile=((shot_noise, read_noise),),
        black_level=scene.sensor.black_level,
        white_level=scene.sensor.white_level,
        exif={
            "Exif.Image.Make": "nightisp",
            "Exif.Image.Model": f"synthetic, figures of {scene.sensor.model}",
            "Exif.Image.Artist": source.credit,
            "Exif.Image.Copyright": f"{source.license}; after a photograph by {source.credit}",
            "Exif.Image.ImageDescription": "A night that no camera saw: see data/README.md of nightisp",
        },
    )


def read_photograph(scene: Scene, root: Path) -> NDArray[np.float64]:
    """Read, crop and scale down a scene's photograph: sRGB, (H, W, 3), float64 in [0, 1], upright.

    Raises
    ------
    RawFileNotFoundError
        If its package is not installed under `root`.
    RawFileError
        If the file is another version than the one that the sample was made from.
    """
    import cv2

    source, path = scene.source, root / scene.source.path
    if not path.is_file():
        raise RawFileNotFoundError(f"{path}: no such photograph; run `apt-get install {source.package}`")
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise RawFileError(
            f"{path}: sha256 {digest[:12]} is not {source.sha256[:12]}; expected the {source.package} of Debian 12"
        )
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    photograph = np.asarray(pixels)[scene.crop.slices][..., ::-1] / 255.0
    return np.asarray(cv2.resize(photograph, scene.size[::-1], interpolation=cv2.INTER_AREA))


def write(mosaic: Mosaic, path: Path, sensor: Sensor) -> None:
    """Write a sample with its sensor's levels: a DNG, or the challenge's 16-bit PNG and JSON if `path` ends in .png."""
    if path.suffix == ".dng":
        write_dng(mosaic, path, black_level=sensor.black_level, white_level=sensor.white_level, bits=14)
        return
    import cv2

    values = quantize(mosaic.visible(), sensor.black_level, sensor.white_level)
    publish(bytes(cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]), path)
    text = json.dumps(_challenge_fields(mosaic, sensor), indent=1)
    publish((text + "\n").encode(), path.with_suffix(".json"))


def _challenge_fields(mosaic: Mosaic, sensor: Sensor) -> dict[str, Any]:
    shot = mosaic.shot
    matrix = [number for row in sensor.xyz_to_camera for number in row]
    return {
        "camera_name": shot.camera,
        "cfa_pattern": ["RGB".index(color) for color in mosaic.cfa.value],
        "black_level": [{"Fraction": [level, 1]} for level in sensor.black_level],
        "white_level": sensor.white_level,
        "linearization_table": None,
        "color_matrix_1": matrix,
        "color_matrix_2": matrix,
        "as_shot_neutral": [round(number, 6) for number in shot.as_shot_neutral or ()],
        "noise_profile": [number for pair in shot.noise_profile for number in pair],
        "orientation": shot.orientation,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nightisp.training.samples",
        description="Make the sample raws again from photographs of Debian packages.",
        epilog="Needs: apt-get install " + " ".join(sorted({scene.source.package for scene in SCENES})),
    )
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder for the raws (default: data)")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are installed (default: /)")
    parser.add_argument("--only", choices=[scene.name for scene in SCENES], help="make this one alone")
    chosen = parser.parse_args(arguments)
    try:
        for scene in SCENES:
            if chosen.only in (None, scene.name):
                mosaic = render(scene, read_photograph(scene, chosen.root))
                write(mosaic, chosen.output / scene.name, scene.sensor)
                sys.stdout.write(f"{chosen.output / scene.name}\n")
    except NightispError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
