"""Turn a trained network into a weight file with its model card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nightisp import __version__
from nightisp.models.weightfile import SUFFIX, write
from nightisp.training.checkpoints import Progress
from nightisp.training.loop import Task, validated

HALF_MAY_COST = 0.02
"""By how much the main metric may fall for half precision to be kept: a fiftieth of a decibel."""


def export(
    task: Task,
    network: nn.Module,
    progress: Progress,
    path: Path,
    *,
    device: str,
    command: str,
    photographs: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write weights, in half precision where that costs less than `HALF_MAY_COST`, and return their card.

    Parameters
    ----------
    network, progress
        What `train` returned.
    path
        Of the weight file; its model card is written beside it.
    command
        What makes these weights again.
    photographs
        What they were trained on: counts, digest, and where sources and licenses are listed.

    Raises
    ------
    WeightsError
        If the folder cannot be written to.
    """
    exact = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    rounded = {name: t.half().to(t.dtype) if t.is_floating_point() else t for name, t in exact.items()}
    network.load_state_dict(rounded)
    main, in_half = next(iter(progress.metrics)), validated(task, network, task.schedule, device)
    network.load_state_dict(exact)
    cost = progress.metrics[main] - in_half[main]
    half = cost < HALF_MAY_COST
    metrics = in_half if half else progress.metrics
    kept = {name: t.half() if half and t.is_floating_point() else t for name, t in exact.items()}
    card = {
        "network": task.network,
        "overrides": dict(task.overrides),
        "stage": task.stage,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "precision": "float16" if half else "float32",
        **task.card,
        "training": {
            "metrics": {name: round(value, 4) for name, value in metrics.items()},
            "half_precision_costs": round(cost, 4),
            "steps": progress.step,
            "batch": task.schedule.batch,
            "seed": task.schedule.seed,
            "compute": task.schedule.precision,
            "hours": round(progress.seconds / 3600, 2),
            "hardware": _hardware(device),
            "photographs": dict(photographs),
            "command": command,
            "nightisp": __version__,
            "torch": torch.__version__.partition("+")[0],
            **({"notes": list(notes)} if notes else {}),
        },
        "license": "MIT, as nightisp; what it was trained on stands under training.photographs",
    }
    write(path.with_name(path.name.removesuffix(SUFFIX) + SUFFIX), kept, card)
    return card


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} cores, {platform.machine()}"
