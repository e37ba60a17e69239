"""Measure nightisp on this machine: `make bench`, or one part of it: `make bench ARGS="--only stages networks"`.

stages      seconds, megapixels/s, achieved FLOP/s and peak memory of every stage, each in a process of its own
networks    each network against the plain way of its paper's release, side by side in one process
warm        seconds of each network once it is loaded, and its share of the ceiling
programs    the whole pipeline against rawpy, darktable and RawTherapee on the same raw
changes     one raw cold, after a change of gamma, wholly cached, and as a draft: three times, and the middle of each
sizes       a cold run against megapixels
frames      1, 10 and 100 frames, cold and cached, with and without Prefect
throughput  pictures a second once all is warm, at 12 and 24 megapixels
storing     one raw in one process, its stages kept in a store and not, in turn
orchestra   ten frames of 12 megapixels cold, with and without Prefect, in turn

`--device cuda` measures a graphics card; its figures go to a file of their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import plain
import runs
import torch
from end_to_end import darktable, rawpy_default, rawtherapee
from plot import plot
from runs import ROOT, Figures, in_turn, render, synthetic, timed
from storing import storing

from nightisp.models.evaluation import prepared, resolved
from nightisp.models.heap import keep_freed_memory
from nightisp.models.tiling import Planes, blended, exact
from nightisp.models.tiling import whole as once
from nightisp.models.weights import Library
from nightisp.pipeline import NAMES

NETWORKS = {"denoise": "denoise_unet", "refine": "mwispnet", "super_resolution": "hat"}
CHANNELS = {"denoise": 4, "refine": 3, "super_resolution": 3}
SAMPLES = {"denoise": 1 / 4, "refine": 1, "super_resolution": 1 / 16}  # that the network sees, for each photosite


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts (default: all but the last two)")
    parser.add_argument("--device", default="cpu", help="where networks run: cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--megapixels", type=float, default=18.0, help="size of the raw (default: 18)")
    parser.add_argument("--json", type=Path, help="where the figures are kept (default: results.json, or one of cuda)")
    options = parser.parse_args()
    runs.device = options.device
    on_cpu = options.device == "cpu"
    kept = options.json or ROOT / "benchmarks" / ("results.json" if on_cpu else "results-cuda.json")
    keep_freed_memory()
    figures = json.loads(kept.read_text()) if kept.is_file() else {}
    figures["machine"] = {**machine.describe(runs.device), "ceilings": machine.ceilings(runs.device)}
    say_ceilings(figures["machine"]["ceilings"])
    with tempfile.TemporaryDirectory() as folder:
        for part in options.only or list(PARTS)[:-2]:
            print(f"\n{part}", flush=True)
            work = Path(folder, part)
            work.mkdir()
            figures[part] = PARTS[part](work, options.megapixels, figures["machine"]["ceilings"])
            kept.write_text(json.dumps(figures, indent=1) + "\n")
    if on_cpu and {"sizes", "frames"} <= set(figures):
        plot(figures, ROOT / "docs/images/cost.png")


def stages(work: Path, megapixels: float, ceilings: Figures) -> Figures:
    """Run each stage on the artifact of the stage before."""
    raw, found = synthetic(work / "raw.dng", megapixels), {}
    library = Library([ROOT / "weights"])
    print("| stage | s | MP/s | GFLOP/s | of the ceiling | peak, MB |\n|---|---|---|---|---|---|")
    for stage in NAMES:
        report = render(work, raw, f"--until={stage}")
        seconds = report["frames"][0]["seconds"][stage]
        row = found[stage] = {
            "seconds": seconds,
            "megapixels_per_second": megapixels / seconds if seconds else None,
            "peak_mb": report["peak_rss_bytes"] / 1e6,
        }
        speed = "| |"
        if stage in NETWORKS:
            each = flops_per_sample(library, stage)
            samples = SAMPLES[stage] * megapixels * 1e6
            flops = sum(each.values()) * samples
            share = sum(each[kind] * samples / ceilings[kind]["convolution"] for kind in each) / seconds
            row |= {"flops_per_second": flops / seconds, "share_of_ceiling": share}
            speed = f"| {flops / seconds / 1e9:.0f} | {share:.0%}"
        print(f"| {stage} | {seconds:.2f} | {megapixels / seconds:.1f} {speed} | {row['peak_mb']:.0f} |", flush=True)
    total = sum(row["seconds"] for row in found.values())
    print(f"| together | {total:.1f} | {megapixels / total:.2f} | | | |")
    return {"megapixels": megapixels, **found}


def networks(_work: Path, _megapixels: float, _ceilings: Figures) -> Figures:
    """Run each network on what it sees of a raw of 4 megapixels (HAT: 18), ours and the plain way."""
    rng, library, found = np.random.default_rng(1), Library([ROOT / "weights"]), {}
    sizes = {"denoise": (4, 1024, 1024), "refine": (3, 2048, 2048), "super_resolution": (3, 864, 1296)}
    print("| network | ours, s | ours, float32, s | plain, s | ratio | PSNR to plain, dB |\n|---|---|---|---|---|---|")
    for stage, shape in sizes.items():
        network = library.load(NETWORKS[stage]).to(runs.device)
        published = plain.as_published(network)
        planes = rng.random(shape).astype(np.float32) * (30 if stage == "denoise" else 1)

        as_rendered = partial(ours, stage, network, planes)

        def as_released(stage: str = stage, published: Any = published, planes: Planes = planes) -> Planes:
            if stage == "super_resolution":
                return plain.tiled(published, planes)
            return plain.whole(published, planes, 4 if stage == "denoise" else 32)

        reference = as_released()  # and warm
        seconds = {
            "plain": timed(as_released),
            "ours": machine.best(partial(as_rendered, "auto"), 2),
            "float32": timed(partial(as_rendered, "float32")),
        }
        difference = np.mean((as_rendered("auto").astype(np.float64) - reference) ** 2)
        peak = float(np.abs(planes).max()) if stage == "denoise" else 1.0
        near = float(10 * np.log10(peak**2 / difference))
        found[NETWORKS[stage]] = {**seconds, "ratio": seconds["plain"] / seconds["ours"], "psnr_to_plain": near}
        print(
            f"| {NETWORKS[stage]} | {seconds['ours']:.2f} | {seconds['float32']:.2f} | {seconds['plain']:.2f} "
            f"| {seconds['plain'] / seconds['ours']:.1f} | {near:.1f} |",
            flush=True,
        )
    return found


def warm(_work: Path, megapixels: float, _ceilings: Figures) -> Figures:
    """Run each network on what it sees of the raw, once it is loaded, in turn with the best convolution."""
    rng, library, found = np.random.default_rng(1), Library([ROOT / "weights"]), {}
    print("| network | s | GFLOP/s | of the ceiling |\n|---|---|---|---|")
    for stage, name in NETWORKS.items():
        side = (megapixels * 1e6 * SAMPLES[stage] / 1.5) ** 0.5
        planes = rng.random((CHANNELS[stage], round(side / 4) * 4, round(1.5 * side / 4) * 4), np.float32)
        network = library.load(name).to(runs.device)
        each = {kind: flops * planes[0].size for kind, flops in flops_per_sample(library, stage).items()}
        flops = sum(each.values())
        seconds, share = machine.share_of_ceiling(partial(ours, stage, network, planes, "auto"), each, runs.device)
        found[name] = {"seconds": seconds, "flops_per_second": flops / seconds, "share_of_ceiling": share}
        print(f"| {name} | {seconds:.2f} | {flops / seconds / 1e9:.0f} | {share:.0%} |", flush=True)
    return found


def programs(work: Path, megapixels: float, _ceilings: Figures) -> Figures:
    """Develop one raw by each program, as it does when nobody tells it anything; wall time with its start."""
    import shutil

    raw = synthetic(work / "raw.dng", megapixels)
    developers: dict[str, Callable[[], object]] = {
        "nightisp": lambda: render(work, raw),
        "rawpy": lambda: rawpy_default([raw], work),
    }
    if shutil.which("rawtherapee-cli"):
        developers["RawTherapee"] = lambda: rawtherapee([raw], work)
    if shutil.which("darktable-cli"):
        developers["darktable"] = lambda: darktable([raw], work)
    found = {name: {"seconds": timed(develop)} for name, develop in developers.items()}
    for name, row in found.items():
        row["ratio"] = row["seconds"] / found["nightisp"]["seconds"]
        print(f"| {name} | {row['seconds']:.1f} s | {row['ratio']:.2f} of nightisp |", flush=True)
    return found


def changes(work: Path, megapixels: float, _ceilings: Figures) -> Figures:
    """Run one raw cold and again, three times over: what a change of gamma costs beside the stages that it reaches."""
    raw, rounds = synthetic(work / "raw.dng", megapixels), list[Figures]()
    reached = NAMES[NAMES.index("tone") :]
    for number in range(3):
        store = f"store{number}"
        cold, gamma, cached = (
            render(work, raw, *change, store=store) for change in ((), *[["--set=tone.gamma=2.8"]] * 2)
        )
        assert set(gamma["frames"][0]["seconds"]) == set(reached), "a change of gamma reached other stages"
        draft = render(work, raw, "--draft", store=f"draft{number}")
        runs_ = {"cold": cold, "gamma": gamma, "cached": cached, "draft": draft}
        row = {name: report["process_seconds"] for name, report in runs_.items()}
        row["gamma_expected"] = sum(cold["frames"][0]["seconds"][stage] for stage in reached)
        row["gamma_stages"] = sum(gamma["frames"][0]["seconds"].values())
        rounds.append(row)
        print(", ".join(f"{name.replace('_', ' ')} {seconds:.2f} s" for name, seconds in row.items()), flush=True)
    found: Figures = {name: median(row[name] for row in rounds) for name in rounds[0]}
    found["gamma_over_expected"] = median(row["gamma"] / row["gamma_expected"] for row in rounds)
    found["gamma_over_stages"] = median(row["gamma"] / row["gamma_stages"] for row in rounds)
    found["draft_over_cold"] = median(row["draft"] / row["cold"] for row in rounds)
    for name, figure in found.items():
        print(f"| {name.replace('_', ' ')} | {figure:.3f} |", flush=True)
    return found


def sizes(work: Path, _megapixels: float, _ceilings: Figures) -> Figures:
    """Run raws of several sizes cold."""
    found = {}
    for megapixels in (1.5, 3, 6, 12, 24, 61):
        report = render(work, synthetic(work / f"{megapixels:g}.dng", megapixels))
        row = found[f"{megapixels:g}"] = {
            "seconds": sum(report["frames"][0]["seconds"].values()),
            "wall_seconds": report["wall_seconds"],
            "peak_mb": report["peak_rss_bytes"] / 1e6,
        }
        print(f"| {megapixels:g} MP | {row['wall_seconds']:.1f} s | {row['peak_mb']:.0f} MB |", flush=True)
    return found


def throughput(work: Path, _megapixels: float, _ceilings: Figures) -> Figures:
    """Render one frame, and four, cold: what three more take is what a picture costs once all is warm."""
    found: Figures = {}
    for megapixels in (12, 24):
        folder = work / f"{megapixels}"
        for number in range(5):
            synthetic(folder / f"{min(number, 1)}" / f"frame{number}.dng", megapixels, seed=number)
        one, four = (
            render(folder, folder / which, "--workers=2", store=f"store{which}")["wall_seconds"] for which in "01"
        )
        row = found[f"{megapixels}"] = {"seconds": (four - one) / 3, "pictures_per_second": 3 / (four - one)}
        print(f"| {megapixels} MP | {row['seconds']:.2f} s | {row['pictures_per_second']:.3f} pictures/s |", flush=True)
    return found


def orchestra(work: Path, _megapixels: float, _ceilings: Figures) -> Figures:
    """Develop ten frames of 12 megapixels by the local engine and by Prefect, in turn."""
    folder = work / "raws"
    for number in range(10):
        synthetic(folder / f"frame{number}.dng", 12, seed=number)
    engines = ("local", "prefect")
    found = dict(zip(engines, in_turn(work, folder, *((f"--engine={e}", "--workers=1") for e in engines)), strict=True))
    for engine, took in found.items():
        print(f"| {engine} | {took:.1f} s | {took / found['local'] - 1:+.1%} of local |", flush=True)
    return found


def frames(work: Path, _megapixels: float, _ceilings: Figures) -> Figures:
    """Run many small frames of an eighth of a megapixel, so that what is not computing shows."""
    found: Figures = {}
    for engine in ("local", "prefect"):
        for count in (1, 10, 100):
            folder = work / engine / str(count)
            for number in range(count):
                synthetic(folder / "raws" / f"frame{number:03}.dng", 0.125, seed=number)
            row = found.setdefault(engine, {}).setdefault(str(count), {})
            for state in ("cold", "cached"):
                report: Figures = {}
                row[state] = timed(
                    lambda f=folder, e=engine, r=report: r.update(render(f, f / "raws", f"--engine={e}"))
                )
                assert all(frame["outcome"] == "rendered" for frame in report["frames"])
                computing = sum(sum(frame["seconds"].values()) for frame in report["frames"])
                row[f"{state}_peak_mb"] = report["peak_rss_bytes"] / 1e6
                print(
                    f"| {engine} | {count} | {state} | {row[state]:.2f} s | of that {computing:.2f} computing |",
                    flush=True,
                )
    for count in ("10", "100"):
        for state in ("cold", "cached"):
            more = found["prefect"][count][state] - found["prefect"]["1"][state]
            less = found["local"][count][state] - found["local"]["1"][state]
            each = 1000 * (more - less) / ((int(count) - 1) * len(NAMES))
            found["prefect"][count][f"{state}_ms_a_task"] = each
            print(f"| Prefect over local, {count} frames, {state} | {each:.1f} ms a task |")
    return found


def ours(stage: str, network: Any, planes: Planes, precision: Any) -> Planes:
    """Run the network of a stage as the stage does."""
    match stage:
        case "denoise":
            return exact(network, planes, multiple=4, precision=precision)
        case "refine":
            return once(network, planes, multiple=32, scale=Fraction(1, 4), precision=precision)
    return blended(network, planes, tile=512, overlap=16, multiple=16, scale=4, precision=precision)


def flops_per_sample(library: Library, stage: str) -> dict[str, float]:
    """Return what a network computes for each sample that it sees, by precision."""
    network = prepared(library.load(NETWORKS[stage]), resolved("auto", runs.device))
    side = 512  # HAT's tile
    with torch.no_grad(), machine.FlopsByPrecision() as counter:
        network(torch.zeros(1, CHANNELS[stage], side, side))
    return {precision: flops / side**2 for precision, flops in counter.counts.items()}


def say_ceilings(found: Figures) -> None:
    for precision, row in found.items():
        print(f"{precision}: convolutions {row['convolution'] / 1e9:.0f}, matrices {row['matrix'] / 1e9:.0f} GFLOP/s")


PARTS: dict[str, Callable[[Path, float, Figures], Figures]] = {
    "stages": stages,
    "networks": networks,
    "warm": warm,
    "programs": programs,
    "changes": changes,
    "sizes": sizes,
    "frames": frames,
    "storing": storing,
    "throughput": throughput,
    "orchestra": orchestra,
}

if __name__ == "__main__":
    main()
