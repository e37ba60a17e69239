"""Tiny raws for tests: real DNGs that LibRaw decodes, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nightisp.dng import write_dng
from nightisp.image import CFA, ColorMatrix, Mosaic, Shot

MATRIX = ColorMatrix(xyz_to_camera=((0.6602, -0.0841, -0.0939), (-0.4472, 1.2458, 0.2247), (-0.0975, 0.2039, 0.6148)))
SHOT = Shot(camera="nightisp tiny", iso=1600, as_shot_neutral=(0.5, 1.0, 0.6), color_matrices=(MATRIX,))


def write_frame(path: Path, seed: int, *, cfa: CFA = CFA.RGGB, height: int = 48, width: int = 64) -> Path:
    """Write a DNG of a dim gradient with noise and one lamp; another seed is another picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    scene = 0.02 + 0.1 * x / width + 0.05 * y / height + 0.01 * rng.standard_normal((height, width))
    scene[height // 3 : height // 3 + 6, width // 2 : width // 2 + 6] = 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dng(Mosaic(scene.astype(np.float32), cfa=cfa, shot=SHOT), path)
    return path


def write_frames(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write `count` frames, each of another content and CFA phase, as `frame0.dng`, ..."""
    phases = list(CFA)
    return [write_frame(folder / f"frame{n}.dng", n, cfa=phases[n % 4]) for n in range(first, first + count)]
