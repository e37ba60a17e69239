"""Take in checkpoints as their authors publish them, and refuse what does not fit or holds code."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nightisp.errors import ParamsError, WeightsError, WeightsMismatchError, WeightsNotFoundError
from nightisp.models import build, infer
from nightisp.models.weightfile import SUFFIX, mismatch, read_tensors, write


@dataclass(frozen=True, slots=True)
class Slot:
    """What weights a stage takes."""

    networks: tuple[str, ...]
    name: str  # of its weights, unless another is given
    remedy: str  # the setting that needs none
    several: bool = False


SLOTS: Mapping[str, Slot] = MappingProxyType(
    {
        "denoise": Slot(("denoise_unet",), "denoise_unet", "denoise.method: none"),
        "white_balance": Slot(("fc4",), "fc4", "white_balance.method: gray_world", several=True),
        "refine": Slot(("mwispnet", "mwispnet_s"), "mwispnet", "refine.method: none"),
        "super_resolution": Slot(("hat", "hat_s", "hat_light"), "hat", "super_resolution.method: lanczos"),
    }
)
"""By stage."""

_SUFFIXES = (".pth", ".pt", ".ckpt", SUFFIX)
_WRAPPERS = ("params_ema", "params", "state_dict_model", "state_dict", "model_state_dict", "model")
# Derived from sizes by every implementation, so that a file's own are not needed; ours are computed anew.
_DERIVED = frozenset(
    {"relative_position_index_SA", "relative_position_index_OCA", "relative_position_index", "attn_mask"}
)


def import_checkpoint(
    stage: str,
    files: Sequence[Path],
    folder: Path,
    name: str | None = None,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Store checkpoints as weights of a stage: safetensors with a digest, and a model card beside each.

    Nothing is written before all files are found good.

    Parameters
    ----------
    stage
        One of `SLOTS`; only its networks are taken.
    files
        .pth, .pt, .ckpt or .safetensors; more than one for FC4 only. `params_ema`, `params`, `state_dict_model`,
        `state_dict` and `module.` are unwrapped.
    folder
        Where to store them.
    name
        To store them under, else the stage's own. Several files are numbered: `fc4_1`, `fc4_2`, ...
    half
        Store float16, at half the size; they are float32 again once loaded.
    overwrite
        Replace weights of the same name.

    Returns
    -------
    list of Path
        The weight files written.

    Raises
    ------
    ParamsError
        If the stage takes no weights, or not so many, or the name is no file name.
    WeightsNotFoundError
        If a file is not there.
    WeightsMismatchError
        If a file holds code, belongs to another network, or its tensors' names and shapes do not fit.
    WeightsError
        If the name is taken, or the folder cannot be written to.
    """
    slot = SLOTS.get(stage)
    if slot is None:
        close = get_close_matches(stage, SLOTS, n=1)
        raise ParamsError(
            f"{stage}: takes no weights; {', '.join(SLOTS)} do." + (f" Did you mean {close[0]}?" if close else "")
        )
    if not files or (len(files) > 1 and not slot.several):
        raise ParamsError(f"{stage}: {len(files)} files given; expected one{' or more' if slot.several else ''}")
    name = slot.name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name.endswith(SUFFIX):
        raise ParamsError(f"{name!r}: no name for weights; expected letters, digits, _ . - and no {SUFFIX}")
    names = [name] if len(files) == 1 else [f"{name}_{number}" for number in range(1, len(files) + 1)]
    targets = [folder / f"{each}{SUFFIX}" for each in names]
    for target in targets:
        if target.exists() and not overwrite:
            raise WeightsError(f"{target}: there are weights of this name; pass --overwrite, or another --name")
    checked = [_checked(stage, slot, Path(file), half=half) for file in files]
    for target, (tensors, card) in zip(targets, checked, strict=True):
        write(target, tensors, card)
    return targets


def _checked(stage: str, slot: Slot, file: Path, *, half: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    state = _unwrapped(file, _read(file))
    state = {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in _DERIVED}
    try:
        network, overrides = infer(state)
        with torch.random.fork_rng(devices=[]):
            ours = build(network, **overrides).state_dict()
    except (WeightsMismatchError, ParamsError) as error:
        raise WeightsMismatchError(f"{file}: {error}; expected weights of {' or '.join(slot.networks)}") from error
    if network not in slot.networks:
        right = next(key for key, other in SLOTS.items() if network in other.networks)
        raise WeightsMismatchError(
            f"{file}: holds weights of {network}; {stage} takes {' or '.join(slot.networks)}. "
            f"Did you mean `nightisp weights import {right} {file}`?"
        )
    derived = {key: tensor for key, tensor in ours.items() if key.rpartition(".")[2] in _DERIVED}
    state |= derived
    if difference := mismatch(ours, state):
        raise WeightsMismatchError(f"{file}: does not fit {network} {overrides or 'as published'}: {difference}")
    dtype = torch.float16 if half else torch.float32
    tensors = {key: state[key] if key in derived else state[key].to(dtype) for key in ours}
    broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsMismatchError(
            f"{file}: {broken[0]} holds NaN or infinity{' in float16' if half else ''}; expected finite numbers"
        )
    with file.open("rb") as stream:
        source_digest = hashlib.file_digest(stream, "sha256").hexdigest()
    card = {
        "network": network,
        "overrides": overrides,
        "stage": stage,
        "parameters": sum(tensor.numel() for key, tensor in tensors.items() if key not in derived),
        "precision": "float16" if half else "float32",
        "source": file.name,
        "source_sha256": source_digest,
    }
    return tensors, card


def _read(file: Path) -> Any:
    """Return what a checkpoint holds, running none of its code."""
    if not file.is_file():
        raise WeightsNotFoundError(f"{file}: no such file")
    if file.suffix.lower() not in _SUFFIXES:
        raise WeightsMismatchError(f"{file}: is no checkpoint by its name; expected {', '.join(_SUFFIXES)}")
    if file.suffix.lower() == SUFFIX:
        return read_tensors(file)
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # of TorchScript archives, which then raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
            raise WeightsMismatchError(
                f"{file}: holds {_culprit(error)} beside tensors; nightisp runs no code from weights. Ask its authors "
                "for a .safetensors file"
            ) from error
        raise WeightsMismatchError(
            f"{file}: is damaged or no checkpoint ({type(error).__name__}); expected what torch.save wrote"
        ) from error
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error


def _harmless() -> list[Any]:
    """Return what checkpoints often hold beside tensors, such as a best score: numpy numbers, which run no code."""
    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _culprit(error: Exception) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"code ({found[1]})" if found else "code or unknown objects"


def _unwrapped(file: Path, content: Any) -> dict[str, Any]:
    """Return the tensors by name, whatever they were wrapped in."""
    import torch

    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    named = content if isinstance(content, Mapping) else {}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsMismatchError(
            f"{file}: holds no tensors by name; expected a state dict, bare or under {', '.join(_WRAPPERS)}"
        )
    while all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors
