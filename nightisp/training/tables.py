"""Make nightisp/cameras.csv again: `python -m nightisp.training.tables --noise CSV --matrices CSV`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nightisp.publish import publish

_STOP = 1.7  # measured sensitivities nearer to one another than this are left out
# darktable measures on demosaiced pictures, which averages noise away. On the mosaic the variance is higher by a factor
# that comparison with :cite:`wei2020eld`, who measured on mosaics, gave: 7.5 for the 5D Mark IV, 8.2 for the 700D, 7.5
# for the D850, 4.8 for the 70D. With it, the middle one of 428 cameras has 1.8 photoelectrons of read noise at ISO
# 3200, as it should; without it, 5.
_ON_MOSAIC = 7.5
_LEAST_READ = 0.25  # variance in photoelectrons: fits of quiet sensors come out lower, or negative


def table(noise: Path, matrices: Path) -> str:
    """Return the table: a line a camera with its name, matrix and measured noise.

    Parameters
    ----------
    noise
        Columns maker, model, iso, a_r, a_g, a_b, b_r, b_g, b_b: variance = a x signal + b for each color, after
        demosaicing. The three colors pass the same amplifier, so that the median of `a` and the mean of `b` are kept.
    matrices
        Columns maker, model and xyz_to_camera_00 to _22.
    """
    known = {(row["maker"], row["model"]): row for row in _read(matrices)}
    points: dict[tuple[str, str], dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in _read(noise):
        shot = float(_ON_MOSAIC * np.median([float(row[f"a_{color}"]) for color in "rgb"]))
        read = float(_ON_MOSAIC * np.mean([float(row[f"b_{color}"]) for color in "rgb"]))
        if shot > 0:
            points[row["maker"], row["model"]][float(row["iso"])] = shot, max(read, _LEAST_READ * shot**2)
    lines = ["maker,model,xyz_to_camera,iso_shot_read\n"]
    for (maker, model), measured in sorted(points.items()):
        found = known.get((maker, model))
        matrix = " ".join(found[f"xyz_to_camera_{y}{x}"] for y in "012" for x in "012") if found else ""
        kept = " ".join(f"{iso:g}:{_short(shot)}:{_short(read)}" for iso, (shot, read) in _spaced(measured))
        lines.append(f"{maker},{model},{matrix},{kept}\n")
    return "".join(lines)


def _spaced(measured: Mapping[float, tuple[float, float]]) -> list[tuple[float, tuple[float, float]]]:
    kept: list[float] = []
    for iso in sorted(measured):
        if not kept or iso >= kept[-1] * _STOP:
            kept.append(iso)
    if (last := max(measured)) not in kept:
        kept[-1] = last
    return [(iso, measured[iso]) for iso in kept]


def _short(number: float) -> str:
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m nightisp.training.tables", description=__doc__)
    parser.add_argument("--noise", type=Path, required=True, help="measured noise profiles")
    parser.add_argument("--matrices", type=Path, required=True, help="color matrices")
    parser.add_argument("--output", type=Path, default=Path("nightisp/cameras.csv"), help="the table")
    chosen = parser.parse_args(arguments)
    content = table(chosen.noise, chosen.matrices).encode()
    publish(content, chosen.output)
    digest = hashlib.sha256(content).hexdigest()
    sys.stdout.write(f"{chosen.output}: put its digest into nightisp/cameras.py: {digest}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
