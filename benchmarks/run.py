"""Measure seconds and peak memory of every stage on one raw: `make bench`.

Each stage runs in a process of its own on the artifact of the stage before, so that its peak memory is its own. The
networks carry random weights of the published shapes, which cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nightisp.dng import write_dng
from nightisp.image import CFA, ColorMatrix, Mosaic, Shot
from nightisp.pipeline import NAMES

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
MAIN = "from nightisp.cli import main; main()"
NETWORKS = {
    "denoise": ("denoise_unet", "unet"),
    "white_balance": ("fc4", "fc4"),
    "refine": ("mwispnet", "mwispnet"),
    "super_resolution": ("hat", "hat"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument(
        "--raw", type=Path, help="default: the Hero8 of the shared raws, else a synthetic 12 megapixels"
    )
    parser.add_argument("--without", nargs="*", default=[], choices=NETWORKS, help="stages whose networks are left off")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"), help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        raw = options.raw or default_raw(work)
        chosen = [stage for stage in NETWORKS if stage not in options.without]
        make_weights(work / "weights", chosen)
        classical = measure(raw, work / "classical", work / "weights", [])
        networks = measure(raw, work / "networks", work / "weights", chosen)
    figures = {"machine": machine(), "raw": raw.name, "classical": classical, "networks": networks}
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(as_table(figures))


def default_raw(work: Path) -> Path:
    real = SHARED / "data/raw/gopro_hero8__Hero8.dng"
    if real.is_file():
        return real
    print(f"{real} is not there: measuring on 12 synthetic megapixels")
    rng = np.random.default_rng(0)
    samples = np.abs(rng.normal(0.05, 0.02, (3000, 4000))).astype(np.float32)
    matrix = ColorMatrix(xyz_to_camera=((0.8, -0.2, -0.1), (-0.4, 1.2, 0.2), (0.0, 0.1, 0.6)))
    path = work / "synthetic.dng"
    write_dng(Mosaic(samples, cfa=CFA.RGGB, shot=Shot(camera="synthetic", color_matrices=(matrix,))), path)
    return path


def make_weights(folder: Path, stages: list[str]) -> None:
    import torch

    from nightisp.models import build
    from nightisp.models.checkpoints import import_checkpoint

    for stage in stages:
        name, _ = NETWORKS[stage]
        torch.manual_seed(0)
        checkpoint = folder.parent / f"{name}.pth"
        network = build(name)
        if name == "fc4":  # random weights see no light at all; positive ones do, at the same cost
            for parameter in network.parameters():
                parameter.data.abs_()
        torch.save(network.state_dict(), checkpoint)
        import_checkpoint(stage, [checkpoint], folder)


def measure(raw: Path, work: Path, weights: Path, networks: list[str]) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory of each stage."""
    settings = [f"--set={stage}.method={NETWORKS[stage][1]}" for stage in networks]
    figures = {}
    for stage in NAMES:
        command = [sys.executable, "-c", MAIN, "flow", "run", "--engine", "local", "--json", f"--input={raw}"]
        command += [f"--output={work}/output", f"--store={work}/store", f"--weights={weights}", f"--until={stage}"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([*command, *settings], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{stage}: {done.stderr}{done.stdout}")
        report = json.loads(done.stdout)
        seconds = report["frames"][0]["seconds"][stage]
        figures[stage] = {
            "seconds": seconds,
            "peak_mb": round(report["peak_rss_bytes"] / 1e6),
            "wall": report["wall_seconds"],
        }
        print(f"{stage:<17} {seconds:9.2f} s {figures[stage]['peak_mb']:7.0f} MB", flush=True)
    return figures


def machine() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}


def as_table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| stage | classical, s | MB | networks, s | MB |",
        "|---|---|---|---|---|",
    ]
    for stage in NAMES:
        left, right = figures["classical"][stage], figures["networks"][stage]
        lines.append(
            f"| {stage} | {left['seconds']:.2f} | {left['peak_mb']:.0f} "
            f"| {right['seconds']:.2f} | {right['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
