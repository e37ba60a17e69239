"""What this machine can do at best: the ceilings that a network's speed is held against."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F  # noqa: N812


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
    sizes = ((64, 128), (64, 256), (256, 128)) if device == "cpu" else ((64, 1024), (64, 2048), (256, 1024))
    for precision in ("float32", "bfloat16"):
        dtype = getattr(torch, precision)
        convolutions = []
        for features, side in sizes:
            x = torch.randn(1, features, side, side).to(device, dtype).to(memory_format=torch.channels_last)
            weight = torch.randn(features, features, 3, 3).to(device, dtype).to(memory_format=torch.channels_last)
            flops = 2 * 9 * features**2 * side**2
            convolutions.append(flops / best(lambda x=x, w=weight: F.conv2d(x, w, padding=1)))
        a = torch.randn(size, size).to(device, dtype)
        found[precision] = {"convolution": max(convolutions), "matrix": 2 * size**3 / best(lambda a=a: a @ a)}
    return found


def best(call: Callable[[], object], repetitions: int = 5) -> float:
    """Return the seconds of the quickest of several calls, after one that warms up; a card's work is waited for."""
    with torch.inference_mode():
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
