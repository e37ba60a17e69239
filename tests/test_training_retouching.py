"""What MWISPNet learns from: pictures as the stages render them, and where it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from nightisp.errors import ParamsError
from nightisp.models.weights import Compute, Library
from nightisp.training.export import export
from nightisp.training.loop import train
from nightisp.training.photographs import Photographs
from nightisp.training.rendering import Night, render
from nightisp.training.retouching import RefineTraining, Retouching, repeated
from nightisp.training.scenes import draw_scene
from tests.frames import SHIPPED


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Soft blobs that no step clips: from dark to light, of little color."""
    rng = np.random.default_rng(4)
    pictures = []
    for _ in range(3):
        y, x = np.mgrid[:160, :192] / 192
        waves = [np.sin(x * rng.uniform(2, 9) + y * rng.uniform(2, 9) + rng.uniform(0, 6)) for _ in range(3)]
        gray = 0.45 + 0.12 * waves[0]
        pixels = np.stack([gray + 0.02 * waves[1], gray, gray + 0.02 * waves[2]], axis=-1)
        pictures.append(np.rint(pixels * 255).astype(np.uint8))
    return Photographs(tuple(pictures[:2]), tuple(pictures[2:]), {})


def task(photographs: Photographs, **values: Any) -> Retouching:
    schedule = {"steps": 4, "batch": 2, "validate_every": 2, "precision": "float32", "learning_rate": 1e-4}
    small = {"widths": (16, 16, 16), "blocks": 1, "reduction": 4, "crop": 64, "pictures": 4, "scale": (0.7, 0.9)}
    return Retouching(RefineTraining.model_validate({**small, "schedule": schedule, **values}), photographs)


def night(level: float) -> Night:
    scene = replace(draw_scene(np.random.default_rng(3)), noise=((0.0, 0.0),) * 3, highlights=(0.9, 1.0), level=level)
    return Night(scene, (1.0, 1.0, 1.0), 1.0, "dng")


def test_rendering_gives_the_photograph_back(photographs: Photographs) -> None:
    """Without noise, cast and error of exposure what the stages render is the photograph, but for the demosaicing."""
    photograph = photographs.training[0].astype(np.float32) / 255
    retouching = task(photographs, exposure_ev=(0.0, 0.0), finish=(0.0, 0.0))
    drawn = retouching.draw_night(np.random.default_rng(1), photograph)
    clean = night(1.0)
    lit = replace(clean, scene=replace(clean.scene, level=drawn.scene.level))
    rendered = render(photograph, lit, np.random.default_rng(2))
    # The level was drawn for another camera: up to a factor near 1 in exposure, the pictures agree.
    ratio = float(np.median(rendered / photograph))
    assert 0.8 < ratio < 1.25
    assert np.abs(rendered / ratio - photograph)[8:-8, 8:-8].mean() < 0.01


def test_the_network_that_denoises_is_asked(photographs: Photographs) -> None:
    """What it is told is the night's noise, what it gives is what the other stages see."""
    photograph = photographs.training[0].astype(np.float32) / 255
    noisy = night(0.05)
    noisy = replace(noisy, scene=replace(noisy.scene, noise=((1e-3, 1e-6),) * 3), left=None)
    networks = Compute(Library([SHIPPED]), "cpu")
    denoised = render(photograph, noisy, np.random.default_rng(2), networks, "denoise_unet")
    clean, all_of_it = (render(photograph, replace(noisy, left=left), np.random.default_rng(2)) for left in (1e-9, 1.0))
    assert np.abs(denoised - clean).mean() < 0.5 * np.abs(all_of_it - clean).mean()
    with pytest.raises(ParamsError, match="denoise_unet"):
        task(photographs, denoiser="denoise_unet")
    other = Retouching(task(photographs).params.model_copy(update={"denoiser": "fc4"}), photographs, networks=networks)
    assert other.identity["denoiser_sha256"] == networks.library.digest("fc4")


def test_less_light_renders_darker(photographs: Photographs) -> None:
    photograph = photographs.training[0].astype(np.float32) / 255
    dark, light = (render(photograph, night(level), np.random.default_rng(2)).mean() for level in (0.005, 0.05))
    assert dark < 0.75 * light


def test_the_network_begins_as_the_mean_of_sixteen_pixels(photographs: Photographs) -> None:
    network = task(photographs).build()
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        begun = network(picture)
    assert float((begun - F.avg_pool2d(picture, 4)).abs().max()) < 0.05
    assert float((begun - F.avg_pool2d(picture, 4)).abs().mean()) < 0.01


def test_samples_lie_over_one_another(photographs: Photographs) -> None:
    retouching = task(photographs, exposure_ev=(0.0, 0.0), cast=0.0, noise=(1e-6, 1e-6))
    seen, wanted = retouching.draw(retouching.pool(np.random.default_rng(1)), np.random.default_rng(2))
    assert seen.shape == (2, 3, 64, 64)
    assert wanted.shape == (2, 3, 16, 16)
    for picture, target in zip(F.avg_pool2d(torch.from_numpy(seen), 4).numpy(), wanted, strict=True):
        assert np.corrcoef(picture[1].ravel(), target[1].ravel())[0, 1] > 0.99
        moved = np.corrcoef(picture[1][:, 2:].ravel(), target[1][:, :-2].ravel())[0, 1]
        assert np.corrcoef(picture[1].ravel(), target[1].ravel())[0, 1] > moved


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_grid_counts_and_what_does_not_repeat_hardly(period: int) -> None:
    y, x = np.mgrid[:64, :96]
    grid = torch.from_numpy(np.where(x % period < period // 2, 0.01, -0.01)).float().expand(1, 3, 64, 96)
    assert float(repeated(grid)) >= 0.0099 / 3
    assert float(repeated(torch.full((1, 3, 64, 96), 0.3))) == 0
    ramp = torch.from_numpy((x + y) * 1e-4).float().expand(1, 3, 64, 96)
    noise = 0.01 * torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert float(repeated(noise)) < 0.3 * float(repeated(grid))
    assert float(repeated(ramp)) < 0.1 * float(repeated(grid))
    assert repeated(torch.ones(1, 3, 8, 8)) == 0  # too small for a whole block


def test_nights_are_flat_and_too_dark_or_too_light(photographs: Photographs) -> None:
    retouching, rng = task(photographs, finish=(0.2, 0.8)), np.random.default_rng(1)
    nights = [retouching.draw_night(rng, photographs.training[0].astype(np.float32) / 255) for _ in range(40)]
    assert min(n.scene.finish for n in nights) < 0.35
    assert max(n.scene.finish for n in nights) > 0.65
    assert all(0.2 <= n.scene.finish <= 0.8 for n in nights)


def test_training_and_export(photographs: Photographs, tmp_path: Path) -> None:
    retouching = task(photographs)
    network, progress = train(retouching, tmp_path / "run")
    assert set(progress.metrics) >= {"gain", "psnr", "ciede2000", "ssim", "ssim_unrefined"}
    assert abs(progress.metrics["gain"]) < 1.5  # it began as the average that it is measured against
    export(retouching, network, progress, tmp_path / "m.safetensors", device="cpu", command="x", photographs={})
    assert Library([tmp_path]).verify() == {"m": ""}
    assert Library([tmp_path]).load("m")(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 8, 8)
