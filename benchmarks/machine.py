"""What this machine can do at best: the ceilings that a network's speed is held against."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten


def _pointwise(x: Any, weight: Any, bias: Any, padding: Any, stride: Any, dilation: Any, *_: Any, out_val: Any) -> int:
    """Count oneDNN's convolution with what comes after it as the convolution that it is."""
    count: int = flop_registry[_ATEN.convolution](
        x, weight, bias, stride, padding, dilation, False, None, 1, out_val=out_val
    )
    return count


_FLOPS = flop_registry | {  # what torch forgets on processors
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
    torch.ops.mkldnn._convolution_pointwise: _pointwise,
}


def describe(device: str = "cpu") -> dict[str, object]:
    """Return the processor, its cores, the graphics card if it computes, and the versions that matter for speed."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    card = {} if device == "cpu" else {"card": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **card, **versions}


def ceilings(device: str = "cpu") -> dict[str, dict[str, float]]:
    """Return FLOP/s of convolutions (3 x 3, 64 and 256 features, channels-last) and of products of matrices.

    The best of several repetitions of the best of several sizes, by precision: what the library's kernels reach when
    nothing else is asked of the machine.
    """
    found: dict[str, dict[str, float]] = {}
    size = 2048 if device == "cpu" else 8192
    for precision in ("float32", "bfloat16"):
        convolution = max(flops / best(call) for flops, call in convolutions(precision, device))
        a = torch.randn(size, size).to(device, getattr(torch, precision))
        found[precision] = {"convolution": convolution, "matrix": 2 * size**3 / best(lambda a=a: a @ a)}
    return found


def convolutions(precision: str, device: str) -> Iterator[tuple[int, Callable[[], object]]]:
    """Give the convolutions that the ceiling is the best of, each with its FLOP."""
    dtype = getattr(torch, precision)
    sizes = ((64, 128), (64, 256), (256, 128)) if device == "cpu" else ((64, 1024), (64, 2048), (256, 1024))
    for features, side in sizes:
        x = torch.randn(1, features, side, side).to(device, dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(features, features, 3, 3).to(device, dtype).to(memory_format=torch.channels_last)
        yield 2 * 9 * features**2 * side**2, lambda x=x, w=weight: F.conv2d(x, w, padding=1)


def share_of_ceiling(
    call: Callable[[], object], flops: dict[str, float], device: str = "cpu", rounds: int = 5
) -> tuple[float, float]:
    """Return the seconds of a call, and the share of them that it would take at the ceiling: medians of several rounds.

    `flops` is what is computed, by precision. Both are measured in turn within each round, as a shared machine is not
    the same machine a minute later.
    """
    best(call, 1)
    seconds, shares = [], []
    for _ in range(rounds):
        before = seconds_at_ceiling(flops, device)
        seconds.append(best(call, 1, warm=True))
        after = seconds_at_ceiling(flops, device)
        shares.append((before + after) / 2 / seconds[-1])
    return median(seconds), median(shares)


def seconds_at_ceiling(flops: dict[str, float], device: str) -> float:
    """Return how long so many FLOP would take as convolutions of the best kind, each in its precision."""
    return sum(
        count / max(work / best(convolution) for work, convolution in convolutions(precision, device))
        for precision, count in flops.items()
    )


class FlopsByPrecision(TorchDispatchMode):
    """Counts what networks compute, as torch counts it, by the precision of what is multiplied.

    Within `torch.no_grad`, not `torch.inference_mode`: there layers come as they are, not as the products they are
    made of, and are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in _FLOPS:
            precision = str(result[0].dtype if isinstance(result, tuple) else result.dtype).removeprefix("torch.")
            flops = _FLOPS[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
            self.counts[precision] = self.counts.get(precision, 0) + flops
        return result


def best(call: Callable[[], object], repetitions: int = 5, *, warm: bool = False) -> float:
    """Return the seconds of the quickest of several calls, after one that warms up; a card's work is waited for."""
    with torch.inference_mode():
        if not warm:
            call()
        seconds = []
        for _ in range(repetitions):
            done()
            begun = time.perf_counter()
            call()
            done()
            seconds.append(time.perf_counter() - begun)
    return min(seconds)


def done() -> None:
    """Wait until a graphics card has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
