"""The account of a run as Markdown, with small previews in it: for the Prefect UI, and wherever Markdown is shown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from nightisp.batch import FrameResult
from nightisp.params import as_settings
from nightisp.run import Report

PREVIEWS = 24
"""Pictures that are shown; all are listed."""

_LONGEST = 200  # pixels of a preview's longer side; three fit side by side, some 5 kB each
_COLUMNS = 3
_ROWS = 500
_MARKS = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&\"'])")


def as_markdown(report: Report) -> str:
    """Return what became of each picture: first those that failed, with the cause, then previews and a table.

    Names and messages are escaped, so that none of them is taken for Markdown or HTML. Previews are in the text, as
    data URIs; a picture whose file is gone by now has none.
    """
    rendered = [frame for frame in report.frames if frame.outcome == "rendered"]
    failed = [frame for frame in report.frames if frame.outcome == "failed"]
    parts = [f"# {len(rendered)} of {len(report.frames)} pictures in {report.wall_seconds:.1f} s"]
    if report.interrupted:
        parts.append("Interrupted: the next run goes on from here.")
    if failed:  # a list, whose lines are folded; a table's are cut off
        parts.append("\n".join(f"- **{_escaped(f.frame)}** failed{_at(f)}: {_escaped(f.error or '')}" for f in failed))
    if gallery := _gallery(rendered):
        parts.append(gallery)
    rows = [
        (f.frame, f.outcome, f"{sum(f.seconds.values()):.2f}", computed(f) or "nothing", str(f.output or ""))
        for f in report.frames[:_ROWS]
    ]
    parts.append(_table(("picture", "outcome", "seconds", "computed", "file"), rows))
    if len(report.frames) > _ROWS:
        parts.append(f"{len(report.frames) - _ROWS} more are left out.")
    own = [(f.frame, " ".join(as_settings(f.own))) for f in report.frames[:_ROWS] if f.own]
    if own:
        parts.append("Parameters of their own, from sidecars:")
        parts.append(_table(("picture", "parameters"), own))
    return "\n\n".join(parts) + "\n"


def computed(frame: FrameResult) -> str:
    """Return the stages that had to be computed."""
    return ", ".join(stage for stage, did in frame.stages.items() if did == "computed")


def _at(frame: FrameResult) -> str:
    return f" at {frame.stage}" if frame.stage else ""


def _gallery(frames: Sequence[FrameResult]) -> str:
    """Return a table of previews with their names under them."""
    shown = [(f.frame, uri) for f in frames[:PREVIEWS] if f.output and (uri := _preview(f.output))]
    if not shown:
        return ""
    rows = []
    for start in range(0, len(shown), _COLUMNS):
        row = shown[start : start + _COLUMNS]
        rows.append([f"![{_escaped(name)}]({uri})" for name, uri in row])
        rows.append([_escaped(name) for name, _ in row])
    left_out = len(frames) - len(shown)
    table = _lines([[" "] * _COLUMNS, ["---"] * _COLUMNS, *rows])
    return f"{table}\n\n{left_out} more are not shown." if left_out else table


def _preview(path: Path) -> str:
    import cv2

    from nightisp.export import EncodedPicture
    from nightisp.preview import preview

    try:
        pixels = preview(EncodedPicture(path.read_bytes(), path.suffix), _LONGEST)
    except (OSError, cv2.error):  # moved or changed since it was written
        return ""
    _, content = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _lines([heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)])


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
