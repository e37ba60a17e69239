"""Parameters: what is refused and how it is said, what lies over what, and params.yaml itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from nightisp import params
from nightisp.errors import ParamsError
from nightisp.pipeline import NAMES, PIPELINE

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"tonne": {}}, "here: tonne: no such stage; the stages are ingest, denoise, .*Did you mean tone"),
        ({5: {}}, "here: 5: no such stage"),
        (
            {"tone": {"gama": 2}},
            "here: tone.gama: no such parameter; tone has exposure_ev, curve, gamma. Did you mean gamma",
        ),
        ({"tone": {"zzz": 2}}, "tone has exposure_ev, curve, gamma$"),
        ({"tone": {"gamma": 0.5}}, "here: tone.gamma: 0.5: input should be greater than or equal to 1"),
        ({"tone": {"gamma": 11}}, "here: tone.gamma: 11: input should be less than or equal to 10"),
        ({"tone": {"gamma": float("nan")}}, "tone.gamma: nan: input should be a finite number"),
        ({"tone": {"gamma": None}}, "tone.gamma: None: input should be a valid number"),
        ({"tone": {"curve": [[0, 0], [0.5, 0.6], [1, 0.5]]}}, "tone.curve: .*must never go down"),
        ({"tone": [1]}, r"here: tone: \[1\] stands where its parameters are expected"),
        ({"tone": "gamma"}, "here: tone: 'gamma' stands where"),
        ({"tone": {1: 2}}, "here: tone.1: "),
        ({"denoise": {"method": "magic"}}, "denoise.method: 'magic': input should be 'unet', 'bin' or 'none'"),
        ({"denoise": {"strength": 1.01}}, "denoise.strength: 1.01: .*less than or equal to 1"),
        ({"white_balance": {"method": "kelvin"}}, "here: white_balance: method: kelvin needs white_balance.kelvin"),
        ({"super_resolution": {"tile": 250}}, "super_resolution.tile: 250: .*multiple of 16"),
        ({"super_resolution": {"tile": 1.5}}, "super_resolution.tile: 1.5"),
        ({"export": {"quality": 101}}, "export.quality: 101"),
        ({"demosaic": {"methods": "bilinear"}}, "demosaic has method. Did you mean method"),
    ],
)
def test_validate_refuses(tree: Any, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.validate(tree, "here")
    assert re.search(message, str(caught.value)), str(caught.value)


def test_every_fault_of_a_stage_is_named() -> None:
    with pytest.raises(ParamsError) as caught:
        params.validate({"tone": {"gamma": 0, "exposure": 1, "exposure_ev": 99}}, "params.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_validate_fills_in_defaults() -> None:
    checked = params.validate({"tone": {"gamma": 2}, "denoise": None}, "here")
    assert list(checked) == list(NAMES)
    assert checked["tone"].model_dump()["gamma"] == 2
    assert checked["denoise"] == PIPELINE[NAMES.index("denoise")].params()


@pytest.mark.parametrize(
    ("settings", "tree"),
    [
        (["tone.gamma=2.8"], {"tone": {"gamma": 2.8}}),
        (["tone.gamma = 2.8"], {"tone": {"gamma": 2.8}}),
        (["tone.gamma=2", "tone.exposure_ev=-1"], {"tone": {"gamma": 2, "exposure_ev": -1}}),
        (["tone.gamma=2", "tone.gamma=3"], {"tone": {"gamma": 3}}),
        (["tone.curve=[[0, 0], [1, 1]]"], {"tone": {"curve": [[0, 0], [1, 1]]}}),
        (["export.chroma_subsampling=4:4:4"], {"export": {"chroma_subsampling": "4:4:4"}}),
        (["denoise.method=none"], {"denoise": {"method": "none"}}),
        (["white_balance.kelvin=null"], {"white_balance": {"kelvin": None}}),
        (["denoise.weights=a=b"], {"denoise": {"weights": "a=b"}}),
        ([], {}),
    ],
)
def test_parse_sets(settings: list[str], tree: dict[str, Any]) -> None:
    assert params.parse_sets(settings) == tree


@pytest.mark.parametrize("setting", ["tone.gamma", "gamma=2", "=2", "tone.=2", "", "tone gamma 2"])
def test_parse_sets_refuses(setting: str) -> None:
    with pytest.raises(ParamsError, match=r"expected STAGE\.NAME=VALUE, for example tone\.gamma=2\.8"):
        params.parse_sets([setting])


@pytest.mark.parametrize("value", ["[", "{", "a: b: c", "2024-13-45", "!!int x"])
def test_parse_sets_refuses_what_is_no_yaml(value: str) -> None:
    with pytest.raises(ParamsError, match="no YAML value"):
        params.parse_sets([f"tone.gamma={value}"])


def test_load_says_where_the_fault_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tone:\n  gamma: 99\n")
    with pytest.raises(ParamsError, match=r"mine\.yaml: tone\.gamma: 99"):
        params.load(path, ["tone.gamma=2"])
    path.write_text("tone:\n  gamma: 2\n")
    with pytest.raises(ParamsError, match=r"--set: tone\.gamma: 99"):
        params.load(path, ["tone.gamma=99"])
    assert params.load(path, ["tone.exposure_ev=1"]) == {"tone": {"gamma": 2, "exposure_ev": 1}}
    assert params.load(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"tone: [", "cannot be read as YAML"),
        (b"tone: {gamma: 2}\ntone: {gamma: 3}\n", "cannot be read as YAML"),
        (b"\xff\xfe\x00", "cannot be read as YAML"),
        (b"captured: 2024-13-45\n", "cannot be read as YAML"),
        (b"tone: !!python/object/apply:os.system [true]\n", "cannot be read as YAML"),
        (b"- tone\n", "holds a list; expected stages"),
        (b"tone\n", "holds a str; expected stages"),
    ],
)
def test_read_yaml_refuses(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(ParamsError, match=message) as caught:
        params.read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_yaml_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no such file; leave out --params"):
        params.read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ParamsError, match="cannot be read"):
        params.read_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert params.read_yaml(tmp_path / "empty.yaml") == {}


def test_merge_lays_parameter_over_parameter() -> None:
    first = {"tone": {"gamma": 2, "exposure_ev": 1}, "denoise": {"strength": 0.5}}
    assert params.merge(first, {"tone": {"gamma": 3}}, {"color": {"norm": 4}}) == {
        "tone": {"gamma": 3, "exposure_ev": 1},
        "denoise": {"strength": 0.5},
        "color": {"norm": 4},
    }
    assert first == {"tone": {"gamma": 2, "exposure_ev": 1}, "denoise": {"strength": 0.5}}


def test_a_sidecar_changes_what_it_names() -> None:
    everybody = {"tone": {"gamma": 2.0, "exposure_ev": 1.0}}
    plain, special = (params.for_frame(everybody, own, "a.yaml") for own in ({}, {"tone": {"exposure_ev": -1}}))
    assert {name for name in NAMES if plain[name] != special[name]} == {"tone"}
    assert params.canonical(special["tone"])["exposure_ev"] == -1
    assert params.canonical(special["tone"])["gamma"] == 2
    with pytest.raises(ParamsError, match=r"a\.yaml: tone\.exposure: no such parameter.*exposure_ev"):
        params.for_frame(everybody, {"tone": {"exposure": 1}}, "a.yaml")


def test_params_yaml_holds_every_default() -> None:
    """As a project has it: the sections are the stages, in order, and nothing differs from the models."""
    tree = params.read_yaml(REPOSITORY / "params.yaml")
    assert tuple(tree) == NAMES
    assert tree == params.defaults()
    for stage in PIPELINE:
        assert list(tree[stage.name]) == list(stage.params.model_fields)


def test_params_yaml_reads_alike_under_yaml_1_1() -> None:
    """DVC and other readers may take 4:4:4 for a number in base 60, and `no` for false."""
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    assert reader.load((REPOSITORY / "params.yaml").read_text()) == params.defaults()


def test_params_yaml_describes_every_parameter() -> None:
    text = (REPOSITORY / "params.yaml").read_text()
    for stage in PIPELINE:
        assert f"# {stage.summary}" in text
        for about in stage.params.model_fields.values():
            assert f"# {about.description}" in text


def test_a_binned_picture_that_was_not_binned_is_refused() -> None:
    settings, own = ["denoise.method=bin", "refine.binned=true"], {"denoise": {"method": "none"}}
    draft = params.load(None, settings)
    assert params.for_frame(draft, {}, "a.yaml")["refine"].binned  # type: ignore[attr-defined]
    assert params.for_frame(draft, own, "a.yaml")["denoise"].method == "bin"  # type: ignore[attr-defined]
    said = r"a.yaml: refine.binned: true stands for denoise.method: bin, not none"
    with pytest.raises(ParamsError, match=said):
        params.for_frame(params.parse_sets(settings), own, "a.yaml")
    params.for_frame(params.parse_sets(settings), own, "a.yaml", until="denoise")  # refine is not asked for
    with pytest.raises(ParamsError, match=r"a.yaml with --set: refine.binned"):
        params.for_frame(params.load(None, ["denoise.method=none"]), {"denoise": {"method": "bin"}, **BINNED}, "a.yaml")


BINNED = {"refine": {"binned": True}}
