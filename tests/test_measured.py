"""What `dvc metrics` and `dvc plots` are told, against the store and the stage that it is about."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nightisp.engine import Engine
from nightisp.errors import ProjectError
from nightisp.image import LinearImage
from nightisp.manifest import read
from nightisp.measured import measure
from nightisp.params import merge
from nightisp.pipeline import NAMES
from nightisp.run import open_engine
from nightisp.stage_run import run_stage
from nightisp.stages.tone import ToneParams, tone
from tests.frames import CLASSICAL, write_frames

TREE = merge(CLASSICAL, {"tone": {"gamma": 2.0, "exposure_ev": 1.0}})


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A store in which all stages of two frames were run; a third file is no raw."""
    write_frames(tmp_path / "data", 2)
    (tmp_path / "data" / "broken.dng").write_bytes(b"no raw")
    engine = open_engine(tmp_path / "store", None, "cpu")
    for name in NAMES:
        run_stage(engine, TREE, name, tmp_path, [tmp_path / "data"], tmp_path / "output")
    return engine


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_seconds_are_those_of_the_artifacts(engine: Engine, tmp_path: Path) -> None:
    metrics, seconds, _ = measure(engine.store, TREE, tmp_path)
    told = json.loads(metrics.read_text())
    assert (told["frames"], told["failed"]) == (2, 1)
    for name in NAMES:
        keys = [line.key for line in read(tmp_path / "manifests" / f"{name}.jsonl", name) if line.key]
        recorded = [engine.store.entry(name, key).attributes["seconds"] for key in keys]
        assert told["seconds"][name] == pytest.approx(np.mean(recorded), abs=1e-4)
    stages = {name: value for name, value in told["seconds"].items() if name != "total"}
    assert told["seconds"]["total"] == pytest.approx(sum(stages.values()), abs=1e-3)
    assert {row["stage"]: float(row["seconds"]) for row in rows(seconds)} == stages


def test_what_was_pruned_has_no_seconds(engine: Engine, tmp_path: Path) -> None:
    for line in read(tmp_path / "manifests" / "color.jsonl", "color"):
        if line.key:
            engine.store.remove(engine.store.entry("color", line.key))
    told = json.loads(measure(engine.store, TREE, tmp_path)[0].read_text())
    assert set(told["seconds"]) == {*NAMES, "total"} - {"color"}


def test_the_curve_is_what_tone_does(engine: Engine, tmp_path: Path) -> None:
    curve = rows(measure(engine.store, TREE, tmp_path)[2])
    light = np.array([float(row["light"]) for row in curve], np.float32)
    assert [float(row["stops"]) for row in curve] == pytest.approx(np.log2(light), abs=1e-4)
    gray = LinearImage(np.broadcast_to(light[:, None, None], (len(light), 2, 3)).copy(), space="srgb")
    expected = tone(gray, ToneParams(gamma=2.0, exposure_ev=1.0)).samples[:, 0, 0]
    assert [float(row["display"]) for row in curve] == pytest.approx(expected, abs=1e-4)


def test_without_manifests(tmp_path: Path) -> None:
    store = open_engine(tmp_path / "store", None, "cpu").store
    with pytest.raises(ProjectError, match="dvc repro"):
        measure(store, TREE, tmp_path)
    assert not (tmp_path / "measured").exists()
