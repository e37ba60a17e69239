"""From what one machine measured to 10 to 1,000 workers: the simulation, checked first; a table and a plot."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.simulation import Outcome, Step, at, simulate

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "scale.md", DOCS / "images" / "scale.png"
PARTS = ("sender", "server", "database", "scheduler", "workers")

RAWS = 10**6
LEGS = 3
STAGES = 9
# Of a 12-megapixel raw on two cores: two thirds of the 18 megapixels of benchmarks/results.json.
DECODE_S, NETWORKS_S, EXPORT_S = 0.35, 23.0, 0.8
# Assumed, not measured: a host with a GPU does the legs with networks 30 times as fast as two cores; prices are list
# prices of a large cloud for 2 cores, for 4 cores with a small GPU, and for storage.
GPU_SPEED = 30
PRICE_CPU, PRICE_GPU, PRICE_PUT = 0.09, 0.80, 5e-6
PUTS = 63
# An object store: seconds until the first byte, seconds for the bytes of a leg on 10 Gbit/s, requests a second that one
# prefix takes (published for Amazon S3: 3,500).
LATENCY_S, TRANSFER_S, PUTS_A_SECOND = 0.03, 0.3, 3500


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on the processor, by part, for a group's leg, for a recorded stage and for a tiny frame."""

    leg: dict[str, float]
    stage: dict[str, float]
    frame: dict[str, float]


def fitted(figures: Mapping[str, Any]) -> Costs:
    """Work the costs out of frames in groups of 1, 5 and 40 on two workers, and of 32 workers that sleep.

    Least squares of relative errors; what comes out below zero is noise around nothing.
    """
    rows = [row for row in figures["tiny"] if row["database"] == "postgresql" and row["workers"] == 2]
    rows += [row for row in figures["asleep"] if row["workers"] == 32]
    counts = [(r.get("groups", r["task_runs"]), r["task_runs"], r.get("frames", 0)) for r in rows]
    matrix = np.array([(groups, runs - groups, frames) for groups, runs, frames in counts], float)
    solved = {}
    for part in PARTS:
        burnt = np.array([row["burnt"][part] for row in rows])
        solved[part] = np.linalg.lstsq(matrix / burnt[:, None], np.ones(len(rows)), rcond=None)[0]
    leg, stage, frame = ({part: max(0.0, float(solved[part][k])) for part in PARTS} for k in range(3))
    return Costs(leg, stage, frame)


def here(costs: Costs, row: Mapping[str, Any], cores: int) -> Outcome:
    """Simulate what was measured, on the cores that all parts shared."""

    def part(name: str, seconds: float) -> Step:
        return Step(seconds, "core", ("core",)) if name != "workers" else Step(seconds, "core", ("core", "worker"))

    if "sleep" in row:
        groups, frames, stages, sleep = row["task_runs"], 0.0, 0.0, row["sleep"]
    else:
        groups, sleep = row["groups"], 0.0
        frames = row["frames"] / groups
        stages = (row["task_runs"] - groups) / groups
    burns = {p: costs.leg[p] + stages * costs.stage[p] + frames * costs.frame[p] for p in PARTS}
    steps = [part(name, burns[name]) for name in ("sender", "scheduler")]
    steps += [Step(sleep, "worker"), part("workers", burns["workers"])]
    steps += [part(name, burns[name]) for name in ("server", "database")]
    at_once = 2 * max(2, row["workers"])
    return simulate(steps, groups, {"core": cores, "worker": row["workers"]}, at_once, spread=0.2)


