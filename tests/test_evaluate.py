"""Measuring the pipeline: what is compared with what, what is counted, and what costs a frame."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nightisp import cli
from nightisp.batch import prepare
from nightisp.dng import write_dng
from nightisp.image import CFA, Mosaic, Samples
from nightisp.metrics import angular_error, ciede2000, psnr, ssim
from nightisp.models import build
from nightisp.models.weightfile import write
from nightisp.pipeline import NAMES
from nightisp.run import open_engine
from tests.frames import SHOT, write_frames

Run = Callable[..., tuple[str, str]]
PLAIN = ("--set", "refine.method=none", "--set", "super_resolution.method=none")
CLEAN = np.random.default_rng(3).uniform(0.02, 0.4, (48, 64)).astype(np.float32)
NOISE = 0.01


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("NIGHTISP_STORE", "NIGHTISP_WEIGHTS", "NIGHTISP_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["nightisp", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capsys.readouterr()
        assert leaving.value.code == status, out + err
        assert "Traceback" not in err
        return out, err

    return call


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two raws, and as references what the pipeline makes of them in 8 bits."""
    folder = tmp_path_factory.mktemp("rendered")
    write_frames(folder / "raws", 2)
    render(folder, "png")
    return folder


@pytest.fixture
def nights(tmp_path: Path, run: Run, rendered: Path) -> Path:
    for name in ("raws", "references"):
        shutil.copytree(rendered / name, tmp_path / name)
    return tmp_path


def render(folder: Path, format_: str, **given: dict[str, Any]) -> None:
    engine = open_engine(folder / "store", None, "cpu")
    (folder / "references").mkdir(exist_ok=True)
    for plan in prepare(engine, {"export": {"format": format_}, **given}, [folder / "raws"]).plans:
        encoded = engine.load(plan, "export")
        (folder / "references" / f"{plan.source.frame}{encoded.suffix}").write_bytes(encoded.content)


def report(run: Run, *arguments: object, status: int = 0) -> dict[str, Any]:
    run("evaluate", "--input", "raws", "--references", "references", "--output", "e.json", *arguments, status=status)
    found: dict[str, Any] = json.loads(Path("e.json").read_text())
    return found


def write_truth(folder: Path, noisy: Samples) -> None:
    """Write a raw of known light and noise, with a reference and its truth."""
    write_dng(Mosaic(noisy, cfa=CFA.GBRG, shot=SHOT), folder / "raws" / "lit.dng")
    (folder / "references").mkdir(exist_ok=True)
    picture = np.random.default_rng(5).integers(0, 65536, (48, 64, 3)).astype(np.uint16)
    assert cv2.imwrite(str(folder / "references" / "lit.tif"), picture)
    np.save(folder / "references" / "lit.npy", CLEAN)
    truth = {"illuminant": [0.45, 0.9, 0.63], "clean_mosaic": "lit.npy"}
    (folder / "references" / "lit.truth.json").write_text(json.dumps(truth))


def test_the_reference_itself_is_perfect(nights: Path, run: Run) -> None:
    render(nights, "png", refine={"method": "none"}, super_resolution={"method": "none"})
    found = report(run, *PLAIN, "--set", "export.format=png")
    assert [frame["frame"] for frame in found["frames"]] == ["frame0", "frame1"]
    for frame in found["frames"]:
        assert frame["error"] is None
        assert list(frame["stages"]) == list(NAMES)
        finished = frame["stages"]["export"]
        assert (finished["psnr"], finished["ssim"], finished["ciede2000"]) == (None, 1.0, 0.0)
        assert all(numbers["seconds"] >= 0 for numbers in frame["stages"].values())
        assert frame["stages"]["tone"]["psnr"] > 55  # all that is between is rounding to 8 bits
        assert "angle" not in frame["stages"]["color"]  # nobody said what the light was


