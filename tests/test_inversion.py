"""The pipeline backwards and forwards again, and the sample raws of `data/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightisp.bayer import positions
from nightisp.colorimetry import camera_to_srgb_dng, camera_to_srgb_published
from nightisp.errors import ImageShapeError, ParamsError, RawFileError, RawFileNotFoundError
from nightisp.image import CFA, Balance, ColorMatrix, LinearImage, Shot, Triple
from nightisp.orientation import orient
from nightisp.raw import INGEST, RawFile
from nightisp.stages.color import ColorParams, color
from nightisp.stages.tone import ToneCurve, ToneParams, tone
from nightisp.training import samples
from nightisp.training.inversion import (
    invert_curve,
    invert_gamma,
    invert_rendering,
    raise_highlights,
    sample_mosaic,
    srgb_to_camera,
    unbalance,
)

DATA = Path(__file__).parents[1] / "data"
ROOT = Path("/")
TONE = ToneParams.model_validate({})
MATRIX = ColorMatrix(xyz_to_camera=samples.D850.xyz_to_camera, illuminant=21)
ILLUMINANT = (0.75, 1.0, 0.375)
SIZES = {"bridge_iso1600": (952, 1300), "room_iso3200": (720, 1080), "summit_iso800": (801, 1201)}
SIZES["river_iso12800"] = (700, 964)


def camera_to_srgb(matrix: str, gains: Triple) -> np.ndarray:
    return camera_to_srgb_published(MATRIX) if matrix == "published" else camera_to_srgb_dng([MATRIX], gains)


@pytest.mark.parametrize("matrix", ["published", "dng"])
@pytest.mark.parametrize("exposure_ev", [0.0, 1.5])
def test_invert_rendering_renders_back(matrix: str, exposure_ev: float) -> None:
    """Every eighth 8-bit color, through color and tone: within 1/255 where nothing clips at black or white."""
    steps = np.linspace(0, 255, 33).round() / 255
    photograph = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(33, -1, 3)
    gains = tuple(1 / v for v in ILLUMINANT)
    light = invert_rendering(
        photograph,
        curve=ToneCurve(TONE.curve),
        gamma=TONE.gamma,
        camera_to_srgb=camera_to_srgb(matrix, gains),
        illuminant=ILLUMINANT,
        exposure_ev=exposure_ev,
    )
    balanced = light / np.array(ILLUMINANT)
    inside = np.all((balanced >= 0) & (balanced * 2**exposure_ev <= 1) & (photograph > 0), axis=-1)
    assert inside.mean() > 0.4
    picture = LinearImage(
        balanced.astype(np.float32),
        space="camera",
        shot=Shot(color_matrices=(MATRIX,)),
        balance=Balance(gains=gains, method="as_shot"),
    )
    params = ColorParams.model_validate({"matrix": matrix, "second_white_balance": "none"})
    back = tone(color(picture, params), ToneParams.model_validate({"exposure_ev": exposure_ev}))
    assert np.abs(back.samples - photograph)[inside].max() < 1 / 255


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.floats(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_invert_curve_and_gamma_undo(display: list[float], gamma: float) -> None:
    curve, wanted = ToneCurve(TONE.curve), np.array(display)
    linear = invert_curve(curve, invert_gamma(wanted, gamma))
    assert linear.min() >= 0
    assert linear.max() <= 1
    assert np.abs(curve(linear.astype(np.float32)) ** (1 / gamma) - wanted).max() < 1 / 255


def test_invert_curve_of_a_known_function() -> None:
    y = np.linspace(0, 1, 1001)
    assert np.abs(invert_curve(lambda x: x**2, y) - np.sqrt(y))[1:].max() < 1e-5
    assert invert_curve(lambda x: 0.5 * x, np.array([0.25, 0.9])).tolist() == pytest.approx([0.5, 1.0])


def test_invert_curve_refuses_what_goes_down() -> None:
    with pytest.raises(ParamsError, match="goes down"):
        invert_curve(lambda x: x * (1 - x), np.array([0.1]))


@pytest.mark.parametrize("matrix", ["published", "dng"])
def test_srgb_to_camera_keeps_white_and_undoes(matrix: str) -> None:
    forward = camera_to_srgb(matrix, (1.4, 1.0, 2.2))
    linear = np.random.default_rng(1).random((5, 7, 3))
    camera = srgb_to_camera(linear, forward)
    assert np.abs(camera @ forward.T - linear).max() < 1e-12
    assert srgb_to_camera(np.ones((1, 1, 3)), forward).ravel() == pytest.approx([1, 1, 1])


def test_unbalance_by_hand() -> None:
    lit = unbalance(np.array([[[0.8, 0.4, 0.2]]]), (0.5, 1.0, 0.25), exposure_ev=2)
    assert lit.ravel().tolist() == [0.1, 0.1, 0.0125]


def test_raise_highlights_keeps_hue_and_what_is_dark() -> None:
    linear = np.array([[[0.2, 0.3, 0.1], [1.0, 1.0, 1.0], [0.9, 0.8, 0.7]]])
    raised = raise_highlights(linear, 0.6, 5)
    assert raised[0, 0].tolist() == linear[0, 0].tolist()
    assert raised[0, 1].tolist() == [5, 5, 5]
    assert raised[0, 2] / linear[0, 2] == pytest.approx([2, 2, 2])
    for bad in ((1.0, 2.0), (-0.1, 2.0), (0.5, 0.9)):
        with pytest.raises(ParamsError, match="knee"):
            raise_highlights(linear, *bad)


@pytest.mark.parametrize("cfa", list(CFA))
@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (2, 3)])
def test_sample_mosaic_takes_the_color_of_each_photosite(cfa: CFA, shape: tuple[int, int]) -> None:
    camera = np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32), (*shape, 3))
    mosaic = sample_mosaic(camera, cfa)
    expected = [[" RGB".index(cfa.color_at(y, x)) for x in range(shape[1])] for y in range(shape[0])]
    assert mosaic.tolist() == expected
    assert mosaic.dtype == np.float32
    with pytest.raises(ImageShapeError, match=r"\(H, W, 3\)"):
        sample_mosaic(camera[..., 0], cfa)


def test_sensor_noise_by_hand() -> None:
    """At ISO 100 of the D850: 0.415 raw values an electron; exp(0.5635 log 0.415 + 0.7994) = 1.355 of read noise."""
    shot, read, row = samples.D850.noise(100)
    span = 15520 - 400
    assert shot == pytest.approx(0.4150 / span)
    assert read == pytest.approx((1.355 / span) ** 2, rel=2e-3)
    assert 0 < row < read
    assert samples.D850.noise(800)[0] == pytest.approx(8 * shot)


@pytest.mark.parametrize("scene", samples.SCENES, ids=lambda scene: scene.name)
def test_data_reads_as_the_scene_says(scene: samples.Scene) -> None:
    mosaic = INGEST.run(RawFile(DATA / scene.name), INGEST.params())
    shot, window = mosaic.shot, mosaic.window
    assert window[2:] == SIZES[scene.name.rpartition(".")[0]]
    assert mosaic.cfa.shifted(window.top, window.left) == scene.cfa
    assert shot.black_level == scene.sensor.black_level
    assert shot.white_level == scene.sensor.white_level
    assert shot.orientation == scene.orientation
    assert shot.color_matrices[0].xyz_to_camera == scene.sensor.xyz_to_camera
    assert shot.noise_profile[0] == pytest.approx(scene.sensor.noise(scene.iso)[:2])
    assert shot.as_shot_neutral is not None
    visible = mosaic.visible()
    assert visible.max() == 1.0, "no lamp clips"
    assert visible.min() < 0, "no noise below black"
    assert 0.0005 < np.median(visible) < 0.1, "no night exposure"
    if scene.name.endswith(".dng"):
        assert shot.iso == scene.iso
        assert shot.captured == scene.captured
        assert scene.source.credit in shot.exif["Exif.Image.Artist"]


def test_data_is_various_and_small() -> None:
    assert {scene.cfa for scene in samples.SCENES} == set(CFA)
    assert {scene.orientation for scene in samples.SCENES} == {1, 6}
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 9_000_000
    readme = (DATA / "README.md").read_text("utf-8")
    for scene in samples.SCENES:
        assert all(fact in readme for fact in (scene.name, scene.source.package, scene.source.license))


@pytest.mark.parametrize("scene", samples.SCENES, ids=lambda scene: scene.name)
def test_data_comes_from_its_seed(tmp_path: Path, scene: samples.Scene) -> None:
    if not (ROOT / scene.source.path).is_file():
        pytest.skip(f"{scene.source.package} is not installed: apt-get install {scene.source.package}")
    assert samples.main(["--output", str(tmp_path), "--only", scene.name]) == 0
    for made in tmp_path.iterdir():
        again, kept = RawFile(tmp_path / scene.name), RawFile(DATA / scene.name)
        if made.suffix == ".json":
            assert made.read_text() == (DATA / made.name).read_text()
        else:  # samples, not bytes: exiv2 and PNG encoders may lay out the same content otherwise
            first, second = (INGEST.run(raw, INGEST.params()) for raw in (again, kept))
            assert np.array_equal(first.samples, second.samples)


def test_read_photograph_names_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = samples.SCENES[0]
    with pytest.raises(RawFileNotFoundError, match="apt-get install palapeli-data"):
        samples.read_photograph(scene, tmp_path)
    other = tmp_path / scene.source.path
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another version")
    with pytest.raises(RawFileError, match="sha256"):
        samples.read_photograph(scene, tmp_path)
    assert samples.main(["--root", str(tmp_path), "--output", str(tmp_path / "out"), "--only", scene.name]) == 3
    assert "sha256" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_render_lies_so_that_orientation_turns_it_upright(orientation: int) -> None:
    """A picture whose upper left corner alone is lit shows that corner once the mosaic is oriented."""
    from dataclasses import replace

    photograph = np.zeros((24, 32, 3))
    photograph[:8, :8] = 0.8
    mosaic = samples.render(replace(samples.SCENES[0], orientation=orientation), photograph)
    upright = orient(mosaic.samples, mosaic.shot.orientation)
    assert upright.shape == (24, 32)
    corner = upright[:8, :8].mean()
    assert corner > 0.05
    assert upright.sum() == pytest.approx(corner * 64, rel=0.3)


def test_render_color_at_each_position_follows_the_light() -> None:
    scene = samples.SCENES[1]
    mosaic = samples.render(scene, np.full((64, 64, 3), 0.7))
    means = {c: np.mean([mosaic.samples[y::2, x::2].mean() for y, x in positions(scene.cfa, c)]) for c in "RGB"}
    light = samples._mixed(scene.lights, MATRIX)
    assert means["R"] / means["G"] == pytest.approx(light[0], rel=0.03)
    assert means["B"] / means["G"] == pytest.approx(light[2], rel=0.03)