def cluster(costs: Costs, workers: int, batch: int, *, gpu: bool, raws: int, prefixes: int) -> tuple[Outcome, int]:
    """Simulate `workers` hosts that do the networks, and enough others for decoding and export; return how many."""
    networks = NETWORKS_S / (GPU_SPEED if gpu else 1)
    told = {part: costs.leg[part] + (STAGES / LEGS * costs.stage[part] if batch == 1 else 0.0) for part in costs.leg}
    # Of two pictures on a worker with networks, one is read and written while the other is computed.
    lasts = {"decode": DECODE_S, "networks": networks, "export": EXPORT_S}
    lasts |= {leg: lasts[leg] + TRANSFER_S + 11 * LATENCY_S for leg in ("decode", "export")}
    seconds = {leg: told["workers"] + batch * lasts[leg] for leg in lasts}
    others = math.ceil(1.1 * workers * (seconds["decode"] + seconds["export"]) / seconds["networks"])
    steps: list[Step] = []
    for leg, stages in (("decode", 1), ("networks", STAGES - 2), ("export", 1)):
        host = "gpu" if leg == "networks" else "cpu"
        steps += [
            at("sender", told["sender"]),
            at("scheduler", told["scheduler"]),
            at(host, seconds[leg]),
            at("store", batch * PUTS / STAGES * stages / PUTS_A_SECOND / prefixes),
            at("server", told["server"]),
            at("database", told["database"]),
        ]
    servers = {"sender": 1, "scheduler": 1, "server": 1, "database": 4, "store": 1, "cpu": others, "gpu": workers}
    groups = max(1, raws // batch)
    return simulate(steps, groups, servers, 2 * (workers + others), spread=0.3), others


def _rows(costs: Costs) -> list[dict[str, Any]]:
    rows = []
    for gpu, batch, prefixes in ((False, 1, 1), (False, 50, 1), (True, 1, 1), (True, 50, 1), (True, 50, STAGES)):
        for workers in (10, 30, 100, 300, 1000):
            raws = min(RAWS, workers * batch * 40)  # long enough for a steady state; the rest is more of the same
            outcome, others = cluster(costs, workers, batch, gpu=gpu, raws=raws, prefixes=prefixes)
            rate = raws / outcome.seconds
            hourly = workers * (PRICE_GPU if gpu else PRICE_CPU) + others * PRICE_CPU
            rows.append(
                {
                    "gpu": gpu,
                    "batch": batch,
                    "prefixes": prefixes,
                    "workers": workers,
                    "others": others,
                    "rate": rate,
                    "limit": outcome.limit,
                    "busy": outcome.busy,
                    "hours": RAWS / rate / 3600,
                    "cost": 1000 / rate / 3600 * hourly + 1000 * PUTS * PRICE_PUT,
                }
            )
    return rows


_NAMES = {"gpu": "networks", "cpu": "decoding, export", "server": "Prefect's server", "sender": "the sender"}


def checked(figures: Mapping[str, Any], costs: Costs) -> list[tuple[str, float, float]]:
    """Return what was measured beside what the simulation says, for runs that the costs were not taken from as well."""
    rows = []
    for row in [*figures["tiny"], *figures["asleep"]]:
        if row["database"] != "postgresql":
            continue
        if "sleep" in row:
            what = f"{row['workers']} workers asleep for {row['sleep']:.0f} s, {row['task_runs']} pieces of work"
        else:
            what = f"{row['workers']} workers, {row['frames']} tiny frames in groups of {row['batch']}"
        rows.append((what, row["seconds"], here(costs, row, figures["cores"]).seconds))
    return rows


def predict(figures: dict[str, Any]) -> None:
    """Print everything; draw the plot and write the tables into the documentation."""
    costs = fitted(figures)
    tables = {"costs": _costs(costs), "check": _check(figures, costs)}
    rows = _rows(costs)
    tables["workers"] = _workers(rows)
    page = PAGE.read_text()
    for name, table in tables.items():
        page = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\1{table}\n\2", page, flags=re.DOTALL)
        print(table)
    PAGE.write_text(page)
    _plot(rows)


def _costs(costs: Costs) -> str:
    lines = ["| milliseconds on a core | leg of a group | stage recorded by itself |", "|---|---:|---:|"]
    names = {
        "sender": "who sends",
        "server": "Prefect's server",
        "database": "PostgreSQL",
        "scheduler": "Dask's scheduler",
    }
    for part in PARTS:
        name = names.get(part, "the worker")
        lines.append(f"| {name} | {1000 * costs.leg[part]:.0f} | {1000 * costs.stage[part]:.0f} |")
    return "\n".join(lines)


def _check(figures: Mapping[str, Any], costs: Costs) -> str:
    lines = ["| run | measured, s | simulated, s | ratio |", "|---|---:|---:|---:|"]
    for what, measured, simulated in checked(figures, costs):
        lines.append(f"| {what} | {measured:.1f} | {simulated:.1f} | {simulated / measured:.2f} |")
    return "\n".join(lines)


def _workers(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| networks on | other hosts | `--batch` | prefixes | raws/s | hours for a million | $ per 1,000 | busiest |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        kind = "GPUs" if row["gpu"] else "2-core hosts"
        limit = _NAMES.get(row["limit"], row["limit"])
        cells = (
            f"{row['workers']:,} {kind}",
            f"{row['others']:,}",
            row["batch"],
            row["prefixes"],
            f"{row['rate']:.3g}",
            f"{row['hours']:,.1f}",
            f"{row['cost']:.2f}",
            f"{limit}, {row['busy'][row['limit']]:.0%}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _plot(rows: list[dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for gpu, batch, prefixes, style in (
        (False, 1, 1, "C0o--"),
        (False, 50, 1, "C0o-"),
        (True, 1, 1, "C1s--"),
        (True, 50, 1, "C1s-"),
        (True, 50, STAGES, "C1^:"),
    ):
        some = [r for r in rows if (r["gpu"], r["batch"], r["prefixes"]) == (gpu, batch, prefixes)]
        label = f"{'GPU' if gpu else '2 cores'}, batch {batch}{f', {prefixes} prefixes' if prefixes > 1 else ''}"
        hosts = [row["workers"] for row in some]
        left.plot(hosts, [row["rate"] for row in some], style, label=label)
        right.plot(hosts, [row["cost"] for row in some], style, label=label)
    left.set(xlabel="hosts for networks", ylabel="raws a second", xscale="log", yscale="log", title="Throughput")
    right.set(xlabel="hosts for networks", ylabel="$ per 1,000 raws", xscale="log", yscale="log", title="Cost")
    right.legend()
    figure.savefig(PLOT, dpi=100)
