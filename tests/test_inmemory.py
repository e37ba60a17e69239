"""The pipeline as a function: the same bits as the command line's, on NumPy arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nightisp
from nightisp import inmemory
from nightisp.errors import ParamsError, RawFileNotFoundError
from nightisp.image import DisplayImage, LinearImage, Mosaic
from nightisp.lineage import lineage
from nightisp.pipeline import NAMES
from nightisp.store import Store
from tests.frames import SHIPPED, write_frame
from tests.terminal import Terminal
from tests.terminal import render as flow


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_frame(tmp_path / "data" / "one.dng", 1)


def test_every_stage_has_the_bits_of_the_command_line(nightisp: Terminal, raw: Path, tmp_path: Path) -> None:
    import nightisp as package

    flow(nightisp, "--set", "tone.gamma=2.8")
    store = Store(tmp_path / "artifacts")
    kept = {artifact.stage: artifact.read(store) for artifact in lineage(store, "one")}
    for name, image in package.steps(raw, tone={"gamma": 2.8}):
        assert np.array_equal(image.samples, kept[name].samples), name
        assert image.state() == kept[name].state()
    finished = package.render(raw, tone={"gamma": 2.8})
    assert np.array_equal(finished, kept["super_resolution"].visible())
    assert finished.shape == (48, 64, 3)
    assert finished.dtype == np.float32


def test_until_and_parameters(raw: Path) -> None:
    names = [name for name, _ in nightisp.steps(raw)]
    assert names == list(NAMES[:-1])
    assert nightisp.render(raw, until="denoise").shape == (48, 64)
    kinds = {name: type(image) for name, image in nightisp.steps(raw, until="tone")}
    assert kinds["white_balance"] is Mosaic
    assert kinds["color"] is LinearImage
    assert kinds["tone"] is DisplayImage
    bright, dark = (nightisp.render(raw, until="tone", tone={"exposure_ev": ev}).mean() for ev in (1, -1))
    assert bright > 1.2 * dark


def test_params_file_look_sidecar_and_arguments_in_this_order(raw: Path) -> None:
    def toned(**arguments: Any) -> Any:
        return nightisp.render(raw, until="tone", **arguments)

    explicit = toned(tone={"gamma": 2.8, "exposure_ev": 0.3})
    assert np.array_equal(toned(look="street"), explicit)
    assert np.array_equal(toned(look="street", tone={"exposure_ev": 1}), toned(tone={"gamma": 2.8, "exposure_ev": 1}))
    for name in ("dvc.yaml", "params.yaml"):
        Path(name).write_text("tone: {gamma: 2.2, exposure_ev: 0.3}\n" if name == "params.yaml" else "stages: {}\n")
    assert not np.array_equal(toned(), explicit)
    assert np.array_equal(toned(tone={"gamma": 2.8}), explicit)
    raw.with_suffix(".nightisp.yaml").write_text("tone: {gamma: 2.8}\n")
    assert np.array_equal(toned(), explicit)
    assert np.array_equal(toned(look="moonlight", tone={"exposure_ev": 0.3}, white_balance={"method": "fc4"}), explicit)
    raw.with_suffix(".nightisp.yaml").write_text("tone: {gamma: 2.0}\n")
    assert np.array_equal(toned(tone={"gamma": 2.8}), explicit)


def test_errors_are_those_of_the_command_line(raw: Path) -> None:
    with pytest.raises(RawFileNotFoundError, match=r"none.dng: no such file"):
        nightisp.render("none.dng")
    with pytest.raises(ParamsError, match="Did you mean tone"):
        nightisp.render(raw, tune={"gamma": 2})
    with pytest.raises(ParamsError, match=r"tone.gama: no such parameter"):
        nightisp.render(raw, tone={"gama": 2})
    with pytest.raises(ParamsError, match="no such look"):
        nightisp.render(raw, look="strete")


def test_what_comes_out_is_ones_own(raw: Path) -> None:
    *_, (_, image) = nightisp.steps(raw, until="tone")
    pixels = nightisp.show(image, 16)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (12, 16, 3)
    first = nightisp.render(raw, until="ingest")
    first[:] = 0
    assert nightisp.render(raw, until="ingest").any()


def test_importing_nightisp_imports_nothing_heavy() -> None:
    code = (
        "import sys, nightisp; print({'numpy', 'cv2', 'torch', 'pydantic'} & set(sys.modules) or nightisp.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == nightisp.__version__
    with pytest.raises(AttributeError, match="has no attribute 'rendr'"):
        nightisp.rendr  # noqa: B018


def test_networks_are_loaded_once_for_all_pictures(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nightisp.models import weights

    loaded, load = [], weights._loaded

    def counted(path: Path, device: str) -> Any:
        loaded.append(path.stem)
        return load(path, device)

    monkeypatch.setattr(weights, "_loaded", counted)
    inmemory._networks.cache_clear()
    first, second = (
        nightisp.render(raw, until="denoise", weights=str(SHIPPED), device="cpu", denoise={"method": "unet"})
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert loaded == ["denoise_unet"]
