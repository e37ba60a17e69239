"""Measure HAT against bicubic and Lanczos interpolation: x4, luma, 4 pixels of border left out, as papers do.

Pictures are cut to multiples of 4, made small by antialiased bicubic and rounded to 8 bits before and after. None of
them is trained on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nightisp.metrics import psnr_y, ssim_y
from nightisp.models.tiling import whole
from nightisp.models.weights import Compute, Library
from nightisp.training.shrinking import SCALE, bicubic

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
SETS = ("Set5", "Set14")
Picture = NDArray[np.float32]
Method = Callable[[Picture], Picture]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/super_resolution.py", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of weights")
    parser.add_argument("--name", action="append", help="of weights; repeatable, hat unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--sets", nargs="+", default=SETS, help="folders below data/bench")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--pictures", type=Path, help="folder to write the enlarged pictures to")
    options = parser.parse_args()
    networks = Compute(Library([options.weights]), options.device)
    methods: dict[str, Method] = {"bicubic": interpolated, "lanczos": lanczos}
    for name in options.name or ["hat"]:
        methods[name] = enlarger(networks, name)
    figures = {name: measure(pictures(name), methods, options.pictures) for name in options.sets}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(as_table(figures))


def pictures(name: str) -> dict[str, Picture]:
    """Return the pictures of a set by name, RGB in [0, 1], their sides multiples of 4."""
    paths = sorted((SHARED / "data/bench" / name).glob("*.png"))
    if not paths:
        raise SystemExit(
            f"{SHARED / 'data/bench' / name}: no PNG here; set NIGHTISP_SHARED to the folder that holds it"
        )
    found = {}
    for path in paths:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise SystemExit(f"{path}: is no picture that can be read")
        height, width = (length // SCALE * SCALE for length in pixels.shape[:2])
        found[f"{name}_{path.stem}"] = pixels[:height, :width, ::-1].astype(np.float32) / np.float32(255)
    return found


def measure(
    references: Mapping[str, Picture], methods: Mapping[str, Method], folder: Path | None = None
) -> dict[str, dict[str, float]]:
    """Return mean PSNR and SSIM of luma by method, and the gain over bicubic interpolation in decibels."""
    figures: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for name, reference in references.items():
        small = in_8_bits(bicubic(reference, (reference.shape[0] // SCALE, reference.shape[1] // SCALE)))
        for method, enlarge in methods.items():
            enlarged = in_8_bits(enlarge(small))
            figures[method].append((psnr_y(enlarged, reference, SCALE), ssim_y(enlarged, reference, SCALE)))
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                pixels = np.rint(255 * enlarged[..., ::-1]).astype(np.uint8)
                cv2.imwrite(str(folder / f"{name}_{method}.png"), pixels)
    means = {method: np.mean(values, axis=0).tolist() for method, values in figures.items()}
    return {m: {"psnr": psnr, "ssim": ssim, "gain": psnr - means["bicubic"][0]} for m, (psnr, ssim) in means.items()}


def interpolated(small: Picture) -> Picture:
    return bicubic(small, (SCALE * small.shape[0], SCALE * small.shape[1]))


def lanczos(small: Picture) -> Picture:
    return np.asarray(cv2.resize(small, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LANCZOS4))


def enlarger(networks: Compute, name: str) -> Method:
    def enlarge(small: Picture) -> Picture:
        return whole(networks(name), np.ascontiguousarray(small.transpose(2, 0, 1)), scale=SCALE).transpose(1, 2, 0)

    return enlarge


def in_8_bits(picture: Picture) -> Picture:
    return (np.rint(255 * np.clip(picture, 0, 1)) / 255).astype(np.float32)


def as_table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = ["| | | PSNR, dB | SSIM | over bicubic, dB |", "| --- | --- | --- | --- | --- |"]
    for name, methods in figures.items():
        for method, row in methods.items():
            rows.append(f"| {name} | {method} | {row['psnr']:.2f} | {row['ssim']:.4f} | {row['gain']:+.2f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
