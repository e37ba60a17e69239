"""Variants side by side: what is computed for them, what is measured, and what is refused before any work."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nightisp import compare as module
from nightisp.batch import Stop
from nightisp.compare import Axis, Comparison, compare, read_axes, variants_of
from nightisp.engine import Engine
from nightisp.errors import NoGroundError
from nightisp.metrics import ciede2000, psnr
from nightisp.pipeline import NAMES
from nightisp.report.page import page
from nightisp.run import Options
from tests.frames import CLASSICAL, write_frame, write_frames
from tests.terminal import Terminal, render
from tests.test_report import Page

QUICK = tuple(f"{stage}.{name}={value}" for stage, values in CLASSICAL.items() for name, value in values.items())
BEFORE_TONE, FROM_TONE = NAMES[: NAMES.index("tone")], NAMES[NAMES.index("tone") :]


class Quiet:
    """Hears of a run and says nothing."""

    def found(self, batch: Any) -> None: ...

    def began(self, frame: str, stage: str) -> None: ...

    def ended(self, result: Any) -> None: ...


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage is computed."""
    counted: Counter[str] = Counter()
    compute = Engine._compute

    def counting(engine: Engine, plan: Any, stage: Any, image: Any, claimed: Any) -> float:
        counted[stage.name] += 1
        return compute(engine, plan, stage, image, claimed)

    monkeypatch.setattr(Engine, "_compute", counting)
    return counted


def compared(folder: Path, *settings: str, quick: tuple[str, ...] = QUICK) -> Comparison:
    options = Options(
        inputs=(folder / "in",), store=folder / "store", settings=(*quick, *settings), device="cpu", workers=2
    )
    return compare(options, Quiet(), Stop())


def test_only_what_lies_downstream_of_what_changes_is_computed(tmp_path: Path, counts: Counter[str]) -> None:
    write_frames(tmp_path / "in", 2)
    done = compared(tmp_path, "tone.gamma=2.2,2.6,3.2")
    assert counts == dict.fromkeys(BEFORE_TONE, 2) | dict.fromkeys(FROM_TONE, 6)
    for _, variants in done.frames:
        assert variants[0].computed == NAMES
        assert [variant.computed for variant in variants[1:]] == [FROM_TONE, FROM_TONE]
    counts.clear()
    again = compared(tmp_path, "tone.gamma=2.2,2.6", "tone.gamma=3.2,3.6")
    assert counts == dict.fromkeys(FROM_TONE, 2)
    assert [variant.computed for variant in again.frames[0][1]] == [(), (), (), FROM_TONE]
    counts.clear()
    compared(tmp_path, "tone.gamma=2.2,3.2", "export.quality=95,80")
    assert counts == {"export": 4}


def test_two_parameters_make_a_grid(tmp_path: Path) -> None:
    write_frame(tmp_path / "in" / "one.dng", 1)
    done = compared(tmp_path, "tone.gamma=2.2,3.2", "tone.exposure_ev=-1,0,1")
    ((frame, variants),) = done.frames
    assert frame == "one"
    rows = done.rows(variants)
    assert [[dict(v.settings)["tone.gamma"] for v in row] for row in rows] == [[2.2, 3.2]] * 3
    assert [dict(row[0].settings)["tone.exposure_ev"] for row in rows] == [-1, 0, 1]
    shown = Page(page("compare.html.j2", compared=done))
    assert len(shown.all("img")) == 6
    assert len([th for th in shown.all("th") if th["role"] == "columnheader"]) == 2
    assert len([th for th in shown.all("th") if th["role"] == "rowheader"]) == 3


def test_the_numbers_are_those_of_the_finished_pictures(tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "in" / "one.dng", 1)
    done = compared(tmp_path, "tone.gamma=2.2,3.2", "export.format=png")
    (_, (first, second)), *_ = done.frames
    assert (first.psnr, first.difference) == (None, None)
    pictures = []
    for gamma in (2.2, 3.2):
        from nightisp.run import execute

        settings = (*QUICK, "export.format=png", f"tone.gamma={gamma}")
        output = tmp_path / f"out{gamma}"
        options = Options(inputs=(raw,), store=tmp_path / "other", output=output, settings=settings, device="cpu")
        execute(options, Quiet(), Stop())
        pictures.append(cv2.imread(str(output / "one.png"))[..., ::-1].astype(np.float32) / 255)
    assert second.psnr == pytest.approx(psnr(pictures[1], pictures[0]), abs=1e-4)
    assert second.difference == pytest.approx(ciede2000(pictures[1], pictures[0]), abs=1e-4)


def test_variants_that_come_out_alike_are_said_to_be(tmp_path: Path) -> None:
    write_frame(tmp_path / "in" / "one.dng", 1)
    done = compared(tmp_path, "white_balance.norm=2,3")  # gray_world has no norm
    ((_, (_, second)),) = done.frames
    assert second.difference == 0
    assert second.psnr == float("inf")
    assert "the same as the first, pixel by pixel" in page("compare.html.j2", compared=done).decode()


