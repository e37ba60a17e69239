"""The same picture on a graphics card as on the processor, within a bound; skipped where there is no card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nightisp import render
from nightisp.metrics import psnr
from tests.frames import SHIPPED, write_frame

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("stage", ["denoise", "white_balance", "refine", "super_resolution"])
def test_a_card_gives_what_the_processor_gives(stage: str, tmp_path: Path) -> None:
    """In float32 on both, 60 dB at least: a thousandth of full scale, root mean square."""
    raw = write_frame(tmp_path / "night.dng", 1, height=192, width=256)
    exact = {name: {"precision": "float32"} for name in ("denoise", "refine", "super_resolution")}
    here, there = (
        np.clip(render(raw, until=stage, weights=SHIPPED, device=device, **exact), 0, 1) for device in ("cpu", "cuda")
    )
    assert psnr(there, here) > 60
