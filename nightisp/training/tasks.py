"""What can be trained, by the stage that it is for; found through a table of strings, as networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nightisp.errors import ParamsError

if TYPE_CHECKING:
    from nightisp.models.weights import Compute
    from nightisp.stage import Params
    from nightisp.training.loop import Task
    from nightisp.training.photographs import Photographs


@dataclass(frozen=True, slots=True)
class Trainer:
    """Where a task and its parameters are, and what its weights are called unless another name is given."""

    module: str
    task: str
    params: str
    name: str


TRAINERS: Mapping[str, Trainer] = MappingProxyType(
    {
        "denoise": Trainer("nightisp.training.denoising", "Denoising", "DenoiseTraining", "denoise_unet"),
        "white_balance": Trainer("nightisp.training.illuminants", "WhiteBalancing", "WhiteBalanceTraining", "fc4"),
        "refine": Trainer("nightisp.training.retouching", "Retouching", "RefineTraining", "mwispnet"),
        "draft": Trainer("nightisp.training.drafting", "Drafting", "DraftTraining", "mwispnet_draft"),
        "super_resolution": Trainer("nightisp.training.enlarging", "Enlarging", "EnlargeTraining", "hat"),
    }
)
"""By stage, and `draft`, for refinement of drafts; the sections of training/params.yaml have these names."""


def read_params(stage: str, path: Path | None, settings: Sequence[str] = ()) -> Params:
    """Return a task's parameters: the section of a YAML file, with `NAME=VALUE` or `schedule.NAME=VALUE` over it.

    Raises
    ------
    ParamsError
        If there is no such task, the file is none, or a parameter is unknown or out of bounds.
    """
    from nightisp.params import read_yaml
    from nightisp.pipeline import nearest

    trainer = TRAINERS.get(stage)
    if trainer is None:
        raise ParamsError(f"{stage}: cannot be trained; {', '.join(TRAINERS)} can{nearest(stage, list(TRAINERS))}")
    tree = read_yaml(path) if path else {}
    if unknown := sorted(set(tree) - set(TRAINERS)):
        raise ParamsError(f"{path}: {unknown[0]}: no such task; expected {', '.join(TRAINERS)}")
    section: dict[str, Any] = dict(tree.get(stage) or {})
    for setting in settings:
        _set(section, setting)
    model = getattr(import_module(trainer.module), trainer.params)
    try:
        return model.model_validate(section)  # type: ignore[no-any-return]
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['input']!r}: {e['msg']}" for e in error.errors())
        raise ParamsError("\n".join(f"{path or '--set'}: {stage}.{fault}" for fault in faults)) from None


def open_task(stage: str, params: Params, photographs: Photographs, networks: Compute | None = None) -> Task:
    """Return a task on some photographs; refinement takes `networks` to denoise with, and drafts to learn from."""
    trainer = TRAINERS[stage]
    more = {"networks": networks} if stage in ("refine", "draft") else {}
    return getattr(import_module(trainer.module), trainer.task)(params, photographs, **more)  # type: ignore[no-any-return]


def open_pairs(
    params: Params, folder: Path, keep: Path, rendering: Path | None, networks: Compute, tell: Callable[[str], None]
) -> tuple[Task, dict[str, Any]]:
    """Return the task of refinement on a photographer's own pairs, and what a model card says of them.

    Raises
    ------
    RawFileNotFoundError
        If there are fewer than two usable pairs.
    """
    from nightisp.training.pairs import read_pairs
    from nightisp.training.photographs import Photographs
    from nightisp.training.retouching import PairRetouching, RefineTraining

    assert isinstance(params, RefineTraining)
    pairs = read_pairs(folder, keep, rendering, networks, tell)
    for line in pairs.refused:
        tell(f"left out: {line}")
    card = {"pairs": len(pairs.training), "held_out": len(pairs.held_out), "sha256": pairs.digest}
    return PairRetouching(params, Photographs((), (), {}), pairs, networks=networks), card


def _set(section: dict[str, Any], setting: str) -> None:
    from nightisp.params import parse_sets

    name, equals, value = setting.partition("=")
    if not equals:
        raise ParamsError(f"--set {setting}: expected NAME=VALUE or schedule.NAME=VALUE")
    parsed = parse_sets([f"training.value={value}"])["training"]["value"]
    *parents, last = name.strip().split(".")
    for parent in parents:
        section[parent] = dict(section.get(parent) or {})
        section = section[parent]
    section[last] = parsed
