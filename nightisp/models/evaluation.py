"""Run a network once: arrays in, arrays out, on the network's device, with failures named."""

from __future__ import annotations

import copy
import platform
from contextlib import ExitStack
from threading import Lock
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nightisp.errors import DeviceError, StageError

Planes = NDArray[np.float32]
Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]

_REDUCED: WeakKeyDictionary[nn.Module, dict[torch.dtype, nn.Module]] = WeakKeyDictionary()
_ONE_AT_A_TIME = Lock()


def evaluate(
    network: nn.Module, planes: Planes, precision: Precision = "float32", *, where: str = "", **given: Any
) -> tuple[Planes, ...]:
    """Run a network once over planes as they are.

    Parameters
    ----------
    network
        In eval mode, on the device to be used.
    planes
        float32 (C, H, W).
    precision
        What convolutions and attention compute in, see `resolved`. "float32" means it: TensorFloat-32 stays off. In
        the others the network runs as a copy that is kept, all of it in that type but what its `exact` names.
    where
        What to call these planes if it fails.
    **given
        What the network is told beside the planes.

    Returns
    -------
    tuple
        float32 arrays without batch axis, one for each output of the network.

    Raises
    ------
    DeviceError
        If the device has too little memory.
    StageError
        If the network fails, or gives anything that is not finite.
    """
    where = where or f"the picture of {planes.shape[-2]} x {planes.shape[-1]}"
    name = type(network).__name__
    device = next(network.parameters(), torch.empty(0)).device
    if not planes.flags.writeable or min(planes.strides) < 0:  # torch warns of the one, and refuses the other
        planes = planes.copy()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode())
        settings.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        try:
            network = prepared(network, resolved(precision, device))
            batch = torch.from_numpy(planes).unsqueeze(0).to(device)
            outputs: Any = network(batch, **given)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            arrays = tuple(output[0].float().cpu().numpy() for output in outputs)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise _no_memory(name, where, device) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error):
                raise _no_memory(name, where, device) from error
            raise StageError(f"{where}: {name} failed: {error}") from error
    for array in arrays:
        if not np.isfinite(array).all():
            ran = resolved(precision, device)
            cause = "its input holds NaN or infinity" if not np.isfinite(planes).all() else f"it ran in {ran}"
            raise StageError(
                f"{where}: {name} gave NaN or infinity ({cause}); expected finite numbers: "
                "choose precision float32, or import sound weights"
            )
    return arrays


def resolved(precision: Precision, device: torch.device | str) -> Precision:
    """Return what "auto" stands for on a device: bfloat16 where it is computed natively, float32 elsewhere."""
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif platform.machine().lower() in ("x86_64", "amd64"):
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if native else "float32"


def prepared(network: nn.Module, precision: Precision) -> nn.Module:
    """Return a network that computes in a precision: itself in float32, else a copy, made once.

    Parameters
    ----------
    network
        It takes float32, and turns it to the type of its first convolution by itself. Its attribute `exact`, if there
        is one, names the modules that stay in float32 where the rest computes in less.
    precision
        Not "auto".
    """
    if precision == "float32":
        return network
    dtype: torch.dtype = getattr(torch, precision)
    with _ONE_AT_A_TIME:
        copies = _REDUCED.setdefault(network, {})
        if dtype not in copies:
            reduced = copy.deepcopy(network).to(dtype)
            for name in getattr(network, "exact", ()) if dtype.itemsize < 4 else ():
                reduced.get_submodule(name).load_state_dict(network.get_submodule(name).state_dict(), assign=True)
            copies[dtype] = reduced
        return copies[dtype]


def _no_memory(name: str, where: str, device: torch.device) -> DeviceError:
    return DeviceError(
        f"{where}: {name} does not fit into the memory of {device}; choose a smaller tile, or --device cpu"
    )
