"""What the network of drafts learns from: one night, as a draft and in full, and the networks that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nightisp.errors import ParamsError
from nightisp.models import build
from nightisp.models.weights import Compute, Library
from nightisp.training.drafting import Drafting, DraftTraining
from nightisp.training.export import export
from nightisp.training.loop import train
from nightisp.training.photographs import Photographs
from tests.frames import SHIPPED

SMALL = {"widths": (16, 16, 16), "blocks": 1, "reduction": 4, "crop": 64, "pictures": 3, "scale": (0.7, 0.9)}


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Soft slopes in which every place differs from every other."""
    rng, pictures = np.random.default_rng(4), []
    for _ in range(3):
        y, x = np.mgrid[:160, :192] / 192
        gray = 0.5 + 0.2 * np.sin(x * rng.uniform(4, 9) + y * rng.uniform(4, 9) + rng.uniform(0, 6))
        pictures.append(np.rint(np.stack([gray, gray, gray], axis=-1) * 255).astype(np.uint8))
    return Photographs(tuple(pictures[:2]), tuple(pictures[2:]), {})


def task(photographs: Photographs, **values: Any) -> Drafting:
    schedule = {"steps": 4, "batch": 2, "validate_every": 2, "precision": "float32", "learning_rate": 1e-4}
    params = DraftTraining.model_validate({**SMALL, "schedule": schedule, **values})
    return Drafting(params, photographs, networks=Compute(Library([SHIPPED]), "cpu"))


def test_draft_and_full_size_show_the_same_part(photographs: Photographs) -> None:
    drafting = task(photographs)
    seen, full = drafting.draw(drafting.pool(np.random.default_rng(1)), np.random.default_rng(2))
    assert (seen.shape, full.shape) == ((2, 3, 32, 32), (2, 3, 64, 64))
    for draft, whole in zip(seen, F.avg_pool2d(torch.from_numpy(full), 2).numpy(), strict=True):
        alike = np.corrcoef(draft[1].ravel(), whole[1].ravel())[0, 1]
        moved = np.corrcoef(draft[1][:, 3:].ravel(), whole[1][:, :-3].ravel())[0, 1]
        assert alike > max(0.7, moved)


def test_the_draft_is_of_the_same_noisy_night(photographs: Photographs) -> None:
    """Binned it is noisier than what the U-Net leaves, on dark nights; both have the night's light and gains."""

    def roughness(picture: Any) -> float:
        return float(np.abs(np.diff(picture, axis=0)).mean())

    ratios = []
    for full, draft in task(photographs).held_out:
        small = F.avg_pool2d(torch.from_numpy(full).movedim(-1, 0), 2).movedim(0, -1).numpy()
        assert draft.shape == small.shape
        assert np.abs(draft.mean(axis=(0, 1)) - small.mean(axis=(0, 1))).max() < 0.05
        ratios.append(roughness(draft) / roughness(small))
    assert max(ratios) > 1.2


class Fixed(nn.Module):
    """Gives what it is told, of the size that is wanted."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, rgb: Any, *, binned: bool = False) -> Any:
        return F.avg_pool2d(torch.zeros_like(rgb), 2 if binned else 4) + self.value


def test_the_loss_is_the_distance_to_the_teacher(photographs: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    drafting = task(photographs)
    monkeypatch.setitem(drafting.__dict__, "_teacher", Fixed(0.5))
    batch = (torch.rand(2, 3, 32, 32), torch.rand(2, 3, 64, 64))
    network = Fixed(0.25)
    loss = drafting.loss(network, batch)
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert float(network.value.grad) == pytest.approx(-1)  # type: ignore[arg-type]
    with torch.inference_mode():
        found = drafting.validate(Fixed(0.4))
    assert found["psnr"] == pytest.approx(20, abs=1e-4)
    assert next(iter(found)) == "psnr"


def test_the_run_is_named_by_what_it_learns_from(photographs: Photographs) -> None:
    drafting = task(photographs)
    digest = drafting.networks.library.digest  # type: ignore[union-attr]
    assert drafting.identity["teacher_sha256"] == digest("mwispnet")
    assert drafting.card["stands_for"] == {name: digest(name) for name in ("denoise_unet", "mwispnet")}
    with pytest.raises(ParamsError, match="teacher: mwispnet"):
        Drafting(drafting.params, photographs)


def test_training_and_export(photographs: Photographs, tmp_path: Path) -> None:
    drafting = task(photographs)
    network, progress = train(drafting, tmp_path / "run")
    names = {f"{name}{of}" for name in ("psnr", "ciede2000", "ssim") for of in ("", "_of_teacher")}
    assert set(progress.metrics) == names
    export(drafting, network, progress, tmp_path / "m.safetensors", device="cpu", command="x", photographs={})
    assert Library([tmp_path]).verify() == {"m": ""}
    loaded = Library([tmp_path]).load("m")
    assert loaded(torch.zeros(1, 3, 16, 16), binned=True).shape == (1, 3, 8, 8)
    assert build(drafting.network, **drafting.overrides).state_dict().keys() == loaded.state_dict().keys()
