"""Measure FC4 against gray world and Shades of Gray: angular errors on light that was measured with a gray card.

None of these pictures is trained on. The camera images are linear and small; the measured night illuminants come
without pictures, so that held-out photographs are lit by them. ColorMatrix, by which FC4 judges, is LibRaw's for the
two Canons; nobody has one of the IMX135, for which that of another Sony sensor, the IMX219, stands in. Of the phone
that the night illuminants were measured with nobody has one either: `night illuminants` takes cameras by whose matrix
they are near the black bodies, as lamps are; `any camera` takes them as they come, also those to which the same
numbers would be lamps that there are not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import PHASE, unpack
from nightisp.colorimetry import kelvin_to_xy, xy_to_xyz
from nightisp.errors import NoGroundError
from nightisp.exif import as_color_matrix
from nightisp.image import ColorMatrix, Mosaic, Shot, Window
from nightisp.models.weights import Compute, Library
from nightisp.stages.white_balance import WhiteBalanceParams, white_balance
from nightisp.training.illuminants import degrees, lit, summary
from nightisp.training.photographs import read_photographs, shrunk
from nightisp.training.scenes import draw_scene, expose, packed_light

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
METHODS = ("gray_world", "shades_of_gray", "fc4")
Sample = tuple[NDArray[np.float32], NDArray[np.float64], ColorMatrix]  # mosaic, illuminant, the camera's matrix


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/white_balance.py", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of weights")
    parser.add_argument("--name", action="append", help="of the weights, repeatable. [default: those of the stage]")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    networks = Compute(Library([options.weights]), "cpu")
    sets = {"cc2018": gehler_shi, "imx135": imx135, "night illuminants": night_illuminants}
    sets["night illuminants, any camera"] = lambda: night_illuminants(farthest=np.inf)
    names = tuple(options.name or WhiteBalanceParams().weights)
    figures = {name: measure(samples(), networks, names) for name, samples in sets.items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(as_table(figures))


def measure(samples: Iterator[Sample], networks: Any, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return the summary of angular errors by method; a picture that gives no light to judge by counts 90 degrees."""
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for mosaic, illuminant, matrix in samples:
        shot = Shot(color_matrices=(matrix,))
        picture = Mosaic(mosaic, cfa=PHASE, shot=shot, window=Window(0, 0, *mosaic.shape))
        for method, found in errors.items():
            params = WhiteBalanceParams.model_validate({"method": method, "weights": names})
            try:
                red, green, blue = white_balance(picture, params, networks).balance.gains
                found.append(degrees((1 / red, 1 / green, 1 / blue), illuminant))
            except NoGroundError:
                found.append(90.0)
    return {method: {"pictures": len(found), **summary(found)} for method, found in errors.items()}


def gehler_shi() -> Iterator[Sample]:
    """Give 382 images of two Canon cameras."""
    archive = np.load(SHARED / "data/awb/cc2018_64px.npz")
    of_1d, of_5d = matrix_of("Canon", "EOS-1D"), matrix_of("Canon", "EOS 5D")
    for image, illuminant, name in zip(archive["images"], archive["illuminants"], archive["names"], strict=True):
        yield as_mosaic(image), illuminant.astype(np.float64), of_5d if "IMG" in name else of_1d


def imx135() -> Iterator[Sample]:
    """Give ten images of a Sony IMX135."""
    matrix = matrix_of("Broadcom", "RPi IMX219")
    for path in sorted((SHARED / "data/awb/imx135").glob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise SystemExit(f"{path}: is no picture that can be read")
        measured = json.loads(path.with_suffix(".json").read_text())["illuminant_color_raw"]
        yield as_mosaic(np.asarray(image, np.uint16)[..., ::-1]), np.array(measured).ravel(), matrix


def night_illuminants(farthest: float = 0.003) -> Iterator[Sample]:
    """Give held-out photographs, lit by 45 illuminants measured at night, on other cameras' sensors with noise.

    `farthest` is how far from the black bodies a camera's matrix may put the illuminants, on average (CIE 1960 u, v).
    """
    photographs = read_photographs([SHARED / "data/photos", SHARED / "data/night"], longest=512).held_out
    measured = np.loadtxt(SHARED / "data/awb/night_illuminants_s20.csv", delimiter=",", skiprows=1)
    for number, (red, green, blue) in enumerate(measured.tolist()):
        rng = np.random.default_rng((45, number))
        photograph = shrunk(photographs[number % len(photographs)], 1.0)
        while True:
            scene = replace(draw_scene(rng), illuminant=(red / green, 1.0, blue / green))
            if off_black_bodies(scene.matrix, measured) > farthest:
                continue
            try:
                light, illuminant = lit(photograph, scene, None, rng)
                break
            except NoGroundError:  # a camera whose matrix knows no such light
                continue
        yield unpack(expose(packed_light(light), scene, rng)), illuminant.astype(np.float64), scene.matrix


def off_black_bodies(matrix: ColorMatrix, illuminants: NDArray[np.float64]) -> float:
    """Return the mean distance of illuminants (N, 3) in camera RGB from the black bodies, in CIE 1960 u, v."""
    lights = uv(np.linalg.solve(np.array(matrix.xyz_to_camera), illuminants.T).T)
    bodies = uv(np.array([xy_to_xyz(*kelvin_to_xy(kelvin)) for kelvin in np.geomspace(1700, 12000, 200)]))
    return float(np.linalg.norm(lights[:, None] - bodies, axis=-1).min(axis=1).mean())


def uv(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = xyz.T
    return np.stack([4 * x, 6 * y], axis=-1) / (x + 15 * y + 3 * z)[:, None]


def matrix_of(maker: str, model: str) -> ColorMatrix:
    """Return LibRaw's matrix of a camera: its columns are maker, model, black and white level, and nine numbers."""
    with (SHARED / "data/noise/camera_matrices.csv").open(newline="") as table:
        for row in csv.reader(table):
            if row[:2] == [maker, model]:
                return as_color_matrix([float(number) for number in row[4:13]], 21)
    raise SystemExit(f"camera_matrices.csv: has no {maker} {model}")


def as_mosaic(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return a mosaic whose half-size picture is a 16-bit linear image."""
    linear = image.astype(np.float32) / np.float32(65535)
    return unpack(linear[..., [0, 1, 2, 1]])


def as_table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    columns = ("pictures", "mean", "median", "trimean", "best25", "worst25")
    rows = [f"| | | {' | '.join(columns)} |", f"| --- | --- |{' --- |' * len(columns)}"]
    for name, methods in figures.items():
        for method, row in methods.items():
            numbers = " | ".join(f"{row[c]:.0f}" if c == "pictures" else f"{row[c]:.2f}" for c in columns)
            rows.append(f"| {name} | {method} | {numbers} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
