"""The weights that are shipped: whole, described, and as good as they were when they were measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nightisp.bayer import PHASE, unpack
from nightisp.image import DisplayImage, Mosaic, Shot, Window
from nightisp.metrics import angular_error, psnr, psnr_y
from nightisp.models.weights import Compute, Library
from nightisp.noise import add_noise
from nightisp.pipeline import PIPELINE
from nightisp.raw import INGEST, RawFile
from nightisp.stages.denoise import DenoiseParams, denoise
from nightisp.stages.refine import RefineParams, refine
from nightisp.stages.super_resolution import SuperResolutionParams, super_resolution
from nightisp.stages.white_balance import WhiteBalanceParams, white_balance
from nightisp.training.photographs import read_photographs
from nightisp.training.samples import SCENES, _mixed
from nightisp.training.shrinking import bicubic
from nightisp.training.tasks import open_task, read_params

ROOT = Path(__file__).parents[1]
LIBRARY = Library([ROOT / "weights"])
NETWORKS = Compute(LIBRARY, "cpu")
NAMES = [entry.name for entry in LIBRARY.entries()]
MOST_BYTES = 40_000_000


def test_all_are_whole() -> None:
    assert {name for stage in PIPELINE for name in stage.weights(stage.params())} <= set(NAMES)
    assert set(LIBRARY.verify().values()) == {""}
    assert sum(path.stat().st_size for path in (ROOT / "weights").iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_each_says_how_it_was_made(name: str) -> None:
    [card] = [entry.card for entry in LIBRARY.entries() if entry.name == name]
    about = card["training"]
    assert about["command"].startswith("nightisp train")
    assert min(about["steps"], about["hours"], about["photographs"]["training"]) > 0
    assert (ROOT / "weights" / about["photographs"]["sources_and_licenses"]).is_file()
    assert (ROOT / "weights" / f"{name}.md").is_file()


def test_drafts_stand_for_the_weights_that_are_shipped_with_them() -> None:
    [card] = [entry.card for entry in LIBRARY.entries() if entry.name == "mwispnet_draft"]
    assert card["stands_for"] == {name: LIBRARY.digest(name) for name in ("denoise_unet", "mwispnet")}
    assert card["training"]["metrics"]["psnr"] > card["training"]["metrics"]["psnr_of_teacher"]


def street(seed: int = 0) -> np.ndarray:
    """Packed light of a street that nobody photographed: windows, lamps, a smooth sky; float32 (128, 128, 4)."""
    rng = np.random.default_rng(seed)
    picture = np.full((128, 128, 4), 0.01, np.float32) * np.linspace(0.5, 3, 128, dtype=np.float32)[:, None, None]
    for _ in range(50):
        y, x, height, width = rng.integers(40, 118), rng.integers(0, 118), rng.integers(2, 12), rng.integers(2, 12)
        picture[y : y + height, x : x + width] = rng.uniform(0.005, 0.15) * np.float32([1, 0.7, 0.4, 0.7])
    for _ in range(5):
        cv2.circle(picture, tuple(rng.integers(8, 120, 2).tolist()), 2, (0.9, 0.6, 0.3, 0.6), -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.6)


@pytest.mark.parametrize(
    ("shot", "read", "measured"), [(3e-4, 2e-6, 7.2), (1.1e-3, 1.2e-5, 8.5), (4.4e-3, 7.5e-5, 10.3)]
)
@pytest.mark.parametrize("told", [True, False])
def test_the_denoiser_gains_what_it_gained(shot: float, read: float, measured: float, told: bool) -> None:
    """Decibels over the noisy mosaic, to 0.3; estimating the noise costs at most 0.3 more."""
    clean = unpack(street())
    noisy = np.minimum(add_noise(clean, shot, read, np.random.default_rng(1)), 1)
    about = Shot(noise_profile=((shot, read),) if told else ())
    result = denoise(Mosaic(noisy, cfa=PHASE, shot=about), DenoiseParams(), NETWORKS)
    assert result.noise.source == ("file" if told else "estimate")
    gain = psnr(np.minimum(result.samples, 1), clean) - psnr(noisy, clean)
    assert measured - (0.3 if told else 0.6) < gain < measured + 0.3


@pytest.mark.parametrize(
    ("name", "measured"), [("bridge_iso1600.png", 2.9), ("room_iso3200.dng", 1.6), ("summit_iso800.dng", 10.9)]
)
def test_fc4_finds_the_light_as_it_did(name: str, measured: float) -> None:
    """Angle to the light that the sample raws were made with, in degrees, to 0.3."""
    [scene] = [scene for scene in SCENES if scene.name == name]
    mosaic = INGEST(RawFile(ROOT / "data" / name), INGEST.params())
    red, _, blue = white_balance(mosaic, WhiteBalanceParams(method="fc4"), NETWORKS).balance.gains
    truth = _mixed(scene.lights, mosaic.shot.color_matrices[-1])
    assert angular_error((1 / red, 1, 1 / blue), truth) == pytest.approx(measured, abs=0.3)


def test_hat_gains_what_it_gained() -> None:
    """Decibels of luma over bicubic interpolation, to 0.3, on a street that nobody photographed."""
    picture = np.clip(street()[..., :3], 0, 1) ** np.float32(1 / 2.2)
    small = np.clip(bicubic(picture, (32, 32)), 0, 1)
    image = DisplayImage(small, shot=Shot(), window=Window(0, 0, 128, 128), reduction=4)
    large = super_resolution(image, SuperResolutionParams(), NETWORKS).samples
    simple = np.clip(bicubic(small, (128, 128)), 0, 1)
    assert psnr_y(large, picture, 4) - psnr_y(simple, picture, 4) == pytest.approx(3.6, abs=0.3)


def display_street() -> DisplayImage:
    picture = np.clip(street()[..., :3], 0, 1) ** np.float32(1 / 2.2)
    return DisplayImage(picture, shot=Shot(), window=Window(0, 0, 512, 512), reduction=4)


def denoised_street(precision: str) -> np.ndarray:
    noisy = add_noise(unpack(street()), 1.1e-3, 1.2e-5, np.random.default_rng(1))
    mosaic = Mosaic(np.minimum(noisy, 1), cfa=PHASE, shot=Shot(noise_profile=((1.1e-3, 1.2e-5),)))
    return denoise(mosaic, DenoiseParams(precision=precision), NETWORKS).samples


@pytest.mark.parametrize(
    ("result", "bound"),
    [
        (denoised_street, 50),
        (
            lambda precision: (
                refine(
                    replace(display_street(), reduction=1, window=Window(0, 0, 128, 128)),
                    RefineParams(precision=precision),
                    NETWORKS,
                ).samples
            ),
            80,
        ),
        (
            lambda precision: (
                super_resolution(display_street(), SuperResolutionParams(precision=precision), NETWORKS).samples
            ),
            65,
        ),
    ],
    ids=["denoise", "refine", "super_resolution"],
)
def test_bfloat16_is_as_good_as_float32(result: Callable[[str], np.ndarray], bound: float) -> None:
    """Decibels, whether the processor computes it natively or not."""
    assert bound < psnr(result("bfloat16"), result("float32")) < np.inf


@pytest.mark.parametrize(("darkest", "brightest"), [(0.1, 0.2), (0.6, 0.9)])
def test_bfloat16_leaves_sixteen_bits_their_meaning(darkest: float, brightest: float) -> None:
    """Of a smooth sky, refined and enlarged, a fiftieth of an 8-bit level from float32, and no steps."""
    ramp = np.linspace(darkest, brightest, 512, dtype=np.float32)
    sky = DisplayImage(
        np.stack([ramp + 0.02 * ramp[:, None], 0.9 * ramp + 0 * ramp[:, None], ramp + 0 * ramp[:, None]], axis=-1),
        shot=Shot(),
        window=Window(0, 0, 512, 512),
    )

    def finished(precision: Any) -> np.ndarray:
        refined = refine(sky, RefineParams(precision=precision), NETWORKS)
        return super_resolution(refined, SuperResolutionParams(precision=precision), NETWORKS).samples

    low, high = finished("bfloat16"), finished("float32")
    assert 0 < np.abs(low - high).mean() < 0.02 / 255
    assert len(np.unique(low)) > len(np.unique(high)) / 2


@pytest.mark.parametrize(
    ("stage", "name", "folders"),
    [
        ("denoise", "denoise_unet", ("night", "photos")),
        ("white_balance", "fc4", ("night", "photos")),
        ("white_balance", "fc4_2", ("night", "photos")),
        ("white_balance", "fc4_3", ("night", "photos")),
        ("refine", "mwispnet", ("night", "photos")),
        ("draft", "mwispnet_draft", ("night", "photos")),
        ("super_resolution", "hat", ("night", "photos")),
    ],
)
def test_the_stored_figures_come_out_again(stage: str, name: str, folders: tuple[str, ...]) -> None:
    """All held-out photographs, where they are there: the main measure of each card, to 0.05."""
    import torch

    shared = Path(os.environ.get("NIGHTISP_SHARED", ROOT / "../shared")) / "data"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not there (NIGHTISP_SHARED)")
    photographs = read_photographs([shared / folder for folder in folders])
    [card] = [entry.card for entry in LIBRARY.entries() if entry.name == name]
    assert photographs.digest == card["training"]["photographs"]["sha256"]
    task = open_task(stage, read_params(stage, ROOT / "training" / "params.yaml"), photographs, NETWORKS)
    with torch.inference_mode():
        found = task.validate(LIBRARY.load(name))
    main = next(iter(found))
    assert found[main] == pytest.approx(card["training"]["metrics"][main], abs=0.05)


def test_building_the_networks_does_not_import_a_compiler() -> None:
    script = (
        "import sys; from pathlib import Path; from nightisp.models.weights import Compute, Library\n"
        "networks = Compute(Library([Path('weights')]), 'cpu')\n"
        "[networks(name) for name in ('denoise_unet', 'fc4', 'mwispnet', 'hat')]\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0
