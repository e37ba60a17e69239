"""A photographer's own pairs: laid over one another, refused if they do not belong together, learned from."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from nightisp.bayer import PHASE
from nightisp.dng import write_dng
from nightisp.errors import ParamsError, RawFileError, RawFileNotFoundError
from nightisp.image import ColorMatrix, Mosaic, Shot
from nightisp.orientation import orient
from nightisp.training.loop import train
from nightisp.training.pairs import align, read_pairs
from nightisp.training.tasks import open_pairs, read_params
from tests.frames import CLASSICAL
from tests.strategies import DAYLIGHT

SIZE = (240, 320)


def scene(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """A night street of sharp-edged windows on soft ground, display sRGB."""
    rng = np.random.default_rng(seed)
    picture = (
        np.full((height, width, 3), 0.15, np.float32) + np.linspace(0, 0.1, width, dtype=np.float32)[None, :, None]
    )
    for _ in range(60):
        y, x, h, w = rng.integers(0, height - 30), rng.integers(0, width - 30), rng.integers(6, 30), rng.integers(6, 30)
        picture[y : y + h, x : x + w] = rng.uniform(0.1, 0.9, 3)
    return cv2.GaussianBlur(picture, (0, 0), 0.7)


def write_raw(path: Path, picture: np.ndarray, orientation: int = 1) -> None:
    linear = (picture**2.2 * 0.3).astype(np.float32)
    samples = np.empty(picture.shape[:2], np.float32)
    for y, x, channel in ((0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 0)):
        samples[y::2, x::2] = linear[y::2, x::2, channel]
    shot = Shot(
        orientation=orientation,
        as_shot_neutral=(1.0, 1.0, 1.0),
        color_matrices=(ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21),),
    )
    write_dng(Mosaic(samples, cfa=PHASE, shot=shot), path)


def write_picture(path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(path), np.rint(np.clip(picture, 0, 1)[..., ::-1] * 255).astype(np.uint8))


def no_networks(name: str) -> None:
    raise AssertionError(name)


def classical(folder: Path) -> Path:
    """Write parameters that need no network."""
    path = folder / "classical.yaml"
    path.write_text(json.dumps(CLASSICAL))
    return path


def quarter(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (picture.shape[1] // 4, picture.shape[0] // 4), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(("degrees", "shift"), [(0.0, 0.0), (1.0, 3.0), (-0.7, -2.0)])
def test_a_finished_picture_is_laid_over_the_rendered_one(scale: float, degrees: float, shift: float) -> None:
    """Another size, a slight turn and shift, a look: what comes out lies where the raw has it."""
    rendered = scene(1)
    turn = cv2.getRotationMatrix2D((SIZE[1] / 2, SIZE[0] / 2), degrees, 1.0)
    turn[:, 2] += shift
    moved = cv2.warpAffine(rendered, turn, SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    look = np.clip(moved, 0, 1) ** 0.7 * np.float32([1.0, 0.9, 0.8])
    finished = cv2.resize(
        look, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    laid = align(finished, rendered)
    wanted = quarter(rendered**0.7 * np.float32([1.0, 0.9, 0.8]))
    (dx, dy), _ = cv2.phaseCorrelate(laid[6:-6, 6:-6, 1].copy(), wanted[6:-6, 6:-6, 1].copy())
    assert np.hypot(dx, dy) < 0.1
    assert np.abs(laid - wanted)[6:-6, 6:-6].mean() < 0.02


def test_pictures_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(RawFileError, match="do not show the same"):
        align(scene(2), scene(1), "x")
    with pytest.raises(RawFileError, match="cropped"):
        align(scene(1)[:, :260], scene(1), "x")
    with pytest.raises(RawFileError, match="do not show the same"):
        align(scene(1)[::-1].copy(), scene(1), "x")


def folder_of_pairs(folder: Path) -> Path:
    folder.mkdir()
    for number, orientation in enumerate((1, 6, 8, 2)):
        picture = scene(number)
        write_raw(folder / f"{number}.dng", picture, orientation)
        write_picture(folder / f"{number}.jpg", orient(picture**1.4 * np.float32([1, 0.9, 0.8]), orientation))
    write_raw(folder / "alone.dng", scene(9))
    write_raw(folder / "wrong.dng", scene(10))
    write_picture(folder / "wrong.png", scene(11))
    return folder


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    folder, keep = folder_of_pairs(tmp_path / "pairs"), tmp_path / "kept"
    told: list[str] = []
    pairs = read_pairs(folder, keep, classical(tmp_path), no_networks, told.append)
    assert (len(pairs.training), len(pairs.held_out)) == (3, 1)
    assert sorted(told) == ["0.dng", "1.dng", "2.dng", "3.dng", "wrong.dng"]
    [refused] = pairs.refused
    assert "wrong.dng" in refused
    assert "do not show the same" in refused
    for pair in (*pairs.training, *pairs.held_out):
        seen, wanted = pair.whole(4)
        assert seen.shape == (*SIZE, 3)
        assert wanted.shape == (60, 80, 3)
        steep = [np.hypot(*np.gradient(p[..., 1])) for p in (quarter(seen), wanted)]
        assert np.corrcoef(steep[0][4:-4, 4:-4].ravel(), steep[1][4:-4, 4:-4].ravel())[0, 1] > 0.85
    again = read_pairs(folder, keep, classical(tmp_path), no_networks, told.append)
    assert again.digest == pairs.digest
    assert told[5:] == ["wrong.dng"]  # the others were kept


def test_too_few_pairs(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.dng", scene(1))
    write_picture(tmp_path / "a.jpg", scene(1))
    write_raw(tmp_path / "b.dng", scene(2))
    with pytest.raises(RawFileNotFoundError, match="1 usable pairs"):
        read_pairs(tmp_path, tmp_path / "kept", classical(tmp_path), no_networks)


def test_a_look_is_learned(tmp_path: Path) -> None:
    """A few hundred steps on four small pairs come nearer to the look than what was rendered."""
    settings = ["widths=[16, 16, 16]", "blocks=1", "crop=64", "schedule.steps=150", "schedule.batch=4"]
    settings += ["schedule.precision=float32", "schedule.learning_rate=0.002", "schedule.warmup=10"]
    settings += ["schedule.average=0.9", "schedule.validate_every=150"]
    params = read_params("refine", None, settings)
    folder = folder_of_pairs(tmp_path / "pairs")
    task, card = open_pairs(params, folder, tmp_path / "kept", classical(tmp_path), no_networks, lambda _: None)
    assert (card["pairs"], card["held_out"]) == (3, 1)
    _, progress = train(task, tmp_path / "run")
    assert progress.metrics["gain"] > 1


def test_start_needs_the_same_network(tmp_path: Path) -> None:
    from nightisp.errors import WeightsMismatchError
    from nightisp.models import build

    params = read_params("refine", None, ["widths=[16, 16, 16]", "blocks=1", "crop=64", "schedule.steps=1"])
    task, _ = open_pairs(
        params, folder_of_pairs(tmp_path / "p"), tmp_path / "kept", classical(tmp_path), no_networks, lambda _: None
    )
    with pytest.raises(WeightsMismatchError, match="does not fit"):
        train(task, tmp_path / "run", start=build("mwispnet", widths=(16, 16, 24), blocks=1))


def test_pairs_are_for_refinement_only() -> None:
    from nightisp.cli.train import train as command

    with pytest.raises(ParamsError, match="--pairs"):
        command("denoise", pairs=Path("x"))
    with pytest.raises(ParamsError, match="--photographs"):
        command("refine")