def test_pictures_of_another_size_are_not_measured(tmp_path: Path) -> None:
    write_frame(tmp_path / "in" / "one.dng", 1)
    done = compared(tmp_path, "denoise.method=none,bin", quick=QUICK[1:])
    ((_, (_, second)),) = done.frames
    assert not second.error
    assert (second.psnr, second.difference) == (None, None)
    assert "another size" in page("compare.html.j2", compared=done).decode()


def test_what_goes_wrong_with_one_variant_costs_that_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frame(tmp_path / "in" / "one.dng", 1)
    compute = Engine._compute

    def failing(engine: Engine, plan: Any, stage: Any, image: Any, claimed: Any) -> float:
        if stage.name == "tone" and plan.params["tone"].gamma == 2.6:
            raise NoGroundError("nothing to work from")
        return compute(engine, plan, stage, image, claimed)

    monkeypatch.setattr(Engine, "_compute", failing)
    done = compared(tmp_path, "tone.gamma=2.2,2.6,3.2")
    ((_, variants),) = done.frames
    assert [bool(variant.error) for variant in variants] == [False, True, False]
    assert variants[2].difference
    assert done.status == 3
    assert "nothing to work from" in page("compare.html.j2", compared=done).decode()


def test_what_is_compared_goes_before_a_sidecar(tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "in" / "one.dng", 1)
    ((_, plain),) = compared(tmp_path, "tone.gamma=2.2,3.2", "tone.exposure_ev=0.5").frames
    raw.with_suffix(".nightisp.yaml").write_text("tone: {gamma: 2.0, exposure_ev: 1}\nexport: {quality: 50}\n")
    ((_, own),) = compared(tmp_path, "tone.gamma=2.2,3.2", "tone.exposure_ev=0.5", "export.quality=95").frames
    assert [variant.key for variant in own] == [variant.key for variant in plain]
    ((_, other),) = compared(tmp_path, "tone.gamma=2.2,3.2").frames  # exposure and quality are the sidecar's
    assert not {variant.key for variant in other} & {variant.key for variant in plain}
    assert other[0].key != other[1].key


def test_values_are_yaml_lists() -> None:
    fixed, axes = read_axes(
        ["white_balance.gains=[2,1,1.5],[1,1,1]", "refine.method=none", "tone.gamma=2.2", "tone.gamma=3"]
    )
    assert fixed == ("refine.method=none",)
    assert axes == (
        Axis("white_balance", "gains", ([2, 1, 1.5], [1, 1, 1])),
        Axis("tone", "gamma", (2.2, 3)),
    )
    variants = variants_of(axes, {"tone": {"exposure_ev": 1}})
    assert len(variants) == 4
    assert variants[1].tree == {
        "tone": {"exposure_ev": 1, "gamma": 2.2},
        "white_balance": {"gains": [1, 1, 1]},
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tone.gamma=2.2"], "nothing is varied; give two or more values"),
        (["tone.gamma="], "names no value"),
        (["tone.gamma"], "expected STAGE.NAME=VALUE"),
        (["tone.gamma=2.2,2.2"], "2.2 stands there twice"),
        (["tone.gamma=2,3", "tone.exposure_ev=0,1", "export.quality=90,95"], "3 parameters are varied"),
        ([f"tone.gamma={','.join(map(str, range(1, 8)))}", "export.quality=90,91,92,93,94,95"], "42 variants"),
        (["tone.gama=2.2,3.2"], "Did you mean gamma?"),
        (["tome.gamma=2.2,3.2"], "Did you mean tone?"),
        (["tone.gamma=2.2,99"], "less than or equal to 10"),
        (["tone.gamma=2.2,steep"], "steep"),
        (["denoise.weights=denoise_unet,nowhere"], "nowhere: no weights of this name"),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_work(
    nightisp: Terminal,
    tmp_path: Path,
    counts: Counter[str],
    settings: list[str],
    said: str,
) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    done = nightisp("compare", *(part for setting in settings for part in ("--set", setting)), status=2)
    assert said in done.err
    assert not counts
    assert not (tmp_path / "compare.html").exists()
    assert not (tmp_path / "artifacts").exists()


def test_the_command_shares_the_store_with_every_run(
    nightisp: Terminal,
    tmp_path: Path,
    counts: Counter[str],
) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    quick = [part for setting in QUICK for part in ("--set", setting)]
    render(nightisp, *quick)
    counts.clear()
    done = nightisp("compare", *quick, "--set", "tone.gamma=3.2,2.2", "--json")
    assert counts == dict.fromkeys(FROM_TONE, 1)
    told = json.loads(done.out)
    assert told["parameters"] == {"tone.gamma": [3.2, 2.2]}
    first, second = told["frames"][0]["variants"]
    assert (first["computed"], second["computed"]) == ([], list(FROM_TONE))
    assert second["ciede2000"] > 1
    assert (tmp_path / "compare.html").read_bytes().startswith(b"<!doctype html>")
    assert [path.name for path in (tmp_path / "output").glob("*.jpg")] == ["one.jpg"]
    assert module.LONGEST == 1024
