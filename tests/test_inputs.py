"""The short form of `python -m tests.torture.inputs`, and inputs that need a test of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nightisp.errors import RawFileError
from nightisp.refusals import readable
from nightisp.sources import find
from tests.frames import CLASSICAL, write_frame
from tests.terminal import Terminal, render

REPOSITORY = Path(__file__).parents[1]
SETTINGS = [f"{stage}.{name}={value}" for stage, given in CLASSICAL.items() for name, value in given.items()]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


def test_malformed_inputs_are_named_or_rendered() -> None:
    """In a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "tests.torture.inputs", "--count", "275", "--seed", "5"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    counts = {name: int(count) for count, name in re.findall(r"^ *(\d+) (\w+)$", done.stdout, re.MULTILINE)}
    assert counts["rendered"] > 50
    assert counts["failed"] > 50


@pytest.mark.parametrize("made", ["pipe", "device", "loop", "empty", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, made: str) -> None:
    path = tmp_path / "x.dng"
    if made == "pipe":
        os.mkfifo(path)
    elif made == "device":
        path.symlink_to("/dev/zero")
    elif made == "loop":
        path.symlink_to("x.dng")
    elif made == "empty":
        path.touch()
    else:
        path.mkdir()
    with pytest.raises(RawFileError, match=r"x\.dng: .*(opy|Name)"), readable(path):
        raise AssertionError("it was taken for a file")


def test_an_input_whose_name_is_longer_than_names_may_be_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RawFileError, match="no such file or folder"):
        find([tmp_path / ("x" * 300)])


def test_a_name_as_long_as_names_may_be_is_rendered_and_known_again(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / f"{'x' * 251}.dng", 1)
    for did in ("computed", "cached"):
        (frame,) = render(nightisp, *SET)["frames"]
        assert frame["outcome"] == "rendered", frame["error"]
        assert set(frame["stages"].values()) == {did}
    assert len(list((tmp_path / "output").glob("x*.jpg"))) == 1


def test_a_file_that_is_still_being_copied_costs_itself_alone(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "whole.dng", 1)
    half = write_frame(tmp_path / "data" / "half.dng", 2)
    content = half.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    frames = {frame["frame"]: frame for frame in render(nightisp, *SET, status=3)["frames"]}
    assert (frames["whole"]["outcome"], frames["half"]["outcome"]) == ("rendered", "failed")
    assert "half.dng" in frames["half"]["error"]
    half.write_bytes(content)
    assert [frame["outcome"] for frame in render(nightisp, *SET)["frames"]] == ["rendered", "rendered"]
