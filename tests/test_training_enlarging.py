"""Training of HAT: pictures made small as benchmarks are, pairs in place, a network that begins by interpolating."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightisp.errors import ParamsError
from nightisp.training.photographs import Photographs

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from nightisp.metrics import psnr  # noqa: E402
from nightisp.models import PRESETS, build  # noqa: E402
from nightisp.models.weights import Library  # noqa: E402
from nightisp.training.enlarging import (  # noqa: E402
    EnlargeTraining,
    Enlarging,
    start_from_interpolation,
)
from nightisp.training.export import export  # noqa: E402
from nightisp.training.loop import train  # noqa: E402
from nightisp.training.shrinking import as_refined, bicubic  # noqa: E402

SMALL = {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "squeeze_factor": 6}
SCHEDULE = {"steps": 3, "batch": 2, "warmup": 1, "pool_every": 2, "validate_every": 3, "precision": "float32"}
TINY: dict[str, Any] = {"overrides": SMALL, "crop": 8, "regions": 4, "region": 64, "scale": (0.5, 0.9)}


def params(**changes: Any) -> EnlargeTraining:
    schedule = {**SCHEDULE, **changes.pop("schedule", {})}
    return EnlargeTraining.model_validate({**TINY, "schedule": schedule, **changes})


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Soft waves of several directions and lengths, with edges."""
    y, x = np.mgrid[:120, :144]
    pictures = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        down, across, phase = rng.uniform(0.03, 0.2, 3), rng.uniform(0.03, 0.2, 3), rng.uniform(0, 6, 3)
        waves = np.sin(y[..., None] * down + x[..., None] * across + phase)
        pictures.append((255 * (0.4 + 0.3 * waves + 0.2 * (waves > 0.3))).clip(0, 255).astype(np.uint8))
    return Photographs(tuple(pictures[:3]), (pictures[3],), {"ab" * 32: Path("a.jpg")})


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def looped(row: list[float], target: int) -> list[float]:
    """Cubic convolution of one row, sample by sample."""
    factor = len(row) / target
    wide = max(factor, 1.0)
    result = []
    for place in range(target):
        middle = (place + 0.5) * factor - 0.5
        total = weights = 0.0
        for source in range(math.floor(middle - 2 * wide) - 1, math.ceil(middle + 2 * wide) + 2):
            weight = kernel((source - middle) / wide)
            inside = source
            while not 0 <= inside < len(row):
                inside = -1 - inside if inside < 0 else 2 * len(row) - 1 - inside
            total, weights = total + weight * row[inside], weights + weight
        result.append(total / weights)
    return result


@pytest.mark.parametrize("size", [(4, 3), (16, 12), (64, 48), (7, 30)])
def test_bicubic_is_what_a_loop_gives(size: tuple[int, int]) -> None:
    matrix = np.random.default_rng(3).random((16, 12)).astype(np.float32)
    rows = np.array([looped(row, size[1]) for row in matrix.tolist()])
    expected = np.array([looped(column, size[0]) for column in rows.T.tolist()]).T
    np.testing.assert_allclose(bicubic(matrix[..., None], size)[..., 0], expected, atol=2e-6)


def test_bicubic_of_one_step() -> None:
    """An edge between 0 and 1, made four times smaller: under- and overshoot of a widened kernel, by hand.

    What is kept of the edge is the sum of the kernel's samples beyond it, at quarters and odd eighths of a pixel.
    """
    step = np.repeat([0.0, 1.0], 32).astype(np.float32)[None, :, None]
    small = bicubic(step, (1, 16))[0, :, 0]
    samples = [kernel((k + 0.5) / 4) for k in range(8)]
    far, near = sum(samples[4:]) / (2 * sum(samples)), 0.5 - sum(samples[:2]) / (2 * sum(samples))
    assert near != far
    np.testing.assert_allclose(small[[5, 10]], [0, 1], atol=1e-6)
    beyond = sum(samples[2:]) / (2 * sum(samples))
    np.testing.assert_allclose(small[[7, 8]], [beyond, 1 - beyond], atol=1e-6)
    assert small[6] < 0 < small[7] < small[8] < 1 < small[9]


def test_bicubic_keeps_constants_and_ramps() -> None:
    np.testing.assert_allclose(bicubic(np.full((40, 24, 3), 0.3, np.float32), (10, 6)), 0.3, atol=1e-6)
    ramp = np.repeat(np.linspace(0, 1, 96, dtype=np.float32), 24).reshape(96, 8, 3)
    middles = (np.arange(24) * 4 + 1.5) / 95
    np.testing.assert_allclose(bicubic(ramp, (24, 2))[2:-2, 0, 0], middles[2:-2], atol=1e-6)
    back = bicubic(bicubic(ramp, (24, 2)), (96, 8))
    np.testing.assert_allclose(back[16:-16], ramp[16:-16], atol=1e-6)


def test_what_is_finer_than_a_pixel_goes_and_does_not_alias() -> None:
    stripes = np.tile(np.array([0.0, 1.0], np.float32), 64)[None, :, None].repeat(8, 0)
    assert np.abs(bicubic(stripes, (2, 32))[:, 4:-4] - 0.5).max() < 1e-3
    assert np.abs(stripes[::4, ::4] - 0.5).max() == 0.5


