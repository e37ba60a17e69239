"""The loop that trains every network, and what the denoiser learns from."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from nightisp.anscombe import restore
from nightisp.cameras import all_cameras, find_camera
from nightisp.errors import ParamsError, RawFileError, RawFileNotFoundError, WeightsError, WeightsMismatchError
from nightisp.models.weights import Compute, Library
from nightisp.pipeline import PIPELINE
from nightisp.training.denoising import DenoiseTraining, Denoising
from nightisp.training.export import export
from nightisp.training.loop import Schedule, rate, train
from nightisp.training.photographs import Photographs, read_photographs, write_sources
from nightisp.training.scenes import balanced_light, draw_scene, expose, light_on_sensor, packed_light
from nightisp.training.tasks import TRAINERS, open_task, read_params

ROOT = Path(__file__).parents[1]


@dataclass
class Doubling:
    """Learn to double numbers; what is drawn depends on the pool and on the step."""

    schedule: Schedule
    fail_at: int | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    stage = "denoise"
    network = "denoise_unet"
    overrides: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        return nn.Linear(1, 1)

    def pool(self, rng: np.random.Generator) -> float:
        return float(rng.random())

    def draw(self, pool: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        samples = rng.random((self.schedule.batch, 1), dtype=np.float32) + np.float32(pool)
        return samples, 2 * samples

    def loss(self, network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return (network(batch[0]) - batch[1]).square().mean()

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"near": -float((network(torch.ones(1, 1)) - 2).abs())}


def digest(network: nn.Module) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in network.state_dict().values())).hexdigest()


def schedule(**values: Any) -> Schedule:
    small = {"steps": 40, "batch": 4, "warmup": 5, "pool_every": 7, "validate_every": 20, "learning_rate": 0.05}
    return Schedule.model_validate({"precision": "float32", "average": 0.9, **small, **values})


def trained(folder: Path, **values: Any) -> tuple[str, dict[str, float]]:
    network, progress = train(Doubling(schedule(**values)), folder)
    return digest(network), progress.metrics


def test_training_learns(tmp_path: Path) -> None:
    assert trained(tmp_path, steps=400)[1]["near"] > -0.02
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(20, 401, 20))
    assert json.loads((tmp_path / "metrics.json").read_text())["near"] == pytest.approx(
        float(rows[-1]["near"]), abs=1e-4
    )


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    assert trained(tmp_path / "a") == trained(tmp_path / "b")
    assert trained(tmp_path / "c", seed=2) != trained(tmp_path / "a")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(tmp_path: Path, optimizer: str) -> None:
    class Broken(Doubling):
        def draw(self, pool: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
            if (tmp_path / "go").exists():
                return super().draw(pool, rng)
            self.drawn = getattr(self, "drawn", 0) + 1
            if self.drawn > 23:
                raise KeyboardInterrupt
            return super().draw(pool, rng)

    settings = {"checkpoint_every": 1e-9, "optimizer": optimizer}
    with pytest.raises(KeyboardInterrupt):
        train(Broken(schedule(**settings)), tmp_path / "run")
    (tmp_path / "go").touch()
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    network, progress = train(Broken(schedule(**settings)), tmp_path / "run")
    assert (digest(network), progress.metrics) == trained(tmp_path / "whole", **settings)


def test_a_run_keeps_what_it_began_with(tmp_path: Path) -> None:
    _, progress = train(Doubling(schedule()), tmp_path, begun="begun with a, SHA-256 1")
    assert progress.begun == "begun with a, SHA-256 1"
    _, progress = train(Doubling(schedule(steps=60)), tmp_path, begun="begun with a, SHA-256 2")
    assert progress.begun == "begun with a, SHA-256 1"


def test_more_steps_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path)
    assert trained(tmp_path, steps=60)[1]["near"] > -1
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["step"] == 60
    with pytest.raises(ParamsError, match="is at step 60 already"):
        trained(tmp_path, steps=50)


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(WeightsMismatchError, match=r"another run \(schedule.seed"):
        trained(tmp_path, seed=2)
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(WeightsMismatchError, match="no checkpoint that can be read"):
        trained(tmp_path)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the loss is"):
        trained(tmp_path, learning_rate=1.0, clip=1e30, steps=4000, warmup=0, average=0, decay=0, weight_decay=1e9)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (9, 1), (30, 1), (50, 1), (75, 0.5), (100, 0)])
def test_rate(step: int, share: float) -> None:
    assert rate(schedule(steps=100, warmup=10, decay=0.5), step) == pytest.approx(share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of soft colored blobs."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(5)
    for number in range(30):
        small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(small, (192, 160), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def photographs(folder: Path) -> Photographs:
    return read_photographs([folder])


def test_a_photograph_is_held_out_for_good(folder: Path, photographs: Photographs, tmp_path: Path) -> None:
    assert len(photographs.training) + len(photographs.held_out) == 30
    assert 1 <= len(photographs.held_out) <= 9
    held_out = {picture.tobytes() for picture in photographs.held_out}
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        if number % 2:
            (tmp_path / f"renamed {number}.png").write_bytes(path.read_bytes())
    fewer = read_photographs([tmp_path, folder])
    assert {picture.tobytes() for picture in fewer.held_out} == held_out
    assert fewer.digest == photographs.digest


def test_of_photographs_that_no_network_saw_all_are_held_out(folder: Path, tmp_path: Path) -> None:
    untrained = read_photographs([folder], untrained=True)
    assert (len(untrained.training), len(untrained.held_out)) == (0, 30)
    with pytest.raises(RawFileNotFoundError, match="no photograph"):
        read_photographs([tmp_path], untrained=True)


def test_photographs_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RawFileNotFoundError, match="no such folder"):
        read_photographs([tmp_path / "gone"])
    with pytest.raises(RawFileNotFoundError, match="0 photographs to train on"):
        read_photographs([tmp_path])
    (tmp_path / "a.jpg").write_bytes(b"words")
    with pytest.raises(RawFileError, match=r"a\.jpg: is no picture"):
        read_photographs([tmp_path])


def test_sources_name_every_photograph(photographs: Photographs, tmp_path: Path) -> None:
    table = tmp_path / "manifest.tsv"
    rows = "".join(f"photos/{path.name}\tsomebody\tCC0\n" for path in photographs.files.values())
    table.write_text("file\tsource\tlicence\n" + rows)
    assert write_sources(photographs, table, tmp_path / "list.tsv") == {"sources_and_licenses": "list.tsv"}
    listed = (tmp_path / "list.tsv").read_text().splitlines()
    assert len(listed) == 31
    (tmp_path / "list.tsv").write_text(f"{listed[0]}\n{'0' * 64}\tof other weights\tCC0\n")
    write_sources(photographs, table, tmp_path / "list.tsv")
    assert len((tmp_path / "list.tsv").read_text().splitlines()) == 32
    table.write_text("file\tsource\tlicence\n" + rows.partition("\n")[2])
    with pytest.raises(RawFileNotFoundError, match="has no row for"):
        write_sources(photographs, table, tmp_path / "list.tsv")


def test_scenes_are_nights_that_a_camera_can_balance() -> None:
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed))
        assert 0.2 < scene.illuminant[0] < 1.3
        assert 0.2 < scene.illuminant[2] < 1.3
        assert 400 <= scene.iso <= 25600
        assert all(shot > 0 and read > 0 for shot, read in scene.noise)


@pytest.mark.parametrize("finish", [0.0, 0.4, 1.0])
def test_how_flat_a_photograph_was_finished(finish: float) -> None:
    """At 1 light is what sRGB's encoding stands for; between, a geometric mean."""
    rng = np.random.default_rng(1)
    scene = replace(draw_scene(rng), highlights=(0.999, 1.0))
    photograph = rng.uniform(0.1, 0.9, (4, 5, 1)).astype(np.float32).repeat(3, axis=2)
    ours, theirs, found = (balanced_light(photograph, replace(scene, finish=x))[..., 1] for x in (0.0, 1.0, finish))
    np.testing.assert_allclose(found, ours ** (1 - finish) * theirs**finish, rtol=1e-4)
    encoded = np.where(theirs <= 0.0031308, 12.92 * theirs, 1.055 * theirs ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(encoded, photograph[..., 1], atol=2e-3)


def test_light_on_sensor_is_exposed_and_colored() -> None:
    scene = replace(draw_scene(np.random.default_rng(1)), level=0.05, highlights=(0.9, 1.0))
    gray = np.full((8, 8, 3), 0.6, np.float32)
    light = light_on_sensor(gray, scene)
    assert light.mean() == pytest.approx(0.05, rel=1e-4)
    np.testing.assert_allclose(light[0, 0] / light[0, 0, 1], scene.illuminant, rtol=1e-4)


def test_exposed_noise_has_the_variance_of_the_scene() -> None:
    scene = replace(draw_scene(np.random.default_rng(2)), noise=((1e-3, 1e-5),) * 3, row=0.0, black=0.0, bits=14)
    noisy = expose(np.full((400, 400, 4), 0.1, np.float32), scene, np.random.default_rng(3))
    assert noisy.var() == pytest.approx(1e-3 * 0.1 + 1e-5, rel=0.02)
    assert noisy.mean() == pytest.approx(0.1, abs=1e-4)


def test_row_noise_lies_on_the_rows_of_the_mosaic() -> None:
    """Blue and the first green share the even rows of a BGGR mosaic, red and the second green the odd ones."""
    scene = replace(draw_scene(np.random.default_rng(2)), noise=((0.0, 0.0),) * 3, row=0.05, black=0.0, bits=14)
    noisy = expose(np.full((50, 8, 4), 0.5, np.float32), scene, np.random.default_rng(3))
    assert np.ptp(noisy, axis=1).max() == 0
    red, green, blue, other_green = noisy[:, 0].T
    np.testing.assert_array_equal(blue, green)
    np.testing.assert_array_equal(red, other_green)
    assert abs(np.corrcoef(red, blue)[0, 1]) < 0.5


def task(photographs: Photographs, **values: Any) -> Denoising:
    params = {"width": 8, "levels": 2, "crop": 16, "scenes": 6, "scale": (0.5, 0.9), **values}
    params["schedule"] = schedule(steps=6, batch=2, validate_every=3, learning_rate=1e-3)
    return Denoising(DenoiseTraining.model_validate(params), photographs)


def test_denoising_learns_from_light_that_comes_back(photographs: Photographs) -> None:
    """Restoring what is to be learned gives the clean planes, up to the figures that were mistaken on purpose."""
    denoising = task(photographs, mistaken=0.0)
    pool = denoising.pool(np.random.default_rng(1))
    noisy, target, weight = denoising.draw(pool, np.random.default_rng(2))
    assert noisy.shape == target.shape == weight.shape == (2, 4, 16, 16)
    assert 0.7 < (noisy - target).std() < 1.3
    again = denoising.draw(denoising.pool(np.random.default_rng(1)), np.random.default_rng(2))
    for ours, theirs in zip((noisy, target, weight), again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    clean = pool.light[0]
    shot, read = np.float32([pool.scenes[0].noise[c] for c in (0, 1, 2, 1)]).T
    sample = denoising._sample(clean, clean, pool.scenes[0].noise)[1]
    np.testing.assert_allclose(restore(sample.transpose(1, 2, 0), shot, read), clean, atol=2e-5)


def test_a_perfect_denoiser_loses_nothing(photographs: Photographs) -> None:
    denoising = task(photographs)
    batch = tuple(
        torch.from_numpy(a) for a in denoising.draw(denoising.pool(np.random.default_rng(1)), np.random.default_rng(2))
    )

    class Perfect(nn.Module):
        def forward(self, noisy: torch.Tensor) -> torch.Tensor:
            return batch[1] - noisy

    assert float(denoising.loss(Perfect(), batch)) == pytest.approx(0, abs=1e-10)
    assert float(denoising.loss(nn.Identity(), batch)) > 0.1


def test_packed_light_needs_whole_blocks() -> None:
    assert packed_light(np.zeros((7, 9, 3), np.float32)).shape == (3, 4, 4)


def test_weights_are_exported_with_all_that_makes_them_again(photographs: Photographs, tmp_path: Path) -> None:
    denoising = task(photographs)
    network, progress = train(denoising, tmp_path / "run")
    path = tmp_path / "weights" / "mine.safetensors"
    card = export(denoising, network, progress, path, device="cpu", command="again", photographs=photographs.card)
    library = Library([path.parent])
    assert library.verify() == {"mine": ""}
    [entry] = library.entries()
    assert entry.card["sees"] == "stabilized"
    assert entry.card["training"]["command"] == "again"
    assert entry.card["training"]["steps"] == 6
    assert set(card["training"]["metrics"]) >= {"psnr", "psnr_iso800", "psnr_iso12800"}
    with torch.inference_mode():
        again = denoising.validate(library.load("mine"))
    assert again["psnr"] == pytest.approx(card["training"]["metrics"]["psnr"], abs=0.05)


def test_every_trainer_is_there(photographs: Photographs) -> None:
    for stage in TRAINERS:
        params = read_params(stage, ROOT / "training" / "params.yaml")
        assert open_task(stage, params, photographs, Compute(Library([ROOT / "weights"]), "cpu")).stage == (
            "refine" if stage == "draft" else stage
        )


def test_dvc_goes_from_photographs_to_the_weights_of_every_trainer() -> None:
    from nightisp.params import read_yaml

    stage = read_yaml(ROOT / "training" / "dvc.yaml")["stages"]["train"]
    made = stage["foreach"]
    assert {item["stage"] for item in made.values()} == set(TRAINERS)
    for name, trainer in TRAINERS.items():
        assert made[trainer.name]["stage"] == name
        assert made[trainer.name]["seed"] == 1
    chosen = {name for section in PIPELINE for name in section.weights(section.params())}
    assert set(made) == chosen | {"mwispnet_draft"}  # all that pictures and drafts are made with by default
    assert stage["do"]["params"] == [{"params.yaml": ["${item.stage}"]}]


def test_dvc_trains_the_denoiser_that_refinement_learns_with_first(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / "training" / name).read_bytes())
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    drawn = subprocess.run([*dvc, "dag", "--dot"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    edges = [line.split("->") for line in drawn.splitlines() if "->" in line]
    assert sorted([end.strip(' ";') for end in edge] for edge in edges) == [
        ["train@denoise_unet", "train@mwispnet"],
        ["train@mwispnet", "train@mwispnet_draft"],
    ]


def test_settings_of_a_training(tmp_path: Path) -> None:
    params = read_params("denoise", None, ["schedule.steps=7", "iso=[100, 200]"])
    assert (params.schedule.steps, params.iso) == (7, (100, 200))
    with pytest.raises(ParamsError, match=r"denoise.schedule.steps: 0"):
        read_params("denoise", None, ["schedule.steps=0"])
    with pytest.raises(ParamsError, match="cannot be trained"):
        read_params("tone", None)
    with pytest.raises(ParamsError, match="NAME=VALUE"):
        read_params("denoise", None, ["steps"])
    (tmp_path / "p.yaml").write_text("denoize:\n  crop: 16\n")
    with pytest.raises(ParamsError, match="denoize: no such task"):
        read_params("denoise", tmp_path / "p.yaml")


def test_a_killed_training_goes_on(folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the steps; the same command then finishes, with what an undisturbed run gives."""
    settings = ["width=4", "levels=2", "crop=16", "scenes=4", "scale=[0.5, 0.9]", "schedule.steps=60"]
    settings += ["schedule.batch=2", "schedule.validate_every=30", "schedule.checkpoint_every=0.001"]
    settings += ["schedule.precision=float32"]
    program = [
        sys.executable,
        "-c",
        "from nightisp.__main__ import program; program()",
        "train",
        "denoise",
        "--photographs",
        str(folder),
        "--device",
        "cpu",
    ]
    program += ["--threads", "1", *(word for setting in settings for word in ("--set", setting))]

    def command(name: str) -> list[str]:
        return [*program, "--runs", str(tmp_path / name), "--output", str(tmp_path / name)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command("killed"), env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "denoise_unet" / "checkpoint.pt"
    for _ in range(600):
        if checkpoint.is_file() or running.poll() is not None:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "denoise_unet.safetensors").exists()
    for name in ("killed", "whole"):
        subprocess.run(command(name), env=environment, cwd=tmp_path, check=True, capture_output=True)
    cards = [Library([tmp_path / name]).entries()[0].card for name in ("killed", "whole")]
    assert cards[0]["content_sha256"] == cards[1]["content_sha256"]


def test_cameras_are_found_however_they_are_written() -> None:
    assert len(all_cameras()) > 400
    for name in ("NIKON CORPORATION NIKON D850", "Nikon D850", "nikon d850"):
        camera = find_camera(name)
        assert camera is not None
        assert camera.model == "D850"
    assert find_camera("a camera of nobody") is None
    assert find_camera("") is None


def test_noise_between_and_beyond_measured_sensitivities() -> None:
    camera = find_camera("Nikon D850")
    assert camera is not None
    isos = [iso for iso, _, _ in camera.measured]
    for iso, shot, read in camera.measured:
        assert camera.noise(iso) == pytest.approx((shot, read))
    (low, high), between = (camera.noise(isos[2]), camera.noise(isos[3])), camera.noise((isos[2] * isos[3]) ** 0.5)
    assert between == pytest.approx([(a * b) ** 0.5 for a, b in zip(low, high, strict=True)])
    shot, read = camera.noise(isos[-1])
    assert camera.noise(2 * isos[-1]) == pytest.approx((2 * shot, 4 * read))
    assert camera.noise(2.1 * isos[-1]) is None
    assert camera.noise(isos[0] / 2.1) is None


def test_measured_noise_agrees_with_an_independent_measurement() -> None:
    """A D850 at ISO 3200 by :cite:`wei2020eld`: 8.8e-4 shot noise; the table says so within a quarter."""
    camera = find_camera("Nikon D850")
    assert camera is not None
    assert camera.noise(3200)[0] == pytest.approx(8.8e-4, rel=0.25)


def test_no_picture_waits_for_a_training() -> None:
    """DVC joins the pipelines of a repository by their files: rendering must read no output of a training."""
    rendering, training = ((ROOT / folder / "dvc.yaml").read_text() for folder in (".", "training"))
    assert "weights" in rendering
    assert "../weights" not in training
