"""From what one machine measured to 10 to 1,000 workers: the simulation, checked first; a table and a plot."""

from __future__ import annotations

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
DECODE_S, NETWORKS_S, EXPORT_S = 0.3, 28.5, 0.9
# Assumed, not measured: a host with a GPU does the legs with networks 30 times as fast as two cores; prices are list
# prices of a large cloud for 2 cores, for 4 cores with a small GPU, and for storage.
GPU_SPEED = 30
PRICE_CPU, PRICE_GPU, PRICE_PUT, PRICE_GB_MONTH = 0.09, 0.80, 5e-6, 0.023
SIZE_GB, PUTS = 0.3, 63
# An object store: seconds until the first byte, seconds for the bytes of a leg on 10 Gbit/s, requests a second that one
# prefix takes (published for Amazon S3: 3,500).
LATENCY_S, TRANSFER_S, PUTS_A_SECOND = 0.03, 0.3, 3500
PREFLIGHT_S, PREFLIGHT_CORES = 0.35, 16


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on the processor, by part, for a group's leg, for a recorded stage and for a tiny frame."""

    leg: dict[str, float]
    stage: dict[str, float]
    frame: dict[str, float]


def fitted(figures: Mapping[str, Any]) -> Costs:
    """Work the costs out of three runs of the same frames in groups of 1, 5 and 40, on two workers."""
    rows = [row for row in figures["tiny"] if row["database"] == "postgresql" and row["workers"] == 2]
    matrix = np.array([[row["groups"], row["task_runs"] - row["groups"], row["frames"]] for row in rows], float)
    solved = {part: np.linalg.solve(matrix, [row["burnt"][part] for row in rows]) for part in PARTS}
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


def cluster(costs: Costs, workers: int, batch: int, *, gpu: bool, raws: int) -> tuple[Outcome, float]:
    """Simulate `workers` hosts that do the networks, with as many for decoding and export as keep up; return hosts."""
    speed = GPU_SPEED if gpu else 1
    networks = NETWORKS_S / speed
    others = max(1, round(workers * (DECODE_S + EXPORT_S) / networks)) if gpu else max(1, workers // 20)
    recorded = STAGES / LEGS if batch == 1 else 0.0
    steps: list[Step] = []
    for worker, seconds, stages in (("cpu", DECODE_S, 1), ("gpu", networks, 7), ("cpu", EXPORT_S, 1)):
        asked = LATENCY_S * 11 * stages
        if worker == "gpu":  # of two pictures on a worker one is read and written while the other is computed
            asked, moved = 0.0, 0.0
        else:
            moved = TRANSFER_S
        told = {p: costs.leg[p] + recorded * costs.stage[p] for p in PARTS}
        steps += [
            at("sender", told["sender"]),
            at("scheduler", told["scheduler"]),
            Step(told["workers"] + batch * (seconds + asked + moved), worker),
            Step(batch * 7 * stages / PUTS_A_SECOND, "store", ("store", worker)),
            at("server", told["server"]),
            at("database", told["database"]),
        ]
    servers = {"sender": 1, "scheduler": 1, "server": 1, "database": 4, "store": 1, "cpu": others, "gpu": workers}
    groups = max(1, raws // batch)
    outcome = simulate(steps, groups, servers, 2 * (workers + others) + 4, spread=0.3)
    return outcome, workers + others


def _rows(costs: Costs) -> list[dict[str, Any]]:
    rows = []
    for gpu in (False, True):
        for batch in (1, 50):
            for workers in (10, 30, 100, 300, 1000):
                raws = min(RAWS, workers * batch * 40)  # long enough for a steady state; the rest is more of the same
                outcome, hosts = cluster(costs, workers, batch, gpu=gpu, raws=raws)
                rate = raws / outcome.seconds
                price = PRICE_GPU if gpu else PRICE_CPU
                hourly = workers * price + (hosts - workers) * PRICE_CPU
                cost = 1000 / rate / 3600 * hourly + 1000 * PUTS * PRICE_PUT
                rows.append(
                    {
                        "gpu": gpu,
                        "batch": batch,
                        "workers": workers,
                        "others": hosts - workers,
                        "rate": rate,
                        "limit": outcome.limit,
                        "busy": outcome.busy,
                        "days": RAWS / rate / 86400,
                        "cost": cost,
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
        "| hosts for networks | others | pictures a task run | raws/s | a million takes, days | $ per 1,000 | limit |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        kind = "with a GPU" if row["gpu"] else "of 2 cores"
        limit = _NAMES.get(row["limit"], row["limit"])
        lines.append(
            f"| {row['workers']:,} {kind} | {row['others']} | {row['batch']} | {row['rate']:.1f} | {row['days']:.1f} | "
            f"{row['cost']:.2f} | {limit} ({row['busy'][row['limit']]:.0%}) |"
        )
    return "\n".join(lines)


def _plot(rows: list[dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for gpu, color in ((False, "C0"), (True, "C1")):
        for batch, style in ((1, "o--"), (50, "o-")):
            some = [row for row in rows if row["gpu"] == gpu and row["batch"] == batch]
            label = f"{'GPU' if gpu else '2 cores'}, {batch} a task run"
            hosts = [row["workers"] for row in some]
            left.plot(hosts, [row["rate"] for row in some], style, color=color, label=label)
            right.plot(hosts, [row["cost"] for row in some], style, color=color, label=label)
    left.set(xlabel="hosts for networks", ylabel="raws a second", xscale="log", yscale="log", title="Throughput")
    right.set(xlabel="hosts for networks", ylabel="$ per 1,000 raws", xscale="log", yscale="log", title="Cost")
    left.legend()
    figure.savefig(PLOT, dpi=100)
