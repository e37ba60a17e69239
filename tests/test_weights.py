"""Weights: taken in from every wrapping, refused where they do not fit or hold code, found, checked and loaded."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from nightisp.errors import (  # noqa: E402
    DeviceError,
    ParamsError,
    WeightsError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from nightisp.models import build, weights  # noqa: E402
from nightisp.models.weights import SLOTS, Compute, Library, import_checkpoint  # noqa: E402

SMALL = {
    "denoise": ("denoise_unet", {"width": 8}),
    "white_balance": ("fc4", {"stem": 8, "squeeze": (2, 2, 4, 4, 6, 6, 8), "head": 8}),
    "refine": ("mwispnet", {"widths": (16, 16, 16), "blocks": 1}),
    "super_resolution": ("hat", {"embed_dim": 60, "depths": (1,), "num_heads": (6,)}),
}


def small(stage):
    torch.manual_seed(0)
    name, overrides = SMALL[stage]
    return build(name, **overrides).state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("stage", SMALL)
def test_round_trip(tmp_path, stage):
    state = small(stage)
    torch.save(state, tmp_path / "theirs.pth")
    [path] = import_checkpoint(stage, [tmp_path / "theirs.pth"], tmp_path / "weights")
    assert path == tmp_path / "weights" / f"{SLOTS[stage].name}.safetensors"
    library = Library([tmp_path / "weights"])
    network = library.load(path.stem)
    assert same(network.state_dict(), state)
    assert not network.training
    assert library.load(path.stem) is network
    assert library.verify() == {path.stem: ""}
    [entry] = library.entries()
    name, overrides = SMALL[stage]
    assert (entry.name, entry.network) == (path.stem, name)
    assert entry.overrides == json.loads(json.dumps(overrides))
    assert entry.size == path.stat().st_size
    assert "source" not in entry.card  # a name makes no difference to a picture
    card = path.with_suffix(".md").read_text()
    assert f"`{name}`" in card
    assert entry.card["source_sha256"] in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": state},
        lambda state: {"params_ema": state, "params": {"x": torch.zeros(1)}},
        lambda state: {"state_dict_model": state, "epoch": 3},
        lambda state: {"state_dict": state, "best": np.float64(41.2), "step": np.int64(7)},
        lambda state: {"state_dict": {"params": {f"module.{key}": value for key, value in state.items()}}},
        lambda state: {f"module.module.{key}": value for key, value in state.items()},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_unwraps(tmp_path, wrap, suffix):
    state = small("denoise")
    torch.save(wrap(state), tmp_path / f"theirs{suffix}")
    import_checkpoint("denoise", [tmp_path / f"theirs{suffix}"], tmp_path)
    assert same(Library([tmp_path]).load("denoise_unet").state_dict(), state)


def test_takes_safetensors(tmp_path):
    state = small("denoise")
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "theirs.safetensors")
    import_checkpoint("denoise", [tmp_path / "theirs.safetensors"], tmp_path / "weights", "night")
    assert same(Library([tmp_path / "weights"]).load("night").state_dict(), state)


def test_ignores_known_buffers_alone(tmp_path):
    state = small("super_resolution")
    theirs = {key: value for key, value in state.items() if "relative_position_index" not in key}
    theirs["layers.0.residual_group.blocks.0.attn_mask"] = torch.zeros(2, 2)
    torch.save(theirs, tmp_path / "a.pth")
    import_checkpoint("super_resolution", [tmp_path / "a.pth"], tmp_path)
    assert same(Library([tmp_path]).load("hat").state_dict(), state)
    torch.save({**theirs, "layers.0.residual_group.mask": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(WeightsMismatchError, match=r"1 unexpected: layers\.0\.residual_group\.mask"):
        import_checkpoint("super_resolution", [tmp_path / "b.pth"], tmp_path, overwrite=True)


def test_importing_leaves_the_random_state_alone(tmp_path):
    torch.save(small("super_resolution"), tmp_path / "a.pth")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    import_checkpoint("super_resolution", [tmp_path / "a.pth"], tmp_path)
    Library([tmp_path]).load("hat")
    assert torch.equal(torch.rand(1), expected)


def test_several_files_are_numbered(tmp_path):
    torch.save(small("white_balance"), tmp_path / "fold.pth")
    paths = import_checkpoint("white_balance", [tmp_path / "fold.pth"] * 3, tmp_path / "weights")
    assert [path.stem for path in paths] == ["fc4_1", "fc4_2", "fc4_3"]
    with pytest.raises(ParamsError, match="2 files given; expected one"):
        import_checkpoint("refine", [tmp_path / "fold.pth"] * 2, tmp_path / "weights")


def test_nothing_is_written_unless_all_files_are_good(tmp_path):
    torch.save(small("white_balance"), tmp_path / "good.pth")
    torch.save(small("denoise"), tmp_path / "bad.pth")
    with pytest.raises(WeightsMismatchError, match=r"bad\.pth"):
        import_checkpoint("white_balance", [tmp_path / "good.pth", tmp_path / "bad.pth"], tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_half_is_float32_again(tmp_path):
    state = small("denoise")
    torch.save(state, tmp_path / "a.pth")
    [path] = import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path, half=True)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    library = Library([tmp_path])
    assert same(library.load("denoise_unet").state_dict(), {key: value.half().float() for key, value in state.items()})
    assert library.verify() == {"denoise_unet": ""}


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"state_dict": small("denoise"), "hook": evil}])
def test_refuses_code_and_does_not_run_it(tmp_path, wrap):
    torch.save(wrap(Malicious(tmp_path / "owned")), tmp_path / "evil.pth")
    with pytest.raises(
        WeightsMismatchError, match=r"evil\.pth: holds code .*mkdir.* Ask its authors for a \.safetensors"
    ):
        import_checkpoint("denoise", [tmp_path / "evil.pth"], tmp_path / "weights")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "weights").exists()


def test_refuses_objects(tmp_path):
    torch.save({"state_dict": small("denoise"), "options": argparse.Namespace(lr=1)}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsMismatchError, match=r"argparse\.Namespace"):
        import_checkpoint("denoise", [tmp_path / "a.ckpt"], tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_refuses_what_is_no_checkpoint(tmp_path, suffix, content):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"a\.\w+: (is damaged|holds code or unknown objects)"):
        import_checkpoint("denoise", [file], tmp_path)


def test_refuses_a_network_of_another_stage(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    with pytest.raises(
        WeightsMismatchError, match=r"holds weights of denoise_unet; refine takes mwispnet.*import denoise"
    ):
        import_checkpoint("refine", [tmp_path / "a.pth"], tmp_path)


def test_names_what_does_not_fit(tmp_path):
    state = small("super_resolution")
    del state["conv_last.bias"]
    state["norm.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsMismatchError) as caught:
        import_checkpoint("super_resolution", [tmp_path / "a.pth"], tmp_path)
    assert "1 missing: conv_last.bias" in str(caught.value)
    assert "norm.weight is (3,) instead of (60,)" in str(caught.value)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_finite(tmp_path, broken):
    state = small("denoise")
    state["conv7_1.weight"][0, 0, 0, 0] = broken
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsMismatchError, match=r"conv7_1\.weight holds NaN or infinity"):
        import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)


@pytest.mark.parametrize(
    ("stage", "file", "name", "error", "message"),
    [
        ("denoize", "a.pth", None, ParamsError, "Did you mean denoise"),
        ("tone", "a.pth", None, ParamsError, "takes no weights"),
        ("denoise", "b.pth", None, WeightsNotFoundError, "no such file"),
        ("denoise", "a.txt", None, WeightsMismatchError, "no checkpoint by its name"),
        ("denoise", "a.pth", "../x", ParamsError, "no name for weights"),
        ("denoise", "a.pth", "x.safetensors", ParamsError, "no name for weights"),
        ("denoise", "bare.pth", None, WeightsMismatchError, "holds no tensors by name"),
    ],
)
def test_wrong_use(tmp_path, stage, file, name, error, message):
    torch.save(small("denoise"), tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "bare.pth")
    (tmp_path / "a.txt").touch()
    with pytest.raises(error, match=message):
        import_checkpoint(stage, [tmp_path / file], tmp_path / "weights", name)


def test_keeps_what_is_there_unless_told(tmp_path):
    state = small("denoise")
    torch.save(state, tmp_path / "a.pth")
    [path] = import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    library = Library([tmp_path])
    digest, network = library.digest("denoise_unet"), library.load("denoise_unet")
    with pytest.raises(WeightsError, match="there are weights of this name"):
        import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    torch.save({key: value * 2 for key, value in state.items()}, tmp_path / "a.pth")
    import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path, overwrite=True)
    os.utime(path, ns=(1, 1))  # a clock too coarse to tell the two apart
    assert library.digest("denoise_unet") != digest
    assert library.load("denoise_unet") is not network
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_the_same_weights_have_the_same_digest(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    for folder in ("x", "y"):
        import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path / folder)
    assert Library([tmp_path / "x"]).digest("denoise_unet") == Library([tmp_path / "y"]).digest("denoise_unet")


def test_earlier_folders_win(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    for folder in ("x", "y"):
        import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path / folder)
    library = Library([tmp_path / "absent", tmp_path / "y", tmp_path / "x"])
    assert library.find("denoise_unet").parent.name == "y"
    assert len(library.entries()) == 1


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("denoise_unet", "weights import denoise FILE.*denoise.method: none"),
        ("fc4_2", "weights import white_balance FILE.*white_balance.method: gray_world"),
        ("mwispnet", "weights import refine FILE.*refine.method: none"),
        ("hat", "weights import super_resolution FILE.*super_resolution.method: lanczos"),
        ("mine", "weights import STAGE FILE"),
    ],
)
def test_missing_weights_come_with_a_remedy(tmp_path, name, remedy):
    with pytest.raises(WeightsNotFoundError, match=remedy) as caught:
        Library([tmp_path]).find(name)
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_damage_is_found(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    [path] = import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    library = Library([tmp_path])
    assert "not those that were written" in library.verify()["denoise_unet"]
    with pytest.raises(WeightsMismatchError, match="not those that were written"):
        library.load("denoise_unet")
    path.write_bytes(content[:500])
    assert "damaged" in library.verify()["denoise_unet"]
    assert "damaged" in library.entries()[0].problem
    with pytest.raises(WeightsMismatchError, match="damaged"):
        library.load("denoise_unet")


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f".denoise_unet.safetensors.{gone.pid}.partial"
    alive = tmp_path / f".denoise_unet.safetensors.{os.getppid()}.partial"
    for path in (dead, alive):
        path.write_bytes(b"half")
    torch.save(small("denoise"), tmp_path / "a.pth")
    import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    assert not dead.exists()
    assert alive.exists()


def test_foreign_safetensors_are_no_weights_of_ours(tmp_path):
    save_file(small("denoise"), tmp_path / "denoise_unet.safetensors")
    with pytest.raises(WeightsMismatchError, match="does not say which network"):
        Library([tmp_path]).load("denoise_unet")


def test_compute_loads_on_its_device(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    compute = Compute(Library([tmp_path]), "cpu")
    assert compute.device == torch.device("cpu")
    assert next(compute("denoise_unet").parameters()).device == compute.device
    assert compute("denoise_unet") is compute("denoise_unet")
    assert Compute(Library([]), "auto").device.type in {"cpu", "cuda"}


def test_weights_are_fetched_beside_other_work(tmp_path, monkeypatch):
    torch.save(small("denoise"), tmp_path / "a.pth")
    import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    compute, begun = Compute(Library([tmp_path]), "cpu"), threading.active_count()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wanted_later.py").touch()
    compute.fetch(["denoise_unet", "missing"])
    compute.fetch([], ["wanted_later"])
    for thread in threading.enumerate():
        if thread.name == "weights":
            thread.join(60)
    monkeypatch.setattr(weights, "_loaded", None)
    assert isinstance(compute("denoise_unet"), torch.nn.Module), "loaded by then"
    with pytest.raises(WeightsNotFoundError):
        compute("missing")
    assert "wanted_later" in sys.modules
    compute.fetch(["denoise_unet"], ["wanted_later"])
    assert threading.active_count() == begun, "what was fetched is not fetched again"


def test_a_missing_device_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="sees 0 CUDA devices; choose --device cpu"):
        _ = Compute(Library([]), "cuda:1").device
    with pytest.raises(ParamsError, match="gpu: no such device"):
        Compute(Library([]), "gpu")


def test_digests_need_no_torch(tmp_path):
    torch.save(small("denoise"), tmp_path / "a.pth")
    import_checkpoint("denoise", [tmp_path / "a.pth"], tmp_path)
    script = (
        "import sys; from pathlib import Path; from nightisp.models.weights import Library\n"
        f"library = Library([Path({str(tmp_path)!r})]); library.digest('denoise_unet'); library.entries()\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[1]).returncode == 0


def test_the_name_of_the_checkpoint_makes_no_difference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = build("denoise_unet", width=4).state_dict()
    digests = []
    for name in ("unet.pth", "renamed.pth"):
        torch.save(state, tmp_path / "one.pth")  # torch writes the file's name into it
        (tmp_path / "one.pth").replace(tmp_path / name)
        import_checkpoint("denoise", [tmp_path / name], tmp_path / name[:-4])
        digests.append(Library([tmp_path / name[:-4]]).digest("denoise_unet"))
    assert digests[0] == digests[1]


def test_a_changed_preset_does_not_change_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stands for the file; so the file must hold everything that makes the network."""
    from nightisp import models

    torch.manual_seed(0)
    small = {"embed_dim": 60, "depths": (1,), "num_heads": (6,)}
    torch.save(build("hat", **small).state_dict(), tmp_path / "hat.pth")
    import_checkpoint("super_resolution", [tmp_path / "hat.pth"], tmp_path)
    picture = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        before = Library([tmp_path]).load("hat")(picture)
        changed = {**models.PRESETS, "hat": {**models.PRESETS["hat"], "conv_scale": 0.5}}
        monkeypatch.setattr(models, "PRESETS", changed)
        after = Library([tmp_path]).load("hat")(picture)
        assert not torch.equal(build("hat", **small)(picture), before)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
