"""What is logged of stages, and who hears it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from nightisp.pipeline import NAMES
from tests.frames import CLASSICAL, write_frame
from tests.terminal import Terminal

SETTINGS = [
    word
    for stage, chosen in CLASSICAL.items()
    for name, value in chosen.items()
    for word in ("--set", f"{stage}.{name}={value}")
]
RUN = ("flow", "run", "--engine", "local", "--json", *SETTINGS)


def test_verbose_tells_each_stage_of_each_frame(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    first = nightisp(*RUN, "--verbose")
    assert json.loads(first.out)["frames"][0]["outcome"] == "rendered"
    told = re.findall(r"one · (\w+): computed in \d+\.\d\d s, \d+\.\d\d MB, key [0-9a-f]{12}, cpu$", first.err, re.M)
    assert told == list(NAMES)
    again = re.findall(r"one · (\w+): cached, \d+\.\d\d MB, key [0-9a-f]{12}$", nightisp(*RUN, "-v").err, re.M)
    assert again == list(NAMES)
    assert nightisp(*RUN).err == ""  # and nobody hears it who did not ask


def test_what_fails_carries_frame_and_stage(
    nightisp: Terminal, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nightisp.engine import Engine
    from nightisp.errors import StageError

    compute = Engine._compute

    def broken(engine: Engine, plan: object, stage: object, image: object, claimed: object) -> float:
        if stage.name == "tone":  # type: ignore[attr-defined]
            raise StageError("no curve today")
        return compute(engine, plan, stage, image, claimed)  # type: ignore[arg-type]

    write_frame(tmp_path / "data" / "one.dng", 1)
    monkeypatch.setattr(Engine, "_compute", broken)
    with caplog.at_level(logging.ERROR, "nightisp"):
        done = nightisp(*RUN, status=3)
    (record,) = caplog.records
    assert (record.__dict__["frame"], record.__dict__["stage"]) == ("one", "tone")
    assert record.getMessage() == "one · tone: failed: StageError: no curve today"
    assert json.loads(done.out)["frames"][0]["failed_in"] == "tone"
    assert done.err == ""
