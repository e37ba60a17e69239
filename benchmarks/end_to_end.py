"""Measure finished pictures of nights whose photograph is known: nightisp, rawpy, RawTherapee, darktable.

The raws and references are those of `nightisp synthesize`. Each program develops as it does when nobody tells it
anything. The raws name the light that they were made with as their as-shot neutral; RawTherapee and darktable use it,
nightisp and rawpy do not. Where a program cuts the border off, the middle is compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nightisp.evaluate import compare
from nightisp.picture_files import decode_picture

Picture = NDArray[np.float32]
Developer = Callable[[list[Path], Path], None]
"""Writes `STEM.png` or `STEM.tif` of each raw to a folder."""

NIGHTISP: Mapping[str, tuple[str, ...]] = {
    "classical": (
        "denoise.method=none",
        "white_balance.method=gray_world",
        "refine.method=none",
        "super_resolution.method=none",
    ),
    "denoised": ("white_balance.method=gray_world", "refine.method=none", "super_resolution.method=none"),
    "unrefined": ("white_balance.method=fc4", "refine.method=none", "super_resolution.method=none"),
    "lanczos": ("white_balance.method=fc4", "refine.method=mwispnet", "super_resolution.method=lanczos"),
    "all four": ("white_balance.method=fc4", "refine.method=mwispnet", "super_resolution.method=hat"),
}
MEASURES = ("psnr", "ssim", "ciede2000")


def main() -> None:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # the TIFFs hold tags that OpenCV warns of
    parser = argparse.ArgumentParser(prog="benchmarks/end_to_end.py", description=__doc__)
    parser.add_argument("nights", type=Path, help="folder that `nightisp synthesize` wrote")
    parser.add_argument("--pictures", type=Path, help="folder to keep the finished pictures in")
    parser.add_argument("--store", type=Path, help="artifact store to use again")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of weights")
    parser.add_argument("--only", nargs="+", help="methods to measure, all unless given")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    raws = sorted((options.nights / "raws").glob("*.dng"))
    if not raws:
        raise SystemExit(f"{options.nights / 'raws'}: no DNG here; make some by `nightisp synthesize`")
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.pictures or Path(temporary, "pictures")
        methods = developers(options.store or Path(temporary, "store"), options.weights)
        figures = {}
        for name in options.only or methods:
            folder = kept / name.replace(" ", "_")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            methods[name](raws, folder)
            figures[name] = measure(raws, options.nights / "references", folder)
            print(as_row(name, figures[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def developers(store: Path, weights: Path) -> dict[str, Developer]:
    """Return what develops raws, by name; programs that are not installed are left out, and said so."""
    found: dict[str, Developer] = {"rawpy": rawpy_default}
    for name, program, developer in (
        ("RawTherapee", "rawtherapee-cli", rawtherapee),
        ("darktable", "darktable-cli", darktable),
    ):
        if shutil.which(program):
            found[name] = developer
        else:
            print(f"{program}: not installed, left out (Debian: apt-get install {name.lower()})")
    for name, settings in NIGHTISP.items():
        found[f"nightisp, {name}"] = nightisp(store, weights, settings)
    return found


def nightisp(store: Path, weights: Path, settings: tuple[str, ...]) -> Developer:
    """Return what develops with some parameters; `store` holds what the sets of parameters share."""

    def develop(raws: list[Path], folder: Path) -> None:
        command = ["nightisp", "flow", "run", "--engine", "local", "--input", str(raws[0].parent)]
        command += ["--output", str(folder), "--store", str(store), "--weights", str(weights)]
        for setting in (*settings, "export.format=png", "export.bit_depth=16"):
            command += ["--set", setting]
        run(command)

    return develop


def rawpy_default(raws: list[Path], folder: Path) -> None:
    """Develop as `rawpy.imread(path).postprocess()` does: LibRaw's daylight gains, brightened until 1 % clips."""
    import rawpy

    for path in raws:
        with rawpy.imread(str(path)) as raw:
            cv2.imwrite(str(folder / f"{path.stem}.png"), raw.postprocess()[..., ::-1])


def rawtherapee(raws: list[Path], folder: Path) -> None:
    """Develop with RawTherapee's default profile for raws."""
    command = ["rawtherapee-cli", "-o", str(folder), "-t", "-b16", "-Y", "-d", "-c", *map(str, raws)]
    run(command)


def darktable(raws: list[Path], folder: Path) -> None:
    """Develop with what darktable applies by itself, in a configuration that nobody touched."""
    with tempfile.TemporaryDirectory() as configuration:
        for path in raws:
            command = ["darktable-cli", str(path), str(folder / f"{path.stem}.tif"), "--icc-type", "SRGB", "--core"]
            command += ["--configdir", configuration, "--library", ":memory:"]
            command += ["--conf", "plugins/imageio/format/tiff/bpp=16"]
            run(command)


def run(command: list[str]) -> None:
    """Run a program, and say what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def measure(raws: list[Path], references: Path, folder: Path) -> dict[str, float]:
    """Return the means of PSNR, SSIM and CIEDE2000 over all raws."""
    values = []
    for path in raws:
        reference = read(references / f"{path.stem}.png")
        made = [made for suffix in (".png", ".tif") if (made := folder / f"{path.stem}{suffix}").is_file()]
        if not made:
            raise SystemExit(f"{folder}: no picture was made of {path.name}")
        picture = read(made[0])
        height, width = (min(a, b) for a, b in zip(picture.shape[:2], reference.shape[:2], strict=True))
        if min(height / reference.shape[0], width / reference.shape[1]) < 0.95:
            raise SystemExit(f"{path}: the picture in {folder} is {width} x {height}, too small to compare")
        values.append(compare(middle(picture, height, width), middle(reference, height, width)))
    return {name: float(np.mean([value[name] for value in values])) for name in MEASURES}


def read(path: Path) -> Picture:
    return np.asarray(decode_picture(path.read_bytes(), path), np.float32)


def middle(picture: Picture, height: int, width: int) -> Picture:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def as_row(name: str, figures: Mapping[str, float]) -> str:
    cells = (f"{figures[m]:.3f}" if m == "ssim" else f"{figures[m]:.2f}" for m in MEASURES)
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
