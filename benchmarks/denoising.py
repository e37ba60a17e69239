"""Denoising of held-out nights: nothing, BM3D with the true figures, the U-Net with true and with estimated figures.

`python benchmarks/denoising.py --photographs FOLDER [--photographs FOLDER] [--weights FOLDER] [--bm3d]`. The mosaics
are those that `nightisp train denoise` validates on. BM3D, from the package of its authors (`pip install bm3d`; its
license allows non-commercial use only), works plane by plane between the same transforms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightisp.anscombe import restore, stabilize
from nightisp.bayer import PHASE, unpack
from nightisp.image import Window
from nightisp.models.tiling import exact
from nightisp.models.weights import Compute, Library
from nightisp.noise_estimate import estimate_noise
from nightisp.training.denoising import held_out_mosaics
from nightisp.training.photographs import read_photographs

Array = NDArray[np.float32]
Denoiser = Callable[[Array], Array]


def psnr(picture: Array, reference: Array) -> float:
    return float(-10 * np.log10(np.mean((np.minimum(picture, 1).astype(np.float64) - reference) ** 2)))


def between_transforms(packed: Array, shot: float, read: float, denoise: Denoiser) -> Array:
    return restore(denoise(stabilize(packed, shot, read)), shot, read)


def bm3d_planes(planes: Array) -> Array:
    import bm3d

    return np.stack([bm3d.bm3d(planes[..., i].astype(np.float64), 1.0) for i in range(4)], axis=-1).astype(np.float32)


def unet_planes(network: object) -> Denoiser:
    def denoise(planes: Array) -> Array:
        channels_first = np.ascontiguousarray(planes.transpose(2, 0, 1))
        return planes + exact(network, channels_first, tile=512, multiple=4).transpose(1, 2, 0)

    return denoise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, action="append", required=True)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--name", default="denoise_unet")
    parser.add_argument("--side", type=int, default=256, help="of the packed mosaics")
    parser.add_argument("--bm3d", action="store_true", help="run BM3D too; half a minute a megapixel")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args()
    network = Compute(Library([chosen.weights]))(chosen.name)
    rows: dict[int, dict[str, list[float]]] = {}
    for iso, clean, noisy, noise in held_out_mosaics(read_photographs(chosen.photographs), chosen.side):
        shot, read = noise[1]
        mosaic = unpack(noisy)
        guess = estimate_noise(mosaic, PHASE, Window(0, 0, *mosaic.shape))
        methods = {
            "noisy": lambda noisy=noisy: noisy,
            "unet": lambda n=noisy, s=shot, r=read: between_transforms(n, s, r, unet_planes(network)),
            "unet, estimated": lambda n=noisy, g=guess: between_transforms(n, *g, unet_planes(network)),
        }
        if chosen.bm3d:
            methods["bm3d"] = lambda n=noisy, s=shot, r=read: between_transforms(n, s, r, bm3d_planes)
        for name, denoise in methods.items():
            rows.setdefault(iso, {}).setdefault(name, []).append(psnr(denoise(), clean))
        print(
            f"{iso:>6} " + "  ".join(f"{name} {values[-1]:.2f}" for name, values in rows[iso].items()), file=sys.stderr
        )
    table = {iso: {name: round(float(np.mean(v)), 2) for name, v in row.items()} for iso, row in rows.items()}
    names = list(next(iter(table.values())))
    print("| ISO | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
    for iso, row in table.items():
        print(f"| {iso} | " + " | ".join(f"{row[name]:.2f}" for name in names) + " |")
    if chosen.json:
        chosen.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
