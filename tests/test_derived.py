"""What follows from the table: up to date, and changed by a change to the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from ruamel.yaml import YAML

from nightisp import derived
from nightisp.image import DisplayImage
from nightisp.params import defaults
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.stage import Params, Stage
from nightisp.stages import tone

REPOSITORY = Path(__file__).parents[1]


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("name", derived.FILES)
def test_up_to_date(name: str) -> None:
    assert (REPOSITORY / name).read_text("utf-8") == derived.FILES[name](), "run `python -m nightisp.derived`"


def test_dvc_yaml_follows_the_table() -> None:
    stages = load(derived.dvc_yaml())["stages"]
    assert tuple(stages) == (*NAMES, "measure")
    before = "data"
    for stage in PIPELINE:
        entry = stages[stage.name]
        assert entry["cmd"] == f"nightisp stage run {stage.name}"
        assert entry["deps"][0] == before
        assert entry["params"] == [stage.name]
        assert f"{stage.module.replace('.', '/')}.py" in entry["deps"]
        assert ("weights" in entry["deps"]) == (stage.device == "gpu")
        for dependency in entry["deps"]:
            if dependency.startswith("nightisp/"):
                assert (REPOSITORY / dependency).is_file(), dependency
        before = entry["outs"][0]
    assert stages["export"]["outs"][1] == {"output": {"persist": True}}
    assert stages["measure"]["deps"] == [stages[name]["outs"][0] for name in NAMES]


@pytest.mark.parametrize("name", ["dvc.yaml", "evaluation/dvc.yaml"])
def test_plots_are_of_files_that_a_stage_writes(name: str) -> None:
    tree = load(derived.FILES[name]())
    written = {out for stage in tree["stages"].values() for out in stage["outs"] if isinstance(out, str)}
    files = {file for plot in tree["plots"] for about in plot.values() for file in about["y"]}
    assert files
    assert files <= written


def test_the_evaluation_stands_on_what_all_stages_stand_on() -> None:
    pipeline = load(derived.dvc_yaml())["stages"]
    (evaluate,) = load(derived.evaluation_yaml())["stages"].values()
    code = {f"../{path}" for name in NAMES for path in pipeline[name]["deps"] if path.startswith("nightisp/")}
    assert code < set(evaluate["deps"])
    assert {"raws", "references", "../weights", "../nightisp/evaluate.py"} < set(evaluate["deps"])
    assert evaluate["params"] == [{"../params.yaml": list(NAMES)}]
    for dependency in evaluate["deps"][3:]:
        assert (REPOSITORY / "evaluation" / dependency).is_file(), dependency


class GlowParams(Params):
    """Parameters of glow."""

    radius: float = Field(2.5, gt=0, le=50, description="how far lamps shine")
    kind: Literal["soft", "hard"] = Field("soft", description="how they shine")


def glow(image: DisplayImage, params: GlowParams) -> DisplayImage:
    """Let lamps shine."""
    return image


@pytest.fixture
def longer_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage more, after tone; its code is tone's."""
    glow.__module__ = tone.__name__
    stage = Stage("glow", glow, DisplayImage, DisplayImage, GlowParams, device="gpu", cite=("glow1990",))
    place = NAMES.index("tone") + 1
    monkeypatch.setattr(derived, "PIPELINE", (*PIPELINE[:place], stage, *PIPELINE[place:]))


@pytest.mark.usefixtures("longer_table")
def test_a_stage_more_shows_everywhere() -> None:
    stages = load(derived.dvc_yaml())["stages"]
    assert list(stages)[6] == "glow"
    assert stages["glow"] == {
        "desc": "Let lamps shine.",
        "cmd": "nightisp stage run glow",
        "deps": ["manifests/tone.jsonl", "weights", *stages["tone"]["deps"][1:]],
        "params": ["glow"],
        "outs": ["manifests/glow.jsonl"],
    }
    assert stages["refine"]["deps"][0] == "manifests/glow.jsonl"
    assert "manifests/glow.jsonl" in stages["measure"]["deps"]
    assert "glow" in load(derived.evaluation_yaml())["stages"]["evaluate"]["params"][0]["../params.yaml"]
    assert load(derived.params_yaml())["glow"] == {"radius": 2.5, "kind": "soft"}
    assert "  # how far lamps shine\n  radius: 2.5\n" in derived.params_yaml()
    described = derived.stages_md()
    assert "| [glow](#glow) | DisplayImage | DisplayImage | Let lamps shine. |" in described
    assert "| `radius` | `2.5` | 0 to 50 | how far lamps shine |" in described
    assert "| `kind` | `soft` | `soft`, `hard` | how they shine |" in described
    assert "Sources: glow1990 (BIBLIOGRAPHY.bib)." in described


def test_params_yaml_is_the_defaults() -> None:
    assert load(derived.params_yaml()) == defaults()


def test_stages_md_names_every_parameter() -> None:
    text = derived.stages_md()
    for stage in PIPELINE:
        for name, about in stage.params.model_fields.items():
            assert f"| `{name}` |" in text
            assert f"| {about.description} |" in text
    assert "| `strength` | `1.0` | 0 to 1 |" in text
    assert "`unet`, `bin`, `none`" in text
    assert "1667 to 25000, or null" in text


def test_main_checks_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert derived.main(["--check"]) == 1
    assert (
        "out of date: dvc.yaml, evaluation/dvc.yaml, docs/stages.md, params.yaml; run `python -m nightisp.derived`"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
    assert derived.main([]) == 0
    assert derived.main(["--check"]) == 0
    own = derived.params_yaml().replace("gamma: 3.2", "gamma: 2")
    (tmp_path / "params.yaml").write_text(own)
    (tmp_path / "dvc.yaml").write_text("old\n")
    assert derived.main(["--check"]) == 1
    assert derived.main([]) == 0
    assert derived.main(["--check"]) == 0
    assert (tmp_path / "params.yaml").read_text() == own  # a user's own stays
    (tmp_path / "params.yaml").write_text("tone: {gamma: 2}\n")
    assert derived.main(["--check"]) == 1
    assert "params.yaml: has no section ingest, denoise, " in capsys.readouterr().err
    assert (tmp_path / "dvc.yaml").read_text() == derived.dvc_yaml()
