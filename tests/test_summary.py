"""What a run says of itself in Markdown."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np

from nightisp.batch import FrameResult
from nightisp.run import Report
from nightisp.summary import PREVIEWS, as_markdown


def rendered(folder: Path, name: str, height: int = 300, width: int = 600) -> FrameResult:
    path = folder / f"{name}.png"
    cv2.imwrite(str(path), np.full((height, width, 3), (0, 128, 255), np.uint8))
    stages = {"ingest": "cached", "tone": "computed", "export": "computed"}
    seconds = {"tone": 1.25, "export": 0.5}
    return FrameResult(name, folder / f"{name}.dng", "rendered", path, stages=stages, seconds=seconds)  # type: ignore[arg-type]


def test_pictures_are_in_the_text(tmp_path: Path) -> None:
    text = as_markdown(Report([rendered(tmp_path, "one")], 2.0))
    assert text.startswith("# 1 of 1 pictures in 2.0 s\n")
    found = re.search(r"!\[one\]\(data:image/jpeg;base64,([^)]+)\)", text)
    assert found
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (100, 200, 3)
    assert np.abs(pixels.mean(axis=(0, 1)) - (0, 128, 255)).max() < 3
    assert "| one | rendered | 1\\.75 | tone, export |" in text


def test_failures_come_first_with_their_cause(tmp_path: Path) -> None:
    broken = FrameResult("two", tmp_path / "two.dng", "failed", error="two.dng: no raw;\nremove it", stage="ingest")
    text = as_markdown(Report([rendered(tmp_path, "one"), broken], 2.0, interrupted=True))
    assert text.startswith("# 1 of 2 pictures")
    assert "Interrupted" in text
    assert "- **two** failed at ingest: two\\.dng: no raw; remove it\n" in text
    assert text.index("no raw") < text.index("data:image")


def test_nothing_in_a_name_is_markup(tmp_path: Path) -> None:
    name = "a|b](x) <img src=x onerror=alert(1)> `c` **d**"
    text = as_markdown(Report([FrameResult(name, tmp_path / "x.dng", "failed", error="<script>")], 1.0))
    ours = text.split("\n", 1)[1].replace("| --- |", "").replace("- **", "", 1).replace("** failed", " failed", 1)
    assert not re.search(r"(?<!\\)[<>`*\[\]]", ours)
    assert all(line.count(" | ") == 4 for line in text.splitlines() if line.startswith("|"))


def test_previews_are_few_and_may_be_gone(tmp_path: Path) -> None:
    frames = [rendered(tmp_path, f"n{number}", 6, 8) for number in range(PREVIEWS + 3)]
    assert frames[0].output is not None
    frames[0].output.unlink()
    text = as_markdown(Report(frames, 1.0))
    assert text.count("data:image") == PREVIEWS - 1
    assert "4 more are not shown" in text
