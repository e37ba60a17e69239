"""Measure MWISPNet against what needs no training: CLAHE and automatic contrast, on the held-out pairs of training.

What the first six stages make of a night is averaged to a quarter of its size, as MWISPNet's picture is, and compared
with the photograph that the night was made of.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nightisp.image import DisplayImage, Shot
from nightisp.metrics import ciede2000, psnr, ssim
from nightisp.models.weights import Compute, Library
from nightisp.stages.refine import RefineParams, refine
from nightisp.training.photographs import read_photographs
from nightisp.training.tasks import open_task, read_params

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("NIGHTISP_SHARED", ROOT / "../shared"))
Picture = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/refinement.py", description=__doc__)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="folder of weights")
    parser.add_argument("--name", action="append", help="of weights; repeatable, mwispnet unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--pictures", type=Path, help="folder to write the pictures to")
    options = parser.parse_args()
    networks = Compute(Library([options.weights]), options.device)
    methods: dict[str, Callable[[Picture], Picture]] = {
        "unrefined": quarter,
        "automatic contrast": lambda picture: contrast(quarter(picture)),
        "CLAHE": lambda picture: equalized(quarter(picture)),
        "CLAHE, automatic contrast": lambda picture: contrast(equalized(quarter(picture))),
    }
    for name in options.name or ["mwispnet"]:
        methods[name] = refiner(networks, name)
    photographs = read_photographs([SHARED / "data" / folder for folder in ("night", "photos")])
    task = open_task("refine", read_params("refine", ROOT / "training/params.yaml"), photographs, networks)
    figures = {}
    for number, (_, finished) in enumerate(task.held_out):  # type: ignore[attr-defined]
        keep(options.pictures, f"{number:02d}_photograph", finished)
    for name, method in methods.items():
        rows = []
        for number, (rendered, finished) in enumerate(task.held_out):  # type: ignore[attr-defined]
            picture = method(rendered)
            rows.append((psnr(picture, finished), ssim(picture, finished), ciede2000(picture, finished)))
            keep(options.pictures, f"{number:02d}_{name}", picture)
        figures[name] = dict(zip(("psnr", "ssim", "ciede2000"), np.mean(rows, axis=0).tolist(), strict=True))
        row = figures[name]
        print(f"| {name} | {row['psnr']:.2f} | {row['ssim']:.3f} | {row['ciede2000']:.2f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def refiner(networks: Compute, name: str) -> Callable[[Picture], Picture]:
    """Return what refines by some weights: display light (H, W, 3) to a quarter of its sides."""
    params = RefineParams.model_validate({"method": "mwispnet", "weights": name})
    return lambda picture: refine(DisplayImage(picture, shot=Shot()), params, networks).samples


def quarter(picture: Picture) -> Picture:
    height, width = (side // 4 for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def equalized(picture: Picture) -> Picture:
    """Return a picture whose CIE lightness went through CLAHE: 8 x 8 regions, clipped at 2."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lightness = np.rint(lab[..., 0] * (65535 / 100)).astype(np.uint16)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness) * np.float32(100 / 65535)
    return np.asarray(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1))


def contrast(picture: Picture) -> Picture:
    """Return a picture stretched so that half a percent of its luma is black, and half a percent white."""
    luma = picture @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    low, high = np.percentile(luma, (0.5, 99.5)).astype(np.float32)
    return np.asarray(np.clip((picture - low) / max(high - low, np.float32(1e-3)), 0, 1))


def keep(folder: Path | None, name: str, picture: Picture) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.png"), np.rint(255 * picture[..., ::-1]).astype(np.uint8))


if __name__ == "__main__":
    main()