def test_numbers_are_those_of_the_metrics(nights: Path, run: Run) -> None:
    references = {}
    for name in ("frame0", "frame1"):
        path = nights / "references" / f"{name}.png"
        references[name] = cv2.imread(str(path)).astype(np.float32) / 255
        assert cv2.imwrite(str(path), cv2.imread(str(path)) // 2)
    found = report(run, "--set", "export.format=png", "--metrics", "m.json")
    for frame in found["frames"]:
        rendered = np.ascontiguousarray(references[frame["frame"]][..., ::-1])
        halved = (np.rint(rendered * 255) // 2 / 255).astype(np.float32)
        expected = {
            "psnr": psnr(rendered, halved),
            "ssim": ssim(rendered, halved),
            "ciede2000": ciede2000(rendered, halved),
        }
        assert {name: frame["stages"]["export"][name] for name in expected} == pytest.approx(expected, abs=1e-4)
    metrics = json.loads(Path("m.json").read_text())
    assert (metrics["frames"], metrics["failed"]) == (2, 0)
    values = [frame["stages"]["export"]["psnr"] for frame in found["frames"]]
    assert metrics["psnr"] == pytest.approx(np.mean(values), abs=1e-4)
    assert metrics["psnr"] == found["mean"]["export"]["psnr"]
    assert metrics["seconds"] == pytest.approx(sum(n["seconds"] for n in found["mean"].values()), abs=1e-3)
    assert all(isinstance(value, (int, float)) for value in metrics.values())


def test_light_and_noise_are_measured_where_the_truth_is_known(tmp_path: Path, run: Run) -> None:
    noisy = CLEAN + NOISE * np.random.default_rng(1).standard_normal(CLEAN.shape).astype(np.float32)
    write_truth(tmp_path, noisy)
    settings = ("--set", "white_balance.method=as_shot", "--set", "denoise.method=none")
    found = report(run, *settings, "--metrics", "m.json")
    stages = found["frames"][0]["stages"]
    assert stages["ingest"]["psnr"] == pytest.approx(psnr(noisy, CLEAN), abs=0.05)
    assert stages["denoise"]["psnr"] == stages["ingest"]["psnr"]  # denoise.method: none
    angle = float(angular_error(SHOT.as_shot_neutral, (0.45, 0.9, 0.63)))
    assert angle > 2
    assert stages["white_balance"]["angle"] == pytest.approx(angle, abs=1e-3)
    assert found["angle"]["white_balance"]["worst_25"] == stages["white_balance"]["angle"]
    metrics = json.loads(Path("m.json").read_text())
    assert metrics["white_balance_angle_mean"] == stages["white_balance"]["angle"]
    assert metrics["denoise_psnr"] == stages["denoise"]["psnr"]


def test_second_white_balance_counts(tmp_path: Path, run: Run) -> None:
    write_truth(tmp_path, CLEAN)
    perfect = ("--set", "white_balance.method=gains", "--set", "white_balance.gains=[2, 1, 1.42857142857]")
    without = report(run, *perfect, "--set", "color.second_white_balance=none")["angle"]
    assert without["white_balance"]["mean"] == pytest.approx(0, abs=1e-3)
    assert without["color"] == without["white_balance"]
    with_it = report(run, *perfect, "--set", "color.second_white_balance=shades_of_gray")["angle"]
    assert with_it["white_balance"] == without["white_balance"]
    assert with_it["color"]["mean"] > 0.5  # of a mosaic whose colors are alike, not neutral


def test_cached_stages_keep_their_seconds(nights: Path, run: Run) -> None:
    first, second = report(run), report(run)
    assert [frame["stages"] for frame in first["frames"]] == [frame["stages"] for frame in second["frames"]]
    shutil.rmtree(nights / "artifacts" / "tone")
    assert report(run)["frames"][0]["stages"]["export"] == first["frames"][0]["stages"]["export"]


def test_one_row_an_evaluation_and_only_what_changed_is_computed(nights: Path, run: Run) -> None:
    arguments = ("evaluate", "--input", "raws", "--references", "references", "--table", "t.csv")
    assert "computed: ingest 2, denoise 2, " in run(*arguments)[0]
    assert "computed: nothing;" in run(*arguments)[0]
    out, _ = run(*arguments, "--set", "tone.gamma=2.5", "--metrics", "m.json")
    assert "computed: tone 2, refine 2, super_resolution 2, export 2; " in out
    (row,) = csv.DictReader(Path("t.csv").read_text().splitlines())
    assert (row["tone_gamma"], row["export_quality"]) == ("2.5", "95")
    assert not {"tone_curve", "denoise_method", "refine_binned"} & set(row)  # no numbers
    metrics = json.loads(Path("m.json").read_text())
    assert {name: float(row[name]) for name in ("psnr", "ssim", "ciede2000")} == {
        name: metrics[name] for name in ("psnr", "ssim", "ciede2000")
    }


def test_one_frame_that_fails_does_not_stop_the_rest(nights: Path, run: Run) -> None:
    shutil.copy(nights / "raws" / "frame0.dng", nights / "raws" / "alone.dng")
    (nights / "raws" / "broken.dng").write_text("no raw")
    small = cv2.imread(str(nights / "references" / "frame1.png"))[:-2]
    assert cv2.imwrite(str(nights / "references" / "frame1.png"), small)
    found = report(run, "--metrics", "m.json", status=3)
    errors = {frame["frame"]: frame["error"] for frame in found["frames"]}
    assert errors["frame0"] is None
    assert "alone: no reference" in errors["alone"]
    assert "frame1.png: the reference is 46 x 64; the picture is 48 x 64" in errors["frame1"]
    assert "broken.dng" in errors["broken"]
    metrics = json.loads(Path("m.json").read_text())
    assert (metrics["frames"], metrics["failed"]) == (1, 3)


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ('{"illuminant": [1, 2]}', "illuminant is [1.0, 2.0]"),
        ('{"illuminant": [1, 0, 1]}', "three numbers above 0"),
        ('{"clean_mosaic": "absent.npy"}', "absent.npy: no such file"),
        ('{"clean_mosaic": "small.npy"}', "clean_mosaic is 4 x 4; the mosaic is 48 x 64"),
        ("[]", "expected an object"),
        ("{", "expected an object"),
    ],
)
def test_a_wrong_truth_is_named(nights: Path, run: Run, truth: str, said: str) -> None:
    (nights / "references" / "frame0.truth.json").write_text(truth)
    np.save(nights / "references" / "small.npy", np.zeros((4, 4), np.float32))
    found = report(run, "--frames", "frame0", status=3)
    assert said in found["frames"][0]["error"]


