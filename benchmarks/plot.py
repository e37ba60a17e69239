"""Draw what a run costs: against megapixels, and against frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def plot(figures: dict[str, Any], path: Path) -> None:
    """Write a PNG of two panels from the parts `sizes` and `frames` of `results.json`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = {float(size): row for size, row in figures["sizes"].items()}
    left.plot(list(sizes), [row["wall_seconds"] for row in sizes.values()], "o-", label="seconds, cold")
    left.set(xlabel="megapixels", ylabel="seconds", title="One raw, all four networks", ylim=0)
    memory = left.twinx()
    memory.plot(list(sizes), [row["peak_mb"] / 1000 for row in sizes.values()], "s--", color="C1", label="peak, GB")
    memory.set(ylabel="GB", ylim=0)
    lines = [*left.get_lines(), *memory.get_lines()]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="upper left")
    for engine, rows in figures["frames"].items():
        for state, style in (("cold", "o-"), ("cached", "s--")):
            right.plot([int(n) for n in rows], [row[state] for row in rows.values()], style, label=f"{engine}, {state}")
    right.set(xlabel="frames of 1/8 megapixel", ylabel="seconds", title="Many raws", xscale="log", yscale="log")
    right.legend()
    figure.savefig(path, dpi=100)
