"""Training of FC4: true lights, repeatable samples, the loss, and a short run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightisp.bayer import to_half_rgb, unpack
from nightisp.stages.white_balance import as_seen, camera_to_seen, in_camera
from nightisp.training.photographs import Photographs
from nightisp.training.scenes import Scene, draw_scene, packed_light

torch = pytest.importorskip("torch")

from nightisp.training.illuminants import (  # noqa: E402
    WhiteBalanceTraining,
    WhiteBalancing,
    angle,
    degrees,
    draw_other,
    lit,
    summary,
)
from nightisp.training.loop import train  # noqa: E402

SCHEDULE = {
    "steps": 3,
    "batch": 2,
    "warmup": 1,
    "decay": 0,
    "pool_every": 2,
    "validate_every": 3,
    "precision": "float32",
}
TINY: dict[str, Any] = {
    "longest": 40,
    "scenes": 3,
    "stem": 8,
    "squeeze": (2, 2, 2, 2, 2, 2, 4),
    "head": 8,
    "schedule": SCHEDULE,
}


def params(**changes: Any) -> WhiteBalanceTraining:
    return WhiteBalanceTraining.model_validate({**TINY, **changes})


def opened(photographs: Photographs, **changes: Any) -> Any:
    return WhiteBalancing(params(**changes), photographs)


@pytest.fixture
def photographs() -> Photographs:
    rng = np.random.default_rng(7)
    pictures = [np.kron(rng.integers(0, 255, (8, 10, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(4)]
    return Photographs(tuple(pictures[:3]), tuple(pictures[3:]), {"00": Path("a.png")})


def gray(height: int = 64, width: int = 96) -> Any:
    return np.full((height, width, 3), 0.5, np.float32)


def unclipped(seed: int) -> Scene:
    return replace(draw_scene(np.random.default_rng(seed)), level=0.05)


def alike(one: Any, other: Any) -> bool:
    """Tell whether two networks have the same weights, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_neutral_patch_has_the_color_of_the_true_light(seed: int) -> None:
    scene = unclipped(seed)
    light, illuminant = lit(gray(), scene, None, np.random.default_rng(1))
    assert degrees(illuminant, scene.illuminant) < 1e-3
    assert np.linalg.norm(illuminant) == pytest.approx(1)
    rgb = to_half_rgb(unpack(packed_light(light)))
    assert degrees(rgb[5, 9], illuminant) < 0.01
    for space in ("camera", "romm"):  # what the network gets still has that color
        sees = params(space=space).sees
        matrix = camera_to_seen([scene.matrix], sees)
        assert degrees(in_camera(as_seen(rgb, sees, matrix)[:, 3, 4] ** 2.2, matrix), illuminant) < 0.01


def test_two_lamps_light_different_places_and_the_truth_is_what_a_gray_scene_reflects() -> None:
    rng = np.random.default_rng(5)
    scene = unclipped(2)
    other = draw_other(scene, rng)
    assert degrees(scene.illuminant, other) > 3
    light, illuminant = lit(gray(), scene, other, rng)
    mean = light.mean(axis=(0, 1))
    assert degrees(mean, illuminant) < 0.01
    across = [degrees(light[y, x], illuminant) for y in (0, 32, 63) for x in (0, 48, 95)]
    assert max(across) > 1
    apart = degrees(scene.illuminant, other)
    assert degrees(illuminant, scene.illuminant) + degrees(illuminant, other) == pytest.approx(apart, abs=0.01)


def test_the_brighter_half_counts_by_its_light() -> None:
    """A picture, black but for one patch: the truth is the light of that patch."""
    photograph = np.zeros((64, 96, 3), np.float32)
    photograph[:8, :8] = 0.5
    scene = replace(unclipped(2), level=0.002)
    light, illuminant = lit(photograph, scene, draw_other(scene, np.random.default_rng(9)), np.random.default_rng(4))
    assert degrees(light[:8, :8].mean(axis=(0, 1)), illuminant) < 0.3


def test_samples_depend_on_the_seed_alone(photographs: Photographs) -> None:
    drawn = []
    for seed in (1, 1, 2):
        task = opened(photographs)
        rng = np.random.default_rng(seed)
        drawn.append(task.draw(task.pool(rng), rng))
    for one, again in zip(drawn[0], drawn[1], strict=True):
        assert np.array_equal(one, again)
    assert not np.array_equal(drawn[0][1], drawn[2][1])
    planes, illuminants, to_camera = drawn[0]
    assert planes.dtype == illuminants.dtype == to_camera.dtype == np.float32
    assert to_camera.shape == (2, 3, 3)
    assert planes.shape[0] == 2
    assert max(planes.shape[2:]) == 40
    assert planes.min() >= 0
    assert planes.max() <= 1


def test_a_perfect_estimate_costs_nothing_and_is_smooth() -> None:
    truth = torch.nn.functional.normalize(torch.rand(4, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    estimate = truth.clone().requires_grad_()
    loss = angle(estimate, truth).mean()
    assert float(loss.detach()) == 0
    loss.backward()
    assert torch.isfinite(estimate.grad).all()
    right = angle(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert float(right) == pytest.approx(np.pi / 2, abs=1e-3)


def test_loss_of_a_network_that_knows_the_truth(photographs: Photographs) -> None:
    task = opened(photographs)
    rng = np.random.default_rng(1)
    batch = tuple(torch.from_numpy(array) for array in task.draw(task.pool(rng), rng))
    known = torch.linalg.solve(batch[2], batch[1])  # what it should say in the RGB that it sees
    assert float(task.loss(lambda _: (known, None, None), batch)) < 1e-3


def test_summary_and_degrees_by_hand() -> None:
    found = summary([1, 2, 3, 4, 5, 6, 7, 12])
    assert found == {"mean": 5, "median": 4.5, "trimean": 4.5, "best25": 1.5, "worst25": 9.5}
    assert degrees((0, 0, 0), (1, 1, 1)) == 90
    assert degrees((2, 2, 2), (1, 1, 1)) == pytest.approx(0, abs=1e-6)


def test_validation_compares_with_the_baselines(photographs: Photographs) -> None:
    task = opened(photographs)
    with torch.inference_mode():
        metrics = task.validate(task.build().eval())
    assert next(iter(metrics)) == "minus_mean"
    assert metrics["minus_mean"] == pytest.approx(-metrics["mean"])
    assert metrics["mean"] == pytest.approx((metrics["mean_single"] + metrics["mean_mixed"]) / 2)
    assert 0 < metrics["mean_gray_world"] < 45
    assert 0 < metrics["mean_shades_of_gray"] < 45


def test_a_run_that_is_broken_off_goes_on_as_if_it_had_not_been(photographs: Photographs, tmp_path: Path) -> None:
    whole, progress = train(opened(photographs), tmp_path / "whole")
    assert progress.step == 3
    assert {"minus_mean", "trimean", "worst25"} <= progress.metrics.keys()
    torch.manual_seed(1)
    assert not alike(whole, opened(photographs).build())
    train(opened(photographs, schedule={**SCHEDULE, "steps": 2}), tmp_path / "broken")
    resumed, _ = train(opened(photographs), tmp_path / "broken")
    assert alike(resumed, whole)


def test_card_says_what_the_stage_is_to_prepare(photographs: Photographs) -> None:
    task = opened(photographs, normalized=False)
    assert task.card == {"sees": {"longest": 40, "brightness": "as_is", "space": "romm"}}
    assert task.overrides["squeeze"] == [2, 2, 2, 2, 2, 2, 4]
