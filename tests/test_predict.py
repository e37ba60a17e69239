"""One network alone on a file: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nightisp import cli  # noqa: E402
from nightisp.bayer import pack, to_phase, unpack  # noqa: E402
from nightisp.errors import OutputError, RawFileError, RawFileNotFoundError  # noqa: E402
from nightisp.image import CFA, ColorMatrix, DisplayImage, Mosaic, Shot  # noqa: E402
from nightisp.models import PRESETS, build  # noqa: E402
from nightisp.models.weightfile import write  # noqa: E402
from nightisp.models.weights import Compute, Library  # noqa: E402
from nightisp.picture_files import read_picture, write_picture  # noqa: E402
from nightisp.predict import KINDS, kind, presets  # noqa: E402
from nightisp.stages import denoise, refine, super_resolution, white_balance  # noqa: E402
from tests.strategies import DAYLIGHT  # noqa: E402
from tests.tolerance import FLOAT32, UINT16  # noqa: E402

SMALL: dict[str, dict[str, Any]] = {
    "denoise_unet": {"width": 4},
    "fc4": {"stem": 8, "squeeze": (2, 2, 4, 4, 6, 6, 8), "head": 8},
    "mwispnet": {"widths": (16, 16, 16), "blocks": 1},
    "hat": {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "squeeze_factor": 6},
}
Run = Callable[..., tuple[str, str]]


def write_weights(folder: Path, network: str, **card: Any) -> Path:
    torch.manual_seed(5)
    state = build(network, **SMALL[network]).state_dict()
    if network == "fc4":  # an untrained one may be confident of nothing
        state["final_convs.4.bias"] = torch.tensor([0.6, 0.5, 0.3, 0.4])
    path = folder / f"{network}.safetensors"
    write(path, state, {"network": network, "overrides": SMALL[network], **card})
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    for network in SMALL:
        write_weights(folder, network, **({"sees": "stabilized"} if network == "denoise_unet" else {}))
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("NIGHTISP_WEIGHTS", "NIGHTISP_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["nightisp", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capsys.readouterr()
        assert leaving.value.code == status, out + err
        return out, err

    return call


def photograph(height: int = 40, width: int = 56) -> np.ndarray:
    rng = np.random.default_rng(2)
    return cv2.resize(rng.random((8, 8, 3)), (width, height)).astype(np.float32)


def networks(folder: Path) -> Compute:
    return Compute(Library([folder]), "cpu")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_pictures_come_back(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(0).random(shape).astype(np.float32)
    write_picture(tmp_path / f"a{suffix}", samples)
    read = read_picture(tmp_path / f"a{suffix}")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, samples, atol=UINT16, rtol=0)


def test_eight_bits_are_divided_by_255_and_red_comes_first(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((3, 4, 3), (0, 51, 255), np.uint8))  # B, G, R
    np.testing.assert_allclose(read_picture(tmp_path / "a.png")[0, 0], (1, 0.2, 0), atol=FLOAT32)
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.full((16, 16), 102, np.uint8))
    np.testing.assert_allclose(read_picture(tmp_path / "a.jpg"), np.full((16, 16), 0.4), atol=0.005)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RawFileNotFoundError, match=r"absent\.png: no such file"):
        read_picture(tmp_path / "absent.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    (tmp_path / "empty.tif").touch()
    for name in ("broken.png", "empty.tif"):
        with pytest.raises(RawFileError, match=f"{name}: cannot be decoded"):
            read_picture(tmp_path / name)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(RawFileError, match=r"broken\.npy: is no NPY"):
        read_picture(tmp_path / "broken.npy")
    np.save(tmp_path / "ints.npy", np.zeros((4, 4), np.int64))
    with pytest.raises(RawFileError, match="holds int64"):
        read_picture(tmp_path / "ints.npy")
    assert cv2.imwrite(str(tmp_path / "alpha.png"), np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(RawFileError, match="alpha"):
        read_picture(tmp_path / "alpha.png")
    with pytest.raises(RawFileError, match=r"\.bmp; expected one of"):
        read_picture(tmp_path / "a.bmp")
    with pytest.raises(OutputError, match="4 channels"):
        write_picture(tmp_path / "a.png", np.zeros((4, 4, 4), np.float32))


def test_hat_enlarges_as_its_stage_does(tmp_path: Path, weights: Path, run: Run) -> None:
    samples = photograph()
    write_picture(tmp_path / "in.png", samples)
    run("predict", "--network", "hat", "--tile", 32, "--overlap", 16, "in.png", "out.png")
    enlarged = read_picture(tmp_path / "out.png")
    assert enlarged.shape == (160, 224, 3)
    params = super_resolution.SuperResolutionParams(method="hat", tile=32, overlap=16, precision="float32")
    image = DisplayImage(read_picture(tmp_path / "in.png"), reduction=4)
    expected = super_resolution.STAGE(image, params, networks(weights)).samples
    np.testing.assert_allclose(enlarged, expected, atol=UINT16)
    assert expected.std() > 0.05


def test_mwispnet_gives_a_quarter(tmp_path: Path, weights: Path, run: Run) -> None:
    np.save(tmp_path / "in.npy", photograph(66, 70))
    run("predict", "--network", "mwispnet", "in.npy", "out.npy")
    retouched = np.load(tmp_path / "out.npy")
    assert retouched.shape == (17, 18, 3)
    image = DisplayImage(photograph(66, 70))
    params = refine.RefineParams(method="mwispnet", precision="float32")
    expected = refine.STAGE(image, params, networks(weights)).samples
    np.testing.assert_allclose(retouched, expected, atol=FLOAT32)


@pytest.mark.parametrize("cfa", list(CFA))
def test_a_mosaic_is_denoised_in_its_own_phase(tmp_path: Path, weights: Path, run: Run, cfa: CFA) -> None:
    samples = photograph(37, 41)[..., 0]
    np.save(tmp_path / "in.npy", samples)
    out, _ = run(
        "predict", "--network", "denoise_unet", "--cfa", cfa, "--noise", "1e-3", "1e-5", "in.npy", "out.npy",
        "--json", "facts.json",
    )  # fmt: skip
    at_phase, window = to_phase(samples, cfa)
    mosaic = Mosaic(at_phase, cfa=CFA.BGGR, window=window, shot=Shot(noise_profile=((1e-3, 1e-5),)))
    params = denoise.DenoiseParams(method="unet", precision="float32")
    expected = denoise.STAGE(mosaic, params, networks(weights)).visible()
    denoised = np.load(tmp_path / "out.npy")
    assert denoised.shape == samples.shape
    np.testing.assert_allclose(denoised, expected, atol=FLOAT32)
    assert np.abs(denoised - samples).max() > 1e-4
    assert json.loads((tmp_path / "facts.json").read_text()) == {
        "noise": "file",
        "shot_noise": 1e-3,
        "read_noise": 1e-5,
    }
    assert "shot_noise: 0.001" in out


def test_packed_planes_are_the_mosaic(tmp_path: Path, weights: Path, run: Run) -> None:
    mosaic = photograph(32, 48)[..., 1].copy()
    np.save(tmp_path / "mosaic.npy", mosaic)
    np.save(tmp_path / "packed.npy", pack(mosaic, CFA.BGGR))
    noise = ("--noise", "1e-3", "1e-5")
    run("predict", "--network", "denoise_unet", *noise, "packed.npy", "a.npy")
    run("predict", "--network", "denoise_unet", *noise, "--cfa", "BGGR", "mosaic.npy", "b.npy")
    packed = np.load(tmp_path / "a.npy")
    assert packed.shape == (16, 24, 4)
    np.testing.assert_array_equal(unpack(packed, CFA.BGGR), np.load(tmp_path / "b.npy"))


def test_noise_is_estimated_where_nobody_says_it(tmp_path: Path, weights: Path, run: Run) -> None:
    rng = np.random.default_rng(1)
    light = np.linspace(0.05, 0.5, 256, dtype=np.float32) * np.ones((256, 1), np.float32)
    noisy = light + rng.standard_normal(light.shape) * np.sqrt(1e-3 * light + 1e-5)
    np.save(tmp_path / "in.npy", noisy.astype(np.float32))
    out, _ = run("predict", "--network", "denoise_unet", "--cfa", "RGGB", "in.npy", "out.npy")
    facts = dict(line.split(": ") for line in out.splitlines())
    assert facts["noise"] == "estimate"
    assert float(facts["shot_noise"]) == pytest.approx(1e-3, rel=0.2)
    np.save(tmp_path / "small.npy", noisy[:8, :8].astype(np.float32))
    _, err = run("predict", "--network", "denoise_unet", "--cfa", "RGGB", "small.npy", "out.npy", status=2)
    assert "give --noise SHOT READ" in err


def test_blind_weights_take_no_noise(tmp_path: Path, run: Run) -> None:
    write_weights(tmp_path / "weights", "denoise_unet")
    write_picture(tmp_path / "in.png", photograph()[..., 0])
    out, _ = run("predict", "--network", "denoise_unet", "--cfa", "RGGB", "in.png", "out.png")
    assert out.splitlines() == ["noise: blind"]
    assert read_picture(tmp_path / "out.png").shape == (40, 56)
    arguments = ("--cfa", "RGGB", "--noise", 1e-3, 1e-5, "in.png", "out.png")
    _, err = run("predict", "--network", "denoise_unet", *arguments, status=2)
    assert "blind" in err


def test_fc4_tells_the_light(tmp_path: Path, weights: Path, run: Run) -> None:
    rgb = photograph(64, 96)
    np.save(tmp_path / "in.npy", rgb)
    out, _ = run("predict", "--network", "fc4", "in.npy", "map.png", "--json", "light.json")
    facts = json.loads((tmp_path / "light.json").read_text())
    mosaic = Mosaic(unpack(rgb[..., [0, 1, 2, 1]].copy()), cfa=CFA.BGGR)
    params = white_balance.WhiteBalanceParams(method="fc4", weights=("fc4",))
    expected = white_balance.STAGE(mosaic, params, networks(weights)).balance.gains
    assert facts["gains"] == pytest.approx(expected)
    assert np.multiply(facts["gains"], facts["illuminant"]) == pytest.approx([1, 1, 1])
    assert "gains: " in out
    confidence = read_picture(tmp_path / "map.png")
    assert confidence.ndim == 2
    assert confidence.max() == pytest.approx(1)


def test_fc4_that_judges_by_the_color_matrix_is_given_one(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "weights"
    write_weights(folder, "fc4", sees={"space": "romm"})
    rgb = photograph(64, 96)
    np.save(tmp_path / "in.npy", rgb)
    matrix = [value for row in DAYLIGHT for value in row]
    run("predict", "--network", "fc4", "--color-matrix", *matrix, "in.npy", "map.png", "--json", "light.json")
    facts = json.loads((tmp_path / "light.json").read_text())
    shot = Shot(color_matrices=(ColorMatrix(xyz_to_camera=DAYLIGHT, illuminant=21),))
    mosaic = Mosaic(unpack(rgb[..., [0, 1, 2, 1]].copy()), cfa=CFA.BGGR, shot=shot)
    params = white_balance.WhiteBalanceParams(method="fc4", weights=("fc4",))
    assert facts["gains"] == pytest.approx(white_balance.STAGE(mosaic, params, networks(folder)).balance.gains)
    _, err = run("predict", "--network", "fc4", "in.npy", "map.png", status=2)
    assert "fc4 judges the light by the camera's ColorMatrix" in err


def test_a_file_of_weights_may_be_named(tmp_path: Path, run: Run) -> None:
    path = write_weights(tmp_path / "elsewhere", "mwispnet")
    write_picture(tmp_path / "in.tif", photograph())
    run("predict", "--network", "mwispnet", "--weights", path, "in.tif", "out.tif")
    assert read_picture(tmp_path / "out.tif").shape == (10, 14, 3)
    run("predict", "--network", "mwispnet", "--weights-folder", path.parent, "in.tif", "again.tif")
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hat", "gray.npy", "out.png"), r"gray.npy: is (40, 56); hat takes an RGB picture (H, W, 3)"),
        (("mwispnet", "five.npy", "out.png"), "five.npy: is (8, 8, 5)"),
        (("denoise_unet", "rgb.npy", "out.png"), "takes a mosaic (H, W) or its planes"),
        (("denoise_unet", "gray.npy", "out.png"), "--cfa"),
        (("fc4", "five.npy", "out.png"), "an RGB picture (H, W, 3), a mosaic"),
        (("hat", "absent.png", "out.png"), "absent.png: no such file"),
        (("hat", "rgb.npy", "out.gif"), "out.gif: .gif; expected one of .png"),
        (("hat", "--tile", 33, "rgb.npy", "out.png"), "--tile: 33"),
        (("hat", "--cfa", "RGGB", "rgb.npy", "out.png"), "--cfa: hat has no use for it"),
        (("fc4", "--color-matrix", *range(9), "rgb.npy", "out.png"), "--color-matrix: fc4 has no use for it"),
        (("mwispnet", "--tile", 32, "rgb.npy", "out.png"), "--tile: mwispnet has no use"),
        (("hta", "rgb.npy", "out.png"), "Did you mean hat"),
        (("hat_s", "rgb.npy", "out.png"), "hat_s: no weights of this name"),
        (("hat", "--weights", "fc4", "rgb.npy", "out.png"), "holds weights of fc4; expected hat"),
        (("hat", "--device", "cuda:99", "rgb.npy", "out.png"), "cuda:99"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, weights: Path, run: Run, arguments: tuple[object, ...], said: str
) -> None:
    np.save(tmp_path / "gray.npy", photograph()[..., 0])
    np.save(tmp_path / "rgb.npy", photograph())
    np.save(tmp_path / "five.npy", np.zeros((8, 8, 5), np.float32))
    _, err = run("predict", "--network", *arguments, status=2)
    assert err.startswith("error: ")
    assert said in err
    assert not list(tmp_path.glob("out.*"))


def test_every_preset_is_listed_and_can_be_run(run: Run) -> None:
    assert {kind(name) for name in PRESETS} == set(KINDS)
    listed = {preset.name: preset.parameters for preset in presets()}
    assert list(listed) == list(PRESETS)
    assert listed["hat"] == pytest.approx(20.8e6, rel=0.01)  # as its authors print it
    out, _ = run("list", "--json")
    assert [row["network"] for row in json.loads(out)["networks"]] == list(PRESETS)
