"""What is kept of a training, so that it goes on after a kill as if nothing had happened."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nightisp.errors import ParamsError, WeightsMismatchError
from nightisp.publish import publish
from nightisp.usage import sweep

if TYPE_CHECKING:
    from nightisp.training.loop import Task

CHECKPOINT = "checkpoint.pt"
_FREE = {"steps", "decay", "validate_every", "checkpoint_every"}  # may change while a run goes


@dataclass
class Progress:
    """Where a run stands, and which weights it began with."""

    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    begun: str = ""


def save(task: Task, folder: Path, network: nn.Module, averaged: nn.Module, optimizer: Any, progress: Progress) -> None:
    """Write `checkpoint.pt`, `curve.csv` and `metrics.json`, each replaced as a whole."""
    content = io.BytesIO()
    state = {
        "identity": _identity(task),
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    torch.save(state, content)
    publish(content.getvalue(), folder / CHECKPOINT)
    if progress.curve:
        publish(_as_csv(progress.curve), folder / "curve.csv")
        metrics = {"step": progress.step, "seconds": round(progress.seconds), **progress.metrics}
        publish((json.dumps(metrics, indent=1) + "\n").encode(), folder / "metrics.json")


def resume(task: Task, folder: Path, network: nn.Module, averaged: nn.Module, optimizer: Any) -> Progress | None:
    """Bring networks and optimizer to where the checkpoint of a folder left them, if there is one.

    Raises
    ------
    WeightsMismatchError
        If it cannot be read, or belongs to another run: other parameters, photographs or network.
    ParamsError
        If it is further than the steps that are wanted.
    """
    sweep(folder)
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = json.loads(state["identity"])
    except Exception as error:  # torch has no error of its own for a file that is torn
        raise WeightsMismatchError(
            f"{path}: is no checkpoint that can be read ({type(error).__name__}); remove it"
        ) from error
    ours = json.loads(_identity(task))
    if theirs != ours:
        differs = min(_leaves(theirs).items() ^ _leaves(ours).items())[0]
        raise WeightsMismatchError(
            f"{path}: belongs to another run ({differs} is different); remove the folder, or choose another with --runs"
        )
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    if progress.step > task.schedule.steps:
        raise ParamsError(f"{path}: is at step {progress.step} already; expected steps: {progress.step} or more")
    return progress


def _identity(task: Task) -> str:
    fixed = {key: value for key, value in task.schedule.model_dump().items() if key not in _FREE}
    return json.dumps({"network": task.network, **task.identity, "schedule": fixed}, sort_keys=True)


def _as_csv(curve: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(curve[-1]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in curve)
    return text.getvalue().encode()


def _leaves(tree: Any, name: str = "") -> dict[str, str]:
    if isinstance(tree, Mapping):
        return {k: v for key, value in tree.items() for k, v in _leaves(value, f"{name}.{key}".strip(".")).items()}
    return {name: json.dumps(tree)}