def test_two_references_of_one_name_are_refused(nights: Path, run: Run) -> None:
    shutil.copy(nights / "references" / "frame0.png", nights / "references" / "frame0.jpg")
    assert "leave one" in report(run, status=3)["frames"][0]["error"]


def test_references_may_lie_among_the_raws(nights: Path, run: Run) -> None:
    for path in (nights / "references").glob("*.png"):
        path.replace(nights / "raws" / path.name)
    out, _ = run("evaluate", "--input", "raws", "--references", "raws", "--set", "export.format=png")
    assert "2 of 2 pictures measured" in out


def test_pictures_that_lie_on_their_side_are_compared_upright(tmp_path: Path, run: Run) -> None:
    turned = Mosaic(CLEAN, cfa=CFA.RGGB, shot=SHOT.model_copy(update={"orientation": 6}))
    write_dng(turned, tmp_path / "raws" / "turned.dng")
    render(tmp_path, "tiff", refine={"method": "none"}, super_resolution={"method": "none"})
    stages = report(run, *PLAIN, "--set", "export.format=tiff")["frames"][0]["stages"]
    assert {stages[name]["psnr"] for name in ("tone", "refine", "export")} == {None}  # the store has 16 bits too


def test_a_reduced_picture_is_measured_at_its_size(nights: Path, run: Run) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    small = {"widths": (16, 16, 16), "blocks": 1}
    tensors = build("mwispnet", **small).state_dict()
    write(nights / "weights" / "mwispnet.safetensors", tensors, {"network": "mwispnet", "overrides": small})
    quarter = ("--set", "refine.method=mwispnet", "--frames", "frame0")
    stages = report(run, *quarter, "--set", "super_resolution.method=lanczos")["frames"][0]["stages"]
    assert stages["refine"]["psnr"] not in (None, stages["tone"]["psnr"], stages["super_resolution"]["psnr"])
    assert stages["super_resolution"]["psnr"] == pytest.approx(stages["export"]["psnr"], abs=0.1)  # but for JPEG
    error = report(run, *quarter, "--set", "super_resolution.method=none", status=3)["frames"][0]["error"]
    assert "the reference is 48 x 64; the picture is 12 x 16" in error
    assert "refine, super_resolution and export.longest change the size" in error


def test_the_table_says_what_was_measured(nights: Path, run: Run) -> None:
    out, err = run("evaluate", "--input", "raws", "--references", "references", "--set", "export.format=png")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:4] == ["picture", "PSNR", "SSIM", "CIEDE2000"]
    assert [line[0] for line in lines[1:4]] == ["frame0", "frame1", "mean"]
    assert [line[0] for line in lines if line and line[0] in NAMES] == list(NAMES)
    assert lines[1][1:4] == ["inf", "1.0000", "0.00"]
    assert "rendered frame0" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input", "raws", "--references", "absent"), "absent: no such folder"),
        (("--input", "absent", "--references", "references"), "absent: no such file"),
        (("--input", "raws", "--references", "references", "--set", "tone.gama=2"), "gamma"),
        (("--input", "raws", "--references", "references", "--set", "denoise.weights=none_such"), "none_such"),
    ],
)
def test_wrong_use_is_said_at_once(nights: Path, run: Run, arguments: tuple[str, ...], said: str) -> None:
    _, err = run("evaluate", *arguments, "--weights", "nowhere", status=2)
    assert said in err
