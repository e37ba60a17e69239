"""Run a network once: arrays in, arrays out, on the network's device, with failures named."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nightisp.errors import DeviceError, StageError

Planes = NDArray[np.float32]
Precision = Literal["float32", "bfloat16", "float16"]


def evaluate(
    network: nn.Module, planes: Planes, precision: Precision = "float32", *, where: str = ""
) -> tuple[Planes, ...]:
    """Run a network once over planes as they are.

    Parameters
    ----------
    network
        In eval mode, on the device to be used.
    planes
        float32 (C, H, W).
    precision
        What convolutions and attention compute in. "float32" means it: TensorFloat-32 stays off.
    where
        What to call these planes if it fails.

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
    if not planes.flags.writeable:  # torch would warn of a tensor that it must not write to
        planes = planes.copy()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode())
        settings.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        if precision != "float32":
            settings.enter_context(torch.autocast(device.type, getattr(torch, precision)))
        try:
            outputs: Any = network(torch.from_numpy(planes).unsqueeze(0).to(device))
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
            cause = "its input holds NaN or infinity" if not np.isfinite(planes).all() else f"it ran in {precision}"
            raise StageError(
                f"{where}: {name} gave NaN or infinity ({cause}); expected finite numbers: "
                "choose precision float32, or import sound weights"
            )
    return arrays


def _no_memory(name: str, where: str, device: torch.device) -> DeviceError:
    return DeviceError(
        f"{where}: {name} does not fit into the memory of {device}; choose a smaller tile, or --device cpu"
    )