def test_refined_pictures_are_averages() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.random((8, 12, 3)).astype(np.float32)
    plain = as_refined(pixels, 0, 0, rng)
    np.testing.assert_allclose(plain[1, 2], pixels[4:8, 8:12].mean((0, 1)), atol=1e-6)
    flat = np.full((400, 400, 3), 0.5, np.float32)
    assert as_refined(flat, 0.5, 0.01, rng).std() == pytest.approx(0.01, rel=0.05)
    assert as_refined(pixels, 0.5, 0, rng).std() < plain.std()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_samples_lie_where_they_were(photographs: Photographs, share: float) -> None:
    """A small sample, enlarged, is nearest to its own target, and not to the target moved by a pixel."""
    task = Enlarging(params(bicubic=share, crop=16), photographs)
    small, large = task.draw(task.pool(np.random.default_rng(1)), np.random.default_rng(2))
    assert small.shape == (2, 3, 16, 16)
    assert large.shape == (2, 3, 64, 64)
    assert small.dtype == large.dtype == np.float32
    inner = slice(12, -12)
    for low, high in zip(small, large, strict=True):
        enlarged = bicubic(low.transpose(1, 2, 0), (64, 64))[inner, inner]
        errors = {
            (down, across): float(
                np.square(np.roll(high, (down, across), (1, 2)).transpose(1, 2, 0)[inner, inner] - enlarged).mean()
            )
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
        }
        assert min(errors, key=lambda moved: errors[moved]) == (0, 0)


def test_samples_are_in_8_bits_or_not(photographs: Photographs) -> None:
    for share, whole in ((0.0, False), (1.0, True)):
        task = Enlarging(params(rounded=share), photographs)
        small = task.draw(task.pool(np.random.default_rng(1)), np.random.default_rng(2))[0] * 255
        assert bool(np.abs(small - np.rint(small)).max() < 1e-4) is whole
        assert 0 <= small.min() <= small.max() <= 255


def test_the_same_generator_gives_the_same_samples(photographs: Photographs) -> None:
    task = Enlarging(params(), photographs)
    first, again, other = (
        task.draw(task.pool(np.random.default_rng(pool)), np.random.default_rng(2)) for pool in (1, 1, 3)
    )
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("name", "overrides"), [("hat_light", {}), ("hat", SMALL)])
def test_an_untrained_network_interpolates(name: str, overrides: dict[str, Any]) -> None:
    torch.manual_seed(1)
    network = build(name, **overrides)
    start_from_interpolation(network)
    small = bicubic(np.random.default_rng(4).random((8, 8, 3)).astype(np.float32), (24, 24)).clip(0, 1)
    with torch.inference_mode():
        enlarged = network(torch.from_numpy(small.transpose(2, 0, 1)[None]))[0].permute(1, 2, 0).numpy()
    inner = slice(12, -12)
    assert psnr(enlarged[inner, inner], bicubic(small, (96, 96))[inner, inner]) > 35


def test_training_goes_on_where_it_was_broken_off(photographs: Photographs, tmp_path: Path) -> None:
    whole, _ = train(Enlarging(params(schedule={"decay": 0}), photographs), tmp_path / "whole")
    train(Enlarging(params(schedule={"decay": 0, "steps": 2}), photographs), tmp_path / "broken")
    task = Enlarging(params(schedule={"decay": 0}), photographs)
    gone_on, progress = train(task, tmp_path / "broken")
    assert all(torch.equal(ours, whole.state_dict()[name]) for name, ours in gone_on.state_dict().items())
    assert progress.step == 3
    assert list(progress.metrics) == ["gain", "psnr", "bicubic", "refined_gain", "refined_psnr"]
    assert progress.metrics["gain"] == pytest.approx(progress.metrics["psnr"] - progress.metrics["bicubic"])
    path = tmp_path / "hat.safetensors"
    export(task, gone_on, progress, path, device="cpu", command="again", photographs=photographs.card)
    library = Library([tmp_path])
    assert library.verify() == {"hat": ""}
    with torch.inference_mode():
        assert task.validate(library.load("hat"))["gain"] == pytest.approx(progress.metrics["gain"], abs=0.05)


def test_training_lowers_the_loss(photographs: Photographs, tmp_path: Path) -> None:
    schedule = {"steps": 60, "batch": 4, "learning_rate": 5e-4, "pool_every": 30, "validate_every": 60, "average": 0.9}
    task = Enlarging(params(schedule=schedule), photographs)
    batch = tuple(torch.from_numpy(a) for a in task.draw(task.pool(np.random.default_rng(8)), np.random.default_rng(9)))
    torch.manual_seed(task.schedule.seed)
    with torch.inference_mode():
        before = float(task.loss(task.build(), batch))
    trained, _ = train(task, tmp_path)
    with torch.inference_mode():
        assert float(task.loss(trained, batch)) < 0.95 * before


def test_what_cannot_be_trained(photographs: Photographs) -> None:
    with pytest.raises(ParamsError, match=r"overrides.upscale: 2; training takes 4 only"):
        Enlarging(params(overrides={**SMALL, "upscale": 2}), photographs).build()
    with pytest.raises(ParamsError, match="crop: 64; expected photographs of more than 256"):
        Enlarging(params(crop=64), photographs).pool(np.random.default_rng(1))


def multiplications(network: nn.Module, side: int) -> int:
    """Count what convolutions, linear layers and both products of attention multiply for a square picture.

    With gradients, as then each layer is run by itself; without, some are one.
    """
    total = 0

    def linear(layer: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() // output.shape[-1] * layer.in_features * layer.out_features

    def convolution(layer: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    def attention(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        total += 2 * output.numel() * getattr(layer, "reach", layer.window) ** 2

    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
        elif isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif type(module).__name__ in ("WindowAttention", "OverlappingAttention"):
            module.register_forward_hook(attention)
    network(torch.zeros(1, 3, side, side))
    return total


def test_the_light_preset_is_light() -> None:
    counted = multiplications(build("hat_light"), 64)
    assert 7e9 < counted <= 12e9
    assert PRESETS["hat_light"].keys() == PRESETS["hat"].keys()
