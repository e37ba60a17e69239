"""Raws and store under URLs of other kinds than S3: this machine's files, and what lies in memory."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from nightisp.remote import as_path, is_url
from tests.frames import write_frames
from tests.terminal import Terminal, render

PNG = ("--set", "export.format=png")


def test_files_of_this_machine_are_no_url(tmp_path: Path) -> None:
    assert is_url("memory://nights")
    assert not is_url("file:///nights")
    assert as_path("file:///my%20nights/a") == Path("/my nights/a")
    assert as_path("nights") == Path("nights")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_the_same_bits_and_nothing_twice(
    kind: str, nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTISP_CACHE", str(tmp_path / "cache"))
    paths = write_frames(tmp_path / "my nights", 2)
    raws, store = {
        "memory": (f"memory://{tmp_path.name}/raws", f"memory://{tmp_path.name}/store"),
        "file": ((tmp_path / "my nights").as_uri(), (tmp_path / "store").as_uri()),
    }[kind]
    if kind == "memory":
        memory = fsspec.filesystem("memory")
        for path in paths:
            memory.pipe_file(f"/{tmp_path.name}/raws/{path.name}", path.read_bytes())
    render(nightisp, *PNG, "--input", tmp_path / "my nights", "--store", tmp_path / "plain", "--output", "here")
    for did in ("computed", "cached"):
        report = render(nightisp, *PNG, "--input", raws, "--store", store, "--output", "there")
        assert [frame["outcome"] for frame in report["frames"]] == ["rendered"] * 2
        assert {frame["stages"]["ingest"] for frame in report["frames"]} == {did}
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("here", "there")
    )
    assert here == there
    assert len(here) == 2
    listed = nightisp("cache", "list", "--store", store, "--json").out.splitlines()
    assert {json.loads(line)["frame"] for line in listed} == {path.stem for path in paths}
