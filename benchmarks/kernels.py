"""Time the kernels that stand for most of a run: `pytest benchmarks/kernels.py`, by pytest-benchmark.

To see what a change brings: `--benchmark-save=before`, then `--benchmark-compare=0001`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nightisp.anscombe import restore, stabilize
from nightisp.bayer import PHASE, binned, pack
from nightisp.image import LinearImage, Mosaic, Shot, Window
from nightisp.models.attention import WindowAttention, relative_index
from nightisp.models.evaluation import resolved
from nightisp.models.heap import keep_freed_memory
from nightisp.models.tiling import blended, exact, whole
from nightisp.models.weights import Library
from nightisp.noise_estimate import estimate_noise
from nightisp.stages.demosaic import DemosaicParams, demosaic
from nightisp.stages.tone import ToneParams, tone

LIBRARY = Library([Path(__file__).parents[1] / "weights"])
RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 1000, 1500
VISIBLE = Window(0, 0, HEIGHT, WIDTH)
SAMPLES = RNG.random((HEIGHT, WIDTH), np.float32)
PACKED = pack(SAMPLES, PHASE)
PICTURE = RNG.random((HEIGHT, WIDTH, 3), np.float32)
keep_freed_memory()

CLASSICAL: dict[str, Callable[[], Any]] = {
    "stabilize": lambda: stabilize(PACKED, 1e-3, 1e-6),
    "restore": lambda: restore(stabilize(PACKED, 1e-3, 1e-6), 1e-3, 1e-6),
    "estimate_noise": lambda: estimate_noise(SAMPLES, PHASE, VISIBLE),
    "binned": lambda: binned(SAMPLES, VISIBLE),
    "demosaic": lambda: demosaic(Mosaic(SAMPLES, cfa=PHASE, shot=Shot(), window=VISIBLE), DemosaicParams()),
    "tone": lambda: tone(LinearImage(PICTURE, space="srgb", shot=Shot(), window=VISIBLE), ToneParams()),
}


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical(benchmark: Any, name: str) -> None:
    benchmark.extra_info["megapixels"] = HEIGHT * WIDTH / 1e6
    benchmark(CLASSICAL[name])


@pytest.mark.parametrize("precision", sorted({"float32", resolved("auto", "cpu")}))
@pytest.mark.parametrize("name", ["denoise_unet", "mwispnet", "hat"])
def test_network(benchmark: Any, name: str, precision: Any) -> None:
    network, planes = LIBRARY.load(name), np.ascontiguousarray(PICTURE[:256, :256].transpose(2, 0, 1))
    calls: dict[str, Callable[[], Any]] = {
        "denoise_unet": lambda: exact(network, np.concatenate([planes, planes[:1]]), multiple=4, precision=precision),
        "mwispnet": lambda: whole(network, planes, multiple=32, scale=Fraction(1, 4), precision=precision),
        "hat": lambda: blended(network, planes, tile=512, overlap=16, multiple=16, scale=4, precision=precision),
    }
    calls[name]()  # the reduced copy is made, the kernels are chosen
    benchmark(calls[name])


@pytest.mark.parametrize("shift", [0, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_window_attention(benchmark: Any, dtype: torch.dtype, shift: int) -> None:
    attention = WindowAttention(96, 16, 6, shift).to(dtype)
    x, index = torch.randn(1, 256, 256, 96).to(dtype), relative_index(16)
    with torch.inference_mode():
        benchmark(attention, x, index)
