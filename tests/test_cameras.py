"""The table of cameras: where it comes from, that its digest guards it, that its figures are those of sensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import nightisp.cameras as module
from nightisp.cameras import all_cameras, find_camera
from nightisp.errors import NoGroundError
from nightisp.training.tables import main, table

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
NOISE = "maker,model,iso,a_r,a_g,a_b,b_r,b_g,b_b\n"
MATRICES = "maker,model,black,white," + ",".join(f"xyz_to_camera_{y}{x}" for y in "012" for x in "012") + "\n"


def made(folder: Path, *rows: str) -> str:
    """Make a table of measured rows; only `One` has a matrix."""
    (folder / "noise.csv").write_text(NOISE + "".join(f"{row}\n" for row in rows))
    (folder / "matrices.csv").write_text(MATRICES + "Maker,One,0,1,1,0,0,0,1,0,0,0,1\n")
    return table(folder / "noise.csv", folder / "matrices.csv")


def test_a_row_by_hand(tmp_path: Path) -> None:
    """Median of the colors' shot noise, mean of their read noise, both times 7.5 to be those of the mosaic."""
    rows = made(tmp_path, "Maker,One,100,4e-6,2e-6,3e-6,2e-8,1e-8,6e-8", "Maker,Two,100,2e-6,2e-6,2e-6,1e-8,1e-8,1e-8")
    assert rows.splitlines() == [
        "maker,model,xyz_to_camera,iso_shot_read",
        "Maker,One,1 0 0 0 1 0 0 0 1,100:2.25e-5:2.25e-7",
        "Maker,Two,,100:1.50e-5:7.50e-8",
    ]


def test_read_noise_that_was_fitted_below_zero_is_half_an_electron(tmp_path: Path) -> None:
    (row,) = made(tmp_path, "Maker,Two,100,2e-6,2e-6,2e-6,-1e-8,-1e-8,-1e-8").splitlines()[1:]
    assert float(row.rsplit(":", 1)[1]) == pytest.approx(0.25 * 1.5e-5**2, rel=0.01)


def test_near_sensitivities_are_left_out_but_never_the_last(tmp_path: Path) -> None:
    figures = "2e-6,2e-6,2e-6,1e-8,1e-8,1e-8"
    (row,) = made(tmp_path, *(f"Maker,Two,{iso},{figures}" for iso in (250, 100, 125, 200, 160))).splitlines()[1:]
    assert [point.split(":")[0] for point in row.split(",")[3].split()] == ["100", "250"]


def test_the_command_tells_the_digest_that_belongs_beside_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the figures that it was made of, the shipped table comes out again to the byte."""
    folder = SHARED / "data" / "noise"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (NIGHTISP_SHARED)")
    output = tmp_path / "cameras.csv"
    arguments = [f"--noise={folder / 'noise_profiles.csv'}", f"--matrices={folder / 'camera_matrices.csv'}"]
    assert main([*arguments, f"--output={output}"]) == 0
    assert module.SHA256 in capsys.readouterr().out
    assert output.read_bytes() == Path(module.__file__).with_name("cameras.csv").read_bytes()


def test_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(NoGroundError, match="install it again"):
        all_cameras.__wrapped__()


def test_every_camera_has_figures_that_a_sensor_could_have() -> None:
    """Positive, by rising ISO; white at 500 to 1,000,000 electrons at the lowest ISO; names that no two share."""
    for camera in all_cameras():
        iso, shot, read = np.array(camera.measured).T
        assert (np.diff(iso) > 0).all(), camera.model
        assert shot.min() > 0, camera.model
        assert (read >= 0.24 * shot**2).all(), camera.model
        # `shot` is one electron in units of white.
        assert 500 < 1 / shot[0] < 1e6, camera.model
        assert find_camera(f"{camera.maker} {camera.model}") is camera


def test_noise_grows_with_amplification() -> None:
    """From ISO 400 up, shot noise is proportional to ISO: half of all points within a tenth, nine of ten within half.

    Extended sensitivities, which are no amplification, and raws that cameras smooth are the rest.
    """
    off = []
    for camera in all_cameras():
        points = [(iso, shot) for iso, shot, _ in camera.measured if iso >= 400]
        if len(points) > 1:
            ratio = np.log([shot / iso for iso, shot in points])
            off.extend(np.abs(ratio - np.median(ratio)))
    assert np.median(off) < np.log(1.1)
    assert np.quantile(off, 0.9) < np.log(1.5)


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("Canon EOS 700D", "EOS 700D"),
        ("NIKON CORPORATION NIKON Z 6_2", "Z 6_2"),
        ("SONY ILCE-7M3", "ILCE-7M3"),
        ("OLYMPUS CORPORATION E-M1MarkII", "E-M1MarkII"),
        ("LEICA CAMERA AG LEICA M (Typ 240)", "M (Typ 240)"),
        ("RICOH IMAGING COMPANY, LTD. GR III", "GR III"),
        ("PENTAX K-5", "K-5"),
    ],
)
def test_names_as_exif_has_them(written: str, model: str) -> None:
    camera = find_camera(written)
    assert camera is not None
    assert camera.model == model


@pytest.mark.parametrize("written", ["Canon EOS D30", "Canon EOS 7", "Canon", "D850", "ILCE-7M3"])
def test_names_that_are_not_there_are_not_guessed(written: str) -> None:
    assert find_camera(written) is None
