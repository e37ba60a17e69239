"""Tiny raws for tests: real DNGs that LibRaw decodes, made in milliseconds; and a user who may not write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nightisp.dng import write_dng
from nightisp.image import CFA, ColorMatrix, Mosaic, Samples, Shot

SHIPPED = Path(__file__).parents[1] / "weights"
"""The weights that the default parameters use."""

CLASSICAL: dict[str, dict[str, Any]] = {
    "denoise": {"method": "none"},
    "white_balance": {"method": "gray_world"},
    "refine": {"method": "none"},
    "super_resolution": {"method": "none"},
}
"""Parameters that need no network."""

MATRIX = ColorMatrix(xyz_to_camera=((0.6602, -0.0841, -0.0939), (-0.4472, 1.2458, 0.2247), (-0.0975, 0.2039, 0.6148)))
SHOT = Shot(
    camera="nightisp tiny",
    iso=1600,
    as_shot_neutral=(0.5, 1.0, 0.6),
    color_matrices=(MATRIX,),
    noise_profile=((1e-6, 1e-4),),
)


def write_frame(
    path: Path, seed: int, *, cfa: CFA = CFA.RGGB, height: int = 48, width: int = 64, shot: Shot = SHOT
) -> Path:
    """Write a DNG of a dim gradient with noise and one lamp; another seed is another picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dng(Mosaic(_scene(seed, height, width), cfa=cfa, shot=shot), path)
    return path


def write_pair(path: Path, seed: int, **fields: Any) -> Path:
    """Write the same scene as the challenge's pair of a 16-bit PNG and a JSON."""
    about = {
        "black_level": 2048,
        "white_level": 63487,
        "cfa_pattern": [0, 1, 1, 2],
        "as_shot_neutral": [0.5, 1.0, 0.6],
        "noise_profile": [1e-6, 1e-4],
        "color_matrix_1": np.ravel(MATRIX.xyz_to_camera).tolist(),
        "color_matrix_2": np.ravel(MATRIX.xyz_to_camera).tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(about | fields))
    counts = np.clip(np.rint(_scene(seed, 48, 64) * (63487 - 2048) + 2048), 0, 65535)
    assert cv2.imwrite(str(path), counts.astype(np.uint16))
    return path


def _scene(seed: int, height: int, width: int) -> Samples:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    scene = 0.02 + 0.1 * x / width + 0.05 * y / height + 0.01 * rng.standard_normal((height, width))
    scene[height // 3 : height // 3 + 6, width // 2 : width // 2 + 6] = 1.0
    return scene.astype(np.float32)


def write_frames(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write `count` frames, each of another content and CFA phase, as `frame0.dng`, ..."""
    phases = list(CFA)
    return [write_frame(folder / f"frame{n}.dng", n, cfa=phases[n % 4]) for n in range(first, first + count)]


@contextmanager
def nobody() -> Iterator[None]:
    """Give up root's right to write anywhere, for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
