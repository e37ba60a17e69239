"""Manifests: small, sorted, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nightisp.errors import ProjectError
from nightisp.manifest import Line, path, read, write

GOOD = Line("b", "data/b.dng", digest="12", photosites=4, overrides={"tone": {"gamma": 2.0}}, key="34")
BAD = Line("a", "data/ä.dng", error="data/ä.dng: truncated", stage="ingest")


def test_what_is_written_is_read_sorted_by_frame(tmp_path: Path) -> None:
    file = path(tmp_path, "tone")
    write(file, [GOOD, BAD])
    assert read(file, "tone") == [BAD, GOOD]
    assert file == tmp_path / "manifests" / "tone.jsonl"
    assert [p.name for p in file.parent.iterdir()] == ["tone.jsonl"]


def test_a_line_holds_only_what_there_is_to_say(tmp_path: Path) -> None:
    write(path(tmp_path, "tone"), [BAD])
    line = json.loads(path(tmp_path, "tone").read_text("utf-8"))
    assert line == {"frame": "a", "source": "data/ä.dng", "error": "data/ä.dng: truncated", "stage": "ingest"}


def test_a_missing_manifest_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="nightisp stage run tone"):
        read(path(tmp_path, "tone"), "tone")


@pytest.mark.parametrize("text", ["{", '{"unknown": 1}', "[]"])
def test_what_is_no_manifest_is_said_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tone.jsonl"
    file.write_text(text)
    with pytest.raises(ProjectError, match="is no manifest"):
        read(file, "tone")
