"""What `dvc metrics` and `dvc plots` show of a `dvc repro`: seconds of each stage, how many frames, the tone curve.

Seconds are those that were recorded when an artifact was computed, so that taking it from the store changes none.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nightisp.errors import ArtifactNotFoundError
from nightisp.manifest import path, read
from nightisp.params import Tree, validate
from nightisp.pipeline import NAMES
from nightisp.publish import publish
from nightisp.stages.tone import ToneCurve, encode_gamma
from nightisp.store import Store

FOLDER = "measured"
METRICS, SECONDS, TONE_CURVE = (f"{FOLDER}/{name}" for name in ("metrics.json", "seconds.csv", "tone_curve.csv"))

_DARKEST_EV, _STEPS = -12, 8  # stops below white at the left end of the tone curve's plot, points a stop


def measure(store: Store, tree: Tree, root: Path) -> list[Path]:
    """Write what the manifests below `root` and the store tell into its folder `measured`, and return the files.

    `metrics.json` has `frames` and `failed`, and in `seconds` the mean of each stage over the frames whose artifact the
    store holds, and their sum, `total`. `seconds.csv` has the same as a table; `tone_curve.csv` has the tone curve that
    the parameters describe (a sidecar's is that of its picture alone).

    Raises
    ------
    ProjectError
        If a manifest is missing.
    """
    seconds = {name: found for name in NAMES if (found := _seconds(store, root, name))}
    means = {name: round(float(np.mean(found)), 4) for name, found in seconds.items()}
    last = read(path(root, NAMES[-1]), NAMES[-1])
    failed = sum(line.error is not None for line in last)
    metrics = {
        "frames": len(last) - failed,
        "failed": failed,
        "seconds": means | {"total": round(sum(means.values()), 4)},
    }
    contents = {
        METRICS: json.dumps(metrics, indent=1) + "\n",
        SECONDS: as_csv(("stage", "seconds"), means.items()),
        TONE_CURVE: as_csv(("light", "stops", "display"), _curve(validate(tree, "params")["tone"])),
    }
    for name, content in contents.items():
        publish(content.encode(), root / name)
    return [root / name for name in contents]


def as_csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()


def _seconds(store: Store, root: Path, name: str) -> list[float]:
    found = []
    for line in read(path(root, name), name):
        if line.key:
            try:
                found.append(float(store.entry(name, line.key).attributes["seconds"]))
            except ArtifactNotFoundError:  # pruned, since nothing after it needed it
                continue
    return found


def _curve(params: Any) -> list[tuple[float, float, float]]:
    """Return rows of linear light in (0, 1], the same in stops below white, and the display value in [0, 1]."""
    stops = np.linspace(_DARKEST_EV, 0, -_DARKEST_EV * _STEPS + 1)
    light = (2.0**stops).astype(np.float32)
    display = encode_gamma(ToneCurve(params.curve)(light * np.float32(2.0**params.exposure_ev)), params.gamma)
    return [
        (float(f"{x:.6g}"), round(float(ev), 4), round(float(y), 5))
        for x, ev, y in zip(light, stops, display, strict=True)
    ]
