"""Looking into the store: artifacts as pictures, as files, and what makes two of them different."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from nightisp import usage
from nightisp.errors import ImageShapeError
from nightisp.image import CFA, DisplayImage, LinearImage, Mosaic, Shot
from nightisp.lineage import lineage
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.preview import shown, shown_as_gray
from nightisp.raw import RawFile
from nightisp.stages import STAGES
from nightisp.store import Store
from nightisp.views import contact_sheet, difference
from tests.frames import write_frame
from tests.strategies import flat, mosaic, noise
from tests.terminal import Terminal, render

INGEST, TONE = 0, NAMES.index("tone")


@pytest.fixture
def rendered(nightisp: Terminal, tmp_path: Path) -> Terminal:
    """A frame called "one", rendered with a gamma of 2.8 and then of 2.4."""
    write_frame(tmp_path / "data" / "one.dng", 1)
    for gamma in (2.8, 2.4):
        render(nightisp, "--set", f"tone.gamma={gamma}")
    return nightisp


def read(path: Path | str) -> Any:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def test_show_makes_a_picture_of_every_stage(rendered: Terminal, tmp_path: Path) -> None:
    said = rendered("cache", "show", "one").out
    names = sorted(path.name for path in (tmp_path / "one-stages").iterdir())
    assert names == sorted(
        [f"{number:02d}_{stage}.png" for number, stage in enumerate(NAMES)]
        + [f"{number:02d}_{stage}_mosaic.png" for number, stage in enumerate(NAMES[:3])]
        + ["contact_sheet.png"]
    )
    folder = tmp_path / "one-stages"
    assert read(folder / "00_ingest.png").shape == (24, 32, 3)  # half of 48 x 64
    assert read(folder / "00_ingest_mosaic.png").shape == (48, 64)
    assert read(folder / "05_tone.png").shape == (48, 64, 3)
    assert "gamma=2.4" in said
    assert "shown: linear light," in said
    finished = next((tmp_path / "output").glob("one.*"))
    assert np.array_equal(read(folder / "08_export.png"), read(finished))


def test_show_of_the_one_before_and_of_a_key(rendered: Terminal) -> None:
    lines = [json.loads(line) for line in rendered("cache", "show", "one~1", "--json").out.splitlines()]
    assert [line["stage"] for line in lines] == list(NAMES)
    assert lines[TONE]["params"]["gamma"] == 2.8
    key = lines[TONE]["key"]
    lines = [json.loads(line) for line in rendered("cache", "show", key[:10], "--json").out.splitlines()]
    assert [line["stage"] for line in lines] == list(NAMES[: TONE + 1])
    assert lines[-1]["key"] == key
    rendered("cache", "show", "one~1", "--stage", "tone", "--longest", 16, "--to", "small")
    assert read("small/05_tone.png").shape == (12, 16, 3)
    assert not Path("small/06_refine.png").exists()


def test_a_draft_stands_for_a_frame_only_as_long_as_there_is_no_picture(rendered: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "two.dng", 2)
    render(rendered, "--draft", "--set", "tone.gamma=2.0")

    def gamma(frame: str) -> float:
        lines = [json.loads(line) for line in rendered("cache", "show", frame, "--json").out.splitlines()]
        return float(lines[TONE]["params"]["gamma"])

    assert [gamma(frame) for frame in ("one", "one~1", "one~2", "two")] == [2.4, 2.8, 2.0, 2.0]
    rendered("cache", "export", "one", "clean.npy", "--stage", "denoise")
    assert np.load(tmp_path / "clean.npy").shape[0] >= 48  # not binned
    shown = json.loads(rendered("report", "--json").out)["frames"]
    found = {frame["frame"]: frame["stages"][TONE]["changed"] for frame in shown}
    assert {frame: changed["gamma"] for frame, changed in found.items()} == {"one": "2.4", "two": "2.0"}
    told = rendered("flow", "run", "--engine", "local", "--dry-run", "--set", "tone.gamma=2.2").out
    about = [line for line in told.splitlines() if line.startswith("one")]
    assert any("tone.gamma: 2.4 -> 2.2" in line for line in about)
    assert not any("binned" in line for line in about)


def test_names_that_mean_nothing(rendered: Terminal) -> None:
    assert "no frame or key of that name" in rendered("cache", "show", "two", status=2).err
    assert "one has 2 of stage export" in rendered("cache", "show", "one~2", status=2).err
    assert "Did you mean tone?" in rendered("cache", "show", "one", "--stage", "tine", status=2).err
    key = json.loads(rendered("cache", "show", "one", "--stage", "color", "--json").out.splitlines()[-1])["key"]
    assert "has no artifact of tone (it has ingest," in rendered("cache", "show", key, "--stage", "tone", status=2).err


def test_a_frame_whose_name_ends_like_a_count_is_that_frame(rendered: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one~1.dng", 2)
    render(rendered)
    found = rendered("cache", "show", "one~1", "--json").out.splitlines()
    assert json.loads(found[-1])["source"]["name"] == "one~1.dng"


def test_what_was_pruned_ends_the_chain(rendered: Terminal, tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    chain = lineage(store, "one")
    store.remove(chain[2].entry)
    assert [artifact.stage for artifact in lineage(store, "one")] == list(NAMES[3:])


def test_export_as_npy_and_png(rendered: Terminal, tmp_path: Path) -> None:
    rendered("cache", "export", "one", "color.npy", "--stage", "color")
    chain = lineage(Store(tmp_path / "artifacts"), "one")
    image = chain[4].read(Store(tmp_path / "artifacts"))
    assert np.array_equal(np.load("color.npy"), image.samples)
    said = rendered("cache", "export", "one", "color.png", "--stage", "color").out
    pixels, how = shown(image)
    assert np.array_equal(read("color.png")[..., ::-1], pixels)
    assert how in said
    for name in ("look.bmp", "look"):
        assert "expected .png, .tif, .npy or .dng" in rendered("cache", "export", "one", name, status=2).err


def test_export_as_tiff(rendered: Terminal, tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    chain = lineage(store, "one")
    rendered("cache", "export", "one", "tone.tif", "--stage", "tone")
    with tifffile.TiffFile("tone.tif") as file:
        assert 34675 in file.pages[0].tags  # an ICC profile: display light is sRGB
        assert np.abs(file.asarray() / 65535 - chain[TONE].read(store).visible()).max() < 1e-5
    assert "linear srgb RGB" in rendered("cache", "export", "one", "color.tif", "--stage", "color").out
    with tifffile.TiffFile("color.tif") as file:
        assert 34675 not in file.pages[0].tags
        assert np.abs(file.asarray() / 65535 - np.clip(chain[4].read(store).visible(), 0, 1)).max() < 1e-5
    rendered("cache", "export", "one", "mosaic.tif", "--stage", "denoise")
    assert tifffile.imread("mosaic.tif").shape == (48, 64)


def test_a_denoised_mosaic_becomes_a_dng_with_its_metadata(rendered: Terminal, tmp_path: Path) -> None:
    rendered("cache", "export", "one", "clean.dng", "--stage", "denoise")
    store = Store(tmp_path / "artifacts")
    denoised = lineage(store, "one")[1].read(store)
    again = PIPELINE[INGEST](RawFile(Path("clean.dng")), PIPELINE[INGEST].params())
    assert np.abs(again.visible() - denoised.visible()).max() < 1e-4
    assert (again.shot.camera, again.shot.iso) == (denoised.shot.camera, denoised.shot.iso)
    assert again.shot.as_shot_neutral == pytest.approx(denoised.shot.as_shot_neutral, rel=1e-4)
    assert "gives no mosaic" in rendered("cache", "export", "one", "x.dng", "--stage", "color", status=2).err
    balanced = rendered("cache", "export", "one", "x.dng", "--stage", "white_balance", status=2).err
    assert "has been white-balanced" in balanced
    assert not Path("x.dng").exists()


def test_diff_names_what_made_the_difference(rendered: Terminal, tmp_path: Path) -> None:
    said = rendered("cache", "diff", "one~1", "one", "--to", "diff.png").out.splitlines()
    assert said[0] == "tone.gamma: 2.8 -> 2.4"
    assert said[1].startswith("export: psnr ")
    assert len(said) == 3
    assert read("diff.png").shape[1] > 3 * 480
    found = json.loads(rendered("cache", "diff", "one~1", "one", "--stage", "tone", "--json").out)
    store = Store(tmp_path / "artifacts")
    older, newer = (lineage(store, name)[TONE].read(store).visible() for name in ("one~1", "one"))
    assert found["differs"] == {"tone.gamma": [2.8, 2.4]}
    assert found["largest"] == pytest.approx(np.abs(older - newer).max())
    assert found["psnr"] == pytest.approx(-10 * np.log10(np.mean((older.astype(np.float64) - newer) ** 2)), abs=1e-3)
    assert found["ciede2000"] > 1
    assert not found["identical"]
    same = json.loads(rendered("cache", "diff", "one~1", "one", "--stage", "color", "--json").out)
    assert same["identical"]
    assert same["psnr"] is None
    assert "samples are the same" in rendered("cache", "diff", "one~1", "one", "--stage", "color").out


def test_diff_of_two_frames(rendered: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "two.dng", 2)
    render(rendered)
    found = json.loads(rendered("cache", "diff", "one", "two", "--json").out)
    assert list(found["differs"]) == ["raw"]
    key = json.loads(rendered("cache", "show", "two", "--stage", "color", "--json").out.splitlines()[-1])["key"]
    assert "choose --stage color" in rendered("cache", "diff", "one", key, status=2).err
    assert "expected .png" in rendered("cache", "diff", "one", "two", "--to", "x.jpg", status=2).err


def test_list_counts_hits(rendered: Terminal) -> None:
    render(rendered, "--set", "tone.gamma=2.4")
    found = [json.loads(line) for line in rendered("cache", "list", "--json").out.splitlines()]
    counted = {(line["stage"], line["params"].get("gamma")): line["hits"] for line in found}
    exported = sorted(line["hits"] for line in found if line["stage"] == "export")  # two, of one second
    assert exported[0] == 0 < exported[1]
    assert counted["tone", 2.8] == 0
    assert counted["ingest", None] >= 1


def test_what_a_running_process_uses_is_not_pruned(rendered: Terminal, tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    key = lineage(store, "one")[-1].entry.key
    noting = (
        "import sys; from pathlib import Path; from nightisp.usage import Usage; "
        "Usage(Path(sys.argv[1])).note(sys.argv[2], hit=True); print('noted', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", noting, store.folder, key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        said = rendered("cache", "prune", "--keep", "0B", "--yes").out
        assert "kept 1 artifacts that a running flow uses" in said
        assert [artifact.entry.key for artifact in lineage(store, "one")] == [key]
        running.communicate()
    assert "removed 1 artifacts" in rendered("cache", "prune", "--keep", "0B", "--yes").out


def test_logs_of_use_are_forgotten_and_half_lines_ignored(tmp_path: Path) -> None:
    log = tmp_path / usage.FOLDER / f"999999999-ab@{os.uname().nodename}.log"
    log.parent.mkdir()
    log.write_text(f"hit {'a' * 64}\nmade {'b' * 64}\nhit {'a' * 64}\nhit {'c' * 20}")
    assert usage.hits(tmp_path) == {"a" * 64: 2}
    assert usage.in_use(tmp_path) == set()
    usage.forget(tmp_path)
    assert log.exists()
    long_ago = log.stat().st_mtime - usage.KEPT_S - 60
    os.utime(log, (long_ago, long_ago))
    usage.forget(tmp_path)
    assert not log.exists()


def test_a_store_that_cannot_be_written_keeps_no_log(tmp_path: Path) -> None:
    (tmp_path / usage.FOLDER).write_text("a file in its place")
    usage.Usage(tmp_path).note("a" * 64, hit=True)
    assert not usage.hits(tmp_path)


@pytest.mark.parametrize("cfa", list(CFA))
def test_photosites_are_shown_one_by_one(cfa: CFA) -> None:
    """Green photosites are brightest here: they become white, red ones a quarter of that light."""
    pixels, how = shown_as_gray(mosaic(flat((0.1, 0.4, 0.2), 6, 8, cfa), cfa))
    assert pixels.shape == (6, 8)
    expected = {"R": round(255 * 0.25 ** (1 / 2.2)), "G": 255, "B": round(255 * 0.5 ** (1 / 2.2))}
    assert pixels.tolist() == [[expected[cfa.color_at(y, x)] for x in range(8)] for y in range(6)]
    assert how == "photosites, linear light, 1.3 EV brighter, gamma 2.2"  # log2(1 / 0.4)


def test_how_light_is_shown_is_said() -> None:
    shot = Shot(as_shot_neutral=(0.5, 1, 0.5))
    image = LinearImage(np.full((4, 4, 3), (0.125, 0.25, 0.125), np.float32), space="camera", shot=shot)
    assert shown(image)[1] == "linear light, 2.0 EV brighter, gamma 2.2, as-shot white balance"
    assert shown(DisplayImage(np.zeros((2, 2, 3), np.float32)))[1] == "as it is"
    assert shown(LinearImage(np.full((4, 4, 3), 2, np.float32), space="srgb"))[1].startswith(
        "linear light, 1.0 EV darker"
    )


def test_contact_sheet_lays_out_rows() -> None:
    red, gray = np.full((50, 100, 3), (255, 0, 0), np.uint8), np.full((40, 20), 255, np.uint8)
    sheet = contact_sheet([(red, ("a", "b")), (gray, ("c",)), (red, ("",))], columns=2, width=100)
    assert sheet.shape[1] == 2 * 112
    assert (sheet[20:50, 10:100] == (255, 0, 0)).all()
    assert (sheet == (255, 255, 255)).all(axis=2).sum() == 100 * 50  # 20 x 40, enlarged until 100 high
    assert sheet.shape[0] > 100 + 50


def test_difference_by_hand() -> None:
    one = DisplayImage(np.full((16, 16, 3), 0.5, np.float32))
    samples = one.samples.copy()
    samples[3, 4, 1] = 0.75
    found = difference(one, one.with_samples(samples))
    assert found.largest == 0.25
    assert found.mean == pytest.approx(0.25 / 768)
    assert found.psnr == pytest.approx(-10 * np.log10(0.25**2 / 768))
    assert found.picture[3, 4].tolist() == [0, 255, 0]
    assert found.picture.sum() == 255
    assert difference(one, one).psnr == np.inf
    linear = difference(*(mosaic(noise(6, 8)) for _ in range(2)))
    assert (linear.ssim, linear.ciede2000) == (None, None)
    with pytest.raises(ImageShapeError, match=r"16 x 16 and 8 x 16; expected one size"):
        difference(one, DisplayImage(np.zeros((16, 8, 3), np.float32)))


def test_every_state_can_be_shown_at_full_size() -> None:
    states = {stage.gives for stage in STAGES}
    assert states == {Mosaic, LinearImage, DisplayImage}
