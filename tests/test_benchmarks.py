"""What benchmarks measure with: FLOP counted by precision, and networks run as their papers' releases run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from benchmarks import plain, runs
from benchmarks.machine import FlopsByPrecision
from nightisp.models import build


def test_flops_are_counted_by_precision() -> None:
    """A convolution, a linear layer and attention, against what one counts by hand."""
    picture, weight = torch.zeros(1, 4, 6, 5), torch.zeros(8, 4, 3, 3)
    rows, matrix = torch.zeros(2, 7, 16).bfloat16(), torch.zeros(32, 16).bfloat16()
    query, key = torch.zeros(3, 2, 9, 16).bfloat16(), torch.zeros(3, 2, 25, 16).bfloat16()
    with torch.no_grad(), FlopsByPrecision() as counter:
        F.conv2d(picture, weight, padding=1)
        F.linear(rows, matrix, torch.zeros(32).bfloat16())
        F.scaled_dot_product_attention(query, key, key)
        torch.ops.mkldnn._convolution_pointwise(picture, weight, None, [0, 1], [1, 2], [1, 1], 1, "relu", [], "")
    products = {"float32": (6 * 5 + 4 * 3) * 8 * 4 * 9, "bfloat16": 2 * 7 * 16 * 32 + 2 * 3 * 2 * 9 * 25 * 16}
    assert counter.counts == {precision: 2 * count for precision, count in products.items()}


@pytest.mark.parametrize(
    ("name", "given", "shape"),
    [
        ("denoise_unet", {"width": 4}, (4, 24, 40)),
        ("mwispnet", {"widths": (4, 8, 8), "blocks": 2, "reduction": 2}, (3, 64, 96)),
        (
            "hat",
            {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "squeeze_factor": 6, "window_size": 8},
            (3, 40, 24),
        ),
    ],
)
def test_the_published_way_is_the_same_network(name: str, given: dict[str, object], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = build(name, **given).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    planes = np.random.default_rng(0).random(shape).astype(np.float32)
    published = plain.as_published(network)
    methods = {module.forward.__module__ for module in published.modules() if "forward" in vars(module)}
    assert methods == (set() if name == "denoise_unet" else {plain.__name__})
    with torch.inference_mode():
        ours = network(torch.from_numpy(planes)[None])[0].numpy()
    np.testing.assert_allclose(plain.whole(published, planes, 8), ours, atol=2e-5 * np.abs(ours).max())


def test_runs_are_waited_for_one_by_one_and_in_turn(tmp_path: Path) -> None:
    raw = runs.synthetic(tmp_path / "raw.dng", 0.01)
    report = runs.render(tmp_path, raw, "--until=tone")
    assert report["frames"][0]["seconds"]["tone"] > 0
    assert report["process_seconds"] > report["wall_seconds"]
    seconds = runs.in_turn(tmp_path, raw, ("--until=tone",), ("--until=color",))
    assert min(seconds) > 0
    assert all((tmp_path / f"way{number}").is_dir() for number in (0, 1))
    with pytest.raises(SystemExit, match="no_such_stage"):
        runs.in_turn(tmp_path, raw, ("--until=no_such_stage",))
