"""Other commands at a store while a run works on it, and a clock that is wrong."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.frames import CLASSICAL, write_frame, write_frames
from tests.terminal import PROGRAM, Terminal, render

REPOSITORY = Path(__file__).parents[1]
SETTINGS = [f"{stage}.{name}={value}" for stage, values in CLASSICAL.items() for name, value in values.items()]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def test_whatever_is_removed_and_looked_at_beside_a_run_its_pictures_are_right(
    nightisp: Terminal, tmp_path: Path
) -> None:
    write_frames(tmp_path / "data", 12)
    nightisp("flow", "run", "--engine", "local", "--store", "undisturbed", "--output", "right", *SET)
    command = [
        *PROGRAM,
        "flow",
        "run",
        "--engine",
        "local",
        *SET,
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NIGHTISP_STORE": str(tmp_path / "store")}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    removed = rounds = 0
    while run.poll() is None or not rounds:
        for words in (("prune", "--keep", "0B", "--yes"), ("verify",), ("list",), ("size",)):
            said = nightisp("cache", *words, "--store", "store")
            removed += said.out.count("removed ")
        rounds += 1
    assert run.returncode == 0
    assert len(pictures(tmp_path / "right")) == 12
    assert pictures(tmp_path / "output") == pictures(tmp_path / "right")
    assert rounds > 1


def test_what_is_removed_under_a_run_is_computed_again(nightisp: Terminal, tmp_path: Path) -> None:
    """Prune spares what a running process uses; what somebody removes by hand costs time only."""
    write_frame(tmp_path / "data" / "one.dng", 1)
    render(nightisp, *SET)
    before = pictures(tmp_path / "output")
    for stage in ("color", "export"):
        for path in (tmp_path / "artifacts" / stage).glob("*.zarr/zarr.json"):
            path.unlink()
    (frame,) = render(nightisp, *SET)["frames"]
    assert frame["outcome"] == "rendered"
    assert pictures(tmp_path / "output") == before


@pytest.mark.parametrize("years", [-40, 40])
def test_a_clock_that_was_wrong_harms_nothing(nightisp: Terminal, tmp_path: Path, years: int) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    render(nightisp, *SET)
    at = time.time() + years * 365 * 86400
    for path in (tmp_path / "artifacts").rglob("*"):
        os.utime(path, (at, at))
    (frame,) = render(nightisp, *SET)["frames"]
    assert set(frame["stages"].values()) == {"cached"}
    nightisp("cache", "verify")
    nightisp("cache", "list")
    said = nightisp("cache", "prune", "--older-than", "1d").out
    assert "would remove 0 artifacts" in said if years > 0 else "would remove 9 artifacts" in said
